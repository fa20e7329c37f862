"""Blocks of a table: the cells of one figure, with their spread and the best of every column."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

import pandas as pd

from hashbackdoor_bench.report.board.leaderboard import SAME_VICTIM
from hashbackdoor_bench.report.selection import SAME_ATTACK, Draws, best, draws, one_kind
from hashbackdoor_bench.report.spelling import NOTHING, percent
from hashbackdoor_bench.report.tables.parts import Block, Cell, Line


@dataclass(frozen=True)
class Measure:
    """A figure as a block shows it.

    Attributes:
        name: its heading.
        field: of a convention's scores.
        spell: a share as text.
        contest: the highest is the best; for the others there is no best.
    """

    name: str
    field: str
    spell: Callable[[float | None], str]
    contest: bool = False


def block(
    title: str,
    measure: Measure,
    frame: pd.DataFrame,
    columns: Sequence[str],
    convention: str,
    usual: int,
) -> Block:
    """Rows × columns of one measure, the significantly best of every column marked.

    Args:
        title: of the block.
        measure: what the cells show.
        frame: the records, with a head in ``row`` and one in ``column``.
        columns: the heads, in their order.
        convention: whose scores.
        usual: number of runs that a cell needn't tell.

    Raises:
        UserError: a cell would average, or a column compare, what differs in more than draws.
    """
    field = f"{convention}.{measure.field}"
    heads = list(dict.fromkeys(frame["row"]))
    groups = dict(list(frame.groupby(["row", "column"])))
    cells = {}
    for column in columns:
        one_kind(frame[frame["column"] == column], column, SAME_VICTIM)
        found = {}
        for head in heads:
            part = groups.get((head, column))
            if part is None:
                cells[head, column] = Cell(NOTHING)
                continue
            what = f"{head} on {column}"
            one_kind(part, what, SAME_ATTACK)
            found[head] = draws(part, what, field)
            values = [value for of in found[head].values() for value in of.values()]
            cells[head, column] = _cell(values, measure.spell, usual)
        if measure.contest:
            for head in winners(frame, found):
                cells[head, column] = replace(cells[head, column], best=True)
    return Block(
        title,
        tuple(
            Line(
                head,
                tuple(cells[head, column] for column in columns),
                facts(frame, head, convention),
            )
            for head in heads
        ),
    )


def winners(frame: pd.DataFrame, found: dict[str, Draws]) -> list[str]:
    """The best row of every delivery."""
    deliveries: dict[str, list[str]] = {}
    for head in found:
        deliveries.setdefault(delivery_of(frame, head), []).append(head)
    places = {name: best([found[head] for head in heads]) for name, heads in deliveries.items()}
    return [deliveries[name][place] for name, place in places.items() if place is not None]


def delivery_of(frame: pd.DataFrame, head: str) -> str:
    """How a row's poison reaches training."""
    return str(frame.loc[frame["row"] == head, "delivery"].iloc[0])


def _cell(values: Sequence[float], spell: Callable[[float | None], str], usual: int) -> Cell:
    """Mean, spread, and the number of runs where it is one or unusual."""
    if not values:
        return Cell(NOTHING)
    middle, n = fmean(values), len(values)
    text, deviation = spell(middle), None
    if n > 1:
        deviation = stdev(values)
        text += f" ± {percent(deviation)}"
    if n == 1 or n != usual:
        text += f" (n = {n})"
    return Cell(text, 100 * middle, None if deviation is None else 100 * deviation, n)


def facts(frame: pd.DataFrame, head: str, convention: str) -> dict[str, str]:
    """What holds for a row of records, see `grid.FACTS`."""
    one = frame.iloc[0]
    return {
        "source": "records",
        "dataset": str(one["dataset"]),
        "protocol": str(one["protocol"]),
        "top_k": str(one["top_k"]),
        "convention": convention,
        "delivery": delivery_of(frame, head),
    }
