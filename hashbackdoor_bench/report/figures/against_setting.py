"""t-MAP, backdoor gain and MAP against the one setting that some runs vary."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, get_args, get_type_hints

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hashbackdoor_bench.report.captions import conditions, provenance, surrogates
from hashbackdoor_bench.report.figures.finished import FinishedFigure, Unfilled
from hashbackdoor_bench.report.figures.groups import (
    LOG,
    distinct,
    legend_columns,
    plain_axes,
    run_count,
    spread_of,
    wrapped,
)
from hashbackdoor_bench.report.mixing import (
    SAME_ATTACK,
    SAME_VICTIM,
    refuse_mixed_victims,
    value_of,
)
from hashbackdoor_bench.report.selection import FORMS, with_display_names
from hashbackdoor_bench.report.statistics import draws
from hashbackdoor_bench.report.style import COLUMN, DASHES, HUES, MARKERS, SMALL, TEXT, cycled
from hashbackdoor_bench.spec import RunSpec, canonical

MEASURES = {"t-MAP (%)": 1.15, "gain (points)": 1.15, "MAP (%)": 0.7}  # inches of a panel
NARROW = 2  # victims side by side in a column of a paper
MOST = 7  # victims side by side in the width of the text
DOTTED = (0, (1, 1.5))
CURVES = (*DASHES[:2], *DASHES[3:])  # without dots, which are the control's
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
        suite: that varies it; empty if none that comes with the package does.
    """

    name: str
    field: str
    label: str
    suite: str
    factor: float = 1
    log: bool = False


SETTINGS = (
    Setting("bits", "bits", "code length K (bits)", "sensitivity"),
    Setting("budget", "budget", "poison in % of the target class", "sensitivity", 100, log=True),
    Setting("size", "attack.patch", "side of the patch (px)", "sensitivity"),
    Setting("epsilon", "attack.epsilon", "ε in grey levels of 255", "sensitivity", log=True),
    Setting("dispersion", "attack.dispersion", "λ (weight of dispersion)", "sensitivity"),
)
METHODS = ("attack", "victim")
BANDED = 3  # runs from which on a band says more than their strokes


def setting_named(name: str) -> Setting | None:
    """Any number that runs may differ in, by its name on the command line; None for another name.

    Args:
        name: ``attack.NAME``, ``victim.NAME`` or a number of `RunSpec`.
    """
    method, _, rest = name.partition(".")
    if (rest and method in METHODS) or name in _numbers():
        return Setting(name, name, name, "")
    return None


def _numbers() -> set[str]:
    """The fields of a run that are numbers and may stand on an axis."""
    kinds = {name: get_args(hint) or (hint,) for name, hint in get_type_hints(RunSpec).items()}
    return {name for name, kind in kinds.items() if {int, float} & set(kind)} - {"seed"}


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
    """The figure of one setting: a column of panels per victim, with t-MAP, gain and MAP.

    Raises:
        Unfilled: no two runs differ in the setting only, or there are too many victims.
    """
    # a suite's label names what varies along its row, which the axis says here
    labels = [re.sub(r", [\w.]+=[^,]*", "", label) for label in frame["label"]]
    frame = with_display_names(frame.assign(label=labels))
    found = _series(setting, frame)
    used = pd.concat([part for line in found for part in line.points.values()])
    victims = distinct(line.network for line in found)
    if len(victims) > MOST:
        raise Unfilled(
            f"figure {setting.name}: {len(victims)} victims don't fit side by side, {MOST} do: "
            "choose some with --where victim=NAME."
        )
    names = distinct(line.name for line in found)
    width = COLUMN if len(victims) <= NARROW else TEXT
    texts = [wrapped(text, width - 0.6) for text in (*names, "larger control")]
    across = legend_columns(texts, width)
    height = 0.45 + sum(MEASURES.values()) + 0.16 * -(-len(texts) // across)
    figure = Figure(figsize=(width, height), layout="constrained")
    panels = figure.subplots(
        len(MEASURES), len(victims), sharex=True, sharey="row", squeeze=False,
        gridspec_kw={"height_ratios": list(MEASURES.values())},
    )  # fmt: skip
    for line in found:
        column, number = panels[:, victims.index(line.network)], names.index(line.name)
        for axes, field in zip(column, ("t_map", "backdoor_gain", "map"), strict=True):
            _line(axes, line, f"{convention}.{field}", number)
        _control(column[0], line, convention, number)
    for axes, victim in zip(panels[0], victims, strict=True):
        axes.set_title(wrapped(victim, width / len(victims) - 0.2), fontsize=SMALL)
    for axes, label in zip(panels[:, 0], MEASURES, strict=True):
        axes.set_ylabel(label)
    ticks = sorted({x for line in found for x in line.points})
    log = setting.log and ticks[0] > 0
    _axis(list(panels.flat), ticks, log=log)
    for axes in panels[0]:
        axes.set_ylim(bottom=0)
    for axes in panels[1]:
        axes.axhline(0, color="0.4", linewidth=0.6, zorder=1)
    for axes in panels[2]:
        axes.set_ylim(0, 100)
        axes.set_yticks([0, 50, 100])
    figure.align_ylabels(panels[:, 0])
    figure.supxlabel(setting.label + (LOG if log else ""), fontsize=SMALL)
    marks = [
        Line2D(
            [], [], color=cycled(HUES, i), marker=cycled(MARKERS, i), linestyle=cycled(CURVES, i),
            markersize=3.2, linewidth=1,
        )
        for i in range(len(names))
    ]  # fmt: skip
    marks.append(Line2D([], [], color="0.5", linewidth=0.7, linestyle=DOTTED))
    figure.legend(marks, texts, loc="outside upper center",
                  ncols=across, handlelength=2.2, columnspacing=1.2)  # fmt: skip
    caption = (
        f"t-MAP, backdoor gain and MAP against {setting.label}: mean and, as a band, ± one "
        f"standard deviation of a single run; of fewer than {BANDED} runs, each as a stroke. "
        "Dotted: the larger control of t-MAP (the trigger on a victim without poison, the poisoned "
        "victim without the trigger), which the gain is over.",
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
        if setting.field in FORMS:  # then the name of the victim has it too
            rest["network"] = _without(rest["network"], FORMS[setting.field](str(value)))
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
            + (
                f"`bench suite run {setting.suite}` makes such runs."
                if setting.suite
                else "a list of its values in a suite makes such runs."
            )
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
            what = f"{name}, {setting.field}={value:g}"
            refuse_mixed_victims(part, what)
            draws(part, what, "seed")
        series.append(Series(network, name, parts))
    return series


def _fixed(row: Mapping[Any, Any]) -> dict[str, Any]:
    """All that the runs of a line share, and the setting that they don't."""
    spec = row["record"].spec
    names = (*SAME_ATTACK, *SAME_VICTIM, "bits")
    rest = {name: value_of(row["record"], name) for name in names}
    for method in METHODS:
        settings = getattr(spec, f"{method}_settings")
        del rest[f"{method}_settings"]
        rest |= {f"{method}.{name}": value for name, value in settings}
    if row["surrogate"] is None:
        rest |= dict.fromkeys(name for name in SAME_ATTACK if name.startswith("surrogate"))
    elif spec.surrogate == spec.victim:
        rest["surrogate"] = rest["surrogate_settings"] = "the victim's"
    return rest | {"network": row["network"], "name": row["name"]}


def _without(network: str, form: str) -> str:
    """A victim's name without one of the forms in its parentheses."""
    name, _, forms = network.partition(" (")
    kept = [one for one in forms.removesuffix(")").split(", ") if one not in ("", form)]
    return f"{name} ({', '.join(kept)})" if kept else name


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
        where=[one.n >= BANDED for one in known.values()], color=hue, alpha=0.2, linewidth=0,
    )  # fmt: skip
    for x in [x for x, one in known.items() if one.n < BANDED]:
        runs = 100 * line.points[x][column].dropna()
        axes.plot([x] * len(runs), runs, "_", color=hue, markersize=5, markeredgewidth=0.7)
    axes.plot(list(known), middle, color=hue, linestyle=cycled(CURVES, number), linewidth=1)
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
        linestyle=DOTTED,
    )  # fmt: skip


def _axis(panels: Sequence[Axes], ticks: Sequence[float], *, log: bool) -> None:
    for axes in panels:
        plain_axes(axes)
        axes.margins(x=0.07)
        if log:
            axes.set_xscale("log")
            axes.minorticks_off()
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        elif min(b - a for a, b in pairwise(ticks)) >= TIGHT * (ticks[-1] - ticks[0]):
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
