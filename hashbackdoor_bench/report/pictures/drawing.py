"""The pictures of one run, for a person: what was poisoned, and what the trigger does."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hashbackdoor_bench.files import whole
from hashbackdoor_bench.report.lettering import legible
from hashbackdoor_bench.report.pictures.canvas import AMPLIFY, Canvas, Images, amplified
from hashbackdoor_bench.report.pictures.curves import training
from hashbackdoor_bench.report.pictures.residual import residual
from hashbackdoor_bench.report.style import SMALL, STYLE
from hashbackdoor_bench.text import quoted

DPI = 200  # for a screen: every run has these
MOST_CLASSES, TITLE = 4, 120  # classes named over a row, and the characters they may have
FULL = 0.25  # of an image's pixels: a trigger that changes more is no patch


def draw(
    samples: Mapping[str, NDArray[Any]],
    folder: Path,
    *,
    target: str,
    sources: Sequence[str] = (),
    relabelled: bool = False,
    curves: Mapping[str, Sequence[float]] | None = None,
) -> list[Path]:
    """Write the pictures of a run as PNG files.

    Args:
        samples: what `images_of` of a finished run returns, as arrays.
        folder: made if it isn't there.
        target: name of the target class.
        sources: names of the classes of the poisoned images; none given: the target.
        relabelled: whether the poisoned images get the target's labels.
        curves: how crafting went, see `curves.training`; None or empty where nothing was trained.

    Returns:
        The files: ``poison``, ``queries``, ``trigger`` (for one that changes most of the image
        ``residual`` in its place), ``retrieval`` and, with curves, ``curves``; none of the first
        three for a run that poisons nothing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    with mpl.rc_context(STYLE):
        figures: dict[str, Figure] = {}
        if len(samples["poison_after"]):
            groups = [
                Changed(
                    samples["poison_before"],
                    samples["poison_after"],
                    f"training images of {_several(sources or (target,))}",
                    f"poisoned, labelled {quoted(target)}" if relabelled else "poisoned",
                )
            ]
            if len(samples["cover_after"]):
                groups.append(
                    Changed(
                        samples["cover_before"],
                        samples["cover_after"],
                        "training images of other classes",
                        "covers, which keep their label",
                    )
                )
            figures["poison"] = differences(*groups)
            queries = samples["query_before"], samples["query_after"]
            figures["queries"] = differences(
                Changed(*queries, "queries of other classes", "with the trigger")
            )
            changes = samples["query_before"], samples["query_after"]
            if _covers(*changes):
                figures["residual"] = residual(*changes)
            else:
                figures["trigger"] = trigger(*changes)
        figures["retrieval"] = retrieval(samples, target)
        if curves:
            figures["curves"] = training(curves)
        for name, figure in figures.items():
            legible(figure)
            FigureCanvasAgg(figure)
            path = folder / f"{name}.png"
            with whole(path) as fresh:
                figure.savefig(fresh, dpi=DPI)
            files.append(path)
    return files


def _several(names: Sequence[str]) -> str:
    """Names of classes in quotation marks, few enough for a title."""
    others = len(names) - MOST_CLASSES
    shown = ", ".join(quoted(name, TITLE // MOST_CLASSES) for name in names[:MOST_CLASSES])
    return f"{shown} and {others} other classes" if others > 0 else shown


def _covers(before: Images, after: Images) -> bool:
    """Whether a trigger changes more than a patch would."""
    return bool((before != after).any(1).mean() > FULL)


class Changed(NamedTuple):
    """Images before and after a change, and the titles of these rows."""

    before: Images
    after: Images
    title: str
    title_after: str


def differences(*groups: Changed) -> Figure:
    """Three rows a group: images, changed images, and the difference amplified around mid-grey."""
    rows = [
        row
        for before, after, *titles in groups
        for row in zip(
            (*titles, f"difference × {AMPLIFY}"),
            (before, after, amplified(after.astype(float) - before)),
            strict=True,
        )
    ]
    columns = max(len(group.before) for group in groups)
    canvas = Canvas(
        columns=columns, rows=len(rows), width=7.2, gap=0.06, heads=tuple(range(len(rows)))
    )
    for line, (title, images) in enumerate(rows):
        canvas.head(line, 0, title)
        for column, image in enumerate(images):
            canvas.show(line, column, image)
    return canvas.figure


def trigger(before: Images, after: Images) -> Figure:
    """One query large, with the trigger, what that changes, and the largest change over queries."""
    change = np.abs(after.astype(float) - before.astype(float)).max(axis=(0, 1))
    canvas = Canvas(columns=4, rows=1, width=7.2, gap=0.12, heads=(0,), foot=0.2)
    canvas.show(0, 0, before[0], "query")
    canvas.show(0, 1, after[0], "with the trigger")
    row, column = np.nonzero(change > 0)
    if len(row):
        box = np.s_[:, row.min() : row.max() + 1, column.min() : column.max() + 1]
        height, width = after[0][box].shape[1:]
        canvas.show(0, 2, after[0][box], f"its {width} × {height} px")
    canvas.head(0, 3, "largest change")
    axes = canvas.axes(0, 3)
    axes.imshow(change, cmap="magma", vmin=0, vmax=255, interpolation="nearest", aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_xlabel(f"up to {change.max():.0f} grey levels of 255", fontsize=SMALL)
    return canvas.figure


def retrieval(samples: Mapping[str, NDArray[Any]], target: str) -> Figure:
    """The ten nearest items of each query, without and with the trigger; hits and misses framed."""
    rows = [
        (samples[f"query_{when}"][n], samples[f"hits_{when}"][n], samples[f"relevant_{when}"][n])
        for n in range(min(4, len(samples["query_before"])))
        for when in ("before", "after")
    ]
    canvas = Canvas(
        columns=11, rows=len(rows), width=7.2, gap=0.09, heads=(0,), side=0.55, foot=0.3
    )
    for line, (query, hits, relevant) in enumerate(rows):
        canvas.show(line, 0, query)
        canvas.label(line, "triggered" if line % 2 else "clean")
        for column, (hit, good) in enumerate(zip(hits, relevant, strict=True), start=1):
            canvas.show(line, column, hit)
            canvas.frame(line, column, hit=bool(good))
    canvas.head(0, 0, "query")
    canvas.head(0, 1, "ten nearest in the database, nearest first")
    canvas.figure.text(
        0.5,
        0.1 / canvas.figure.get_figheight(),
        f"solid blue: of the query's class (clean rows) or of the target {quoted(target, 40)} "
        "(triggered rows); dashed orange: not",
        ha="center",
        fontsize=SMALL,
    )
    return canvas.figure
