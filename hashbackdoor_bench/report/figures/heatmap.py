"""Means in the cells of a grid, with their spread and a colour."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from hashbackdoor_bench.report.figures.groups import pale
from hashbackdoor_bench.report.statistics import Spread
from hashbackdoor_bench.report.style import LEAST, SEQUENCE, SMALL

STEP = 10  # percentage points: the range of the colours begins and ends at multiples
LETTER = 0.058  # inches for each letter of a head
BAR = 0.11  # inches: width of the scale of the colours
# so light that black text has a contrast of 7 on all of them
COLOURS = ListedColormap([pale(colour) for colour in colormaps[SEQUENCE](np.linspace(0, 1, 256))])

Cells = Mapping[tuple[str, str], Spread | None]  # by row and column, in percent
Limits = tuple[int, int]


def limits_of(cells: Iterable[Spread | None]) -> Limits:
    """The range of the colours, in percent: that of the means, rounded outwards; all if none is."""
    means = [one.mean for one in cells if one is not None]
    if not means:
        return 0, 100
    low = STEP * math.floor(min(means) / STEP)
    return low, max(STEP * math.ceil(max(means) / STEP), low + STEP)


def heatmap(
    axes: Axes,
    cells: Cells,
    heads: tuple[Sequence[str], Sequence[str]],
    limits: Limits,
    side: float,
) -> AxesImage:
    """Draw the grid; a cell without a mean holds a cross.

    Args:
        axes: where.
        cells: means with the standard deviation of a single run.
        heads: of rows and columns.
        limits: from `limits_of`.
        side: width of a cell in inches.
    """
    rows, columns = heads
    level = np.full((len(rows), len(columns)), np.nan)
    for y, row in enumerate(rows):
        for x, column in enumerate(columns):
            one = cells.get((row, column))
            if one is None:
                axes.text(x, y, "×", ha="center", va="center", color="0.5", fontsize=SMALL)
                continue
            level[y, x] = one.mean
            spread = "n = 1" if one.deviation is None else f"±{one.deviation:.1f}"
            text = f"{one.mean:z.1f}".replace("-", "−")
            axes.text(x, y - 0.03, text, ha="center", va="bottom", fontsize=SMALL)
            axes.text(x, y + 0.03, spread, ha="center", va="top", fontsize=LEAST)
    picture = axes.imshow(level, cmap=COLOURS, vmin=limits[0], vmax=limits[1], aspect="auto")
    wide = max(map(len, columns)) * LETTER > side
    axes.set_xticks(
        range(len(columns)), columns, rotation=30 if wide else 0, ha="right" if wide else "center"
    )
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(labelsize=SMALL, length=0, pad=2)
    axes.spines[:].set_visible(False)
    return picture


def scale(figure: Figure, picture: AxesImage, panels: Iterable[Axes], label: str) -> None:
    """Add the scale of the colours on the right of the panels."""
    tall = figure.get_figheight() / BAR
    bar = figure.colorbar(picture, ax=list(panels), aspect=tall, pad=0.02)
    bar.ax.tick_params(labelsize=SMALL, length=2, pad=2)
    bar.outline.set_visible(False)
    bar.set_label(label)
