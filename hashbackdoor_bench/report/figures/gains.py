"""The overview: backdoor gain of every attack on every victim, runs as points."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hashbackdoor_bench.report.captions import conditions, provenance, surrogates
from hashbackdoor_bench.report.figures.finished import FinishedFigure
from hashbackdoor_bench.report.figures.groups import (
    distinct,
    legend_columns,
    plain_axes,
    run_count,
    runs_by_head,
    wrapped,
)
from hashbackdoor_bench.report.selection import victim_heads
from hashbackdoor_bench.report.statistics import draws, estimate
from hashbackdoor_bench.report.style import COLUMN, HUES, MARKERS, SMALL, cycled

ROW = 0.095  # inches for each victim
APART = 0.11  # inches between attacks
LINE = 0.13  # inches for each line of a label
LABEL = 1.3  # inches for the attacks' names


def gains(frame: pd.DataFrame, convention: str) -> list[FinishedFigure]:
    """One row per attack, in one panel per delivery; per victim its runs, mean and interval."""
    frame = frame.assign(head=victim_heads(frame))
    victims, deliveries = distinct(frame["head"]), distinct(sorted(frame["delivery"]))
    groups = runs_by_head(frame, ("name", "head"))
    names = {
        delivery: distinct(frame[frame["delivery"] == delivery]["name"]) for delivery in deliveries
    }
    labels = {name: wrapped(name, LABEL) for name in distinct(frame["name"])}
    lines = 1 + max(label.count("\n") for label in labels.values())
    height = max(ROW * len(victims) + APART, LINE * lines)
    heights = [len(names[delivery]) * height for delivery in deliveries]
    figure = Figure(
        figsize=(COLUMN, sum(heights) + 0.6 + 0.25 * len(deliveries)), layout="constrained"
    )
    panels = figure.subplots(
        len(deliveries), sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
    )[:, 0]
    step = ROW / height
    for axes, delivery in zip(panels, deliveries, strict=True):
        for row, name in enumerate(names[delivery]):
            if row % 2:
                axes.axhspan(row - 0.5, row + 0.5, color="0.95", linewidth=0)
            for number, victim in enumerate(victims):
                part = groups.get((name, victim))
                if part is None:
                    continue
                found = draws(part, name, f"{convention}.backdoor_gain")
                one = estimate(found)
                if one is None:
                    continue
                values = [100 * v for of_victim in found.values() for v in of_victim.values()]
                y = row + (number - (len(victims) - 1) / 2) * step
                hue, marker = cycled(HUES, number), cycled(MARKERS, number)
                if one.low is not None and one.high is not None:
                    ends = [100 * one.low, 100 * one.high]
                    axes.plot(ends, [y, y], color=hue, linewidth=0.8, zorder=2)
                axes.plot(
                    values, [y] * len(values), "|", color=hue, markersize=4, markeredgewidth=0.6,
                    zorder=3,
                )  # fmt: skip
                axes.plot(
                    100 * one.mean, y, marker, color=hue, markersize=3.6, zorder=4,
                    markeredgewidth=0.7, markerfacecolor=hue if len(values) > 1 else "white",
                )  # fmt: skip
        axes.set_yticks(range(len(names[delivery])), [labels[name] for name in names[delivery]])
        axes.set_ylim(len(names[delivery]) - 0.5, -0.5)
        axes.axvline(0, color="0.4", linewidth=0.6, zorder=1)
        axes.set_title(f"delivery: {delivery}", fontsize=SMALL)
        plain_axes(axes, grid="x")
        axes.tick_params(axis="y", length=0)
    every = 100 * frame[f"{convention}.backdoor_gain"].dropna()
    panels[-1].set_xlim(min(every.min(), 0) - 5, 102)
    panels[-1].set_xlabel("backdoor gain (points of percent)")
    marks = [
        Line2D(
            [], [], color=cycled(HUES, i), marker=cycled(MARKERS, i), markersize=3.6, linewidth=0.8
        )
        for i in range(len(victims))
    ]
    figure.legend(
        marks,
        victims,
        loc="outside upper center",
        ncols=legend_columns(victims, COLUMN),
        handlelength=1.6,
    )
    caption = (
        "Backdoor gain of every attack on every victim: t-MAP minus the larger of its two controls "
        "(the trigger on a victim without poison, the poisoned victim without the trigger).",
        "Each stroke is a run, each mark a mean, and each line its 95 % interval (Student's t over "
        "targets and seeds), cut off at the edge of the figure. A hollow mark is a single run "
        "(n = 1). Deliveries are not compared.",
        run_count(groups.values(), "mark"),
        *conditions(frame, convention),
        *surrogates(frame),
        *provenance(frame),
    )
    return [FinishedFigure("gains", figure, caption)]
