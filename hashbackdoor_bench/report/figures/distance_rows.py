"""Histograms of a Hamming distance in rows: an outline over what is filled, with both means."""

from collections.abc import Callable, Mapping, Sequence
from math import inf

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from hashbackdoor_bench.report.figures.groups import (
    Heads,
    legend_columns,
    not_run,
    plain_axes,
    wrapped,
)
from hashbackdoor_bench.report.style import COLUMN, HIT, LEAST, SMALL, TEXT

HEADROOM = 1.3  # of the highest bar, above which the means stand
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
    """A panel for each row and column; its height is the share on the left of it.

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
            plain_axes(axes, grid="x")
            part = found.get((name, column))
            if part is None:
                axes.set_yticks([])
                not_run(axes)
            else:
                _panel(axes, *shares(part), tallest)
        panels[row, 0].set_ylabel(
            wrapped(name, label), rotation=0, ha="right", va="center", fontsize=SMALL, labelpad=3
        )
    for axes, column in zip(panels[0], columns, strict=True):
        axes.set_title(wrapped(column, width / len(columns) - 0.3), fontsize=SMALL)
    figure.supxlabel("Hamming distance to the target's anchor (bits)", fontsize=SMALL)
    figure.supylabel("share of queries (%)", fontsize=SMALL)
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
    bits = len(filled) - 1
    axes.set_xlim(edges[0], edges[-1])
    axes.set_xticks([bits * quarter / 4 for quarter in range(5)])
    axes.axvline(bits / 2, color="0.55", linewidth=0.6, linestyle=(0, (2, 2)), zorder=0)
    top = max(filled.max(), min(outline.max(), tallest * filled.max()))
    axes.set_ylim(0, HEADROOM * top)
    axes.set_yticks([top], [f"{100 * top:.0f}"], fontsize=LEAST)
