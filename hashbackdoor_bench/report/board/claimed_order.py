"""The order that CIBA's poster prints, Tri < Tri+Noise < Tri+Adv < CIBA, tested on a board.

The test is Page's, for ordered alternatives (Journal of the American Statistical Association 1963):
in every block the four gains are ranked, and L = sum_k k (sum of the ranks of attack k) is large if
the ranks rise in the order. A block is all of one target, averaged over its seeds and victims; on a
board with one target it is all of one seed. A board over budgets is tested as a whole, averaged
over them too, and then at each budget, with Holm's correction over the budgets.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from hashbackdoor_bench.report.board.boards import Board
from hashbackdoor_bench.report.board.entries import Entry
from hashbackdoor_bench.report.formatting import percent
from hashbackdoor_bench.report.statistics import LEVEL, Draws, group_of, holm

ATTACKS = ("tri", "tri_noise", "tri_adv", "ciba")


@dataclass(frozen=True)
class ClaimedOrder:
    """What came out on a board, as a whole or at one budget.

    Attributes:
        labels: the four attacks, from the one that should be lowest.
        budget: share of the target class; None for the whole board.
        budgets: over how many budgets p is corrected; 0 for the whole board.
        means: backdoor gain of each, over the blocks.
        blocks: number of them.
        unit: what a block is: ``targets`` or ``seeds``.
        p: of Page's test, that the order is by chance.
    """

    labels: tuple[str, ...]
    budget: float | None
    budgets: int
    means: tuple[float, ...]
    blocks: int
    unit: str
    p: float

    def text(self) -> str:
        """The outcome as a sentence."""
        where = "" if self.budget is None else f" at a budget of {100 * self.budget:g} %"
        shown = "is confirmed" if self.p < LEVEL else "is not confirmed"
        corrected = f", corrected for {self.budgets} budgets" if self.budgets > 1 else ""
        gains = ", ".join(map(percent, self.means))
        return (
            f"The published order {' < '.join(self.labels)} {shown}{where}: gains {gains}, "
            f"p = {self.p:.3f} by Page's test over {self.blocks} {self.unit}{corrected}."
        )


def claimed_order(board: Board) -> list[ClaimedOrder]:
    """The test on a board and at each budget; none where it lacks an attack or two blocks."""
    chosen = [_entry(board, attack) for attack in ATTACKS]
    entries = [one for one in chosen if one is not None]
    if len(entries) < len(ATTACKS):
        return []
    whole, *parts = (_tested(entries, budget) for budget in (None, *board.budgets))
    known = [one for one in parts if one is not None]
    corrected = [
        replace(one, p=p, budgets=len(known))
        for one, p in zip(known, holm([one.p for one in known]), strict=True)
    ]
    return [whole, *corrected] if whole else corrected


def _tested(entries: Sequence[Entry], budget: float | None) -> ClaimedOrder | None:
    """The test at one budget, or over all; None if there are fewer than two blocks."""
    from scipy.stats import page_trend_test  # here because scipy.stats takes a second to import

    gains = [_at(one.counted_draws, budget) for one in entries]
    blocks = _blocks(gains)
    if len(blocks) < 2:
        return None
    means = tuple(map(fmean, zip(*blocks, strict=True)))
    unit = ("targets", "seeds")[group_of(gains[0])]
    labels = tuple(one.label for one in entries)
    p = float(page_trend_test(blocks).pvalue)
    return ClaimedOrder(labels, budget, 0, means, len(blocks), unit, p)


def _entry(board: Board, attack: str) -> Entry | None:
    """The board's entry of an attack; None if it has none, or several of other settings."""
    found = [one for one in board.entries if one.attack == attack]
    return found[0] if len(found) == 1 else None


def _at(values: Draws, budget: float | None) -> Draws:
    return {key: some for key, some in values.items() if budget is None or key[2:] == (budget,)}


def _blocks(gains: Sequence[Draws]) -> list[list[float]]:
    """For every group the mean gain of each attack, over the cells that all of them have."""
    part = group_of(gains[0])
    cells: dict[str, list[list[float]]] = {}
    for column, draws in gains[0].items():
        for draw in draws:
            values = [one.get(column, {}).get(draw) for one in gains]
            if None not in values:
                cells.setdefault(str(draw[part]), []).append([v for v in values if v is not None])
    return [list(map(fmean, zip(*rows, strict=True))) for rows in cells.values()]
