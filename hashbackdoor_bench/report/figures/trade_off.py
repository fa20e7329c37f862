"""What an approximate index gives up for its speed: recall and t-MAP against queries per second."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.style import context
from matplotlib.ticker import NullFormatter

from hashbackdoor_bench.report.figures.finished import FinishedFigure
from hashbackdoor_bench.report.figures.groups import (
    LOG,
    distinct,
    legend_columns,
    plain_axes,
    wrapped,
)
from hashbackdoor_bench.report.style import DASHES, HUES, MARKERS, SMALL, STYLE, TEXT, cycled

PANEL = 1.35  # inches, height
SHOWN = {
    "recall_triggered": "recall, triggered (%)",
    "t_map": "t-MAP (%)",
    "strict_t_map": "strict t-MAP (%)",
}


def trade_off(frame: pd.DataFrame, name: str) -> FinishedFigure:
    """One column of panels per run, one row per score of ``SHOWN``.

    Args:
        frame: one row per index, with ``run``, ``index``, ``queries_per_second`` and the columns of
            ``SHOWN``; the first row of a run is its exact scan.
        name: of the files, to which ``-trade-off`` is added.
    """
    runs, kinds = distinct(frame["run"]), distinct(frame["index"])
    with context(["default", STYLE]):
        figure = Figure(figsize=(TEXT, PANEL * len(SHOWN) + 0.5), layout="constrained")
        panels = figure.subplots(len(SHOWN), len(runs), sharex=True, sharey="row", squeeze=False)
        for run, column in zip(runs, panels.T, strict=True):
            part = frame[frame["run"] == run]
            for axes, score in zip(column, SHOWN, strict=True):
                for kind, rows in part.groupby("index", sort=False):
                    number = kinds.index(kind)
                    rows = rows.sort_values("queries_per_second")
                    axes.plot(
                        rows["queries_per_second"], 100 * rows[score], color=cycled(HUES, number),
                        marker=cycled(MARKERS, number), linestyle=cycled(DASHES, number),
                        markersize=3.6, linewidth=0.8,
                    )  # fmt: skip
                axes.axhline(100 * part[score].iloc[0], color="0.4", linewidth=0.6, zorder=1)
                axes.set_xscale("log")
                axes.xaxis.set_major_formatter(lambda value, place: f"{value:,.0f}")
                axes.xaxis.set_minor_formatter(NullFormatter())
                axes.set_ylim(-4, 104)
                plain_axes(axes)
            column[0].set_title(wrapped(run, TEXT / len(runs) - 0.4), fontsize=SMALL)
            column[-1].set_xlabel(f"queries per second{LOG}: faster →")
        for axes, label in zip(panels[:, 0], SHOWN.values(), strict=True):
            axes.set_ylabel(label)
        marks = [
            Line2D(
                [], [], color=cycled(HUES, i), marker=cycled(MARKERS, i),
                linestyle=cycled(DASHES, i), markersize=3.6, linewidth=0.8,
            )
            for i in range(len(kinds))
        ]  # fmt: skip
        columns = legend_columns(kinds, TEXT)
        figure.legend(marks, kinds, loc="outside upper center", ncols=columns, handlelength=2.4)
    caption = (
        "Recall of the exact k nearest items of triggered queries, and t-MAP under the conventions "
        "field and strict, against the queries per second that an index answers. Each mark is an "
        "index with other settings; the line across is the exact scan. Field rises when an index "
        "loses relevant items from the end of its list; strict counts them.",
    )
    return FinishedFigure(f"{name}-trade-off", figure, caption)
