"""Suites: a TOML file that says which runs make a table.

    title = "Budget and perturbation of CIBA"
    extends = "quick"                 # all of that suite first: a shipped name, or a .toml file
    dataset = "fashion-mini"          # any field of `RunSpec`: what `bench run --help` lists
    victim = ["hashnet", "csq"]       # lists multiply
    seed = [0, 1, 2]
    set.victim.quantisation = 0.1     # as in --set victim.quantisation=0.1

    [[attack]]                        # one row of the table; for rows that have only a name,
    name = "ciba"                     # write `attack = ["tri", "ciba"]`
    label = "CIBA"                    # label in tables; the published name if not given
    delivery = "files"                # fields of a row override those above
    set.attack.epsilon = [2, 4, 8]    # makes three rows: "CIBA, epsilon=2" and so on

    [[defense]]                       # with which every row is run; for defenses that have only a
    name = "clp"                      # name, write `defense = ["none", "jpeg", "clp"]`
    set.defense.u = [2, 3, 4]         # settings belong to one defense
    operating_point = "published"     # as clean_share, the only other field that it may have

    [[zip]]                           # lists of equal length that vary together
    surrogate = ["hashnet", "csq"]
    surrogate_bits = [32, 64]

A field that is not given has the default of a run. With ``extends``, a key in this file replaces
that of the other suite, ``[[attack]]`` replaces all of its rows, ``[[defense]]`` all defenses, and
``[[zip]]`` all of its zips (``zip = []`` removes them). A row with a ``defense`` of its own is run
with that one only. Paths are relative to the file, also those of settings such as ``key`` of
Blended. Equal values of a list are refused, and a run
that two rows have is run once, which is told. Runs are sorted by seed, so that an interrupted suite
has complete tables of the first seeds, and then in the order of the lists in the file: the first
list varies slowest, rows vary fastest.

A mistake is named by the path of its key: ``mine.toml: attack[2].set.attack.epsilon: …``, with the
entries of lists counted from 1; a syntax error of TOML is named by its line. Names, types and
ranges are checked here, without torch; whether a class, a backbone, a delivery or a hyper-parameter
exists, and whether tables would refuse a label, shows when the runs are planned.
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.registry import ATTACKS, METHODS
from hashbackdoor_bench.spec import RunSpec
from hashbackdoor_bench.suites.suite_file import (
    LARGEST_SUITE,
    SETTINGS,
    TYPES,
    AttackRow,
    Keys,
    SuiteFile,
    Values,
    find_file,
    read_suite,
    shipped_files,
)
from hashbackdoor_bench.suites.toml_file import KeyPath
from hashbackdoor_bench.text import quoted


@dataclass(frozen=True)
class SuiteRun:
    """One run of a suite.

    Attributes:
        suite: name of the suite.
        label: label of the attack in tables.
        spec: the run.
        key_path: path of the attack's row in the suite's file; ``extends`` if it is inherited.
    """

    suite: str
    label: str
    spec: RunSpec
    key_path: str


@dataclass(frozen=True)
class Suite:
    """A list of runs.

    Attributes:
        name: name of the shipped suite, or stem of the file name.
        title: one sentence.
        runs: the runs, no two of them equal.
        path: path of the file.
        repeated: the labels under which a run is there again, each with that of the run.
    """

    name: str
    title: str
    runs: tuple[SuiteRun, ...]
    path: Path
    repeated: Mapping[str, str] = field(default_factory=dict)


def shipped() -> dict[str, str]:
    """Names and titles of the suites that come with the package; builds no runs."""
    return {
        name: tomllib.loads(path.read_text(encoding="utf-8"))["title"]
        for name, path in shipped_files().items()
    }


def find_suite(name: str) -> Suite:
    """The suite of that name, or in that ``.toml`` file.

    Raises:
        UserError: there is no such suite, or its file has a mistake, whose key the message names.
    """
    path = find_file(name, Path())
    return _suite(path, read_suite(path))


def suite_with(name: str, attack: str, settings: Mapping[str, object]) -> Suite:
    """The victims, data and seeds of a suite, with one attack instead of its rows.

    Args:
        name: see `find_suite`.
        attack: name of the attack; its plugin must be loaded.
        settings: hyper-parameters of the attack that are not the defaults; they enter the label.

    Raises:
        UserError: see `find_suite`.
    """
    path = find_file(name, Path())
    label = ", ".join([ATTACKS.published(attack), *(f"{k}={v}" for k, v in settings.items())])
    at = KeyPath(path, "attack")
    keys = {"attack": Values((attack,), at)}
    typed = KeyPath(Path("--set"))  # in no file, so that paths are relative to this folder
    keys |= {f"set.attack.{k}": Values((v,), typed / k) for k, v in settings.items()}
    return _suite(path, replace(read_suite(path), rows=(AttackRow(label, keys, at),)))


def _suite(path: Path, file: SuiteFile) -> Suite:
    if file.count > LARGEST_SUITE:
        many = file.count if file.count < 10**12 else "more than 10^12"
        raise UserError(
            f"{path}: its lists multiply to {many} runs, and a suite has at most {LARGEST_SUITE}: "
            'split it into several files, one per victim for example, that begin with extends = "…"'
            " and replace one of the lists."
        )
    runs: dict[RunSpec, SuiteRun] = {}
    repeated: dict[str, str] = {}
    for row, varied, written in _runs(file):
        values = _located(written, row, file)
        with row.at.named():
            spec = _spec(values)
        label = ", ".join([row.label, *(f"{k.rpartition('.')[2]}={values[k]}" for k in varied)])
        key_path = row.at.key if row.at.file == path else "extends"
        first = runs.setdefault(spec, SuiteRun(path.stem, label, spec, key_path)).label
        if first != label:
            repeated.setdefault(label, first)
    ordered = sorted(runs.values(), key=lambda run: run.spec.seed)
    return Suite(path.stem, file.title or path.stem, tuple(ordered), path, repeated)


def _runs(file: SuiteFile) -> Iterator[tuple[AttackRow, list[str], dict[str, Any]]]:
    """Every row with the keys that its label names, and the values of every run of it."""
    rows = [(row, _varied(row, file)) for row in file.rows]
    first: dict[tuple[str, ...], KeyPath] = {}
    for row, varied in rows:
        other = first.setdefault((row.label, *varied), row.at)
        if other != row.at:
            raise row.at.wrong(
                f"the label {quoted(row.label)} is that of {other.key} too: give this row another "
                'label = "…".'
            )
    for parts in product(*_axes(file.shared), *map(_together, file.zips)):
        for row, varied in rows:
            for defense in file.defenses_of(row):
                for own in product(*_axes(defense), *_axes(row.keys)):
                    yield row, varied, {k: v for part in (*parts, *own) for k, v in part.items()}


def _axes(keys: Keys) -> list[list[dict[str, Any]]]:
    return [[{name: value} for value in given.values] for name, given in keys.items()]


def _together(keys: Keys) -> list[dict[str, Any]]:
    columns = [given.values for given in keys.values()]
    return [dict(zip(keys, values, strict=True)) for values in zip(*columns, strict=True)]


def _varied(row: AttackRow, file: SuiteFile) -> list[str]:
    """The keys that a row's label must name: what only it varies, and the attack's settings.

    The defense is none of them: tables have a row or a column for each.
    """
    above = dict(file.shared)
    for keys in file.zips:
        above |= keys
    columns = {key for key, given in above.items() if len(given.values) > 1} | {"seed", "defense"}
    return [
        key
        for key, given in (above | row.keys).items()
        if len(given.values) > 1
        and (key.startswith("set.attack.") or (key in row.keys and key not in columns))
    ]


def _located(values: dict[str, Any], row: AttackRow, file: SuiteFile) -> dict[str, Any]:
    """The values of a run; paths among the hyper-parameters are relative to the file of their key.

    That is the file that the suite extends, for a key that stands there.
    """
    found = dict(values)
    for key, value in values.items():
        if key.startswith("set.") and isinstance(value, str):
            _, kind, name = key.split(".", 2)
            tables = (row.keys, *file.defenses_of(row), *file.zips, file.shared)
            at = next(keys[key].at for keys in tables if key in keys)
            method = values.get(kind, getattr(RunSpec, kind))
            found[key] = METHODS[kind].located(method, name, value, at.file.parent)
    return found


def _spec(values: dict[str, Any]) -> RunSpec:
    settings: dict[str, list[tuple[str, Any]]] = {field: [] for field in SETTINGS.values()}
    for key, value in sorted(values.items()):
        if key.startswith("set."):
            _, kind, name = key.split(".", 2)
            settings[SETTINGS[kind]].append((name, value))
    return RunSpec.from_dict({k: v for k, v in values.items() if k in TYPES} | settings)
