"""Blocks of a table: the cells of one measure, with their spread and the best of every column."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from hashbackdoor_bench.report.formatting import NOTHING, hundredfold, percent
from hashbackdoor_bench.report.mixing import SAME_ATTACK, refuse_mixed, refuse_mixed_victims
from hashbackdoor_bench.report.statistics import Draws, Spread, best, draws, spread
from hashbackdoor_bench.report.tables.parts import Block, Cell, Line, Second


@dataclass(frozen=True)
class Measure:
    """A score as a block shows it.

    Attributes:
        name: its heading.
        field: of a convention's scores.
        text: a share as text.
        marks_best: the highest is the best and may be bold; for the others there is no best.
    """

    name: str
    field: str
    text: Callable[[float | None], str]
    marks_best: bool = False


def block(
    title: str,
    measure: Measure,
    frame: pd.DataFrame,
    columns: Sequence[str],
    convention: str,
    usual: int,
    *,
    victims: str = "column",
) -> Block:
    """Rows × columns of one measure, the significantly best of every column marked.

    Args:
        title: of the block.
        measure: what the cells show.
        frame: the records, with a head in ``row`` and one in ``column``.
        columns: the heads, in their order.
        convention: whose scores.
        usual: number of runs that a cell needn't tell.
        victims: whether a ``column`` or a ``row`` is one victim.

    Raises:
        UserError: a cell would average, or a victim be shown of, what differs in more than draws.
    """
    rows = list(dict.fromkeys(frame["row"]))
    for head, part in frame.groupby(victims, sort=False):
        refuse_mixed_victims(part, str(head))
    found: dict[tuple[str, str], Draws] = {}
    for (row, column), part in frame.groupby(["row", "column"], sort=False):
        what = f"{row} on {column}"
        refuse_mixed(part, what, SAME_ATTACK)
        found[row, column] = draws(part, what, f"{convention}.{measure.field}")
    cells = {key: cell(values, measure.text, usual) for key, values in found.items()}
    if measure.marks_best:
        for key in _best_of_columns(frame, found, columns):
            cells[key] = replace(cells[key], best=True)
    lines = [
        Line(
            row,
            tuple(cells.get((row, column), Cell(NOTHING)) for column in columns),
            _facts(frame, row, convention),
        )
        for row in rows
    ]
    return Block(title, tuple(lines))


def _best_of_columns(
    frame: pd.DataFrame, found: dict[tuple[str, str], Draws], columns: Sequence[str]
) -> list[tuple[str, str]]:
    """The best cell of every column and delivery, if it is told apart from all the others."""
    groups = [
        [(row, column) for row in dict.fromkeys(part["row"]) if found.get((row, column))]
        for _, part in frame.groupby("delivery", sort=True)
        for column in columns
    ]
    winners = best([[found[key] for key in keys] for keys in groups])
    return [
        keys[number] for keys, number in zip(groups, winners, strict=True) if number is not None
    ]


def cell(
    values: Draws,
    text: Callable[[float | None], str],
    usual: int,
    second: tuple[str, Draws] | None = None,
) -> Cell:
    """Mean, spread, and the number of runs where it is one or unusual.

    Args:
        values: shares.
        text: a share as text.
        usual: number of runs that needn't be told.
        second: name and values of a number that stands in parentheses.
    """
    runs = _spread(values)
    if runs is None:
        return Cell(NOTHING)
    shown, beside = _shown(runs, text), None
    count = f"n = {runs.n}" if runs.n == 1 or runs.n != usual else ""
    other = second and _spread(second[1])
    if second and other:
        beside = Second(second[0], 100 * other.mean, hundredfold(other.deviation))
        count = "; ".join(filter(None, [_shown(other, percent), count]))
    if count:
        shown += f" ({count})"
    return Cell(shown, 100 * runs.mean, hundredfold(runs.deviation), runs.n, second=beside)


def _spread(values: Draws) -> Spread | None:
    return spread([value for of_victim in values.values() for value in of_victim.values()])


def _shown(runs: Spread, text: Callable[[float | None], str]) -> str:
    mean = text(runs.mean)
    return mean if runs.deviation is None else f"{mean} ± {percent(runs.deviation)}"


def _facts(frame: pd.DataFrame, row: str, convention: str) -> dict[str, str]:
    """What holds for a row of records, see `parts.LINE_FACTS`."""
    part = frame[frame["row"] == row]
    first = part.iloc[0]
    return {
        "source": "records",
        "dataset": str(first["dataset"]),
        "protocol": str(first["protocol"]),
        "top_k": str(first["top_k"]),
        "convention": convention,
        "delivery": ", ".join(sorted(set(part["delivery"]))),
    }
