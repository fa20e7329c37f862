"""How far triggered queries are from the target's anchor code, without and with a defense."""

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
from hashbackdoor_bench.report.defended import with_defenses
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
from hashbackdoor_bench.report.style import COLUMN, HIT, LEAST, SMALL, TEXT

PANEL, LABEL = 0.42, 1.2  # inches: height of a panel, width of a defense's name
FIELD = "outcome.anchor"
TALLEST = 3  # times the filled histogram, above which the outline is cut


def defended_distances(frame: pd.DataFrame, convention: str) -> list[FinishedFigure]:
    """One figure per victim and poisoned share: one row per defense, one column per attack.

    Raises:
        Unfilled: no record holds distances behind a defense.
    """
    frame = with_defenses(frame, convention)
    frame, lacking = with_recorded(frame, "defended-distances", FIELD, _sound)
    heads, shares = distinct(frame["head"]), distinct(frame["share"])
    found = []
    for (head, share), part in frame.groupby(["head", "share"], sort=False):
        words = ["defended-distances"]
        words += [str(head)] if len(heads) > 1 else []
        words += [str(share).replace(" %", "")] if len(shares) > 1 else []
        found.append(_drawn(part, "-".join(words), lacking))
    return found


def _sound(record: Record) -> bool:
    outcome = record.defense.outcome if record.defense else None
    after = outcome.anchor.triggered if outcome and outcome.anchor else None
    count = record.spec.bits + 1
    return complete(after, count) and complete(record.retrieval.triggered.anchor_histogram, count)


def _drawn(frame: pd.DataFrame, name: str, lacking: list[str]) -> FinishedFigure:
    found = runs_by_head(frame, ("defense", "attacker"))
    defenses, attacks = (distinct(key[number] for key in found) for number in (0, 1))
    width = COLUMN if len(attacks) == 1 else TEXT
    figure = Figure(figsize=(width, 0.85 + PANEL * len(defenses)), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.02, hspace=0.0)  # type: ignore[union-attr,call-arg]
    panels = figure.subplots(len(defenses), len(attacks), sharex="col", squeeze=False)
    for row, defense in enumerate(defenses):
        for column, attack in enumerate(attacks):
            axes, part = panels[row, column], found.get((defense, attack))
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
            before, after = _means(part)
            axes.stairs(after, edges, fill=True, color=HIT, alpha=0.75)
            axes.stairs(before, edges, color="black", linewidth=0.8)
            means = (float(shares @ np.arange(bits + 1)) for shares in (before, after))
            axes.text(1, 0.97, " → ".join(f"{mean:.1f}" for mean in means), ha="right", va="top",
                      transform=axes.transAxes, fontsize=LEAST)  # fmt: skip
            axes.set_xlim(-0.5, bits + 0.5)
            axes.set_ylim(0, 1.05 * max(after.max(), min(before.max(), TALLEST * after.max())))
        middle = fmean(panels[row, 0].get_ylim())
        panels[row, 0].set_yticks([middle], [wrapped(defense, LABEL)])
    for axes, attack in zip(panels[0], attacks, strict=True):
        axes.set_title(wrapped(attack, width / len(attacks) - 0.3), fontsize=SMALL)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    figure.supxlabel("Hamming distance to the target's anchor (bits)", fontsize=SMALL)
    figure.legend(
        [Line2D([], [], color="black", linewidth=0.8), Patch(color=HIT, alpha=0.75, linewidth=0)],
        ["triggered queries, no defense", "with the defense"],
        loc="outside upper center", ncols=2 if width == TEXT else 1,
    )  # fmt: skip
    share = distinct(frame["share"])[0]
    caption = (
        "Hamming distance of triggered queries to the target's anchor (the majority bits of its "
        f"database items, in the codes of the network that serves), with {share} of the target "
        "class poisoned: outline without a defense, filled with it. Shares of queries are means "
        "over runs; every panel has its own scale, and an outline more than three times as high "
        "as what is filled is cut. Numbers: mean distance without → with the "
        "defense.",
        run_count(found.values(), "histogram"),
        *conditions(frame, None),
        *surrogates(frame),
        *lacking,
        *provenance(frame),
    )
    return FinishedFigure(name, figure, caption)


def _means(part: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean shares (K+1,) over runs, without and with the defense."""
    before = [record.retrieval.triggered.anchor_histogram for record in part["record"]]
    after = [record.defense.outcome.anchor.triggered for record in part["record"]]
    return np.mean(before, axis=0), np.mean(after, axis=0)
