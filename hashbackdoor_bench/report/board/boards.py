"""The leaderboard: the rules of ``results/RULES.md`` over collected records.

A board is one suite under one delivery. Its cells are every (victim, bits, target, seed) that any
attack of the board was run on; an attack has a place only if it has all those of the victims that
count.
"""

import json
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean, stdev
from typing import Any

import pandas as pd

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.records import DataFacts, Record, Threat
from hashbackdoor_bench.report.statistics import Estimate, estimate, ranks
from hashbackdoor_bench.spec import canonical

CONVENTION = "field"
LARGEST_FALL = 0.02  # of a victim's mean MAP
LEAST_CLEAN_MAP = 0.5  # of a victim without poison, or it counts for nothing
MOST_POISON = 0.6  # share of the target class

# What makes a victim of one name another victim; the precision isn't here, it follows the device.
SAME_VICTIM = (
    "backbone", "pretrained", "recipe", "epochs", "batch_size", "lr", "augment", "victim_settings",
)  # fmt: skip


@dataclass(frozen=True, order=True)
class Victim:
    """A column of a board.

    Attributes:
        name: of the hashing method.
        bits: of its codes.
        clean_map: MAP without poison, the mean over the board's seeds and targets.
    """

    name: str
    bits: int
    clean_map: float

    @property
    def counts(self) -> bool:
        """Whether it has learnt enough to be attacked."""
        return self.clean_map >= LEAST_CLEAN_MAP


@dataclass(frozen=True)
class Run:
    """One record of a row."""

    path: str
    victim: Victim
    target: str
    seed: int
    record: Record

    def score(self, name: str) -> float | None:
        """A figure of the board's convention, None if the run has none."""
        value: float | None = getattr(self.record.scores[CONVENTION], name)
        return value

    def seen(self, where: str, name: str) -> float | None:
        """Imperceptibility: ``poison`` or ``query``, and the figure's name."""
        value = getattr(getattr(self.record.imperceptibility, where), name)
        return value if isinstance(value, float) else None


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over the draws of one victim; of one draw there is none."""

    mean: float
    deviation: float | None
    n: int


@dataclass(frozen=True)
class Row:
    """One attack of a board.

    Attributes:
        label: in tables.
        attack: its name on the command line.
        place: first and last place that it may have; None if it has none.
        why: one sentence why it has no place, empty if it has one.
        gain: backdoor gain over the victims that count; None if none of them was run.
        gains: of each victim of the board, None where it was not run.
        delta_map: mean delta MAP of the victim that counts where it is largest in size.
        poison: share of the target class that is poisoned, the largest of its runs.
        runs: the records it follows from.
    """

    label: str
    attack: str
    place: tuple[int, int] | None
    why: str
    gain: Estimate | None
    gains: tuple[Spread | None, ...]
    delta_map: float | None
    poison: float
    runs: tuple[Run, ...]

    @property
    def threat(self) -> Threat:
        """The threat model, that of its first run."""
        return self.runs[0].record.threat

    def mean(self, where: str, name: str) -> float | None:
        """Mean imperceptibility over the runs on victims that count and have the figure."""
        values = [run.seen(where, name) for run in self.runs if run.victim.counts]
        known = [value for value in values if value is not None]
        return fmean(known) if known else None


@dataclass(frozen=True)
class Board:
    """A suite under one delivery.

    Attributes:
        suite: its name.
        delivery: ``stamped`` or ``files``.
        protocol: name, top_k and sha256 are those of every record of it.
        targets: class names.
        seeds: of the runs.
        victims: its columns, by name and bits.
        rows: those with a place first, by falling gain.
    """

    suite: str
    delivery: str
    protocol: DataFacts
    targets: tuple[str, ...]
    seeds: tuple[int, ...]
    victims: tuple[Victim, ...]
    rows: tuple[Row, ...]


def boards(frame: pd.DataFrame, suites: Sequence[str]) -> list[Board]:
    """The boards of these suites, by suite and delivery.

    Args:
        frame: of a `Collection`.
        suites: names; records of other suites, or of none, are not looked at.

    Raises:
        UserError: no record of a suite, mixed protocols or victims, or an attack with two records
            of one cell.
    """
    found = []
    for suite in suites:
        mine = frame[frame["suite"] == suite]
        if mine.empty:
            others = sorted({name for name in frame["suite"] if isinstance(name, str) and name})
            hint = f"; there is --suite {' or '.join(others)}" if others else ""
            raise UserError(
                f"no record of suite {suite!r} is among these{hint}: a record belongs to a suite "
                f"by the index.csv that `bench suite run {suite}` writes beside it."
            )
        for delivery, part in mine.groupby("delivery", sort=True):
            found.append(_board(suite, str(delivery), part))
    return found


def _board(suite: str, delivery: str, part: pd.DataFrame) -> Board:
    name = f"board {suite}, {delivery}"
    lines = part.to_dict("records")
    _one(f"{name}: the protocol", ((f["protocol"], f["top_k"]) for f in lines), _of_protocol)
    columns: dict[tuple[str, int], dict[Hashable, float]] = {}
    for column, members in part.groupby(["victim", "bits"], sort=True):
        specs = [record.spec for record in members["record"]]
        for field in SAME_VICTIM:
            of = f"{name}: {field} of victim {column[0]}, {column[1]} bits,"
            _one(of, (getattr(spec, field) for spec in specs), str)
        clean = members[f"{CONVENTION}.map_clean_victim"].groupby(
            [members["target"], members["seed"]]
        )
        columns[column] = dict(clean.mean())
    victims = {
        column: Victim(*column, clean_map=fmean(values.values()))
        for column, values in columns.items()
    }
    runs = [
        (
            (str(line["label"]), str(line["attack"])),
            Run(
                str(line["path"]),
                victims[line["victim"], line["bits"]],
                str(line["target"]),
                int(line["seed"]),
                line["record"],
            ),
        )
        for line in lines
    ]
    cells = {_cell(run) for _, run in runs if run.victim.counts}
    rows = []
    for key in sorted({key for key, _ in runs}):
        mine = sorted((run for other, run in runs if other == key), key=_cell)
        for one, other in pairwise(mine):
            if _cell(one) == _cell(other):
                raise UserError(
                    f"{name}: {one.path} and {other.path} are both {key[0]!r} on "
                    f"{one.victim.name}, target {one.target}, seed {one.seed}: keep one of them, "
                    "or give them two labels in the suite."
                )
        rows.append(_row(*key, mine, sorted(victims.values()), len(cells)))
    return Board(
        suite,
        delivery,
        lines[0]["record"].protocol,
        tuple(sorted({str(line["target"]) for line in lines})),
        tuple(sorted({int(line["seed"]) for line in lines})),
        tuple(sorted(victims.values())),
        tuple(_ranked(rows)),
    )


def _cell(run: Run) -> tuple[Victim, str, int]:
    return run.victim, run.target, run.seed


def _of_protocol(value: tuple[str, int]) -> str:
    return f"{value[0][:10]} with R = {value[1]}"


def _one(what: str, values: Iterable[Any], spell: Callable[[Any], str]) -> None:
    """Refuse values that are not all equal."""
    different = {json.dumps(value, sort_keys=True): value for value in values}
    if len(different) > 1:
        first, second = list(different.values())[:2]
        raise UserError(
            f"{what} is both {spell(first)} and {spell(second)}: these are never averaged; "
            "give the records of one of them."
        )


def _row(label: str, attack: str, runs: list[Run], victims: Sequence[Victim], cells: int) -> Row:
    counted = [victim for victim in victims if victim.counts]
    gain = _draws(runs, counted, "backdoor_gain")
    deltas = [fmean(values) for values in _draws(runs, counted, "delta_map")]
    poison = max(_share(run.record) for run in runs)
    delta = max(deltas, key=abs, default=None)
    missing = cells - sum(map(len, gain))
    varied = _varied(runs)
    why = ""
    if runs[0].record.threat.trigger == "none":
        why = "a control: it has no trigger"
    elif not counted:
        why = "no victim of this board learnt enough without poison"
    elif missing:
        why = f"{missing} of {cells} runs missing"
    elif varied:
        why = f"its runs differ in {', '.join(varied)}"
    elif deltas and -min(deltas) > LARGEST_FALL:
        why = f"delta MAP {100 * min(deltas):+.1f}: a fall of more than {100 * LARGEST_FALL:g}"
    elif poison > MOST_POISON:
        why = f"poisons {100 * poison:.0f} % of the target class: more than {100 * MOST_POISON:g}"
    return Row(
        label,
        attack,
        None,
        why,
        estimate(gain) if gain else None,
        tuple(_spread(runs, victim) for victim in victims),
        delta,
        poison,
        tuple(runs),
    )


def _spread(runs: Iterable[Run], victim: Victim) -> Spread | None:
    draws = _draws(runs, [victim], "backdoor_gain")
    if not draws:
        return None
    (values,) = draws
    return Spread(fmean(values), stdev(values) if len(values) > 1 else None, len(values))


def _draws(runs: Iterable[Run], victims: Iterable[Victim], name: str) -> list[list[float]]:
    """For each victim that has any, the values of its runs."""
    found = []
    for victim in victims:
        values = [run.score(name) for run in runs if run.victim == victim]
        found.append([value for value in values if value is not None])
    return [values for values in found if values]


def _varied(runs: Iterable[Run]) -> list[str]:
    """The hyper-parameters of an attack that are not the same in all of its runs."""
    settings = [dict(run.record.spec.attack_settings) for run in runs]
    names = {name for one in settings for name in one}
    return sorted(n for n in names if len({canonical(one.get(n)) for one in settings}) > 1)


def _share(record: Record) -> float:
    """Of the target class, what is poisoned, whether asked for by ``--budget`` or by count.

    A budget that was rounded to whole images is that budget.
    """
    images, poisoned = record.threat.target_images, record.threat.poisoned
    budget = record.threat.budget or 0.0
    if not images or int(budget * images + 0.5) == poisoned:
        return budget
    return poisoned / images


def _ranked(rows: Sequence[Row]) -> list[Row]:
    """Rows with their places: those that have one, then the others; each by falling gain."""
    placed = [row for row in rows if not row.why]
    victims = sorted({run.victim for row in placed for run in row.runs if run.victim.counts})
    places = ranks([_draws(row.runs, victims, "backdoor_gain") for row in placed])
    found = [replace(row, place=place) for row, place in zip(placed, places, strict=True)]
    return sorted([*found, *(row for row in rows if row.why)], key=_order)


def _order(row: Row) -> tuple[bool, float, str, str]:
    # not by place: a wide range begins above the narrow one of a higher gain
    mean = row.gain.mean if row.gain else float("-inf")
    return row.place is None, -mean, row.label, row.attack
