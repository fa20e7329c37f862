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
from hashbackdoor_bench.report.figures.finished import FinishedFigure, Unfilled
from hashbackdoor_bench.report.figures.groups import (
    by_victim_and_share,
    distinct,
    left_out,
    not_run,
    plain_axes,
    runs_by_head,
    with_recorded,
    wrapped,
)
from hashbackdoor_bench.report.formatting import percent
from hashbackdoor_bench.report.style import COLUMN, HIT, LEAST, MISS, SMALL, TEXT

ALSO_CLEAN = (
    "A test that reacts to the trigger on the clean victim as well finds the trigger and not the "
    "backdoor."
)
CONTROL = (0, (2, 1))  # dashes
FIELD = "histogram"
PANEL, LABEL = 0.62, 0.9  # inches: height of a panel, width of a defense's name


def suspicions(frame: pd.DataFrame, convention: str) -> list[FinishedFigure]:
    """One figure per victim and poisoned share: one row per defense, one column per attack.

    Raises:
        Unfilled: nothing is scored in a run with a backdoor, or no record holds a histogram.
    """
    frame = with_defenses(frame, convention)
    frame = frame[frame["stage"] != CONTROLS]
    frame = frame[[bool(_detections(record)) for record in frame["record"]]]
    if frame.empty:
        raise Unfilled(
            "figure suspicions: no defense of these records scores poisoned images or triggered "
            "queries: add runs with poison, of one that does, such as spectral or strip."
        )
    frame, lacking = with_recorded(frame, "suspicions", FIELD, _sound)
    parts = by_victim_and_share("suspicions", frame, lacking)
    return [_drawn(part, name, left_out(without, FIELD)) for name, part, without in parts]


def _sound(record: Record) -> bool:
    return any(found.histogram is not None for found in _detections(record))


def _detections(record: Record) -> list[Detection]:
    """What was scored, where there is something to find: poison, or triggers of a backdoor."""
    threat = record.threat
    if not record.defense or not (threat.poisoned or threat.control == "model"):
        return []
    return [found for found in record.defense.detection.values() if found.positives]


def _drawn(frame: pd.DataFrame, name: str, lacking: list[str]) -> FinishedFigure:
    found = runs_by_head(frame, ("defense", "attacker"))
    defenses, attacks = (distinct(key[number] for key in found) for number in (0, 1))
    width = COLUMN if len(attacks) == 1 else TEXT
    figure = Figure(figsize=(width, 0.75 + PANEL * len(defenses)), layout="constrained")
    panels = figure.subplots(len(defenses), len(attacks), squeeze=False)
    shown, controlled = [], False
    for row, defense in enumerate(defenses):
        for column, attack in enumerate(attacks):
            axes, part = panels[row, column], found.get((defense, attack))
            axes.set_yticks([])
            plain_axes(axes, grid=None)
            axes.spines["left"].set_visible(False)
            axes.set_xticks([])
            if part is None:
                not_run(axes)
                continue
            first = part.nsmallest(1, "seed")
            (record,) = first["record"]
            drawn = next(one for one in _detections(record) if one.histogram)
            _panel(axes, drawn)
            shown.append(first)
            controlled |= bool(drawn.histogram and drawn.histogram.control)
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
    if controlled:
        dashed = Line2D([], [], color=HIT, linewidth=1, linestyle=CONTROL)
        marks["triggered, clean victim"] = dashed
    columns = 3 if width == TEXT else 2
    figure.legend(marks.values(), marks, loc="outside upper center", ncols=columns)
    runs, share = pd.concat(shown), distinct(frame["share"])[0]
    caption = (
        f"Suspicions with {share} of the target class poisoned, of one run in each panel (n = 1), "
        "that with the smallest seed: training images for filters, queries for tests. Shares of "
        "each group of items; every panel has its own scales, and its outer bins hold all that "
        "lies beyond. Number: AUROC in percent.",
        *([ALSO_CLEAN] if controlled else []),
        *conditions(runs, None),
        *surrogates(runs),
        *lacking,
        *provenance(runs),
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
