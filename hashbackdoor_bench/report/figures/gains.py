"""The overview: backdoor gain of every attack on every victim, by attack or by victim."""

import pandas as pd
from matplotlib.axes import Axes

from hashbackdoor_bench.report.captions import conditions, provenance, surrogates
from hashbackdoor_bench.report.figures.attack_rows import (
    MARK,
    NOT_COMPARED,
    legend_of_marks,
    panels_of_rows,
    rows_by_panel,
    with_panels,
)
from hashbackdoor_bench.report.figures.finished import FinishedFigure, Unfilled
from hashbackdoor_bench.report.figures.groups import (
    NO_INTERVAL,
    distinct,
    run_count,
    runs_by_head,
)
from hashbackdoor_bench.report.mixing import texts_of
from hashbackdoor_bench.report.selection import POOLING, victim_heads
from hashbackdoor_bench.report.statistics import Estimate, draws, estimate
from hashbackdoor_bench.report.style import COLUMN, HUES, MARKERS, cycled

BEYOND = 5  # percentage points beyond the runs that the axis shows of an interval


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
    """One panel per delivery and type of labels.

    Args:
        title: of the figure.
        frame: the records.
        convention: whose gain.
        row_of: column whose values are the rows.
        mark_of: column whose values are told apart by hue and mark.
    """
    frame = with_panels(frame)
    shared, rows = distinct(frame[mark_of]), rows_by_panel(frame, row_of, mark_of)
    groups = runs_by_head(frame, ("panel", row_of, mark_of))
    figure, panels = panels_of_rows(rows, 1, COLUMN)
    places = {one.panel: (one, axes) for one, (axes,) in zip(rows, panels, strict=True)}
    bars: list[tuple[Axes, float, Estimate, str]] = []
    every = 100 * frame[f"{convention}.backdoor_gain"].dropna()
    for heads, part in groups.items():
        panel, name, mark = map(str, heads)
        one, axes = places[panel]
        found = draws(part, str(part["name"].iloc[0]), f"{convention}.backdoor_gain")
        mean = estimate(found)
        if mean is None:
            continue
        values = [100 * v for of_victim in found.values() for v in of_victim.values()]
        y, number = one.y(name, mark), shared.index(mark)
        hue, marker = cycled(HUES, number), cycled(MARKERS, number)
        bars.append((axes, y, mean, hue))
        axes.plot(
            values, [y] * len(values), "|", color=hue, markersize=4, markeredgewidth=0.6, zorder=3
        )
        axes.plot(
            100 * mean.mean, y, marker, color=hue, markersize=MARK, zorder=4, markeredgewidth=0.7,
            markerfacecolor=hue if len(values) > 1 else "white",
        )  # fmt: skip
    ends = [100 * end for _, _, mean, _ in bars for end in (mean.low, mean.high) if end is not None]
    spare = 0.03 * max(every.max() - min(every.min(), 0), 1)
    left = max(min(every.min(), 0, *ends), min(every.min(), 0) - BEYOND) - spare
    right = min(max(every.max(), 0, *ends), every.max() + BEYOND, 100) + spare
    panels[-1][0].set_xlim(left, right)
    cut = [_interval(*bar, (left, right)) for bar in bars]
    for (axes,) in panels:
        axes.axvline(0, color="0.4", linewidth=0.6, zorder=1)
    panels[-1][0].set_xlabel("backdoor gain (percentage points)")
    legend_of_marks(figure, shared)
    beyond = "; one that goes on beyond the edge ends in an arrow" if any(cut) else ""
    lines = (
        ", each mark a mean, and each line its 95 % interval (over targets, or over seeds that "
        f"all targets share){beyond}"
        if ends
        else " and each mark a mean"
    )
    few = any(mean.n > 1 and mean.low is None for _, _, mean, _ in bars)
    caption = (
        "Backdoor gain of every attack on every victim: t-MAP minus the larger of its two controls "
        "(the trigger on a victim without poison, the poisoned victim without the trigger).",
        f"Each stroke is a run{lines}.",
        *([NO_INTERVAL] if few else []),
        f"A hollow mark is a single run (n = 1). {NOT_COMPARED}",
        *_pooling(frame),
        run_count(groups.values(), "mark"),
        *conditions(frame, convention),
        *surrogates(frame),
        *provenance(frame),
    )
    return FinishedFigure(title, figure, caption)


def _pooling(frame: pd.DataFrame) -> list[str]:
    """What the poolings in the names of victims mean; nothing where they are in none."""
    pools = zip(texts_of(frame, "pool"), frame["network"], strict=True)
    words = {POOLING[pool] for pool, network in pools if POOLING[pool] in network}
    if not words:
        return []
    flat = " (flattened: not at all)" if POOLING["flatten"] in words else ""
    return [
        f"In a victim's name, {' / '.join(sorted(words))} is how its network pools the last "
        f"feature map{flat}."
    ]


def _interval(axes: Axes, y: float, mean: Estimate, hue: str, limits: tuple[float, float]) -> bool:
    """Draw an interval, with an arrow where an end lies beyond the edge; whether one does."""
    if mean.low is None or mean.high is None:
        return False
    low, high = (100 * end for end in (mean.low, mean.high))
    left, right = limits
    axes.plot([max(low, left), min(high, right)], [y, y], color=hue, linewidth=0.8, zorder=2)
    for outside, edge, arrow in ((low < left, left, "<"), (high > right, right, ">")):
        if outside:
            axes.plot(edge, y, arrow, color=hue, markersize=MARK, markeredgewidth=0, zorder=4,
                      clip_on=False)  # fmt: skip
    return low < left or high > right
