"""The order that CIBA's poster prints, Tri < Tri+Noise < Tri+Adv < CIBA, tested on a board.

The test is Page's, for ordered alternatives (Journal of the American Statistical Association 1963):
in every block the four gains are ranked, and L = sum_k k (sum of the ranks of attack k) is large if
the ranks rise in the order. A block is all of one group (`statistics.unit_of`), averaged: of one
target, or of one seed. A board over budgets is tested as a whole, averaged over them too, and then
at each budget, with Holm's correction over the budgets.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import permutations
from statistics import fmean

import numpy as np

from hashbackdoor_bench.report.board.boards import Board
from hashbackdoor_bench.report.board.entries import Entry
from hashbackdoor_bench.report.formatting import percent
from hashbackdoor_bench.report.statistics import (
    LEAST_GROUPS,
    LEVEL,
    Draws,
    estimate,
    holm,
    unit_of_values,
)
from hashbackdoor_bench.text import listed

ATTACKS = ("tri", "tri_noise", "tri_adv", "ciba")


@dataclass(frozen=True)
class ClaimedOrder:
    """What came out on a board, as a whole or at one budget.

    Attributes:
        labels: the four attacks, from the one that should be lowest.
        budget: share of the target class; None for the whole board.
        budgets: over how many budgets p is corrected; 0 for the whole board.
        means: backdoor gain of each over the cells that all four have, each victim (and budget)
            with the same weight, as on the board.
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

    @property
    def cells(self) -> tuple[str, ...]:
        """Its row of a table: budget, the gains, number of blocks, p."""
        budget = "all" if self.budget is None else f"{100 * self.budget:g} %"
        return (budget, *map(percent, self.means), str(self.blocks), f"{self.p:.3f}")


@dataclass(frozen=True)
class OrderTable:
    """The outcomes of one board as a sentence and a table.

    Attributes:
        sentence: where the order is confirmed.
        columns: heads.
        rows: `ClaimedOrder.cells`.
    """

    sentence: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def order_tables(board: Board) -> list[OrderTable]:
    """The table of `claimed_order`; none where nothing is tested."""
    found = claimed_order(board)
    if not found:
        return []
    whole, *parts = found
    outcome = "is confirmed" if whole.p < LEVEL else "is not confirmed"
    if parts:
        sure = [one.cells[0] for one in parts if one.p < LEVEL]
        if sure:
            outcome += f" over all budgets, {'and' if whole.p < LEVEL else 'but'} at {listed(sure)}"
        else:
            outcome += ", but at no single budget" if whole.p < LEVEL else ", nor at any budget"
    corrected = f"; p at one of the {len(parts)} budgets is corrected by Holm's method"
    sentence = (
        f"The published order {' < '.join(whole.labels)} {outcome} (Page's test over "
        f"{whole.unit}, on the runs that all four have{corrected if parts[1:] else ''})."
    )
    columns = ("budget", *whole.labels, whole.unit, "p")
    return [OrderTable(sentence, columns, tuple(one.cells for one in found))]


def claimed_order(board: Board) -> list[ClaimedOrder]:
    """The test on a board and at each budget; none where it lacks an attack or blocks."""
    chosen = [_entry(board, attack) for attack in ATTACKS]
    entries = [one for one in chosen if one is not None]
    if len(entries) < len(ATTACKS):
        return []
    whole, *parts = (_tested(entries, budget) for budget in (None, *board.budgets))
    if whole is None:
        return []
    known = [one for one in parts if one is not None]
    corrected = [
        replace(one, p=p, budgets=len(known))
        for one, p in zip(known, holm([one.p for one in known]), strict=True)
    ]
    return [whole, *corrected]


def _tested(entries: Sequence[Entry], budget: float | None) -> ClaimedOrder | None:
    """The test at one budget, or over all; None if there are fewer blocks than a test needs."""
    gains = _shared([_at(one.counted_draws, budget) for one in entries])
    blocks = _blocks(gains)
    if len(blocks) < LEAST_GROUPS:
        return None
    means = tuple(found.mean for found in map(estimate, gains) if found)
    unit = f"{unit_of_values(gains[0])}s"
    labels = tuple(one.label for one in entries)
    p = _page(blocks)
    return ClaimedOrder(labels, budget, 0, means, len(blocks), unit, p)


def _page(blocks: Sequence[Sequence[float]]) -> float:
    """The p of Page's test: the share of all ways to rank the blocks with so large an L, or larger.

    scipy.stats has this test, and takes longer to import than a leaderboard to rank. Where gains
    tie, their ranks are averaged and L is rounded down, as there.

    Args:
        blocks: the values of each, in the order that is tested.
    """
    rows = np.array(blocks)
    one, other = rows[:, :, None], rows[:, None, :]
    above, equal = (one > other).sum(2), (one == other).sum(2)
    order = np.arange(1, rows.shape[1] + 1)
    found = (order * (above + (equal + 1) / 2)).sum()
    ways = np.bincount([order @ ranks for ranks in permutations(order)])  # by L, of one block
    shares = reduce(np.convolve, [ways / ways.sum()] * len(rows))
    return float(shares[int(found) :].sum())


def _entry(board: Board, attack: str) -> Entry | None:
    """The board's entry of an attack; None if it has none, or several of other settings."""
    found = [one for one in board.entries if one.attack == attack]
    return found[0] if len(found) == 1 else None


def _at(values: Draws, budget: float | None) -> Draws:
    return {key: some for key, some in values.items() if budget is None or key[2:] == (budget,)}


def _shared(gains: Sequence[Draws]) -> list[Draws]:
    """Of each attack the cells that all of them have."""
    cells = [{(column, draw) for column in one for draw in one[column]} for one in gains]
    shared = set.intersection(*cells)
    kept = [
        {c: {d: gain for d, gain in draws.items() if (c, d) in shared} for c, draws in one.items()}
        for one in gains
    ]
    return [{column: draws for column, draws in one.items() if draws} for one in kept]


def _blocks(gains: Sequence[Draws]) -> list[tuple[float, ...]]:
    """For every group the mean gain of each attack over its cells, which all of them have."""
    part = int(unit_of_values(gains[0]) == "seed")
    cells: dict[str, list[list[float]]] = {}
    for column, draws in gains[0].items():
        for draw in draws:
            values = [one[column][draw] for one in gains]
            cells.setdefault(str(draw[part]), []).append(values)
    return [tuple(map(fmean, zip(*rows, strict=True))) for rows in cells.values()]
