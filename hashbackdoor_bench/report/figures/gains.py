"""The overview: backdoor gain of every attack on every victim, by attack or by victim."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hashbackdoor_bench.report.captions import conditions, provenance, surrogates
from hashbackdoor_bench.report.figures.finished import FinishedFigure, Unfilled
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
    """One row per attack; per victim its runs, mean and interval."""
    return [_overview("gains", frame.assign(head=victim_heads(frame)), convention, "name", "head")]


def takes(frame: pd.DataFrame, convention: str) -> list[FinishedFigure]:
    """One row per victim, in its forms; per attack its runs, mean and interval.

    Raises:
        Unfilled: there are no more victims than attacks, so that `gains` shows the same better.
    """
    frame = frame.assign(head=victim_heads(frame))
    if frame["head"].nunique() <= frame["name"].nunique():
        raise Unfilled("takes has a row per victim, and here are more attacks: bench figure gains.")
    return [_overview("takes", frame, convention, "head", "name")]


def _overview(
    title: str, frame: pd.DataFrame, convention: str, row_of: str, mark_of: str
) -> FinishedFigure:
    """One panel per delivery.

    Args:
        title: of the figure.
        frame: the records.
        convention: whose gain.
        row_of: column whose values are the rows.
        mark_of: column whose values are told apart by hue and mark.
    """
    inside, deliveries = distinct(frame[mark_of]), distinct(sorted(frame["delivery"]))
    groups = {
        (delivery, *(key if row_of == "name" else key[::-1])): part
        for delivery in deliveries
        for key, part in runs_by_head(
            frame[frame["delivery"] == delivery], ("name", "head")
        ).items()
    }
    names = {
        delivery: distinct(frame[frame["delivery"] == delivery][row_of]) for delivery in deliveries
    }
    labels = {name: wrapped(name, LABEL) for name in distinct(frame[row_of])}
    lines = 1 + max(label.count("\n") for label in labels.values())
    height = max(ROW * len(inside) + APART, LINE * lines)
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
            for number, mark in enumerate(inside):
                part = groups.get((delivery, name, mark))
                if part is None:
                    continue
                found = draws(part, str(part["name"].iloc[0]), f"{convention}.backdoor_gain")
                one = estimate(found)
                if one is None:
                    continue
                values = [100 * v for of_victim in found.values() for v in of_victim.values()]
                y = row + (number - (len(inside) - 1) / 2) * step
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
        for i in range(len(inside))
    ]
    figure.legend(
        marks,
        [wrapped(text, COLUMN - 0.6) for text in inside],
        loc="outside upper center",
        ncols=legend_columns(inside, COLUMN),
        handlelength=1.6,
    )
    caption = (
        "Backdoor gain of every attack on every victim: t-MAP minus the larger of its two controls "
        "(the trigger on a victim without poison, the poisoned victim without the trigger).",
        "Each stroke is a run, each mark a mean, and each line its 95 % interval (over targets, "
        "or over seeds if there is one target), cut off at the edge of the figure. A hollow mark "
        "is a single run (n = 1). Deliveries are not compared.",
        run_count(groups.values(), "mark"),
        *conditions(frame, convention),
        *surrogates(frame),
        *provenance(frame),
    )
    return FinishedFigure(title, figure, caption)
