"""Codes on a plane: the classes of the database, and queries without and with the trigger."""

from collections import Counter
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hashbackdoor_bench.records import Plane, Record
from hashbackdoor_bench.report.captions import conditions, provenance, surrogates
from hashbackdoor_bench.report.figures.finished import FinishedFigure
from hashbackdoor_bench.report.figures.groups import (
    deliveries,
    distinct,
    left_out,
    pale,
    runs_by_head,
    title,
    with_recorded,
)
from hashbackdoor_bench.report.selection import victim_heads
from hashbackdoor_bench.report.style import COLUMN, HIT, HUES, MISS, TEXT, cycled

FIELD = "codes_2d"
ACROSS = 4
SPARE = 0.15  # inches beside a panel's title
GROWTH = 1 / 3  # a mark of eight queries is twice as wide as that of one
MARKS: dict[str, dict[str, Any]] = {
    "target": {"marker": "s", "color": HIT, "markersize": 2.6, "markeredgewidth": 0},
    "other": {"marker": "o", "color": "0.6", "markersize": 1.9, "markeredgewidth": 0},
    "untriggered": {
        "marker": "v", "color": "black", "markersize": 3, "markeredgewidth": 0.6,
        "fillstyle": "none",
    },
    "triggered": {"marker": "x", "color": MISS, "markersize": 3, "markeredgewidth": 0.8},
}  # fmt: skip


def codes(frame: pd.DataFrame, convention: str) -> list[FinishedFigure]:
    """One figure per victim with one panel per attack: the first of its runs that has codes.

    Raises:
        UserError: no record holds codes.
    """
    frame = frame.assign(head=victim_heads(frame), file_head=victim_heads(frame, "victim"))
    frame, lacking = with_recorded(frame, "codes", FIELD, _sound)
    runs_by_head(frame, ("name", "head"))
    first = frame.sort_values("seed", kind="stable")
    first = first.sort_values("target", kind="stable", key=lambda targets: targets.astype(str))
    first = first.groupby(["name", "head"], sort=False).head(1).sort_index()
    victims, delivered = distinct(first["file_head"]), deliveries(frame)
    return [
        _figure(
            first[first["file_head"] == victim],
            "codes" if len(victims) == 1 else f"codes-{_hyphenated(victim)}",
            delivered,
            lacking[lacking["file_head"] == victim],
        )
        for victim in victims
    ]


def _hyphenated(victim: str) -> str:
    """The victim as part of a file's name."""
    return "-".join("".join(c if c.isalnum() else " " for c in victim).split())


def _figure(
    runs: pd.DataFrame, name: str, delivered: dict[str, str], lacking: pd.DataFrame
) -> FinishedFigure:
    across = min(len(runs), 2 if len(runs) <= 2 else ACROSS)
    down, width = -(-len(runs) // across), COLUMN if len(runs) <= 2 else TEXT
    figure = Figure(figsize=(width, (width / across + 0.1) * down + 0.3), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False)
    for axes in panels.flat[len(runs) :]:
        axes.set_visible(False)
    for axes, row in zip(panels.flat, runs.to_dict("records"), strict=False):
        _panel(axes, row["record"].retrieval.codes_2d)
        title(axes, row["name"], delivered.get(row["name"], ""), width / across - SPARE)
    target = runs["target"].iloc[0]
    planes = [record.retrieval.codes_2d for record in runs["record"]]
    shares = sorted({f"{100 * sum(plane.explained):.0f}" for plane in planes}, key=float)
    kept = f"{shares[0]} to {shares[-1]} %" if len(shares) > 1 else f"{shares[0]} %"
    texts = (f"database: {target} (target)", "other classes", "queries", "with the trigger")
    figure.legend(
        [Line2D([], [], linestyle="", **style) for style in MARKS.values()], texts,
        loc="outside upper center", ncols=2 if width == COLUMN else 4, handletextpad=0.2,
        markerscale=1.4,
    )  # fmt: skip
    one = runs.iloc[0]
    caption = (
        f"Codes of victim {one['head']} on the plane of their two largest principal components "
        f"(fitted to the database items shown, of whose variance it keeps {kept}, so that codes "
        "which lie together here may be many bits apart): a few items of every class, "
        "each class in its pale hue, and the same attacked queries without "
        "and with the trigger. The more queries have one code, the larger its mark.",
        "Each panel is one run (n = 1): the first target and seed.",
        *conditions(runs, None),
        *surrogates(runs),
        *left_out(lacking, FIELD),
        *provenance(runs),
    )
    return FinishedFigure(name, figure, caption)


def _panel(axes: Axes, plane: Plane) -> None:
    others = [part for part in plane.classes if not part.target]
    for number, part in enumerate(others):
        style = MARKS["other"] | {"color": pale(cycled(HUES, number))}
        axes.plot(part.x, part.y, linestyle="", **style)
    for part in (part for part in plane.classes if part.target):
        axes.plot(part.x, part.y, linestyle="", **MARKS["target"])
    for name, points in (("untriggered", plane.untriggered), ("triggered", plane.triggered)):
        together = Counter(zip(points.x, points.y, strict=True))
        for (x, y), count in together.items():
            size = MARKS[name]["markersize"] * count**GROWTH
            axes.plot(x, y, linestyle="", **MARKS[name] | {"markersize": size})
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color("0.8")


def _sound(record: Record) -> bool:
    return record.retrieval.codes_2d is not None
