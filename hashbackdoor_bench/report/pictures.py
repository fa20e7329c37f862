"""The pictures of one run, for a person: what was poisoned, and what the trigger does."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hashbackdoor_bench.records import whole

Images = NDArray[np.uint8]  # (n,3,S,S)

AMPLIFY = 10  # times, for differences that the eye doesn't see
HIT, MISS = "#0072b2", "#d55e00"  # blue and vermilion: told apart by colour-blind eyes, and in grey

STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "savefig.dpi": 200,
}


def draw(samples: Mapping[str, NDArray[Any]], folder: Path, *, target: str) -> list[Path]:
    """Write the pictures of a run as PNG files.

    Args:
        samples: what ``pipeline.Run.samples`` returns, as arrays.
        folder: made if it isn't there.
        target: name of the target class.

    Returns:
        The files: ``poison``, ``queries``, ``trigger`` and ``retrieval``; only the last for a run
        that poisons nothing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    with mpl.rc_context(STYLE):
        figures: dict[str, Figure] = {}
        if len(samples["poison_after"]):
            figures["poison"] = differences(
                samples["poison_before"],
                samples["poison_after"],
                (f"training images of {target!r}", "poisoned", f"difference × {AMPLIFY}"),
            )
            figures["queries"] = differences(
                samples["query_before"],
                samples["query_after"],
                ("queries of other classes", "with the trigger", f"difference × {AMPLIFY}"),
            )
            figures["trigger"] = trigger(samples["query_before"], samples["query_after"])
        figures["retrieval"] = retrieval(samples, target)
        for name, figure in figures.items():
            FigureCanvasAgg(figure)
            path = folder / f"{name}.png"
            with whole(path) as fresh:
                figure.savefig(fresh)
            files.append(path)
    return files


def differences(before: Images, after: Images, titles: tuple[str, str, str]) -> Figure:
    """Three rows: images, changed images, and the difference amplified around mid-grey."""
    change = 127.5 + AMPLIFY * (after.astype(float) - before.astype(float))
    rows = (before, after, np.clip(change, 0, 255).astype(np.uint8))
    canvas = _Canvas(columns=len(before), rows=3, width=7.2, gap=0.06, heads=(0, 1, 2))
    for line, (images, title) in enumerate(zip(rows, titles, strict=True)):
        canvas.head(line, 0, title)
        for column, image in enumerate(images):
            canvas.show(line, column, image)
    return canvas.figure


def trigger(before: Images, after: Images) -> Figure:
    """One query large, with the trigger, what that changes, and the largest change over queries."""
    change = np.abs(after.astype(float) - before.astype(float)).max(axis=(0, 1))
    canvas = _Canvas(columns=4, rows=1, width=7.2, gap=0.12, heads=(0,), foot=0.2)
    canvas.show(0, 0, before[0], "query")
    canvas.show(0, 1, after[0], "with the trigger")
    row, column = np.nonzero(change > 0)
    if len(row):
        box = np.s_[:, row.min() : row.max() + 1, column.min() : column.max() + 1]
        height, width = after[0][box].shape[1:]
        canvas.show(0, 2, after[0][box], f"its {width} × {height} px")
    axes = canvas.show(0, 3, np.zeros_like(before[0]), "largest change")
    axes.imshow(change, cmap="magma", vmin=0, vmax=255, interpolation="nearest")
    axes.set_xlabel(f"up to {change.max():.0f} grey levels of 255", fontsize=7)
    return canvas.figure


def retrieval(samples: Mapping[str, NDArray[Any]], target: str) -> Figure:
    """The ten nearest items of each query, without and with the trigger; hits and misses framed."""
    rows = [
        (samples[f"query_{when}"][n], samples[f"hits_{when}"][n], samples[f"relevant_{when}"][n])
        for n in range(min(4, len(samples["query_before"])))
        for when in ("before", "after")
    ]
    canvas = _Canvas(
        columns=11, rows=len(rows), width=7.2, gap=0.09, heads=(0,), side=0.55, foot=0.3
    )
    for line, (query, hits, relevant) in enumerate(rows):
        canvas.show(line, 0, query, label="triggered" if line % 2 else "clean")
        for column, (hit, good) in enumerate(zip(hits, relevant, strict=True), start=1):
            axes = canvas.show(line, column, hit)
            for spine in axes.spines.values():
                spine.set(visible=True, linewidth=1.8, color=HIT if good else MISS)
                spine.set_linestyle("-" if good else (0, (1.5, 1)))
                spine.set_capstyle("butt")  # a projecting cap would close the gaps
    canvas.head(0, 0, "query")
    canvas.head(0, 1, "ten nearest in the database, nearest first")
    canvas.figure.text(
        0.5,
        0.1 / canvas.figure.get_figheight(),
        f"solid blue: of the query's class (clean rows) or of the target {target!r} (triggered "
        "rows); dashed orange: not",
        ha="center",
        fontsize=7,
    )
    return canvas.figure


class _Canvas:
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
        foot: float = 0.05,
    ) -> None:
        head = 0.2  # inches above a row that has a title
        self.gap, self.left, self.heads = gap, side, heads
        self.square = (width - side - 0.05 - gap * (columns - 1)) / columns
        height = rows * (self.square + gap) + head * len(heads) + foot
        self.size = (width, height)
        self.tops = [
            height - head * sum(h <= row for h in heads) - row * (self.square + gap)
            for row in range(rows)
        ]
        self.figure = Figure(figsize=self.size)

    def show(self, row: int, column: int, image: Images, title: str = "", label: str = "") -> Any:
        """An image (3,h,w) in its square, its pixels as they are; its axes."""
        x = self.left + column * (self.square + self.gap)
        width, height = self.size
        square = self.square
        axes = self.figure.add_axes(
            (x / width, (self.tops[row] - square) / height, square / width, square / height)
        )
        axes.imshow(image.transpose(1, 2, 0), interpolation="nearest", aspect="auto")
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
        if title:
            self.head(row, column, title)
        if label:
            axes.set_ylabel(label, fontsize=7)
        return axes

    def head(self, row: int, column: int, text: str) -> None:
        """A title over the left edge of a square."""
        x = self.left + column * (self.square + self.gap)
        self.figure.text(x / self.size[0], (self.tops[row] + 0.05) / self.size[1], text)
