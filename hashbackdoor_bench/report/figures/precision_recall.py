"""Precision against recall over the Hamming radius, of triggered and of clean queries."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from hashbackdoor_bench.records import PrecisionRecall, Record
from hashbackdoor_bench.report.captions import conditions, provenance, surrogates
from hashbackdoor_bench.report.figures.finished import FinishedFigure
from hashbackdoor_bench.report.figures.groups import (
    complete,
    deliveries,
    distinct,
    left_out,
    legend_columns,
    plain_axes,
    run_count,
    runs_by_head,
    title,
    with_recorded,
)
from hashbackdoor_bench.report.selection import victim_heads
from hashbackdoor_bench.report.style import COLUMN, HUES, MARKERS, SMALL, TEXT, cycled

QUERIES: dict[str, Any] = {"triggered": "-", "clean_queries": (0, (1, 1))}
FIELD = "precision_recall"
MARKED = 6  # radii between two marks


def precision_recall(frame: pd.DataFrame, convention: str) -> list[FinishedFigure]:
    """One panel per attack, with two curves per victim."""
    frame, lacking = with_recorded(frame, "precision-recall", FIELD, _sound)
    frame = frame.assign(head=victim_heads(frame))
    found = runs_by_head(frame, ("name", "head"))
    names, victims = distinct(frame["name"]), distinct(frame["head"])
    delivered = deliveries(frame)
    across = min(len(names), 2 if len(names) <= 2 else 4)
    down = -(-len(names) // across)
    figure = Figure(
        figsize=(COLUMN if across <= 2 else TEXT, 0.6 + 1.45 * down), layout="constrained"
    )
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    for axes in panels.flat[len(names) :]:
        axes.set_visible(False)
    for (name, victim), part in found.items():
        axes, number = panels.flat[names.index(name)], victims.index(victim)
        for queries, dashes in QUERIES.items():
            precision, recall = (_mean(part, queries, side) for side in ("precision", "recall"))
            axes.plot(
                recall, precision, linestyle=dashes, color=cycled(HUES, number), linewidth=1,
                marker=cycled(MARKERS, number) if queries == "triggered" else "", markersize=2.8,
                markevery=(2 * number, MARKED), clip_on=False,
            )  # fmt: skip
    for axes, name in zip(panels.flat, names, strict=False):
        title(axes, name, delivered.get(name, ""), 1.5)
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 100)
        axes.set_xticks([0, 50, 100])
        axes.set_yticks([0, 50, 100])
        plain_axes(axes)
    for number, axes in enumerate(panels.flat[: len(names)]):
        axes.tick_params(labelbottom=number + across >= len(names))
    figure.supxlabel("recall (%)", fontsize=SMALL)
    figure.supylabel("precision (%)", fontsize=SMALL)
    marks = [
        Line2D(
            [], [], color=cycled(HUES, i), marker=cycled(MARKERS, i), markersize=2.8, linewidth=1
        )
        for i in range(len(victims))
    ]
    kinds = [Line2D([], [], color="0.3", linestyle=dashes) for dashes in QUERIES.values()]
    texts = ["triggered → target", "clean → own class", *victims]
    figure.legend(
        [*kinds, *marks], texts,
        loc="outside upper center", ncols=legend_columns(texts, figure.get_figwidth()),
    )  # fmt: skip
    caption = (
        "Precision against recall as the Hamming radius grows from 0 to K: solid, triggered "
        "queries, for which the target's items are relevant; dotted, clean queries, for which "
        "their own class is. Means over queries, then over runs; a query with no item within a "
        "radius has precision 0 there. A curve up to the right is a search that finds.",
        run_count(found.values(), "curve"),
        *conditions(frame, None),
        *surrogates(frame),
        *left_out(lacking, FIELD),
        *provenance(frame),
    )
    return [FinishedFigure("precision-recall", figure, caption)]


def _mean(part: pd.DataFrame, queries: str, side: str) -> NDArray[np.float64]:
    """Mean (K+1,) over runs, in percent."""
    curves = [getattr(_curve(record, queries), side) for record in part["record"]]
    found: NDArray[np.float64] = 100 * np.mean(curves, axis=0)
    return found


def _curve(record: Record, queries: str) -> PrecisionRecall:
    found: PrecisionRecall = getattr(record.retrieval, queries).precision_recall
    return found


def _sound(record: Record) -> bool:
    curves = [_curve(record, queries) for queries in QUERIES]
    sides = [side for curve in curves for side in (curve.precision, curve.recall)]
    return all(complete(side, record.spec.bits + 1) for side in sides)
