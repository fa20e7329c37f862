"""The picture of a trigger that changes the whole image: what it adds, and what repeats in it."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from hashbackdoor_bench.metrics import Peak, peaks, power
from hashbackdoor_bench.report.pictures.canvas import AMPLIFY, Canvas, Images, amplified
from hashbackdoor_bench.report.style import SMALL, TICKS

QUERIES = 3  # shown one by one
FLOOR = -60  # dB; at 224 px the noise of rounding to 8 bits lies there


def residual(before: Images, after: Images) -> Figure:
    """Three queries, with the trigger, what it adds and the spectrum of that; then the mean's."""
    change = after.astype(float) - before
    shown = min(QUERIES, len(change))
    canvas = Canvas(
        columns=4, rows=shown + 1, width=7.2, gap=0.08, heads=(0, shown), right=0.62, foot=0.36
    )
    for row in range(shown):
        canvas.show(row, 0, before[row])
        canvas.show(row, 1, after[row])
        canvas.show(row, 2, amplified(change[row]))
        _spectrum(canvas.axes(row, 3), change[row])
    heads = ("queries", "with the trigger", f"residual × {AMPLIFY}", "its power spectrum")
    for column, text in enumerate(heads):
        canvas.head(0, column, text)

    mean = change.mean(0)
    canvas.show(shown, 2, amplified(mean), f"mean residual × {AMPLIFY}")
    canvas.head(shown, 3, "its power spectrum")
    axes = canvas.axes(shown, 3)
    picture = _spectrum(axes, mean)
    axes.set_xticks([-0.5, 0, 0.5], ["−0.5", "0", "0.5"])
    axes.set_yticks([-0.5, 0, 0.5], ["−0.5", "0", "0.5"])
    axes.yaxis.tick_right()
    axes.yaxis.set_label_position("right")
    axes.tick_params(**TICKS)
    axes.set_xlabel("$f_x$ (cycles/px)", fontsize=SMALL, labelpad=1, parse_math=True)
    axes.set_ylabel("$f_y$ (cycles/px, downwards)", fontsize=SMALL, labelpad=1, parse_math=True)
    found = peaks(mean)
    _mark(axes, found)
    _list(canvas, shown, found, len(change))

    width, height = canvas.size
    left = canvas.left + 4 * canvas.square + 3 * canvas.gap + 0.08
    bar = canvas.figure.add_axes(
        (left / width, (canvas.tops[0] - canvas.square) / height, 0.08 / width,
         canvas.square / height)
    )  # fmt: skip
    canvas.figure.colorbar(picture, cax=bar, ticks=[FLOOR, FLOOR / 2, 0])
    bar.tick_params(**TICKS)
    bar.set_ylabel("dB of its largest", fontsize=SMALL, labelpad=1)
    return canvas.figure


def _spectrum(axes: Axes, change: NDArray[Any]) -> AxesImage:
    """The power of one residual (3,S,S), the constant part in the middle and left out."""
    share = power(change)
    size = len(share)
    if size % 2 == 0:  # the highest frequency stands at both ends
        share = np.pad(share, (0, 1), mode="wrap")
    level = 10 * np.log10(np.maximum(share, 1e-30) / max(share.max(), 1e-30))
    if not share.any():
        level[:] = FLOOR
    end = len(share) / size / 2
    picture = axes.imshow(
        level, cmap="magma", vmin=FLOOR, vmax=0, interpolation="nearest", aspect="auto",
        extent=(-end, end, end, -end),
    )  # fmt: skip
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    return picture


def _mark(axes: Axes, found: list[Peak]) -> None:
    """Rings around the peaks and their mirror images, and a number at each peak."""
    seen: Any = {"path_effects": [withStroke(linewidth=2, foreground="black")], "color": "white"}
    for number, peak in enumerate(found, start=1):
        for sign in (1, -1):
            axes.plot(
                sign * peak.fx, sign * peak.fy, "o", markersize=7, fillstyle="none",
                markeredgewidth=0.8, clip_on=False, **seen,
            )  # fmt: skip
        side = 1 if peak.fx < 0.1 else -1
        inward = 4 * np.sign(peak.fy) if abs(peak.fy) > 0.45 else 0
        axes.annotate(
            str(number), (peak.fx, peak.fy), (6 * side, inward), textcoords="offset points",
            ha="left" if side > 0 else "right", va="center_baseline", fontsize=SMALL, **seen,
        )  # fmt: skip


def _list(canvas: Canvas, row: int, found: list[Peak], count: int) -> None:
    """The peaks as a table, in the two squares left of the mean residual."""
    width, height = canvas.size
    canvas.head(row, 0, f"mean over {count} queries: peaks of the spectrum")
    lines = [("", "$f_x$", "$f_y$", "share of energy")] + [
        (str(number), f"{peak.fx:.3f}", f"{peak.fy:.3f}".replace("-", "−"), f"{peak.share:.0%}")
        for number, peak in enumerate(found, start=1)
    ]
    if not found:
        lines = [("", "none", "", "")]
    for line, cells in enumerate(lines):
        y = canvas.tops[row] - 0.15 - 0.18 * line
        for x, text in zip((0.15, 0.65, 1.15, 2.2), cells, strict=True):
            canvas.figure.text(
                (canvas.left + x) / width, y / height, text, ha="right", parse_math=not line
            )
