"""The figure: when triggered queries reach the target's code, and what the gain goes with."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.style import context
from matplotlib.ticker import MaxNLocator

from hashbackdoor_bench.registry import ATTACKS
from hashbackdoor_bench.report.style import SEQUENCE, SMALL, STYLE, TEXT

CURVES = {  # of an epoch: label of the axis, factor
    "triggered queries": ("triggered queries: % of bits\nthat aren't the target's", 100),
    "loss of poison": ("loss of poison", 1),
}


def draw(runs: Sequence[Mapping[str, Any]]) -> Figure:
    """A row of panels for each attack: two numbers over epochs, and the gain over the contrast.

    Args:
        runs: what `looked_into` returned.
    """
    attacks = list(dict.fromkeys(run["attack"] for run in runs))
    largest = max(run["gain"] for run in runs)
    colours = ScalarMappable(Normalize(0, max(100 * largest, 10)), colormaps[SEQUENCE])
    with context(["default", STYLE]):
        figure = Figure(figsize=(TEXT, 1.7 * len(attacks) + 0.3), layout="constrained")
        panels = figure.subplots(len(attacks), 3, squeeze=False)
        for row, attack in zip(panels, attacks, strict=True):
            part = [run for run in runs if run["attack"] == attack]
            for axes, (name, (label, factor)) in zip(row, CURVES.items(), strict=False):
                for run in part:
                    values = [factor * epoch[name] for epoch in run["epochs"]]
                    axes.plot(
                        range(1, len(values) + 1), values, linewidth=0.9,
                        color=colours.to_rgba(100 * run["gain"]),
                    )  # fmt: skip
                axes.set_ylabel(label)
                axes.set_xlabel("epoch")
                axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            row[0].set_ylim(bottom=0)
            last = row[-1]
            for run in part:
                last.plot(
                    100 * run["numbers"]["contrast of the patch"], 100 * run["gain"], "o",
                    color=colours.to_rgba(100 * run["gain"]), markersize=4,
                    markeredgecolor="0.3", markeredgewidth=0.4,
                )  # fmt: skip
            last.set_xlabel("contrast of the patch\n(% of black to white)")
            last.set_ylabel("backdoor gain (points)")
            row[0].set_title(ATTACKS.published(attack))
            for axes in row:
                axes.tick_params(labelsize=SMALL)
                axes.spines[["top", "right"]].set_visible(False)
        bar = figure.colorbar(colours, ax=panels, shrink=0.6, aspect=30)
        bar.set_label("backdoor gain (points)", fontsize=SMALL)
        bar.ax.tick_params(labelsize=SMALL)
    return figure
