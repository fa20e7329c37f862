"""How strong, how visible: backdoor gain against PSNR, one mark per attack and victim."""

from typing import Any

import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hashbackdoor_bench.report.captions import conditions, provenance, surrogates
from hashbackdoor_bench.report.figures.finished import FinishedFigure, Unfilled
from hashbackdoor_bench.report.figures.groups import (
    distinct,
    plain_axes,
    run_count,
    runs_by_head,
    spread_of,
    wrapped,
)
from hashbackdoor_bench.report.selection import victim_heads
from hashbackdoor_bench.report.style import FILLS, HUES, MARKERS, SMALL, TEXT, cycled

LABEL = 1.3  # inches for the attacks' names
LINE = 0.155  # inches for each line of the legend
LEAST_RANGE = 4  # dB along the axis, so that a small difference looks small
IMAGES = {"poison": "poisoned images", "query": "triggered queries"}


def visibility(frame: pd.DataFrame, convention: str) -> list[FinishedFigure]:
    """One row of panels per delivery, poison on the left and queries on the right.

    Raises:
        Unfilled: no record has a gain and a PSNR, or there are more attacks than shapes.
    """
    frame = frame.assign(head=victim_heads(frame))
    gain = f"{convention}.backdoor_gain"
    seen = [f"psnr_{images}" for images in IMAGES]
    shown = frame[frame[gain].notna() & frame[seen].notna().any(axis=1)]
    if shown.empty:
        raise Unfilled(
            "figure visibility: none of these records has both a backdoor gain and a PSNR: add "
            "records of an attack that changes images."
        )
    found = runs_by_head(shown, ("delivery", "name", "head"))
    deliveries, names = distinct(sorted(shown["delivery"])), distinct(shown["name"])
    victims = distinct(frame["head"])
    if len(names) > len(MARKERS):
        raise Unfilled(
            f"figure visibility: {len(names)} attacks can't be told apart by {len(MARKERS)} "
            "shapes: choose some with --where label=NAME."
        )
    texts = ["attack", *(wrapped(name, LABEL) for name in names), "victim", *victims]
    lines = sum(1 + text.count("\n") for text in texts)
    height = max(0.5 + 1.75 * len(deliveries), LINE * lines + 0.2)
    figure = Figure(figsize=(TEXT, height), layout="constrained")
    panels = figure.subplots(len(deliveries), 2, sharex=True, sharey=True, squeeze=False)
    for (delivery, name, victim), part in found.items():
        number, strength = victims.index(victim), spread_of(part, gain, 100)
        for axes, column in zip(panels[deliveries.index(delivery)], seen, strict=True):
            psnr = spread_of(part, column)
            if psnr is None or strength is None:
                continue
            axes.errorbar(
                psnr.mean, strength.mean, xerr=psnr.deviation or None,
                yerr=strength.deviation or None, fmt=cycled(MARKERS, names.index(name)),
                elinewidth=0.6, ecolor=(*to_rgb(cycled(HUES, number)), 0.5), **_look(number),
            )  # fmt: skip
    for row, delivery in enumerate(deliveries):
        for axes, images in zip(panels[row], IMAGES.values(), strict=True):
            axes.set_title(f"{images}, delivery: {delivery}", fontsize=SMALL)
            axes.axhline(0, color="0.4", linewidth=0.6, zorder=1)
            plain_axes(axes)
        panels[row, 0].set_ylabel("backdoor gain (points)")
    low, high = panels[0, 0].get_xlim()
    spare = max(0, LEAST_RANGE - (high - low)) / 2
    panels[0, 0].set_xlim(low - spare, high + spare)
    for axes in panels[-1]:
        axes.set_xlabel("PSNR (dB): harder to see →")
    marks = [
        Line2D([], [], color="0.2", marker=cycled(MARKERS, i), linestyle="", markersize=5)
        for i in range(len(names))
    ]
    kinds = [
        Line2D([], [], marker="o", linestyle="", **_look(number)) for number in range(len(victims))
    ]
    blank = Line2D([], [], linestyle="")
    legend = figure.legend(
        [blank, *marks, blank, *kinds], texts, loc="outside right upper", handletextpad=0.3
    )
    for text in legend.get_texts():
        if text.get_text() in ("attack", "victim"):
            text.set_fontweight("bold")
    hidden = distinct(frame["name"][~frame["name"].isin(names)])
    caption = (
        "Backdoor gain against PSNR of the poisoned images (left) and of the triggered queries "
        "(right): means, with one standard deviation of a single run. Shape: the attack. Colour "
        "and filling: the victim. Further to the right is harder to see, further up is stronger. "
        "Deliveries are not compared.",
        *([f"No mark, as no image is changed: {'; '.join(hidden)}."] if hidden else []),
        run_count(found.values(), "mark"),
        *conditions(shown, convention),
        *surrogates(shown),
        *provenance(shown),
    )
    return [FinishedFigure("visibility", figure, caption)]


def _look(number: int) -> dict[str, Any]:
    """Colour, filling and size of a victim's marks.

    Empty ones are white, so that no bar shows in them; later ones are smaller, so that one trigger
    of equal gain on several victims is seen as rings.
    """
    hue, fill = cycled(HUES, number), cycled(FILLS, number)
    return {
        "color": hue,
        "fillstyle": "full" if fill == "none" else fill,
        "markerfacecolor": "white" if fill == "none" else hue,
        "markerfacecoloralt": "white",
        "markersize": max(4.0, 6.8 - 1.2 * number),
        "markeredgewidth": 0.7,
    }
