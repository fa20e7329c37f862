"""A figure of equal squares, and residuals as images."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hashbackdoor_bench.report.style import SMALL

Images = NDArray[np.uint8]  # (n,3,S,S)

AMPLIFY = 10  # times, for differences that the eye doesn't see


def amplified(residual: NDArray[Any]) -> Images:
    """A difference (...,3,S,S) in grey levels, amplified around mid-grey."""
    return np.clip(127.5 + AMPLIFY * residual, 0, 255).astype(np.uint8)


class Canvas:
    """A figure of equal squares at places given in inches; automatic layouts leave uneven gaps."""

    def __init__(
        self,
        *,
        columns: int,
        rows: int,
        width: float,
        gap: float,
        heads: tuple[int, ...],
        side: float = 0.05,
        right: float = 0.05,
        foot: float = 0.05,
    ) -> None:
        head = 0.2  # inches above a row that has a title
        self.gap, self.left, self.heads = gap, side, heads
        self.square = (width - side - right - gap * (columns - 1)) / columns
        height = rows * (self.square + gap) + head * len(heads) + foot
        self.size = (width, height)
        self.tops = [
            height - head * sum(h <= row for h in heads) - row * (self.square + gap)
            for row in range(rows)
        ]
        self.figure = Figure(figsize=self.size)

    def axes(self, row: int, column: int) -> Axes:
        """Empty axes on a square."""
        width, height = self.size
        x, y = self.left + column * (self.square + self.gap), self.tops[row] - self.square
        return self.figure.add_axes(
            (x / width, y / height, self.square / width, self.square / height)
        )

    def show(self, row: int, column: int, image: Images, title: str = "", label: str = "") -> Axes:
        """An image (3,h,w) in its square, smoothed only where pixels are too small; its axes."""
        axes = self.axes(row, column)
        axes.imshow(image.transpose(1, 2, 0), interpolation="auto", aspect="auto")
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
        if title:
            self.head(row, column, title)
        if label:
            axes.set_ylabel(label, fontsize=SMALL)
        return axes

    def head(self, row: int, column: int, text: str) -> None:
        """A title over the left edge of a square."""
        x = self.left + column * (self.square + self.gap)
        self.figure.text(x / self.size[0], (self.tops[row] + 0.05) / self.size[1], text)
