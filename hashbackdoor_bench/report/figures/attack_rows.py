"""Panels with a row for each attack and, within a row, a line for each victim; or the reverse."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hashbackdoor_bench.report.board.rules import attacks_nothing
from hashbackdoor_bench.report.figures.groups import (
    distinct,
    legend_columns,
    plain_axes,
    wrapped,
)
from hashbackdoor_bench.report.style import HUES, MARKERS, SMALL, cycled

LINE = 0.095  # inches for each line of a row
APART = 0.11  # inches between rows
LETTERS, CLEAR = 0.13, 0.04  # inches for each line of a label, and between two labels
LABEL = 1.3  # inches for the rows' names
MARK = 3.6  # pt
NOT_COMPARED = (
    "Attacks that differ in the delivery of poison or in the type of its labels stand in panels of "
    "their own and are not compared."
)


@dataclass(frozen=True)
class Rows:
    """The rows of one panel.

    Attributes:
        panel: its heading, see `with_panels`.
        names: of the rows, from the top.
        marks: of the lines within each row, from its top.
        inches: height of a row.
    """

    panel: str
    names: tuple[str, ...]
    marks: tuple[str, ...]
    inches: float

    def y(self, name: str, mark: str) -> float:
        """Where the line of a mark in a row is; rows are one apart, the first at zero."""
        middle = (len(self.marks) - 1) / 2
        return self.names.index(name) + (self.marks.index(mark) - middle) * LINE / self.inches


def with_panels(frame: pd.DataFrame) -> pd.DataFrame:
    """The records with the heading of their ``panel``: delivery and type of labels.

    Attacks of two such panels are never compared. A control without a trigger can stand in all of
    its delivery, as on the boards; it is shown in the first.
    """
    controls = [attacks_nothing(record.threat) for record in frame["record"]]
    labels = frame["label_kind"].mask(pd.Series(controls, frame.index))
    first = labels.groupby(frame["delivery"]).transform("min")
    labels = labels.fillna(first).fillna(frame["label_kind"])
    return frame.assign(panel="delivery: " + frame["delivery"] + ", " + labels + " labels")


def rows_by_panel(frame: pd.DataFrame, row_of: str, mark_of: str) -> list[Rows]:
    """The rows of every panel.

    Args:
        frame: the records, from `with_panels`.
        row_of: column whose values are the rows.
        mark_of: column whose values are the lines of a row.
    """
    found = []
    for panel in sorted(set(frame["panel"])):
        part = frame[frame["panel"] == panel]
        marks = [mark for mark in distinct(frame[mark_of]) if mark in set(part[mark_of])]
        names = distinct(part[row_of])
        lines = 1 + max(wrapped(name, LABEL).count("\n") for name in names)
        inches = max(LINE * len(marks) + APART, LETTERS * lines + CLEAR)
        found.append(Rows(panel, tuple(names), tuple(marks), inches))
    return found


def panels_of_rows(
    rows: Sequence[Rows], across: int, width: float
) -> tuple[Figure, list[list[Axes]]]:
    """A figure and its panels: for each of ``rows``, ``across`` of them side by side.

    Args:
        rows: of the panels, from the top.
        across: panels side by side; those of a column share their scale.
        width: of the figure in inches.
    """
    heights = [len(one.names) * one.inches for one in rows]
    figure = Figure(figsize=(width, sum(heights) + 0.6 + 0.25 * len(rows)), layout="constrained")
    grid = figure.subplots(
        len(rows), across, sharex="col", squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for panels, one in zip(grid, rows, strict=True):
        panels[0].set_title(one.panel, fontsize=SMALL)
        for axes in panels:
            axes.set_yticks(range(len(one.names)), [""] * len(one.names))
            axes.set_ylim(len(one.names) - 0.5, -0.5)
            plain_axes(axes, grid="x")
            axes.tick_params(axis="y", length=0)
            for row in range(1, len(one.names), 2):
                axes.axhspan(row - 0.5, row + 0.5, color="0.95", linewidth=0)
        panels[0].set_yticklabels([wrapped(name, LABEL) for name in one.names])
    return figure, [list(panels) for panels in grid]


def legend_of_marks(figure: Figure, names: Sequence[str], *, more: Sequence[Line2D] = ()) -> None:
    """A legend above the panels of the marks in their hues, and of what else there is.

    Args:
        figure: to which it is added.
        names: of the marks, in the order of their hues.
        more: lines whose label says what they are.
    """
    marks = [
        Line2D([], [], color=cycled(HUES, i), marker=cycled(MARKERS, i), markersize=MARK,
               linewidth=0.8, label=wrapped(name, figure.get_figwidth() - 0.6))
        for i, name in enumerate(names)
    ]  # fmt: skip
    shown = [*marks, *more]
    figure.legend(
        shown, [str(one.get_label()) for one in shown], loc="outside upper center",
        ncols=legend_columns([str(one.get_label()) for one in shown], figure.get_figwidth()),
        handlelength=1.6,
    )  # fmt: skip
