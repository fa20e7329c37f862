"""Filters of the training set against the share of the target's class that is poison."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from hashbackdoor_bench.report.captions import conditions, provenance, surrogates
from hashbackdoor_bench.report.defended import CONTROLS, with_defenses
from hashbackdoor_bench.report.figures.defense_looks import looks_of
from hashbackdoor_bench.report.figures.finished import FinishedFigure, Unfilled
from hashbackdoor_bench.report.figures.groups import (
    distinct,
    panels_of,
    plain_axes,
    run_count,
    runs_by_head,
    spread_of,
    wrapped,
)
from hashbackdoor_bench.report.style import DASHES, SMALL, TEXT

ACROSS, PANEL = 3, 1.8  # panels of a row, and their height in inches
VALUES = {"auroc_in_class": "in class", "auroc": "overall"}


def detection(frame: pd.DataFrame, convention: str) -> list[FinishedFigure]:
    """One figure per victim, one panel per attack, one line per filter.

    Raises:
        Unfilled: no record has a filter that screened poison.
    """
    frame = with_defenses(frame, convention)
    frame = frame[frame["stage"] != CONTROLS]
    screened = [record.defense.detection.get("train") for record in frame["record"]]
    frame = frame.assign(
        class_share=[found.share_of_class if found else None for found in screened],
        **{
            name: [getattr(found, name) if found else None for found in screened] for name in VALUES
        },
    )
    frame = frame[frame["auroc"].notna() & frame["class_share"].notna()]
    if frame.empty:
        raise Unfilled(
            "figure detection: no record has a defense that screens poisoned training images: add "
            "some of spectral, ac, scan or dao."
        )
    heads = distinct(frame["head"])
    specs = [record.spec for record in frame["record"]]
    looks = looks_of(dict(zip(frame["defense"], [spec.defense for spec in specs], strict=True)))
    return [
        _drawn(
            frame[frame["head"] == head],
            looks,
            "detection" if len(heads) == 1 else f"detection-{head}",
        )
        for head in heads
    ]


def _drawn(frame: pd.DataFrame, looks: Mapping[str, dict[str, Any]], name: str) -> FinishedFigure:
    found = runs_by_head(frame, ("attacker", "defense", "share"))
    attacks, defenses = (distinct(key[number] for key in found) for number in (0, 1))
    figure, panels = panels_of(len(attacks), ACROSS, PANEL)
    for axes, attack in zip(panels, attacks, strict=True):
        for defense in defenses:
            parts = [part for key, part in found.items() if key[:2] == (attack, defense)]
            _line(axes, parts, looks[defense])
        axes.axvline(50, color="0.4", linewidth=0.8, linestyle=(0, (4, 2)), zorder=1)
        axes.axhline(50, color="0.4", linewidth=0.8, zorder=1)
        axes.set_xlim(0, 100)
        axes.set_ylim(-2, 102)
        axes.set_xticks([0, 25, 50, 75, 100])
        axes.set_yticks([0, 25, 50, 75, 100])
        axes.set_title(wrapped(attack, TEXT / ACROSS - 0.4), fontsize=SMALL)
        plain_axes(axes)
    figure.supxlabel("poison among the images with the target's label (%)", fontsize=SMALL)
    figure.supylabel("AUROC (%)", fontsize=SMALL)
    marks = [Line2D([], [], **looks[defense], markersize=4, linewidth=1) for defense in defenses]
    marks += [
        Line2D([], [], color="0.3", linewidth=1),
        Line2D([], [], color="0.3", linewidth=0.7, linestyle=DASHES[2]),
    ]
    figure.legend(marks, [*defenses, *VALUES.values()], loc="outside right upper", handlelength=2)
    caption = (
        "AUROC of the suspicion of poisoned training images against the clean images with the "
        "target's label (in class, with marks) and against all clean images (overall, thin "
        "dots), over the share of poison in that class as delivered: means, with one standard "
        "deviation of a single run. Dashed: from there on poison is the majority of its class. "
        "Across: chance. An AUROC below it is not turned round, since no defender knows which "
        "side is the poison.",
        run_count(found.values(), "mark"),
        *conditions(frame, None),
        *surrogates(frame),
        *provenance(frame),
    )
    return FinishedFigure(name, figure, caption)


def _line(axes: Axes, parts: list[pd.DataFrame], look: dict[str, Any]) -> None:
    for name in VALUES:
        marks = []
        for part in parts:
            share, value = spread_of(part, "class_share", 100), spread_of(part, name, 100)
            if share and value:
                marks.append((share.mean, value.mean, value.deviation or 0.0))
        marks.sort()
        x, y = [one[0] for one in marks], [one[1] for one in marks]
        if name == "auroc":
            axes.plot(
                x, y, color=look["color"], linewidth=0.7, linestyle=DASHES[2], marker=".",
                markersize=2,
            )  # fmt: skip
            continue
        axes.errorbar(
            x, y, yerr=[one[2] for one in marks], **look, markersize=4, linewidth=1, elinewidth=0.6
        )
