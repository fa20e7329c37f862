"""Comparing an attack with the others of a board while its runs come in, group by group."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hashbackdoor_bench.report.board.boards import Board
from hashbackdoor_bench.report.power import closed
from hashbackdoor_bench.report.sequential import bounds, looks
from hashbackdoor_bench.report.statistics import LEVEL, Unit, difference
from hashbackdoor_bench.text import listed

__all__ = ["Contest", "contest", "looks"]


@dataclass(frozen=True)
class Contest:
    """What a look at a part of the runs decides.

    Attributes:
        rivals: for every other attack that has a place, ``above`` if the attack is above it,
            ``below``, ``near`` if they differ by less than the goal, or empty if that is open.
    """

    rivals: Mapping[str, str]

    @property
    def open(self) -> list[str]:
        """The attacks against which nothing is decided yet."""
        return [label for label, state in self.rivals.items() if not state]

    @property
    def place(self) -> tuple[int, int]:
        """First and last place that the attack may have."""
        states = list(self.rivals.values())
        return 1 + states.count("below"), 1 + len(states) - states.count("above")

    def text(self) -> str:
        """The place, and what it is open against, as a sentence."""
        first, last = self.place
        place = str(first) if first == last else f"{first}-{last}"
        near = [label for label, state in self.rivals.items() if state == "near"]
        words = [f"place {place} of {len(self.rivals) + 1}"]
        words += [f"too near to tell from {listed(near)}"] if near else []
        words += [f"open against {listed(self.open)}"] if self.open else []
        return "; ".join(words)


def contest(
    board: Board, label: str, seen: Sequence[int], look: int, goal: float, unit: Unit
) -> Contest:
    """What is decided at a look.

    Args:
        board: of the groups that were seen so far.
        label: of the attack.
        seen: number of groups after which there are looks, see `looks`.
        look: number of this look, from 0.
        goal: difference below which attacks are near, as a share.
        unit: what the groups are.
    """
    (mine,) = (one for one in board.entries if one.label == label)
    rivals = [one for one in board.entries if one is not mine and one.place]
    # every rival has its part of the error, which all looks at it share
    p = bounds([count / seen[-1] for count in seen], LEVEL / max(1, len(rivals)))[look]
    return Contest(
        {
            one.label: closed(difference(mine.counted_draws, one.counted_draws, unit=unit), goal, p)
            for one in rivals
        }
    )
