"""What the TOML file of a suite says, checked key by key; the format is at the top of `suite`."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from importlib.resources import files
from math import isfinite
from pathlib import Path
from typing import Any, get_type_hints

from hashbackdoor_bench.errors import UserError, unknown
from hashbackdoor_bench.registry import ATTACKS, METHODS, VICTIMS, read
from hashbackdoor_bench.spec import RunSpec
from hashbackdoor_bench.suites.toml_lines import Place, Table, read_toml

SETTINGS = {kind: f"{kind}_settings" for kind in METHODS}  # below `set`
TYPES = get_type_hints(RunSpec)
FIELDS = {entry.name for entry in fields(RunSpec)} - {"attack", *SETTINGS.values()}


@dataclass(frozen=True)
class Given:
    """The values of a key; a lone value is a tuple of one."""

    values: tuple[Any, ...]
    place: Place


Keys = dict[str, Given]  # by the name of a field, or set.attack.NAME


@dataclass(frozen=True)
class Row:
    """One ``[[attack]]``."""

    label: str
    keys: Keys
    place: Place


@dataclass(frozen=True)
class Content:
    """A file, together with what it extends.

    Attributes:
        title: empty if there is none.
        extends: line of that key; 0 without it.
        shared: the keys above all rows.
        zips: the keys of each ``[[zip]]``.
        rows: each ``[[attack]]``; the default attack if none is named.
    """

    title: str
    extends: int
    shared: Keys
    zips: tuple[Keys, ...]
    rows: tuple[Row, ...]


def shipped_files() -> dict[str, Path]:
    """The suites that come with the package, by name."""
    folder = Path(str(files("hashbackdoor_bench.benchmarks")))
    return {path.stem: path for path in sorted(folder.glob("*.toml"), key=lambda p: p.stem)}


def find_file(name: str, folder: Path) -> Path:
    """The file of a shipped name, or of a path relative to ``folder``.

    Raises:
        UserError: there is none.
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


def read_suite(path: Path, below: tuple[Path, ...] = ()) -> Content:
    """A file and what it extends.

    Args:
        path: of the file.
        below: the files that extend it.

    Raises:
        UserError: it is wrong; the message names the line.
    """
    top = read_toml(path)
    top.check({*FIELDS, "title", "extends", "attack", "zip", "set"})
    first = Row(RunSpec().attack, {}, top.place)
    base, extends = Content("", 0, {}, (), (first,)), 0
    if "extends" in top:
        chain, name = (*below, path.resolve()), top.word("extends")
        with top.places["extends"].named():
            other = find_file(name, path.parent)
            if other.resolve() in chain:
                raise UserError(f"{other.name} extends itself: name another suite.")
        base, extends = read_suite(other, chain), top.places["extends"].line
    content = Content(
        top.word("title") if "title" in top else base.title,
        extends,
        base.shared | _keys(top),
        _zips(top) if "zip" in top else base.zips,
        _rows(top) if "attack" in top else base.rows,
    )
    _refuse_twice(content)
    return content


def _refuse_twice(content: Content) -> None:
    """A field that varies with others in a zip can't also stand alone, in a row or in a zip."""
    everywhere = [content.shared, *content.zips, *(row.keys for row in content.rows)]
    for keys in content.zips:
        for name, given in keys.items():
            for others in everywhere:
                if name in others and others is not keys:
                    raise given.place.wrong(
                        f"{name} is in this [[zip]] and in {others[name].place} too: keep one."
                    )


def _keys(table: Table) -> Keys:
    """The fields and hyper-parameters that a table gives."""
    found = {}
    for name in table:
        if name in FIELDS:
            found[name] = _given(table, name, name, _field)
    for kind in _settings(table, "set") if "set" in table else ():
        if kind not in SETTINGS:
            place = table["set"].places[kind]
            raise place.wrong(
                f"set.{kind} is nobody's setting: write set.attack.{kind} or set.victim.{kind}."
            )
        settings = _settings(table["set"], kind)
        for name in settings:
            found[f"set.{kind}.{name}"] = _given(settings, name, f"set.{kind}.{name}", _setting)
    return found


def _settings(table: Table, name: str) -> Table:
    if not isinstance(table[name], Table):
        raise table.places[name].wrong(f"{name} is {table[name]!r}: write set.attack.NAME = VALUE.")
    found: Table = table[name]
    return found


def _given(table: Table, name: str, key: str, check: Callable[[str, Any, Place], Any]) -> Given:
    place = table.places[name]
    values = table[name] if isinstance(table[name], list) else [table[name]]
    if not values:
        raise place.wrong(
            f"{key} is an empty list, so there is no run: give it a value, or leave it out."
        )
    with place.named():
        return Given(tuple(check(key, value, place) for value in values), place)


def _field(name: str, value: Any, place: Place) -> Any:
    """A value of a field of a run, checked as far as it can be on its own."""
    if name == "target" and type(value) is int:
        value = str(value)
    value = read(name, value, TYPES[name])
    if name in ("victim", "surrogate"):
        VICTIMS.summary(value)
    if name == "dataset":
        from hashbackdoor_bench.data import protocol  # late: it brings numpy along

        protocol(value)
    if name in ("lists", "root", "weights"):
        value = str((place.path.parent / value).absolute())
    RunSpec.from_dict({name: value}).training("scratch32")
    return value


def _setting(name: str, value: Any, place: Place) -> Any:
    """A value of a hyper-parameter; whether the method takes it shows when the run is planned."""
    number = isinstance(value, int | float) and isfinite(value)
    if not number and not isinstance(value, str):
        raise UserError(f"{name} is {value!r}: it must be a word, a number, true or false.")
    return value


def _attack(name: str, value: Any, place: Place) -> Any:
    value = read(name, value, str)
    ATTACKS.summary(value)
    return value


def _zips(top: Table) -> tuple[Keys, ...]:
    """Each ``[[zip]]``."""
    found = []
    for table in _tables(top, "zip"):
        table.check({*FIELDS, "set"})
        keys = _keys(table)
        if not keys:
            raise table.place.wrong("this [[zip]] is empty: give it lists, or leave it out.")
        name, *_ = keys
        for other, given in keys.items():
            if len(given.values) != len(keys[name].values):
                raise given.place.wrong(
                    f"{other} has {len(given.values)} values and {name} has "
                    f"{len(keys[name].values)}: make the lists of a [[zip]] equally long."
                )
        found.append(keys)
    return tuple(found)


def _rows(top: Table) -> tuple[Row, ...]:
    """Each ``[[attack]]``, or each name of ``attack = […]``."""
    place, value = top.places["attack"], top["attack"]
    entries = value if isinstance(value, list) else [value]
    if not any(isinstance(entry, Table) for entry in entries):
        names = _given(top, "attack", "attack", _attack).values
        return tuple(Row(name, {"attack": Given((name,), place)}, place) for name in names)
    rows = []
    for table in _tables(top, "attack"):
        table.check({*FIELDS, "name", "label", "set"})
        if "name" not in table:
            raise table.place.wrong('this [[attack]] has no name: add name = "ciba" or another.')
        name = table.word("name")
        label = table.word("label") if "label" in table else name
        keys = {"attack": _given(table, "name", "attack", _attack), **_keys(table)}
        rows.append(Row(label, keys, table.place))
    return tuple(rows)


def _tables(top: Table, name: str) -> list[Table]:
    found = top[name]
    if not isinstance(found, list) or not all(isinstance(entry, Table) for entry in found):
        raise top.places[name].wrong(f"{name} must be tables: write [[{name}]], in two brackets.")
    return found
