"""Reading and checking the TOML file of a suite; the format is described at the top of `suite`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.resources import files
from math import prod
from pathlib import Path
from typing import Any, get_type_hints

from hashbackdoor_bench.errors import UserError, unknown
from hashbackdoor_bench.registry import ATTACKS, DEFENSES, METHODS, VICTIMS
from hashbackdoor_bench.setting_values import read
from hashbackdoor_bench.spec import RunSpec
from hashbackdoor_bench.suites.toml_file import (
    KeyPath,
    entries,
    parsed,
    refuse_unknown,
    tables,
    text_of,
)
from hashbackdoor_bench.text import quoted

SETTINGS = {kind: f"{kind}_settings" for kind in METHODS}  # below `set`
TYPES = get_type_hints(RunSpec)
FIELDS = {entry.name for entry in fields(RunSpec)} - {"attack", *SETTINGS.values()}
NAMED = {
    "attack": ATTACKS,
    "victim": VICTIMS,
    "surrogate": VICTIMS,
    "defense": DEFENSES,
    "aware": DEFENSES,
}  # fields that name a method
LARGEST_SUITE = 20_000  # runs, which are planned in less than half a minute
LARGEST_NUMBER = 1e300  # whole numbers may be larger than any float, and are then no setting
HINT = "write set.attack.NAME = VALUE, set.victim.NAME = VALUE or set.defense.NAME = VALUE."
OF_DEFENSE = ("operating_point", "clean_share")  # fields that a [[defense]] may have


@dataclass(frozen=True)
class Values:
    """The values of a key, each of which makes a run; a single value is a tuple of one."""

    values: tuple[Any, ...]
    at: KeyPath


Keys = dict[str, Values]  # by the name of a field, or set.attack.NAME


@dataclass(frozen=True)
class AttackRow:
    """One ``[[attack]]``."""

    label: str
    keys: Keys
    at: KeyPath


@dataclass(frozen=True)
class SuiteFile:
    """The contents of a file, merged with the suite that it extends.

    Attributes:
        title: the title; empty if there is none.
        shared: the keys above all rows.
        zips: the keys of each ``[[zip]]``.
        rows: each ``[[attack]]``; the default attack if none is named.
        defenses: the keys of each ``[[defense]]``.
    """

    title: str
    shared: Keys
    zips: tuple[Keys, ...]
    rows: tuple[AttackRow, ...]
    defenses: tuple[Keys, ...] = ()

    @property
    def count(self) -> int:
        """The number of combinations of the lists, some of which may be equal."""
        zips = [len(next(iter(keys.values())).values) for keys in self.zips]
        rows = (
            _combinations(row.keys) * sum(map(_combinations, self.defenses_of(row)))
            for row in self.rows
        )
        return _combinations(self.shared) * prod(zips) * sum(rows)

    def defenses_of(self, row: AttackRow) -> tuple[Keys, ...]:
        """The keys of each defense that a row is run with; a single empty one if none is given."""
        return self.defenses if self.defenses and "defense" not in row.keys else ({},)


def _combinations(keys: Keys) -> int:
    return prod(len(given.values) for given in keys.values())


def shipped_files() -> dict[str, Path]:
    """The suites that come with the package, by name."""
    folder = Path(str(files("hashbackdoor_bench.benchmarks")))
    return {path.stem: path for path in sorted(folder.glob("*.toml"), key=lambda p: p.stem)}


def find_file(name: str, folder: Path) -> Path:
    """The file of a shipped suite, or at a path relative to ``folder``.

    Raises:
        UserError: there is no such file.
    """
    known = shipped_files()
    if name in known:
        return known[name]
    if not name.endswith(".toml"):
        raise unknown("suite", name, known)
    if not (folder / name).is_file():
        raise UserError(
            f"there is no file {folder / name}: give a .toml file that exists, or one of "
            f"{', '.join(known)}."
        )
    return folder / name


def read_suite(path: Path, below: tuple[Path, ...] = ()) -> SuiteFile:
    """Read a file, and the suite that it extends.

    Args:
        path: the file.
        below: the files that extend it, to find circles.

    Raises:
        UserError: the file has a mistake; the message names the key, or the line if it isn't TOML.
    """
    top, here = parsed(path), KeyPath(path)
    refuse_unknown(top, here, {*FIELDS, "title", "extends", "attack", "zip", "set"})
    label = ATTACKS.published(RunSpec().attack)
    base = SuiteFile("", {}, (), (AttackRow(label, {}, here / "attack"),))
    if "extends" in top:
        chain, name = (*below, path.resolve()), text_of(top, here, "extends")
        with (here / "extends").named():
            other = find_file(name, path.parent)
            if other.resolve() in chain:
                raise UserError(f"{other.name} extends itself: name another suite.")
        base = read_suite(other, chain)
    defenses = _defenses(top, here)
    own = {name: value for name, value in top.items() if name != "defense" or not defenses}
    shared = base.shared | _keys(own, here)
    if defenses:
        shared.pop("defense", None)
    suite = SuiteFile(
        text_of(top, here, "title") if "title" in top else base.title,
        shared,
        _zips(top, here) if "zip" in top else base.zips,
        _rows(top, here) if "attack" in top else base.rows,
        defenses if "defense" in top else base.defenses,
    )
    _refuse_twice(suite)
    _refuse_shared_settings(suite)
    return suite


def _refuse_twice(suite: SuiteFile) -> None:
    """Refuse a field of a zip that is also given elsewhere: above all rows, in a row or a zip."""
    places: dict[str, list[KeyPath]] = {}
    rows = (row.keys for row in suite.rows)
    for keys in (suite.shared, *suite.zips, *suite.defenses, *rows):
        for name, given in keys.items():
            places.setdefault(name, []).append(given.at)
    for keys in suite.zips:
        for name, given in keys.items():
            for other in places[name]:
                if other != given.at:
                    raise given.at.wrong(f"{name} is in this [[zip]] and at {other} too: keep one.")


def _refuse_shared_settings(suite: SuiteFile) -> None:
    """Refuse a setting of a defense that would be given to several defenses.

    It may stand where one defense is named, in a ``[[zip]]`` together with ``defense``, or in a
    ``[[defense]]``.
    """
    for row in suite.rows:
        named = [keys for keys in (suite.shared, *suite.zips, row.keys) if "defense" in keys]
        several = suite.defenses_of(row) != ({},) or any(
            len(keys["defense"].values) > 1 for keys in named[-1:]
        )
        for keys in (suite.shared, *suite.zips, row.keys):
            together = keys in suite.zips and "defense" in keys
            for name, given in keys.items():
                if name.startswith("set.defense.") and several and not together:
                    raise given.at.wrong(
                        f"{name} would be given to several defenses: write it in the [[defense]] "
                        "that has it."
                    )


def _keys(table: Mapping[str, Any], at: KeyPath) -> Keys:
    """The fields and hyper-parameters that a table gives; no list has a value twice."""
    found = _lists(table, at)
    for given in found.values():
        _refuse_equal(given.values, given.at)
    return found


def _refuse_equal(values: Sequence[Any], at: KeyPath) -> None:
    """Refuse equal values of a list, which would make one run."""
    first: dict[Any, int] = {}
    for number, value in enumerate(values, 1):
        other = first.setdefault(value, number)
        if other != number:
            raise at[number].wrong(
                f"{quoted(value)} is there as number {other} too, and equal runs are one: leave "
                "one of them out, or change it."
            )


def _lists(table: Mapping[str, Any], at: KeyPath) -> Keys:
    """The fields and hyper-parameters that a table gives."""
    found = {
        name: _values(table[name], at / name, name, _field) for name in table if name in FIELDS
    }
    for kind, settings in _settings(table.get("set", {}), at / "set"):
        if kind not in SETTINGS:
            raise (at / "set" / kind).wrong(f"{kind} is neither attack, victim nor defense: {HINT}")
        for name, value in _settings(settings, at / "set" / kind):
            key = f"set.{kind}.{name}"
            found[key] = _values(value, at / "set" / kind / name, key, _setting)
    return found


def _settings(value: Any, at: KeyPath) -> Iterable[tuple[str, Any]]:
    if not isinstance(value, dict):
        raise at.wrong(f"it is {quoted(value)}: {HINT}")
    return value.items()


def _values(value: Any, at: KeyPath, key: str, check: Callable[[str, Any, KeyPath], Any]) -> Values:
    """A value, or each of a list, as ``check`` reads it; messages call it ``key``."""
    if isinstance(value, list) and len(value) > LARGEST_SUITE:
        raise at.wrong(f"it has {len(value)} values, and a suite has at most {LARGEST_SUITE} runs.")
    found = []
    for entry, place in entries(value, at):
        with place.named():
            found.append(check(key, entry, place))
    if not found:
        raise at.wrong("an empty list makes no run: give it a value, or leave it out.")
    return Values(tuple(found), at)


def _field(name: str, value: Any, at: KeyPath) -> Any:
    """A value of a field of a run; all is checked that doesn't depend on other fields."""
    if name == "target" and type(value) is int:
        value = str(value)
    value = read(name, value, TYPES[name])
    RunSpec.from_dict({name: value}).refuse_empty()
    if name in NAMED:
        NAMED[name].summary(value)
    if name == "dataset":
        from hashbackdoor_bench.data import protocol  # imported here because it imports numpy

        protocol(value)
    if name in ("lists", "root", "weights"):
        value = str((at.file.parent / value).absolute())
    RunSpec.from_dict({name: value}).training("scratch32")
    return value


def _setting(name: str, value: Any, at: KeyPath) -> Any:
    """A value of a hyper-parameter; whether the method takes it shows when the run is planned."""
    number = isinstance(value, int | float) and abs(value) <= LARGEST_NUMBER
    if not number and not isinstance(value, str):
        raise UserError(f"{quoted(value)} is no setting: write a word, a number, true or false.")
    return value


def _zips(top: Mapping[str, Any], here: KeyPath) -> tuple[Keys, ...]:
    """Each ``[[zip]]``."""
    found = []
    for table, at in tables(top, here, "zip"):
        refuse_unknown(table, at, {*FIELDS, "set"})
        keys = _lists(table, at)
        if not keys:
            raise at.wrong("this [[zip]] is empty: give it lists, or leave it out.")
        name, *_ = keys
        for other, given in keys.items():
            if len(given.values) != len(keys[name].values):
                raise given.at.wrong(
                    f"{other} has {len(given.values)} values and {name} has "
                    f"{len(keys[name].values)}: make the lists of a [[zip]] equally long."
                )
        _refuse_equal([*zip(*(given.values for given in keys.values()), strict=True)], at)
        found.append(keys)
    return tuple(found)


def _defenses(top: Mapping[str, Any], here: KeyPath) -> tuple[Keys, ...]:
    """Each ``[[defense]]``; none where ``defense`` is a name or a list of names."""
    given = entries(top.get("defense", []), here / "defense")
    if not any(isinstance(entry, dict) for entry, _ in given):
        return ()
    found = []
    for table, at in tables(top, here, "defense"):
        refuse_unknown(table, at, {*OF_DEFENSE, "name", "set"})
        if "name" not in table:
            raise at.wrong('this [[defense]] has no name: add name = "clp" or another.')
        keys = _keys({name: value for name, value in table.items() if name != "name"}, at)
        for name, values in keys.items():
            if name.startswith("set.") and not name.startswith("set.defense."):
                raise values.at.wrong(f"a [[defense]] has settings of it only: {HINT}")
        found.append({"defense": _values(table["name"], at / "name", "defense", _field), **keys})
    for number, one in enumerate(found):
        if any(_meet(one, other) for other in found[:number]):
            raise (here / "defense")[number + 1].wrong(
                "an earlier [[defense]] has the same values, and equal runs are one: leave one of "
                "them out, or change it."
            )
    return tuple(found)


def _meet(one: Keys, other: Keys) -> bool:
    """Whether two tables have a combination of values in common."""
    return one.keys() == other.keys() and all(
        not set(one[name].values).isdisjoint(other[name].values) for name in one
    )


def _rows(top: Mapping[str, Any], here: KeyPath) -> tuple[AttackRow, ...]:
    """Each ``[[attack]]``, or each name of ``attack = […]``."""
    given = entries(top["attack"], here / "attack")
    if not any(isinstance(entry, dict) for entry, _ in given):
        names = _values(top["attack"], here / "attack", "attack", _field).values
        return tuple(
            AttackRow(ATTACKS.published(name), {"attack": Values((name,), at)}, at)
            for name, (_, at) in zip(names, given, strict=True)
        )
    rows = []
    for table, at in tables(top, here, "attack"):
        if "attack" in table:
            raise (at / "attack").wrong(
                'an [[attack]] is one attack: write name = "ciba" in it, or attack = […] above all '
                "tables, and no [[attack]]."
            )
        refuse_unknown(table, at, {*FIELDS, "name", "label", "set"})
        if "name" not in table:
            raise at.wrong('this [[attack]] has no name: add name = "ciba" or another.')
        name = text_of(table, at, "name")
        label = text_of(table, at, "label") if "label" in table else ATTACKS.published(name)
        if not label.strip():
            raise (at / "label").wrong("label is blank: give it a word, or leave it out.")
        keys = {"attack": _values(name, at / "name", "attack", _field), **_keys(table, at)}
        rows.append(AttackRow(label, keys, at))
    return tuple(rows)
