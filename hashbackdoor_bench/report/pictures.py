"""The pictures of one run, for a person to look at: what was poisoned, and what the trigger does."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

Images = NDArray[np.uint8]  # (n,3,S,S)

AMPLIFY = 10  # times, for differences that the eye doesn't see
HIT, MISS = "#0072b2", "#d55e00"  # blue and vermilion: told apart by colour-blind eyes, and in grey

STYLE = {
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
            figure.savefig(path)
            files.append(path)
    return files


def differences(before: Images, after: Images, titles: tuple[str, str, str]) -> Figure:
    """Three rows: images, changed images, and the difference amplified around mid-grey."""
    change = 127.5 + AMPLIFY * (after.astype(float) - before.astype(float))
    rows = (before, after, np.clip(change, 0, 255).astype(np.uint8))
    columns = len(before)
    figure = Figure(figsize=(0.85 * columns + 0.1, 3 * 1.05), layout="constrained")
    grid = figure.subplots(3, columns, squeeze=False)
    for line, images, title in zip(grid, rows, titles, strict=True):
        line[0].set_title(title)
        for axes, image in zip(line, images, strict=True):
            _show(axes, image)
    return figure


def trigger(before: Images, after: Images) -> Figure:
    """One query large, with the trigger, and the mean change over the queries."""
    change = np.abs(after.astype(float) - before.astype(float)).max(axis=(0, 1))
    figure = Figure(figsize=(6.2, 2.25), layout="constrained")
    axes = figure.subplots(1, 4, width_ratios=(1, 1, 1, 1.12))
    row, column = np.nonzero(change > 0)
    for place, image, title in (
        (axes[0], before[0], "query"),
        (axes[1], after[0], "with the trigger"),
    ):
        _show(place, image)
        place.set_title(title)
    if len(row):
        box = np.s_[:, row.min() : row.max() + 1, column.min() : column.max() + 1]
        _show(axes[2], after[0][box])
        height, width = after[0][box].shape[1:]
        axes[2].set_title(f"what it changes: {width}×{height} px")
    else:
        axes[2].set_axis_off()
    shown = axes[3].imshow(change, cmap="magma", vmin=0, vmax=max(1.0, change.max()))
    axes[3].set_title("largest change")
    axes[3].set_xticks([])
    axes[3].set_yticks([])
    bar = figure.colorbar(shown, ax=axes[3], fraction=0.05)
    bar.set_label("grey levels of 255")
    return figure


def retrieval(samples: Mapping[str, NDArray[Any]], target: str) -> Figure:
    """The ten nearest items of each query, without and with the trigger; hits and misses framed."""
    rows = [
        (samples[f"query_{when}"][n], samples[f"hits_{when}"][n], samples[f"relevant_{when}"][n])
        for n in range(min(4, len(samples["query_before"])))
        for when in ("before", "after")
    ]
    figure = Figure(figsize=(7.2, 0.68 * len(rows) + 0.55), layout="constrained")
    grid = figure.subplots(len(rows), 12, width_ratios=[1, 0.15, *[1] * 10], squeeze=False)
    for number, (line, (query, hits, relevant)) in enumerate(zip(grid, rows, strict=True)):
        _show(line[0], query)
        line[1].set_axis_off()
        line[0].set_ylabel("triggered" if number % 2 else "clean", fontsize=7)
        for axes, hit, good in zip(line[2:], hits, relevant, strict=True):
            _show(axes, hit)
            for spine in axes.spines.values():
                spine.set(visible=True, linewidth=2.2, color=HIT if good else MISS)
                spine.set_linestyle("-" if good else (0, (2, 1)))
    grid[0][0].set_title("query")
    grid[0][2].set_title("ten nearest in the database, nearest first")
    figure.supxlabel(
        f"solid blue: of the query's class (clean rows) or of the target {target!r} (triggered "
        "rows); dashed orange: not",
        fontsize=7,
    )
    return figure


def _show(axes: Any, image: Images) -> None:
    """An image (3,h,w) without ticks, its pixels as they are."""
    axes.imshow(image.transpose(1, 2, 0), interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
