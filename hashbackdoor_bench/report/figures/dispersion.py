"""Whether dispersed poison makes a stronger backdoor: gain against the dispersion reached."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.stats import spearmanr

from hashbackdoor_bench.records import Record
from hashbackdoor_bench.report.captions import conditions, provenance, surrogates
from hashbackdoor_bench.report.figures.finished import FinishedFigure, Unfilled
from hashbackdoor_bench.report.figures.groups import (
    distinct,
    left_out,
    legend_columns,
    plain_axes,
    runs_by_head,
    with_recorded,
    wrapped,
)
from hashbackdoor_bench.report.selection import victim_heads
from hashbackdoor_bench.report.style import HUES, MARKERS, SMALL, TEXT, cycled

FIELD = "dispersion"
NETWORKS = ("surrogate", "victim")
FEWEST = 4  # runs, for a correlation


def dispersion(frame: pd.DataFrame, convention: str) -> list[FinishedFigure]:
    """One row of panels per victim: perturbed poison on the surrogate, and on the victim.

    Raises:
        Unfilled: no record holds its dispersion and a gain.
    """
    frame, lacking = with_recorded(frame, "dispersion-reached", FIELD, _sound)
    frame = frame.assign(head=victim_heads(frame))
    gain = f"{convention}.backdoor_gain"
    shown = frame[frame[gain].notna()]
    if shown.empty:
        raise Unfilled("figure dispersion-reached: none of these records has a backdoor gain.")
    found = runs_by_head(shown, ("head", "name"))
    victims, names = distinct(shown["head"]), distinct(shown["name"])
    labels = [wrapped(name, TEXT / 3) for name in names]
    across = legend_columns(labels, TEXT)
    height = 0.5 + 1.75 * len(victims) + 0.16 * -(-len(names) // across)
    figure = Figure(figsize=(TEXT, height), layout="constrained")
    panels = figure.subplots(len(victims), 2, sharex=True, sharey=True, squeeze=False)
    sentences = []
    for row, victim in enumerate(victims):
        for axes, network in zip(panels[row], NETWORKS, strict=True):
            for (head, name), part in found.items():
                number = names.index(name)
                if head == victim:
                    axes.plot(
                        100 * reached(part, network), 100 * part[gain], linestyle="",
                        marker=cycled(MARKERS, number), color=cycled(HUES, number), markersize=4,
                        markeredgewidth=0.5, alpha=0.8,
                    )  # fmt: skip
            axes.set_title(f"{victim}: codes of the {network}", fontsize=SMALL)
            axes.axhline(0, color="0.4", linewidth=0.6, zorder=1)
            plain_axes(axes)
            part = shown[shown["head"] == victim]
            sentences.append(_correlation(part, network, victim, gain))
        panels[row, 0].set_ylabel("backdoor gain (points)")
    for axes in panels[-1]:
        axes.set_xlabel("dispersion of perturbed poison (% of the largest)")
    marks = [
        Line2D([], [], linestyle="", marker=cycled(MARKERS, i), color=cycled(HUES, i), markersize=4)
        for i in range(len(names))
    ]
    figure.legend(marks, labels, loc="outside upper center", ncols=across, handletextpad=0.3)
    caption = (
        "Backdoor gain against the dispersion that perturbed poison has without its trigger: L_c, "
        "the mean Hamming distance of the codes of two poisoned images, in percent of the largest "
        "possible one. Left: on the surrogate, on which the perturbation was made; right: on the "
        "victim that was trained on the poison. Each mark is one run.",
        *sentences,
        *left_out(lacking, FIELD),
        *conditions(shown, convention),
        *surrogates(shown),
        *provenance(shown),
    )
    return [FinishedFigure("dispersion-reached", figure, caption)]


def reached(frame: pd.DataFrame, network: str) -> pd.Series:
    """L_c of the hard codes of perturbed poison, as a share of the largest."""
    values = [
        getattr(record.dispersion, network).perturbed.hard.l_c_share for record in frame["record"]
    ]
    return pd.Series(values, index=frame.index, dtype=float)


def _sound(record: Record) -> bool:
    """Whether a record has a dispersion of more than one image."""
    found = record.dispersion
    return found is not None and all(
        getattr(found, network).perturbed.hard.l_c_share is not None for network in NETWORKS
    )


def _correlation(part: pd.DataFrame, network: str, victim: str, gain: str) -> str:
    """The rank correlation of gain and dispersion over all runs of a panel."""
    x, what = reached(part, network), f"{victim}, {network}"
    if len(part) < FEWEST or x.nunique() < 2 or part[gain].nunique() < 2:
        return f"{what}: too few different runs for a correlation (n = {len(part)})."
    found = spearmanr(x, part[gain])
    return (
        f"{what}: Spearman's rank correlation {found.statistic:.2f} over n = {len(part)} runs of "
        f"all attacks (p = {found.pvalue:.2g})."
    )
