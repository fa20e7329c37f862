"""How visible, how strong: PSNR beside backdoor gain, a row for each attack."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

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
from hashbackdoor_bench.report.figures.groups import distinct, run_count, runs_by_head, spread_of
from hashbackdoor_bench.report.selection import victim_heads
from hashbackdoor_bench.report.style import HUES, MARKERS, TEXT, cycled

LEAST_RANGE = 4  # dB along the axis, so that a small difference looks small
# the queries' mark is a ring around that of the poison where both are equally visible
LOOKS: dict[str, dict[str, Any]] = {
    "query": {"markersize": MARK + 2, "markerfacecolor": "none"},
    "poison": {"markersize": MARK - 0.4},
}
BARS: dict[str, dict[str, Any]] = {  # so that one is seen behind the other
    "query": {"elinewidth": 3, "alpha": 0.25},
    "poison": {"elinewidth": 0.8},
}


def _absent(part: pd.DataFrame, reason: str) -> str:
    return f"No row, {reason}: {'; '.join(distinct(part['name']))}."


def visibility(frame: pd.DataFrame, convention: str) -> list[FinishedFigure]:
    """One row of panels per delivery and type of labels, PSNR on the left and gain on the right.

    Raises:
        Unfilled: no record has a gain and a PSNR.
    """
    frame = with_panels(frame.assign(head=victim_heads(frame)))
    gain = f"{convention}.backdoor_gain"
    seen = [f"psnr_{images}" for images in LOOKS]
    shown = frame[frame[gain].notna() & frame[seen].notna().any(axis=1)]
    if shown.empty:
        raise Unfilled(
            "figure visibility: none of these records has both a backdoor gain and a PSNR: add "
            "records of an attack that changes images."
        )
    found = runs_by_head(shown, ("panel", "name", "head"))
    rows, victims = rows_by_panel(shown, "name", "head"), distinct(shown["head"])
    figure, panels = panels_of_rows(rows, 2, TEXT)
    places = {one.panel: (one, pair) for one, pair in zip(rows, panels, strict=True)}
    for heads, part in found.items():
        panel, name, victim = map(str, heads)
        one, (left, right) = places[panel]
        y, number = one.y(name, victim), victims.index(victim)
        for images, look in LOOKS.items():
            _mark(left, part, f"psnr_{images}", y, number, look, BARS[images])
        _mark(right, part, gain, y, number, {"markersize": MARK}, BARS["poison"], 100)
    for _, right in panels:
        right.axvline(0, color="0.4", linewidth=0.6, zorder=1)
    left, right = panels[-1]
    low, high = left.get_xlim()
    spare = max(0, LEAST_RANGE - (high - low)) / 2
    left.set_xlim(low - spare, high + spare)
    left.set_xlabel("PSNR (dB): harder to see →")
    right.set_xlabel("backdoor gain (percentage points): stronger →")
    legend_of_marks(
        figure,
        victims,
        more=[
            Line2D([], [], color="0.3", marker="o", linestyle="", label=label, **LOOKS[images])
            for images, label in (("poison", "poisoned images"), ("query", "triggered queries"))
        ],
    )
    hidden = frame[~frame["name"].isin(shown["name"])]
    unchanged = hidden[seen].isna().all(axis=1)
    absent = (
        (hidden[unchanged], "as no image is changed"),
        (hidden[~unchanged], f"as there is no gain by the convention {convention}"),
    )
    caption = (
        "PSNR of the poisoned images (filled mark, thin bar) and of the triggered queries (ring, "
        "broad pale bar), and backdoor gain: means, with one standard deviation of a single run.",
        NOT_COMPARED,
        *(_absent(part, reason) for part, reason in absent if not part.empty),
        run_count(found.values(), "mark"),
        *conditions(shown, convention),
        *surrogates(shown),
        *provenance(shown),
    )
    return [FinishedFigure("visibility", figure, caption)]


def _mark(
    axes: Axes,
    part: pd.DataFrame,
    column: str,
    y: float,
    number: int,
    look: dict[str, Any],
    bar: dict[str, Any],
    factor: float = 1,
) -> None:
    one = spread_of(part, column, factor)
    if one is None:
        return
    hue = cycled(HUES, number)
    if one.deviation:
        axes.errorbar(one.mean, y, xerr=one.deviation, fmt="none", ecolor=hue, zorder=2, **bar)
    axes.plot(
        one.mean, y, cycled(MARKERS, number), color=hue, markeredgewidth=0.7, zorder=3, **look
    )
