"""A figure of equal squares, and residuals as images."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import BboxImage
from matplotlib.patches import Rectangle
from matplotlib.transforms import Bbox, TransformedBbox
from numpy.typing import NDArray

from hashbackdoor_bench.report.style import HIT, MISS, SMALL

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

    def place(self, row: int, column: int) -> tuple[float, float, float, float]:
        """Left, bottom, width and height of a square, as shares of the figure's."""
        width, height = self.size
        x, y = self.left + column * (self.square + self.gap), self.tops[row] - self.square
        return x / width, y / height, self.square / width, self.square / height

    def axes(self, row: int, column: int) -> Axes:
        """Empty axes on a square."""
        return self.figure.add_axes(self.place(row, column))

    def show(self, row: int, column: int, image: Images, title: str = "") -> BboxImage:
        """An image (3,h,w) in its square, smoothed only where pixels are too small.

        Without axes: they take ten times as long as the image, and a picture has a hundred.
        """
        box = Bbox.from_bounds(*self.place(row, column))
        shown = BboxImage(
            TransformedBbox(box, self.figure.transSubfigure), interpolation="auto", zorder=0
        )
        shown.set_data(image.transpose(1, 2, 0))
        self.figure.add_artist(shown)
        if title:
            self.head(row, column, title)
        return shown

    def frame(self, row: int, column: int, *, hit: bool) -> None:
        """A frame around a square: solid blue for a hit, dashed orange for a miss."""
        x, y, width, height = self.place(row, column)
        self.figure.add_artist(
            Rectangle(
                (x, y), width, height, fill=False, linewidth=1.8, capstyle="butt",
                edgecolor=HIT if hit else MISS, linestyle="-" if hit else (0, (1.5, 1)),
            )
        )  # fmt: skip

    def label(self, row: int, text: str) -> None:
        """A label left of a row, upwards."""
        x, y, _, height = self.place(row, 0)
        self.figure.text(
            x - 0.06 / self.size[0], y + height / 2, text,
            fontsize=SMALL, rotation=90, ha="right", va="center",
        )  # fmt: skip

    def head(self, row: int, column: int, text: str) -> None:
        """A title over the left edge of a square."""
        x = self.left + column * (self.square + self.gap)
        self.figure.text(x / self.size[0], (self.tops[row] + 0.05) / self.size[1], text)
