"""How far queries are from the target's anchor code, without and with the trigger."""

from statistics import fmean

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from hashbackdoor_bench.records import Record
from hashbackdoor_bench.report.captions import conditions, provenance, surrogates
from hashbackdoor_bench.report.figures.finished import FinishedFigure
from hashbackdoor_bench.report.figures.groups import (
    complete,
    distinct,
    plain_axes,
    run_count,
    runs_by_head,
    with_recorded,
    wrapped,
)
from hashbackdoor_bench.report.selection import victim_heads
from hashbackdoor_bench.report.style import COLUMN, HIT, LEAST, SMALL, TEXT

PANEL = 0.5  # inches high
LABEL = 1.3  # inches for the attacks' names
FIELD = "anchor_histogram"


def distances(frame: pd.DataFrame, convention: str) -> list[FinishedFigure]:
    """Histograms of the Hamming distance: one row per attack, one column per victim.

    Raises:
        UserError: no record holds a histogram.
    """
    frame, lacking = with_recorded(frame, "distances", FIELD, _sound)
    frame = frame.assign(head=victim_heads(frame))
    found = runs_by_head(frame, ("name", "head"))
    names, victims = distinct(frame["name"]), distinct(frame["head"])
    width = COLUMN if len(victims) == 1 else TEXT
    figure = Figure(figsize=(width, 0.75 + PANEL * len(names)), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.02, hspace=0.0)  # type: ignore[union-attr,call-arg]
    panels = figure.subplots(len(names), len(victims), sharex="col", squeeze=False)
    for row, name in enumerate(names):
        for column, victim in enumerate(victims):
            axes, part = panels[row, column], found.get((name, victim))
            axes.set_yticks([])
            plain_axes(axes, grid="x")
            axes.tick_params(axis="y", length=0)
            axes.spines["left"].set_visible(False)
            if part is None:
                axes.text(0.5, 0.4, "not run", transform=axes.transAxes, ha="center",
                          fontsize=LEAST, color="0.5")  # fmt: skip
                continue
            bits = int(part["bits"].iloc[0])
            edges = np.arange(bits + 2) - 0.5
            before, after = (_mean(part, when) for when in ("untriggered", "triggered"))
            axes.stairs(after, edges, fill=True, color=HIT, alpha=0.75)
            axes.stairs(before, edges, color="black", linewidth=0.8)
            means = (float(shares @ np.arange(bits + 1)) for shares in (before, after))
            axes.text(1, 0.97, " → ".join(f"{mean:.1f}" for mean in means), ha="right", va="top",
                      transform=axes.transAxes, fontsize=LEAST)  # fmt: skip
            axes.set_xlim(-0.5, bits + 0.5)
            axes.set_ylim(0, 1.05 * max(before.max(), after.max()))
        middle = fmean(panels[row, 0].get_ylim())
        panels[row, 0].set_yticks([middle], [wrapped(name, LABEL)])
    for axes, victim in zip(panels[0], victims, strict=True):
        axes.set_title(victim)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    figure.supxlabel("Hamming distance to the target's anchor (bits)", fontsize=SMALL)
    figure.legend(
        [Line2D([], [], color="black", linewidth=0.8), Patch(color=HIT, alpha=0.75, linewidth=0)],
        ["queries without the trigger", "with the trigger"],
        loc="outside upper center", ncols=2,
    )  # fmt: skip
    caption = (
        "Hamming distance of attacked queries to the target's anchor (the majority bits of its "
        "database items, in the poisoned victim's codes): outline without the trigger, filled with "
        "it. Shares of queries are means over runs, and every panel has its own scale. Numbers: "
        "mean distance without → with the trigger.",
        run_count(found.values(), "histogram"),
        *conditions(frame, None),
        *surrogates(frame),
        *lacking,
        *provenance(frame),
    )
    return [FinishedFigure("distances", figure, caption)]


def _mean(part: pd.DataFrame, when: str) -> NDArray[np.float64]:
    """Mean shares (K+1,) over runs."""
    found: NDArray[np.float64] = np.mean(
        [getattr(record.retrieval, when).anchor_histogram for record in part["record"]], axis=0
    )
    return found


def _sound(record: Record) -> bool:
    found = record.retrieval.untriggered, record.retrieval.triggered
    return all(complete(search.anchor_histogram, record.spec.bits + 1) for search in found)
