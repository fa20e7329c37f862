"""t-MAP and MAP against the one setting that some runs vary, with a band of one deviation."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hashbackdoor_bench.report.captions import conditions, provenance, surrogates
from hashbackdoor_bench.report.figures.finished import FinishedFigure, Unfilled
from hashbackdoor_bench.report.figures.groups import (
    distinct,
    legend_columns,
    plain_axes,
    run_count,
    spread_of,
    wrapped,
)
from hashbackdoor_bench.report.selection import SAME_ATTACK, SAME_VICTIM, with_display_names
from hashbackdoor_bench.report.statistics import draws
from hashbackdoor_bench.report.style import COLUMN, DASHES, HUES, MARKERS, SMALL, cycled
from hashbackdoor_bench.spec import canonical

TIGHT = 0.12  # of the axis: values that lie nearer have no tick each


@dataclass(frozen=True)
class Setting:
    """What varies along the x axis.

    Attributes:
        name: of the figure.
        field: of the spec; ``attack.NAME`` is one of the attack's settings.
        label: of the axis, with its unit.
        factor: from the field's unit to the axis'.
        log: equal factors lie equally far apart.
        suite: that varies it.
    """

    name: str
    field: str
    label: str
    suite: str
    factor: float = 1
    log: bool = False


SETTINGS = (
    Setting("bits", "bits", "code length K (bits)", "ciba-table-fashion"),
    Setting("budget", "budget", "poison (% of the target class)", "sensitivity", 100, log=True),
    Setting("size", "attack.patch", "side of the patch (px)", "sensitivity"),
    Setting("epsilon", "attack.epsilon", "ε (grey levels of 255)", "sensitivity", log=True),
    Setting("dispersion", "attack.dispersion", "λ (weight of dispersion)", "sensitivity"),
)


@dataclass(frozen=True)
class Series:
    """A line: runs that differ in the setting, the target and the seed only.

    Attributes:
        network: of its victim, as tables name it.
        name: of the attack, in the legend.
        points: value -> its runs, by rising value.
    """

    network: str
    name: str
    points: Mapping[float, pd.DataFrame]


def against_setting(setting: Setting, frame: pd.DataFrame, convention: str) -> list[FinishedFigure]:
    """The figure of one setting: per victim a row of panels, t-MAP on the left, MAP on the right.

    Raises:
        Unfilled: no two runs differ in the setting only.
    """
    # a suite's label names what varies along its row, which the axis says here
    labels = [re.sub(r", [\w.]+=[^,]*", "", label) for label in frame["label"]]
    frame = with_display_names(frame.assign(label=labels))
    found = _series(setting, frame)
    used = pd.concat([part for line in found for part in line.points.values()])
    victims = distinct(line.network for line in found)
    names = distinct(line.name for line in found)
    texts = [wrapped(text, COLUMN - 0.6) for text in (*names, "control")]
    across = legend_columns(texts, COLUMN)
    height = 0.4 + 1.35 * len(victims) + 0.16 * -(-len(texts) // across)
    figure = Figure(figsize=(COLUMN, height), layout="constrained")
    panels = figure.subplots(len(victims), 2, sharex=True, sharey=True, squeeze=False)
    for (left, right), victim in zip(panels, victims, strict=True):
        for line in (line for line in found if line.network == victim):
            number = names.index(line.name)
            _line(left, line, f"{convention}.t_map", number)
            _control(left, line, convention, number)
            _line(right, line, f"{convention}.map", number)
        where = f", {victim}" if len(victims) > 1 else ""
        left.set_title(f"t-MAP{where}")
        right.set_title(f"MAP{where}")
        left.set_ylabel("%")
    _axis(setting, list(panels.flat), found)
    figure.supxlabel(setting.label, fontsize=SMALL)
    marks = [
        Line2D(
            [], [], color=cycled(HUES, i), marker=cycled(MARKERS, i), linestyle=cycled(DASHES, i),
            markersize=3.2, linewidth=1,
        )
        for i in range(len(names))
    ]  # fmt: skip
    marks.append(Line2D([], [], color="0.5", linewidth=0.7, linestyle=(0, (1, 1.5))))
    figure.legend(marks, texts, loc="outside upper center",
                  ncols=across, handlelength=2.2, columnspacing=1.2)  # fmt: skip
    caption = (
        f"t-MAP and MAP against {setting.label}: mean and, as a band, ± one standard deviation of "
        "a single run. Dotted: the larger control of t-MAP (the trigger on a victim without "
        "poison, the poisoned victim without the trigger).",
        run_count((part for line in found for part in line.points.values()), "point"),
        *([f"Victim {victims[0]}."] if len(victims) == 1 else []),
        *conditions(used, convention),
        *surrogates(used),
        *provenance(used),
    )
    return [FinishedFigure(setting.name, figure, caption)]


def _series(setting: Setting, frame: pd.DataFrame) -> list[Series]:
    """The lines: at least two values of the setting, and all else equal."""
    rows = frame.to_dict("index")
    found: dict[str, dict[float, list[Any]]] = {}
    fixed: dict[str, dict[str, Any]] = {}
    for index, row in rows.items():
        rest = _fixed(row)
        value = rest.pop(setting.field, None)
        if setting.field == "bits" and rest["surrogate_bits"] == value:
            rest["surrogate_bits"] = "the victim's"
        if not _drawable(value) or (setting.field == "budget" and rest["poison_count"] is not None):
            continue
        key = canonical(rest)
        fixed[key] = rest
        found.setdefault(key, {}).setdefault(float(value) * setting.factor, []).append(index)
    lines = {key: points for key, points in found.items() if len(points) > 1}
    if not lines:
        raise Unfilled(
            f"figure {setting.name}: no two of these {len(frame)} records differ in "
            f"{setting.field} and in nothing else but target and seed; "
            f"`bench suite run {setting.suite}` makes such runs."
        )
    heads: dict[tuple[str, str], list[str]] = {}
    for key in lines:
        heads.setdefault((fixed[key]["network"], fixed[key]["name"]), []).append(key)
    series = []
    for key, points in lines.items():
        network, name = fixed[key]["network"], fixed[key]["name"]
        name = ", ".join([name, *_differences(key, heads[network, name], fixed)])
        parts = {value: frame.loc[points[value]] for value in sorted(points)}
        for value, part in parts.items():
            draws(part, f"{name}, {setting.field}={value:g}", "seed")
        series.append(Series(network, name, parts))
    return series


def _fixed(row: Mapping[Any, Any]) -> dict[str, Any]:
    """All that the runs of a line share, and the setting that they don't."""
    spec = row["record"].spec
    rest = {name: getattr(spec, name) for name in (*SAME_ATTACK, *SAME_VICTIM, "bits")}
    rest |= {f"attack.{name}": value for name, value in rest.pop("attack_settings")}
    if row["surrogate"] is None:
        rest |= dict.fromkeys(("surrogate", "surrogate_backbone", "surrogate_bits"))
    elif spec.surrogate == spec.victim:
        rest["surrogate"] = "the victim's"
    return rest | {"network": row["network"], "name": row["name"]}


def _drawable(value: object) -> bool:
    """Whether it is a number that an axis can show; a setting in a record may be anything."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e300


def _differences(
    key: str, same: Sequence[str], fixed: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """What tells a line from the others of its victim and name."""
    names = sorted({name for other in same for name in fixed[other]})
    return [
        f"{name.removeprefix('attack.')}={fixed[key].get(name)}"
        for name in names
        if len({canonical(fixed[other].get(name)) for other in same}) > 1
    ]


def _line(axes: Axes, line: Series, column: str, number: int) -> None:
    spreads = {x: spread_of(part, column, 100) for x, part in line.points.items()}
    known = {x: one for x, one in spreads.items() if one is not None}
    middle = [one.mean for one in known.values()]
    reach = [one.deviation or 0.0 for one in known.values()]
    hue = cycled(HUES, number)
    axes.fill_between(
        list(known),
        [m - r for m, r in zip(middle, reach, strict=True)],
        [m + r for m, r in zip(middle, reach, strict=True)],
        color=hue, alpha=0.2, linewidth=0,
    )  # fmt: skip
    axes.plot(list(known), middle, color=hue, linestyle=cycled(DASHES, number), linewidth=1)
    for x, one in known.items():
        axes.plot(
            x, one.mean, cycled(MARKERS, number), color=hue, markersize=3.2, markeredgewidth=0.7,
            markerfacecolor=hue if one.n > 1 else "white",
        )  # fmt: skip


def _control(axes: Axes, line: Series, convention: str, number: int) -> None:
    """The larger control of every run, which its gain is over."""
    level = {}
    for x, part in line.points.items():
        control = part[f"{convention}.t_map"] - part[f"{convention}.backdoor_gain"]
        if control.notna().any():
            level[x] = 100 * control.mean()
    axes.plot(
        list(level), list(level.values()), color=cycled(HUES, number), linewidth=0.7,
        linestyle=(0, (1, 1.5)),
    )  # fmt: skip


def _axis(setting: Setting, panels: Sequence[Axes], found: Sequence[Series]) -> None:
    ticks = sorted({x for line in found for x in line.points})
    for axes in panels:
        plain_axes(axes)
        axes.margins(x=0.07)
        axes.set_ylim(0, 100)
        axes.set_yticks([0, 25, 50, 75, 100])
        if setting.log and ticks[0] > 0:
            axes.set_xscale("log")
            axes.minorticks_off()
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        elif min(b - a for a, b in pairwise(ticks)) >= TIGHT * (ticks[-1] - ticks[0]):
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
