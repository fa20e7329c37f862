"""What a defense leaves of an attack against what it leaves of the search, over its strengths."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from hashbackdoor_bench.records import Record
from hashbackdoor_bench.registry import DEFENSES
from hashbackdoor_bench.report.captions import conditions, provenance, surrogates
from hashbackdoor_bench.report.defended import NO_CODES, UNDEFENDED, is_published, with_defenses
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
from hashbackdoor_bench.report.style import SMALL, TEXT
from hashbackdoor_bench.spec import POINTS

ACROSS, PANEL = 3, 1.9  # panels of a row, and their height in inches
WIDE = 1.3  # inches for the names of defenses
LARGE = 5.5  # pt: the mark of a published strength
POINT: dict[str, Any] = {"linestyle": ""}
LINE: dict[str, Any] = {"linewidth": 0.8}
STRENGTH = "each defense at its published strength"


def defense_trade_off(frame: pd.DataFrame, convention: str) -> list[FinishedFigure]:
    """One figure per victim, one panel per attack and poisoned share, one line per defense.

    Raises:
        Unfilled: no record has a defense that changes codes.
    """
    frame = with_defenses(frame, convention)
    frame = frame[frame["t_map.after"].notna()]
    if frame.empty:
        raise Unfilled(f"figure defense-trade-off: {NO_CODES}")
    heads = distinct(frame["head"])
    return [
        _drawn(
            frame[frame["head"] == head],
            convention,
            "defense-trade-off" if len(heads) == 1 else f"defense-trade-off-{head}",
        )
        for head in heads
    ]


def _drawn(frame: pd.DataFrame, convention: str, name: str) -> FinishedFigure:
    found = runs_by_head(frame, ("attacker", "share", "defense"))
    places = distinct((attack, share) for attack, share, _ in found)
    defenses = distinct(record.spec.defense for record in frame["record"])
    looks = looks_of({defense: defense for defense in defenses})
    figure, panels = panels_of(len(places), ACROSS, PANEL)
    for axes, place in zip(panels, places, strict=True):
        here = {key[2]: part for key, part in found.items() if key[:2] == place}
        for defense in defenses:
            own = {
                head: part
                for head, part in here.items()
                if part["record"].iloc[0].spec.defense == defense
            }
            _line(axes, own, looks[defense])
        _references(axes, pd.concat(list(here.values())))
        axes.set_title(wrapped(f"{place[0]}, {place[1]}", TEXT / ACROSS - 0.5), fontsize=SMALL)
        axes.set_ylim(0, 100)
        axes.margins(x=0.08)
        plain_axes(axes)
    figure.supxlabel("MAP (%): more of the search is left →", fontsize=SMALL)
    figure.supylabel("← t-MAP (%): less of the attack is left", fontsize=SMALL)
    # of one strength each no line is drawn
    marks_of = Counter(
        (key[:2], part["record"].iloc[0].spec.defense) for key, part in found.items()
    )
    strengths = not all(map(is_published, frame["record"])) or max(marks_of.values()) > 1
    lines = LINE if strengths else POINT
    marks = [Line2D([], [], **looks[defense] | lines, markersize=4) for defense in defenses]
    texts = [wrapped(DEFENSES.published(defense), WIDE) for defense in defenses]
    marks += [
        Line2D([], [], color="black", marker="*", linestyle="", markersize=7),
        Line2D([], [], color="0.4", linestyle=(0, (4, 2)), linewidth=0.8),
    ]
    texts += [UNDEFENDED, "floor"]
    sentences = [
        "t-MAP of triggered queries against MAP of clean ones behind defenses: means over runs, "
        f"{'one line per defense over its strengths' if strengths else STRENGTH}."
    ]
    if strengths and any(map(is_published, frame["record"])):
        marks.append(Line2D([], [], color="0.2", marker="o", linestyle="", markersize=LARGE))
        texts.append("published")
        sentences.append("Large: the published strength.")
    if any(map(_is_tuned, frame["record"])):
        marks.append(Line2D([], [], color="0.2", marker="o", linestyle="", markersize=8,
                            fillstyle="none"))  # fmt: skip
        texts.append("tuned")
        sentences.append("Ringed: the strength that was tuned on the defender's clean images.")
    figure.legend(marks, texts, loc="outside right upper", handlelength=2)
    caption = (
        *sentences,
        "Star: without a defense. Dashed: the floor, t-MAP of the victim without poison. Further "
        "right and further down is better. Panels are named by attack and poisoned share of the "
        "target class.",
        run_count(found.values(), "mark"),
        *conditions(frame, convention),
        *surrogates(frame),
        *provenance(frame),
    )
    return FinishedFigure(name, figure, caption)


def _line(axes: Axes, found: Mapping[Any, pd.DataFrame], look: dict[str, Any]) -> None:
    """The strengths of one defense, in their order, with the tuned one beside the line."""
    marks = []
    for part in found.values():
        spreads = spread_of(part, "map.after", 100), spread_of(part, "t_map.after", 100)
        record = part["record"].iloc[0]
        if None not in spreads:
            marks.append((record, *(one.mean for one in spreads if one)))
    line = [mark for mark in marks if not _is_tuned(mark[0])]
    strength = _strength([dict(record.spec.defense_settings) for record, *_ in line])
    line.sort(key=lambda mark: dict(mark[0].spec.defense_settings).get(strength, 0))
    axes.plot([x for _, x, _ in line], [y for *_, y in line], color=look["color"], **LINE)
    for record, x, y in marks:
        tuned = _is_tuned(record)
        size = LARGE if is_published(record) else 3
        axes.plot(x, y, **(look | POINT), markersize=size)
        if tuned:
            axes.plot(x, y, marker="o", color=look["color"], markersize=8, fillstyle="none",
                      markeredgewidth=0.7)  # fmt: skip


def _is_tuned(record: Record) -> bool:
    return record.spec.operating_point != POINTS[0]


def _strength(settings: list[dict[str, Any]]) -> str:
    """The number that varies most among the settings of a defense's runs; empty if none does."""
    values = Counter(
        name
        for name in {name for one in settings for name in one}
        for _ in {one.get(name) for one in settings if isinstance(one.get(name), int | float)}
    )
    most = max(values.items(), key=lambda one: (one[1], one[0]), default=("", 0))
    return most[0] if most[1] > 1 else ""


def _references(axes: Axes, frame: pd.DataFrame) -> None:
    """The undefended victim, and the floor."""
    draws = frame.drop_duplicates(["target", "seed"])
    x, y, floor = (
        spread_of(draws, f"{name}.before", 100) for name in ("map", "t_map", "control_t_map")
    )
    if x and y:
        axes.plot(x.mean, y.mean, "*", color="black", markersize=7, zorder=4, markeredgewidth=0.4)
    if floor:
        axes.axhline(floor.mean, color="0.4", linestyle=(0, (4, 2)), linewidth=0.8, zorder=1)
