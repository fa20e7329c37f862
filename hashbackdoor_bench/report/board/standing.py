"""One attack among those of its board: its gain on every victim, its place, and who is how far."""

from collections.abc import Sequence
from dataclasses import dataclass

from hashbackdoor_bench.report.board import wording
from hashbackdoor_bench.report.board.leaderboard import Board, Row, Run
from hashbackdoor_bench.report.statistics import Estimate, estimate

Draw = tuple[str, int]  # target and seed


@dataclass(frozen=True)
class Standing:
    """A row of a board against the others.

    Attributes:
        board: where it stands.
        row: the attack.
        gains: by victim of the board, with an interval over its draws; None where it was not run.
        rivals: the other rows with a trigger, and by how much the attack's gain is above theirs,
            paired over the draws of the victims that count; None where they share none.
    """

    board: Board
    row: Row
    gains: tuple[Estimate | None, ...]
    rivals: tuple[tuple[Row, Estimate | None], ...]


def standing(board: Board, label: str) -> Standing:
    """The standing of the attack of that label, which is on the board."""
    (row,) = (row for row in board.rows if row.label == label)
    by_victim = [
        [gain for run in row.runs if run.victim == victim and (gain := _gain(run)) is not None]
        for victim in board.victims
    ]
    gains = tuple(estimate([values]) if values else None for values in by_victim)
    others = [o for o in board.rows if o is not row and o.threat.trigger != "none"]
    return Standing(board, row, gains, tuple((other, difference(row, other)) for other in others))


def difference(one: Row, other: Row) -> Estimate | None:
    """How much more one attack gains than another, over the cells of counting victims of both."""
    mine, theirs = _cells(one), _cells(other)
    pairs = [
        [mine[victim][draw] - theirs[victim][draw] for draw in sorted(shared)]
        for victim in sorted(mine.keys() & theirs.keys())
        if (shared := mine[victim].keys() & theirs[victim].keys())
    ]
    return estimate(pairs) if pairs else None


def _gain(run: Run) -> float | None:
    return run.score("backdoor_gain")


def _cells(row: Row) -> dict[tuple[str, int], dict[Draw, float]]:
    found: dict[tuple[str, int], dict[Draw, float]] = {}
    for run in row.runs:
        gain = _gain(run)
        if run.victim.counts and gain is not None:
            found.setdefault((run.victim.name, run.victim.bits), {})[run.target, run.seed] = gain
    return found


def standing_text(found: Standing) -> str:
    """The standing as lines for a terminal."""
    board, row = found.board, found.row
    placed = [other for other in board.rows if other.place is not None]
    lines = [f"{row.label}: {wording.caption(board)}", "", _line("gain", "mean", "95 %", "n")]
    for victim, gain in zip(board.victims, found.gains, strict=True):
        mark = "" if victim.counts else " (doesn't count)"
        lines.append(_estimate(f"on {wording.column(victim, board)}{mark}", gain))
    lines.append(_estimate("over the victims that count", row.gain))
    if row.place is None:
        lines += ["", f"no place: {row.why}"]
    else:
        lines += ["", f"place {wording.place(row)} of {len(placed)}"]
    if out := wording.left_out_victims(board):
        lines.append(out)
    if found.rivals:
        lines += ["", _line("more gain than (paired)", "mean", "95 %", "n")]
        lines += [
            _estimate(f"{other.label} (place {wording.place(other)})", gap)
            for other, gap in found.rivals
        ]
    return "\n".join(lines)


def _estimate(name: str, value: Estimate | None) -> str:
    if value is None:
        return _line(name, wording.NOTHING, "not run", "")
    ends = "no interval" if value.low is None else wording.interval(value)
    return _line(name, wording.percent(value.mean), ends, str(value.n))


def _line(*cells: str) -> str:
    name, mean, ends, n = cells
    return f"{name:<36}{mean:>7}   {ends:<16}{n:>3}".rstrip()


def placed(boards: Sequence[Board], label: str) -> Board:
    """The board that has the attack of that label."""
    return next(board for board in boards if any(row.label == label for row in board.rows))
