"""How the leaderboard spells numbers: percent with one decimal, spread, interval, place."""

from hashbackdoor_bench.report.board.leaderboard import Board, Row, Spread, Victim
from hashbackdoor_bench.report.statistics import Estimate

NOTHING = "–"


def number(value: float | None, factor: float = 1) -> str:
    """One decimal, a dash for nothing, and no minus before zero."""
    if value is None:
        return NOTHING
    text = f"{factor * value:.1f}"
    return "0.0" if text == "-0.0" else text


def percent(value: float | None) -> str:
    """A share as percent, without the sign."""
    return number(value, 100)


def signed(value: float | None) -> str:
    """A difference of shares in points of percent, with its sign."""
    text = percent(value)
    return f"+{text}" if value is not None and value > 0 and text != "0.0" else text


def spread(value: Spread | None) -> str:
    """Mean ± standard deviation; a single run says so."""
    if value is None:
        return NOTHING
    if value.deviation is None:
        return f"{percent(value.mean)} (n = 1)"
    return f"{percent(value.mean)} ± {percent(value.deviation)}"


def interval(value: Estimate | None) -> str:
    """The ends of an interval, or that there is none."""
    if value is None:
        return ""
    if value.low is None:
        return f"n = {value.n}, no interval"
    return f"{percent(value.low)} to {percent(value.high)}"


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


def across(value: float) -> str:
    """Where a share stands on a bar from 0 to 100, in percent of its width."""
    return f"{100 * min(1.0, max(0.0, value)):.2f}"
