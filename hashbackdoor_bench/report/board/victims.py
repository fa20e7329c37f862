"""The boards of victims: which are hurt how much by the same attacks.

A board of victims is a board of attacks read by its columns. A victim's score is the mean backdoor
gain over the attacks that have a trigger and were run in all cells with one setting, whatever they
poison and cost; attacks and budgets weigh the same. Place 1 is the victim that is hurt most. Two
victims are compared attack by attack, at equal budget, target and seed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from hashbackdoor_bench.report.board.boards import Board
from hashbackdoor_bench.report.board.entries import Entry, Victim
from hashbackdoor_bench.report.board.rules import LEAST_CLEAN_MAP
from hashbackdoor_bench.report.formatting import percent
from hashbackdoor_bench.report.statistics import (
    Column,
    Draw,
    Draws,
    Estimate,
    Spread,
    estimate,
    places,
    spread,
)


@dataclass(frozen=True)
class VictimEntry:
    """One victim of a board.

    Attributes:
        victim: its name, bits and MAP without poison.
        place: first and last place that it may have, 1 for the one that is hurt most; None if it
            doesn't count.
        why: a clause why it doesn't, empty if it does.
        draws: backdoor gain by attack (and budget), and by target and seed.
        gain: the mean of these.
        gains: of each attack of the board, None where it was not run.
        map: mean MAP of clean queries behind the attacks; None if nothing was run.
    """

    victim: Victim
    place: tuple[int, int] | None
    why: str
    draws: Draws
    gain: Estimate | None
    gains: tuple[Spread | None, ...]
    map: float | None


@dataclass(frozen=True)
class VictimBoard:
    """The victims of a board of attacks.

    Attributes:
        board: of the attacks.
        attacks: those that the victims are compared by, in its order.
        entries: victims with a place first, by falling gain.
    """

    board: Board
    attacks: tuple[Entry, ...]
    entries: tuple[VictimEntry, ...]


def victim_boards(found: Sequence[Board]) -> list[VictimBoard]:
    """The boards that compare at least two victims by at least one attack."""
    shown = []
    for board in found:
        attacks = tuple(one for one in board.entries if one.complete)
        if attacks and sum(victim.counts for victim in board.victims) > 1:
            entries = [_entry(victim, attacks) for victim in board.victims]
            shown.append(VictimBoard(board, attacks, _placed(entries)))
    return shown


def _entry(victim: Victim, attacks: Sequence[Entry]) -> VictimEntry:
    """The entry of a victim, still without a place."""
    values: dict[Column, Mapping[Draw, float]] = {}
    for number, attack in enumerate(attacks):
        for column, of_column in victim.among(attack.draws).items():
            # victims are compared within a column, so it names the attack and its budget
            values[_column(attack.label, number, column)] = of_column
    maps = [
        value
        for attack in attacks
        for run in attack.runs
        if run.victim == victim and (value := run.score("map")) is not None
    ]
    why = (
        ""
        if victim.counts
        else f"MAP without poison {percent(victim.clean_map)}: less than {percent(LEAST_CLEAN_MAP)}"
    )
    return VictimEntry(
        victim=victim,
        place=None,
        why=why,
        draws=values,
        gain=estimate(values),
        gains=tuple(
            spread([one for of in victim.among(attack.draws).values() for one in of.values()])
            for attack in attacks
        ),
        map=fmean(maps) if maps else None,
    )


def _column(label: str, number: int, column: Column) -> Column:
    return (label, number, column[2]) if len(column) == 3 else (label, number)


def _placed(entries: Sequence[VictimEntry]) -> tuple[VictimEntry, ...]:
    """Those that count by falling gain, then the others."""
    counting = [one for one in entries if not one.why]
    ranges = places([one.draws for one in counting])
    placed = [replace(one, place=place) for one, place in zip(counting, ranges, strict=True)]

    def order(one: VictimEntry) -> tuple[bool, float, str, int]:
        mean = one.gain.mean if one.gain else float("-inf")
        return one.place is None, -mean, one.victim.name, one.victim.bits

    return tuple(sorted([*placed, *(one for one in entries if one.why)], key=order))
