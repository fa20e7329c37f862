"""Suites: a TOML file that says which runs make a table.

    title = "Budget and perturbation of CIBA"
    extends = "quick"                 # all of that suite first: a shipped name, or a .toml file
    dataset = "fashion-mini"          # any field of `RunSpec`: what `bench run --help` lists
    victim = ["hashnet", "csq"]       # lists multiply
    seed = [0, 1, 2]
    set.victim.quantisation = 0.1     # as in --set victim.quantisation=0.1

    [[attack]]                        # one row of the table; `attack = ["tri", "ciba"]` is short
    name = "ciba"                     # for rows that are a name only
    label = "CIBA"                    # in tables; the name if not given
    delivery = "files"                # a row's own fields win over those above
    set.attack.epsilon = [2, 4, 8]    # makes three rows: "CIBA, epsilon=2" and so on

    [[zip]]                           # lists of equal length that vary together
    surrogate = ["hashnet", "csq"]
    surrogate_bits = [32, 64]

What is not given takes a run's default. Under ``extends`` a key given here replaces the other
suite's, ``[[attack]]`` replaces all of its rows, ``[[zip]]`` all of its zips (``zip = []``: none).
Paths are relative to the file. A run that comes up twice is one cell. Cells are sorted by seed, so
that a suite cut short has whole tables of the first seeds; then as the lists stand in the file, the
first varies slowest; rows vary fastest.

Names, types and ranges are checked here, without torch; whether a class, a backbone, a delivery or
a hyper-parameter exists shows when the runs are planned.
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from hashbackdoor_bench.spec import RunSpec
from hashbackdoor_bench.suites.suite_file import (
    SETTINGS,
    TYPES,
    Content,
    Given,
    Keys,
    Row,
    find_file,
    read_suite,
    shipped_files,
)
from hashbackdoor_bench.suites.toml_lines import Place


@dataclass(frozen=True)
class Cell:
    """One run of a suite.

    Attributes:
        suite: name of the suite.
        label: the attack's, in tables.
        spec: the run.
        line: of the suite's file that asks for it; that of ``extends`` for rows taken over.
    """

    suite: str
    label: str
    spec: RunSpec
    line: int


@dataclass(frozen=True)
class Suite:
    """A list of runs.

    Attributes:
        name: of a shipped suite, or of the file.
        title: one sentence.
        cells: the runs, no two of them equal.
        path: of the file.
    """

    name: str
    title: str
    cells: tuple[Cell, ...]
    path: Path


def shipped() -> dict[str, str]:
    """Names and titles of the suites that come with the package; builds no cells."""
    return {
        name: tomllib.loads(path.read_text(encoding="utf-8"))["title"]
        for name, path in shipped_files().items()
    }


def find_suite(name: str) -> Suite:
    """The suite of that name, or in that ``.toml`` file.

    Raises:
        UserError: there is none, or its file is wrong; then the message names the line.
    """
    path = find_file(name, Path())
    return _suite(path, read_suite(path))


def suite_with(name: str, attack: str, settings: Mapping[str, object]) -> Suite:
    """The victims, data and seeds of a suite, with one attack in the place of its rows.

    Args:
        name: see `find_suite`.
        attack: its name; a plugin is loaded before.
        settings: its hyper-parameters that are not the defaults; the label names them.

    Raises:
        UserError: see `find_suite`.
    """
    path = find_file(name, Path())
    content, place = read_suite(path), Place(path, 1)
    label = ", ".join([attack, *(f"{k}={v}" for k, v in settings.items())])
    keys = {"attack": Given((attack,), place)}
    keys |= {f"set.attack.{k}": Given((v,), place) for k, v in settings.items()}
    return _suite(path, replace(content, rows=(Row(label, keys, place),)))


def _suite(path: Path, content: Content) -> Suite:
    cells: dict[RunSpec, Cell] = {}
    for row, varied, values in _runs(content):
        with row.place.named():
            spec = _spec(values)
        label = ", ".join([row.label, *(f"{k.rpartition('.')[2]}={values[k]}" for k in varied)])
        line = row.place.line if row.place.path == path else content.extends
        cells.setdefault(spec, Cell(path.stem, label, spec, line))
    ordered = sorted(cells.values(), key=lambda cell: cell.spec.seed)
    return Suite(path.stem, content.title or path.stem, tuple(ordered), path)


def _runs(content: Content) -> Iterator[tuple[Row, list[str], dict[str, Any]]]:
    """Every row with the keys that its label names, and the values of every run of it."""
    rows = [(row, _varied(row, content)) for row in content.rows]
    for number, (row, varied) in enumerate(rows):
        for other, known in rows[:number]:
            if (other.label, known) == (row.label, varied):
                raise row.place.wrong(
                    f"the label {row.label!r} is that of line {other.place.line} too: give this "
                    'row another label = "…".'
                )
    for parts in product(*_axes(content.shared), *map(_together, content.zips)):
        for row, varied in rows:
            for own in product(*_axes(row.keys)):
                yield row, varied, {k: v for part in (*parts, *own) for k, v in part.items()}


def _axes(keys: Keys) -> list[list[dict[str, Any]]]:
    return [[{name: value} for value in given.values] for name, given in keys.items()]


def _together(keys: Keys) -> list[dict[str, Any]]:
    columns = [given.values for given in keys.values()]
    return [dict(zip(keys, values, strict=True)) for values in zip(*columns, strict=True)]


def _varied(row: Row, content: Content) -> list[str]:
    """The keys that a row's label must name: what only it varies, and the attack's settings."""
    above = dict(content.shared)
    for keys in content.zips:
        above |= keys
    columns = {key for key, given in above.items() if len(given.values) > 1} | {"seed"}
    return [
        key
        for key, given in (above | row.keys).items()
        if len(given.values) > 1
        and (key.startswith("set.attack.") or (key in row.keys and key not in columns))
    ]


def _spec(values: dict[str, Any]) -> RunSpec:
    settings: dict[str, list[tuple[str, Any]]] = {field: [] for field in SETTINGS.values()}
    for key, value in sorted(values.items()):
        if key.startswith("set."):
            _, kind, name = key.split(".", 2)
            settings[SETTINGS[kind]].append((name, value))
    return RunSpec.from_dict({k: v for k, v in values.items() if k in TYPES} | settings)
