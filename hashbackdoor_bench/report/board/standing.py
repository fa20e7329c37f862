"""One attack among those of its board: its gain on every victim, its place, and the others."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, comb

from hashbackdoor_bench.report.board import wording
from hashbackdoor_bench.report.board.boards import Board
from hashbackdoor_bench.report.board.entries import Entry, Victim
from hashbackdoor_bench.report.power import Power, power, seconds_of
from hashbackdoor_bench.report.statistics import (
    LEAST_GROUPS,
    LEVEL,
    Estimate,
    difference,
    estimate,
    unit_of_values,
)
from hashbackdoor_bench.spec import SEVERAL
from hashbackdoor_bench.text import visible

GOAL = 0.05  # a difference that a reader would want to be told


@dataclass(frozen=True)
class Standing:
    """An entry of a board against the others.

    Attributes:
        board: where it stands.
        entry: the attack.
        gains: by victim of the board, with an interval over its draws; None where it was not run.
        leads: the other entries with a trigger, and by how much the attack's gain is above theirs,
            paired over the draws of the victims that count; None where they share none.
        power: what its runs can tell; None without a place or another attack that has one.
        seconds: for one of its runs; what several share is counted once.
    """

    board: Board
    entry: Entry
    gains: tuple[Estimate | None, ...]
    leads: tuple[tuple[Entry, Estimate | None], ...]
    power: Power | None
    seconds: float


def standing(board: Board, label: str) -> Standing:
    """The standing of the attack of that label, which is on the board."""
    (entry,) = (one for one in board.entries if one.label == label)
    others = [o for o in board.entries if o is not entry and not o.apart]
    rivals = [other for other in others if other.place is not None]
    records = [run.record for run in entry.runs if run.victim.counts]
    return Standing(
        board,
        entry,
        tuple(_gain_on(victim, entry) for victim in board.victims),
        tuple((other, difference(entry.counted_draws, other.counted_draws)) for other in others),
        power(
            entry.counted_draws,
            [other.counted_draws for other in rivals],
            comb(len(rivals) + 1, 2),
        )
        if entry.place is not None
        else None,
        seconds_of(records) / max(1, len(records)),
    )


def _gain_on(victim: Victim, entry: Entry) -> Estimate | None:
    return estimate(victim.among(entry.draws))


def power_text(found: Standing, goal: float = GOAL) -> str:
    """What the runs can tell, and what it takes to tell a difference, as sentences.

    Args:
        found: the standing.
        goal: the difference, as a share.
    """
    if found.power is None:
        return _why_unknown(found)
    can, points = found.power, f"{100 * goal:g} points"
    unit = unit_of_values(found.entry.counted_draws)
    difference = f"can tell {wording.percent(can.tells)} points"
    if can.tells > 1:  # more than two gains can differ by
        difference = "can't tell 100 points"
    told = (
        f"These {can.runs} runs {difference} from another attack "
        f"(in 80 % of cases, tested at {100 * LEVEL:g} % over {can.comparisons} "
        f"pair{'s' if can.comparisons > 1 else ''}, estimated from {can.groups} {unit}s)"
    )
    if can.tells <= goal:
        return f"{told}."
    needed, classes = can.runs_for(goal), found.board.protocol.classes
    if needed is None:
        return f"{told}; {points} need more runs than anyone will make."
    targets = ceil(needed * can.groups / can.runs)
    cost = f"{needed} runs, {_spelled(needed * found.seconds)} as measured in the records"
    sets = any(SEVERAL in target for target in found.board.targets)  # there are more than classes
    if unit == "target" and targets > classes and not sets:
        return (
            f"{told}; {points} need {targets} targets, that is {cost}, and this data has {classes}."
        )
    return f"{told}; {points} need {cost}."


def _why_unknown(found: Standing) -> str:
    """Why nothing is said of power, as a sentence; empty where the reason stands elsewhere."""
    leads = [lead for other, lead in found.leads if other.place is not None]
    if found.entry.place is None or not leads:
        return ""
    if all(lead is None or lead.error is None for lead in leads):
        return (
            "What these runs can tell is not known: a difference has an interval from "
            f"{LEAST_GROUPS} targets on, or from {LEAST_GROUPS} seeds that all targets share."
        )
    return (
        "What these runs can tell is not known: the difference from each other attack is the same "
        "in all of them, so it has no spread."
    )


def _spelled(seconds: float) -> str:
    """How long runs take one after another, in words."""
    minutes = seconds / 60
    if minutes < 1:
        return "less than a minute one after another,"
    if minutes < 100:
        return f"about {minutes:.0f} minutes one after another,"
    return f"about {minutes / 60:.0f} hours one after another,"


def standing_text(found: Standing, goal: float = GOAL) -> str:
    """The standing as lines for a terminal; ``goal`` is the difference of `power_text`."""
    board, entry = found.board, found.entry
    placed = [other for other in board.entries if other.place is not None]
    lines = [f"{entry.label}: {wording.caption(board)}", "", _line("gain", "mean", "95 %", "n")]
    for victim, gain in zip(board.victims, found.gains, strict=True):
        mark = "" if victim.counts else " (doesn't count)"
        lines.append(_estimate_line(f"on {wording.column(victim, board)}{mark}", gain))
    lines.append(_estimate_line("over the victims that count", entry.gain))
    if entry.place is None:
        lines += ["", f"no place: {entry.why}"]
    else:
        lines += ["", f"place {wording.place(entry)} of {len(placed)}"]
        if len(placed) == 1:
            lines.append("there is no other attack with a place to compare it with")
    if out := wording.left_out_victims(board):
        lines.append(out)
    if told := power_text(found, goal):
        lines.append(told)
    if found.leads:
        lines += ["", _line("more gain than (paired)", "mean", "95 %", "n")]
        lines += [
            _estimate_line(f"{other.label} (place {wording.place(other)})", lead)
            for other, lead in found.leads
        ]
    return "\n".join(map(visible, lines))  # a line end in a name makes no line


def _estimate_line(name: str, value: Estimate | None) -> str:
    if value is None:
        return _line(name, wording.NOTHING, "not run", "")
    ends = "no interval" if value.low is None else wording.interval(value)
    return _line(name, wording.percent(value.mean), ends, str(value.n))


def _line(*cells: str) -> str:
    name, mean, ends, n = cells
    return f"{name:<36}{mean:>7}   {ends:<16}{n:>3}".rstrip()


def board_with(boards: Sequence[Board], label: str) -> Board:
    """The board that has the attack of that label."""
    return next(board for board in boards if any(one.label == label for one in board.entries))
