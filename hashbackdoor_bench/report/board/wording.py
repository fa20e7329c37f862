"""The words of the leaderboard: places, columns, and which victims don't count."""

from hashbackdoor_bench.report.board.boards import Board
from hashbackdoor_bench.report.board.defenses import DefenseBoard, DefenseEntry
from hashbackdoor_bench.report.board.entries import Entry, Victim
from hashbackdoor_bench.report.formatting import (
    NOTHING,
    interval,
    mean_and_deviation,
    number,
    percent,
    poisoned,
    position_on_bar,
    signed,
    ssim,
)
from hashbackdoor_bench.report.selection import published_victims

__all__ = [
    "NOTHING", "caption", "column", "defenses_caption", "interval", "left_out_victims",
    "mean_and_deviation", "number", "percent", "place", "poisoned", "position_on_bar", "signed",
    "ssim", "victim_name",
]  # fmt: skip


def place(entry: Entry | DefenseEntry) -> str:
    """One place, or the range of places that the tests leave open."""
    if entry.place is None:
        return NOTHING
    first, last = entry.place
    return str(first) if first == last else f"{first}-{last}"


def column(victim: Victim, board: Board) -> str:
    """A victim's heading; its bits only where the board has several."""
    several = len({other.bits for other in board.victims}) > 1
    name = victim_name(victim, board)
    return f"{name} {victim.bits}" if several else name


def victim_name(victim: Victim, board: Board) -> str:
    """How papers write a victim of the board."""
    return published_victims(other.name for other in board.victims)[victim.name]


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


def defenses_caption(board: DefenseBoard) -> str:
    """What all numbers of a board of defenses share, in two sentences."""
    return (
        f"{board.protocol.name}, R = {board.protocol.top_k} "
        f"(lists {board.protocol.sha256[:10]}), delivery {board.delivery}, "
        f"target{'s' if len(board.targets) > 1 else ''} {', '.join(board.targets)}, "
        f"seed{'s' if len(board.seeds) > 1 else ''} {', '.join(map(str, board.seeds))}, on "
        f"{', '.join(board.victims)}. Attacks, and their poisoned share of the target class: "
        f"{'; '.join(board.attacks)}; {board.cells} runs have a backdoor to remove."
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
