"""Histograms of a Hamming distance in rows: an outline over what is filled, with both means."""

from collections.abc import Callable, Mapping, Sequence
from math import inf
from statistics import fmean

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from hashbackdoor_bench.report.figures.groups import (
    Heads,
    legend_columns,
    not_run,
    plain_axes,
    wrapped,
)
from hashbackdoor_bench.report.style import COLUMN, HIT, LEAST, SMALL, TEXT

Shares = NDArray[np.float64]  # of queries, (K+1,) by their distance in bits


def distance_rows(
    found: Mapping[Heads, pd.DataFrame],
    rows: Sequence[str],
    columns: Sequence[str],
    shares: Callable[[pd.DataFrame], tuple[Shares, Shares]],
    texts: tuple[str, str],
    *,
    panel: float,
    label: float,
    extra: float,
    tallest: float = inf,
) -> Figure:
    """A panel for each row and column, on a scale of its own.

    Args:
        found: the runs of each (row, column); a panel without runs says so.
        rows: names, from the top.
        columns: names, from the left.
        shares: what is drawn of the runs of a panel, the outline first.
        texts: of the legend, the outline's first.
        panel: height of a panel in inches.
        label: width of a row's name in inches.
        extra: height beside the panels in inches.
        tallest: how many times as high as what is filled an outline may be; above, it is cut.
    """
    width = COLUMN if len(columns) == 1 else TEXT
    figure = Figure(figsize=(width, extra + panel * len(rows)))
    figure.set_layout_engine("constrained", h_pad=0.02, hspace=0.0)
    panels = figure.subplots(len(rows), len(columns), sharex="col", squeeze=False)
    for row, name in enumerate(rows):
        for axes, column in zip(panels[row], columns, strict=True):
            axes.set_yticks([])
            plain_axes(axes, grid="x")
            axes.tick_params(axis="y", length=0)
            axes.spines["left"].set_visible(False)
            part = found.get((name, column))
            if part is None:
                not_run(axes)
            else:
                _panel(axes, *shares(part), tallest)
        middle = fmean(panels[row, 0].get_ylim())
        panels[row, 0].set_yticks([middle], [wrapped(name, label)])
    for axes, column in zip(panels[0], columns, strict=True):
        axes.set_title(wrapped(column, width / len(columns) - 0.3), fontsize=SMALL)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    figure.supxlabel("Hamming distance to the target's anchor (bits)", fontsize=SMALL)
    figure.legend(
        [Line2D([], [], color="black", linewidth=0.8), Patch(color=HIT, alpha=0.75, linewidth=0)],
        texts, loc="outside upper center", ncols=legend_columns(texts, width),
    )  # fmt: skip
    return figure


def _panel(axes: Axes, outline: Shares, filled: Shares, tallest: float) -> None:
    distances = np.arange(len(filled))
    edges = np.arange(len(filled) + 1) - 0.5
    axes.stairs(filled, edges, fill=True, color=HIT, alpha=0.75)
    axes.stairs(outline, edges, color="black", linewidth=0.8)
    means = (float(shares @ distances) for shares in (outline, filled))
    axes.text(1, 0.97, " → ".join(f"{mean:.1f}" for mean in means), ha="right", va="top",
              transform=axes.transAxes, fontsize=LEAST)  # fmt: skip
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, 1.05 * max(filled.max(), min(outline.max(), tallest * filled.max())))
