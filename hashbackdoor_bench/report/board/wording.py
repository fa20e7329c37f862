"""The words of the leaderboard: places, columns, and which victims don't count."""

from hashbackdoor_bench.report.board.leaderboard import Board, Row, Spread, Victim
from hashbackdoor_bench.report.spelling import NOTHING, across, interval, number, percent, signed

__all__ = [
    "NOTHING", "across", "caption", "column", "interval", "left_out_victims", "number", "percent",
    "place", "signed", "spread",
]  # fmt: skip


def spread(value: Spread | None) -> str:
    """Mean ± standard deviation; a single run says so."""
    if value is None:
        return NOTHING
    if value.deviation is None:
        return f"{percent(value.mean)} (n = 1)"
    return f"{percent(value.mean)} ± {percent(value.deviation)}"


def place(row: Row) -> str:
    """One place, or the range that it can't be told from."""
    if row.place is None:
        return NOTHING
    first, last = row.place
    return str(first) if first == last else f"{first}-{last}"


def column(victim: Victim, board: Board) -> str:
    """A victim's heading; its bits only where the board has several."""
    several = len({other.bits for other in board.victims}) > 1
    return f"{victim.name} {victim.bits}" if several else victim.name


def caption(board: Board) -> str:
    """What all numbers of a board share, as one sentence."""
    bits = ", ".join(str(b) for b in sorted({victim.bits for victim in board.victims}))
    seeds = ", ".join(map(str, board.seeds))
    targets = ", ".join(board.targets)
    return (
        f"{board.protocol.name}, R = {board.protocol.top_k} "
        f"(lists {board.protocol.sha256[:10]}), {bits} bits, delivery {board.delivery}, "
        f"target{'s' if len(board.targets) > 1 else ''} {targets}, "
        f"seed{'s' if len(board.seeds) > 1 else ''} {seeds}."
    )


def left_out_victims(board: Board) -> str:
    """Which victims don't count, and why; empty if all do."""
    out = [victim for victim in board.victims if not victim.counts]
    words = " and ".join(
        f"{column(victim, board)} (MAP without poison {percent(victim.clean_map)})"
        for victim in out
    )
    it = "it" if len(out) == 1 else "they"
    return f"Not counted, because {it} learnt too little: {words}." if out else ""
