"""How triggers made on one network do on another: one heatmap per attack."""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from hashbackdoor_bench.report.captions import conditions, provenance
from hashbackdoor_bench.report.figures.finished import FinishedFigure, Unfilled
from hashbackdoor_bench.report.figures.groups import (
    Heads,
    distinct,
    run_count,
    runs_by_head,
    spread_of,
    wrapped,
)
from hashbackdoor_bench.report.selection import surrogate_difference, surrogate_heads, victim_heads
from hashbackdoor_bench.report.statistics import Spread
from hashbackdoor_bench.report.style import COLUMN, LEAST, SEQUENCE, SMALL, TEXT

STEP = 10  # points of percent: the range of the colours begins and ends at multiples
LETTER = 0.058  # inches for each letter of a head
DARK = 0.45  # share of the range where the text turns from white to black


def transfer(frame: pd.DataFrame, convention: str) -> list[FinishedFigure]:
    """Backdoor gain, surrogates × victims; the white box is framed.

    Raises:
        Unfilled: no attack has two surrogates.
    """
    taken = frame[frame["surrogate"].notna()]
    taken = taken.assign(head=victim_heads(taken), other=surrogate_heads(taken))
    # the white box alone, with one surrogate per victim, shows no transfer
    crossed = taken.groupby(["name", "head"])["other"].transform("nunique") > 1
    taken = taken[taken["name"].isin(set(taken["name"][crossed]))]
    if taken.empty:
        raise Unfilled(
            "figure transfer: no attack among these records was crafted on two surrogates for one "
            "victim; `bench suite run transfer-mini` makes such runs."
        )
    found = runs_by_head(taken, ("name", "other", "head"))
    names, rows, columns = (distinct(taken[column]) for column in ("name", "other", "head"))
    width = COLUMN if len(columns) <= 4 and len(names) <= 2 else TEXT
    across = min(len(names), 2 if width == COLUMN else 3)
    down = -(-len(names) // across)
    side = (width - 1.2) / across / len(columns)
    titles = {name: wrapped(name, side * len(columns)) for name in names}
    lines = max(title.count("\n") for title in titles.values())
    figure = Figure(
        figsize=(width, down * (min(max(side, 0.4), 0.6) * len(rows) + 0.55 + 0.13 * lines) + 0.15),
        layout="constrained",
    )
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    for axes in panels.flat[len(names) :]:
        axes.set_visible(False)
    levels = {
        heads: spread_of(part, f"{convention}.backdoor_gain", 100) for heads, part in found.items()
    }
    means = [one.mean for one in levels.values() if one is not None]
    low, high = STEP * math.floor(min(means) / STEP), STEP * math.ceil(max(means) / STEP)
    limits = low, max(high, low + STEP)
    for axes, name in zip(panels.flat, names, strict=False):
        picture = _panel(axes, found, (name, rows, columns), levels, limits, side)
        axes.set_title(titles[name], fontsize=SMALL)
    for axes in panels[-1]:
        axes.set_xlabel("victim")
    for axes in panels[:, 0]:
        axes.set_ylabel("surrogate")
    bar = figure.colorbar(picture, ax=panels, aspect=20 * down, pad=0.02)
    bar.ax.tick_params(labelsize=SMALL, length=2, pad=2)
    bar.outline.set_visible(False)
    bar.set_label("backdoor gain (points)")
    caption = (
        "Backdoor gain, in points of percent, of triggers crafted on one network (rows) against "
        "another (columns): the mean and below it the standard deviation of a single run; × was "
        "not run. The colours span the gains that are shown. "
        "A frame is the white box: the surrogate is of the victim's method, backbone and "
        "bits, with a seed of its own.",
        run_count(found.values(), "cell"),
        *conditions(taken, convention),
        *provenance(taken),
    )
    return [FinishedFigure("transfer", figure, caption)]


def _panel(
    axes: Axes,
    found: dict[Heads, pd.DataFrame],
    heads: tuple[str, list[str], list[str]],
    levels: Mapping[Heads, Spread | None],
    limits: tuple[int, int],
    side: float,
) -> AxesImage:
    name, rows, columns = heads
    low, high = limits
    level = np.full((len(rows), len(columns)), np.nan)
    for y, row in enumerate(rows):
        for x, column in enumerate(columns):
            one = levels.get((name, row, column))
            if one is None:
                axes.text(x, y, "×", ha="center", va="center", color="0.5", fontsize=SMALL)
                continue
            level[y, x] = one.mean
            ink = "white" if level[y, x] < low + DARK * (high - low) else "black"
            spread = "n = 1" if one.deviation is None else f"±{one.deviation:.1f}"
            text = f"{level[y, x]:.1f}".replace("-", "−")
            axes.text(x, y - 0.03, text, ha="center", va="bottom", color=ink, fontsize=SMALL)
            axes.text(x, y + 0.03, spread, ha="center", va="top", color=ink, fontsize=LEAST)
            if not surrogate_difference(found[name, row, column].iloc[0].to_dict()):
                axes.add_patch(
                    Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, fill=False, edgecolor=ink,
                              linewidth=0.9)
                )  # fmt: skip
    picture = axes.imshow(level, cmap=SEQUENCE, vmin=low, vmax=high, aspect="auto")
    wide = max(map(len, columns)) * LETTER > side
    axes.set_xticks(
        range(len(columns)), columns, rotation=30 if wide else 0, ha="right" if wide else "center"
    )
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(labelsize=SMALL, length=0, pad=2)
    axes.spines[:].set_visible(False)
    return picture
