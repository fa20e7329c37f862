"""The boards of defenses: ranked by what they remove, among those that cost little.

A board is one suite under one delivery. Its cells are every (attack, poisoned share, victim, bits,
target, seed) with a backdoor to remove: t-MAP of at least ``LEAST_ABOVE`` over the floor. A defense
has a place only if it has all of them. An attack that expects a defense is made for that one alone,
so its runs are no cells of others: they stand in rows of their own, which have no place.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import pandas as pd

from hashbackdoor_bench.records import LEAST_ABOVE, DataFacts, Record
from hashbackdoor_bench.registry import DEFENSES
from hashbackdoor_bench.report.board.rules import CONVENTION, LARGEST_COST
from hashbackdoor_bench.report.defended import (
    CONTROLS,
    reasons_by_cell,
    seconds_of,
    stage_of,
    trainings_of,
    with_defenses,
)
from hashbackdoor_bench.report.formatting import percent
from hashbackdoor_bench.report.mixing import (
    SAME_ATTACK,
    refuse_mixed,
    refuse_mixed_protocols,
    refuse_mixed_victims,
)
from hashbackdoor_bench.report.refusals import Refusal
from hashbackdoor_bench.report.selection import published_victims, with_display_names
from hashbackdoor_bench.report.statistics import (
    Column,
    Draw,
    Draws,
    Estimate,
    draws,
    estimate,
    places,
    rows_of,
)
from hashbackdoor_bench.spec import RunSpec

CELL = ["attack_share", "victim", "bits", "target", "seed"]
Cell = tuple[str, str, int, str, int]  # attack with its share, victim, bits, target and seed


@dataclass(frozen=True)
class DefenseEntry:
    """One defense of a board.

    Attributes:
        name: in tables, with the settings that vary, and which defense its attacker expects.
        stage: see `defended.STAGES`.
        place: first and last place that it may have; None if it has none.
        why: a clause why it has no place, empty if it has one.
        removal: mean removal over attacks and victims; None if there is none.
        draws: removal by attack and victim, and by target and seed.
        t_map: mean t-MAP behind it, over the same runs with the same weights as ``removal``; None
            if it changes no code.
        map: mean MAP behind it, likewise.
        clean_cost: MAP before less MAP after, on the victim where that mean is largest.
        clean: numbers of clean images that its defender has.
        sees: what its defender sees.
        seconds: mean time of its stages.
        trainings: that time in units of the training of the victim.
        runs: number of records.
        cells: attack with its share, victim, bits, target and seed of each of them.
        expected: how papers write the defense that its attacker expects; empty if none.
    """

    name: str
    stage: str
    place: tuple[int, int] | None
    why: str
    removal: Estimate | None
    draws: Draws
    t_map: float | None = None
    map: float | None = None
    clean_cost: float | None = None
    clean: tuple[int, ...] = ()
    sees: tuple[str, ...] = ()
    seconds: float | None = None
    trainings: float | None = None
    runs: int = 0
    cells: tuple[Cell, ...] = ()
    expected: str = ""


@dataclass(frozen=True)
class DefenseBoard:
    """The defenses of a suite under one delivery.

    Attributes:
        suite: its name.
        delivery: ``stamped`` or ``files``.
        protocol: see `boards.Board`.
        attacks: labels of the attacks that expect no defense, with their poisoned shares.
        aware: of those that expect one.
        victims: how papers write them.
        targets: class names.
        seeds: of the runs.
        cells: number of runs in which there is a backdoor to remove.
        t_map: mean t-MAP in these without a defense, with the weights of `DefenseEntry.removal`.
        entries: those with a place first, by falling removal.
    """

    suite: str
    delivery: str
    protocol: DataFacts
    attacks: tuple[str, ...]
    aware: tuple[str, ...]
    victims: tuple[str, ...]
    targets: tuple[str, ...]
    seeds: tuple[int, ...]
    cells: int
    t_map: float | None
    entries: tuple[DefenseEntry, ...]


def defense_boards(
    frame: pd.DataFrame, suites: Sequence[str], refused: Iterable[Refusal] = ()
) -> list[DefenseBoard]:
    """The boards of those suites that have runs with a defense.

    Args:
        frame: of a `Collection`.
        suites: names.
        refused: runs that the suites could not plan.

    Raises:
        UserError: mixed protocols or victims, or a defense with two records of one cell.
    """
    known = list(refused)
    found = []
    for suite in suites:
        of_suite = frame[frame["suite"] == suite]
        of_suite = of_suite[[record.defense is not None for record in of_suite["record"]]]
        for delivery, part in of_suite.groupby("delivery", sort=True):
            ours = [one for one in known if one.suite == suite]
            found.append(_board(suite, str(delivery), part, ours))
    return found


def _board(
    suite: str, delivery: str, frame: pd.DataFrame, refused: Sequence[Refusal]
) -> DefenseBoard:
    name = f"defenses of {suite}, {delivery}"
    refuse_mixed_protocols(frame, f"{name}: its records")
    rows = with_defenses(with_display_names(frame), CONVENTION)
    for victim, part in rows.groupby("head", sort=False):
        refuse_mixed_victims(part, f"{name}: victim {victim}")
    rows = rows.assign(
        attack_share=[" ".join(pair) for pair in zip(rows["attacker"], rows["share"], strict=True)],
        above=rows["t_map.before"] - rows["control_t_map.before"],
        expected=[_expected(record) for record in rows["record"]],
    )
    attacked = rows[rows["above"] >= LEAST_ABOVE]
    unaware = attacked[attacked["expected"] == ""]
    cells = set(_cells(unaware))
    entries = []
    for (head, expected), part in rows.groupby(["defense", "expected"], sort=False):
        due = set(_cells(part[part["above"] >= LEAST_ABOVE])) if expected else cells
        entries.append(_entry(str(head), part, name, due, refused))
    named = {DEFENSES.published(record.spec.defense) for record in rows["record"]}
    for defense in dict.fromkeys(one.defense for one in refused):
        if (published := DEFENSES.published(defense)) not in named:
            reason = next(iter(_reasons(defense, refused)), "")
            entries.append(DefenseEntry(published, "", None, f"n/a: {reason}", None, {}))
    heads = dict.fromkeys(rows["victim"])
    expecting = rows["expected"] != ""
    return DefenseBoard(
        suite=suite,
        delivery=delivery,
        protocol=rows["record"].iloc[0].protocol,
        attacks=tuple(dict.fromkeys(rows["attack_share"][~expecting])),
        aware=tuple(dict.fromkeys(rows["attack_share"][expecting])),
        victims=tuple(published_victims(heads)[victim] for victim in heads),
        targets=tuple(sorted(set(map(str, rows["target"])))),
        seeds=tuple(sorted(set(map(int, rows["seed"])))),
        cells=len(cells),
        t_map=_mean(unaware.drop_duplicates(CELL), "t_map.before"),
        entries=_placed(entries),
    )


def _expected(record: Record) -> str:
    """How papers write the defense that the attacker of a run expects; empty if none."""
    aware = record.spec.aware
    return "" if aware == RunSpec.aware else DEFENSES.published(aware)


def _cells(frame: pd.DataFrame) -> list[Cell]:
    return [
        (str(attack), str(victim), int(bits), str(target), int(seed))
        for attack, victim, bits, target, seed in rows_of(frame, *CELL)
    ]


def _reasons(defense: str, refused: Iterable[Refusal]) -> list[str]:
    """Why a defense can't be run, each reason once."""
    found = reasons_by_cell(one for one in refused if one.defense == defense)
    return list(dict.fromkeys(found.values()))


def _entry(
    head: str,
    frame: pd.DataFrame,
    board: str,
    cells: set[Cell],
    refused: Sequence[Refusal],
) -> DefenseEntry:
    records: list[Record] = list(frame["record"])
    first = records[0]
    assert first.defense is not None
    own, expected = tuple(_cells(frame)), _expected(first)
    here = frame[[cell in cells for cell in own]]
    removal: dict[Column, Mapping[Draw, float]] = {}
    for (attack, victim, bits), part in here.groupby(["attack_share", "victim", "bits"]):
        what = f"{board}: {head} against {attack} on {victim}"
        refuse_mixed(part, what, SAME_ATTACK)
        for values in draws(part, what, "removal").values():
            removal[f"{attack} on {victim}", int(bits)] = values
    costs = [
        fmean(part["clean_cost"].dropna())
        for _, part in frame.groupby(["victim", "bits"])
        if part["clean_cost"].notna().any()
    ]
    trainings = [value for value in map(trainings_of, records) if value == value]  # no NaN
    return DefenseEntry(
        name=f"{head}, attacker expects {expected}" if expected else head,
        stage=stage_of(first.defense),
        place=None,
        why=_why(first, cells, len(here), costs, _reasons(first.spec.defense, refused)),
        removal=estimate(removal),
        draws=removal,
        t_map=_mean(here, "t_map.after"),
        map=_mean(here, "map.after"),
        clean_cost=max(costs, default=None),
        clean=tuple(sorted({one.defense.clean for one in records if one.defense})),
        sees=first.defense.sees,
        seconds=fmean(map(seconds_of, records)),
        trainings=fmean(trainings) if trainings else None,
        runs=len(records),
        cells=own,
        expected=expected,
    )


def _mean(frame: pd.DataFrame, column: str) -> float | None:
    """The mean over attacks and victims, each with the same weight; None if there is no value."""
    means = frame.groupby(CELL[:3])[column].mean().dropna()
    return float(means.mean()) if len(means) else None


def _why(
    record: Record,
    cells: set[Cell],
    run: int,
    costs: Sequence[float],
    reasons: Sequence[str],
) -> str:
    """The first rule that a defense doesn't keep, as a clause; empty if it keeps all.

    Args:
        record: one of its records.
        cells: those of the board.
        run: how many of them it has.
        costs: mean clean cost on each victim.
        reasons: why it can't have the others.
    """
    assert record.defense is not None
    if stage_of(record.defense) == CONTROLS:
        return "a control"
    if record.defense.outcome is None:
        return "n/a: it changes no code, see what it detects"
    if expected := _expected(record):
        return f"apart: its attacker expects {expected}"
    missing = len(cells) - run
    if not cells:
        return "no attack of this board leaves a backdoor to remove"
    if missing and reasons:
        return f"{missing} of {len(cells)} runs missing or n/a: {'; '.join(reasons)}"
    if missing:
        return f"{missing} of {len(cells)} runs missing"
    if costs and max(costs) > LARGEST_COST:
        return f"clean cost {percent(max(costs))}: more than {percent(LARGEST_COST)}"
    return ""


def _placed(entries: Sequence[DefenseEntry]) -> tuple[DefenseEntry, ...]:
    """Entries with their places: those that have one, then the others; each by falling removal."""
    eligible = [one for one in entries if not one.why]
    ranges = places([one.draws for one in eligible]) if eligible else []
    placed = [replace(one, place=place) for one, place in zip(eligible, ranges, strict=True)]

    def order(one: DefenseEntry) -> tuple[bool, float, str]:
        return one.place is None, -(one.removal.mean if one.removal else float("-inf")), one.name

    return tuple(sorted([*placed, *(one for one in entries if one.why)], key=order))
