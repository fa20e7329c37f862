"""Histograms of what filters and tests of queries call suspicious."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from hashbackdoor_bench.records import Detection, Record
from hashbackdoor_bench.report.captions import conditions, provenance, surrogates
from hashbackdoor_bench.report.defended import CONTROLS, with_defenses
from hashbackdoor_bench.report.figures.finished import FinishedFigure
from hashbackdoor_bench.report.figures.groups import (
    distinct,
    plain_axes,
    runs_by_head,
    with_recorded,
    wrapped,
)
from hashbackdoor_bench.report.formatting import percent
from hashbackdoor_bench.report.style import COLUMN, HIT, LEAST, MISS, SMALL, TEXT

CONTROL = (0, (2, 1))  # dashes
PANEL, LABEL = 0.62, 0.9  # inches: height of a panel, width of a defense's name


def suspicions(frame: pd.DataFrame, convention: str) -> list[FinishedFigure]:
    """One figure per victim and poisoned share: one row per defense, one column per attack.

    Raises:
        Unfilled: no record holds a histogram.
    """
    frame = with_defenses(frame, convention)
    frame = frame[frame["stage"] != CONTROLS]
    frame, lacking = with_recorded(frame, "suspicions", "histogram", _sound)
    heads, shares = distinct(frame["head"]), distinct(frame["share"])
    found = []
    for (head, share), part in frame.groupby(["head", "share"], sort=False):
        words = ["suspicions"]
        words += [str(head)] if len(heads) > 1 else []
        words += [str(share).replace(" %", "")] if len(shares) > 1 else []
        found.append(_drawn(part, "-".join(words), lacking))
    return found


def _sound(record: Record) -> bool:
    return any(found.histogram is not None for found in _detections(record))


def _detections(record: Record) -> list[Detection]:
    return list(record.defense.detection.values()) if record.defense else []


def _drawn(frame: pd.DataFrame, name: str, lacking: list[str]) -> FinishedFigure:
    found = runs_by_head(frame, ("defense", "attacker"))
    defenses, attacks = (distinct(key[number] for key in found) for number in (0, 1))
    width = COLUMN if len(attacks) == 1 else TEXT
    figure = Figure(figsize=(width, 0.75 + PANEL * len(defenses)), layout="constrained")
    panels = figure.subplots(len(defenses), len(attacks), squeeze=False)
    for row, defense in enumerate(defenses):
        for column, attack in enumerate(attacks):
            axes, part = panels[row, column], found.get((defense, attack))
            axes.set_yticks([])
            plain_axes(axes, grid=None)
            axes.spines["left"].set_visible(False)
            axes.set_xticks([])
            if part is None:
                axes.text(0.5, 0.4, "not run", transform=axes.transAxes, ha="center",
                          fontsize=LEAST, color="0.5")  # fmt: skip
                continue
            first = part.loc[part["seed"].idxmin()]
            _panel(axes, next(one for one in _detections(first["record"]) if one.histogram))
        axes = panels[row, 0]
        axes.set_ylabel(wrapped(defense, LABEL), rotation=0, ha="right", va="center",
                        fontsize=SMALL)  # fmt: skip
    for axes, attack in zip(panels[0], attacks, strict=True):
        axes.set_title(wrapped(attack, width / len(attacks) - 0.3), fontsize=SMALL)
    figure.supxlabel("suspicion →", fontsize=SMALL)
    marks: dict[str, Any] = {
        "clean": Patch(color="0.75", linewidth=0),
        "poisoned or triggered": Line2D([], [], color=MISS, linewidth=1),
    }
    if any(one.unit == "query" for record in frame["record"] for one in _detections(record)):
        dashed = Line2D([], [], color=HIT, linewidth=1, linestyle=CONTROL)
        marks["triggered, clean victim"] = dashed
    columns = 3 if width == TEXT else 2
    figure.legend(marks.values(), marks, loc="outside upper center", ncols=columns)
    share = distinct(frame["share"])[0]
    caption = (
        f"Suspicions with {share} of the target class poisoned, of one run in each panel (n = 1), "
        "that with the smallest seed: training images for filters, queries for tests. Shares of "
        "each group of items; every panel has its own scales, and its outer bins hold all that "
        "lies beyond. Number: AUROC in percent. A test that reacts to the trigger on the clean "
        "victim as well finds the trigger and not the backdoor.",
        *conditions(frame, None),
        *surrogates(frame),
        *lacking,
        *provenance(frame),
    )
    return FinishedFigure(name, figure, caption)


def _panel(axes: Axes, found: Detection) -> None:
    bins = found.histogram
    assert bins is not None
    edges = np.linspace(bins.low, bins.high, len(bins.positive) + 1)
    if bins.low == bins.high:  # all items are equal
        edges = np.linspace(bins.low - 0.5, bins.low + 0.5, len(bins.positive) + 1)
    axes.stairs(bins.negative, edges, fill=True, color="0.75")
    if bins.control:
        axes.stairs(bins.control, edges, color=HIT, linewidth=0.9, linestyle=CONTROL)
    axes.stairs(bins.positive, edges, color=MISS, linewidth=0.9)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, 1.35 * max(*bins.positive, *bins.negative, *bins.control))
    axes.text(0.99, 0.97, percent(found.auroc), ha="right", va="top", transform=axes.transAxes,
              fontsize=LEAST)  # fmt: skip
