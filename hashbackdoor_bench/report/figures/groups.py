"""The runs that one mark of a figure stands for, and what all figures do with their axes."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from textwrap import fill
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.typing import ColorType

from hashbackdoor_bench.records import Record
from hashbackdoor_bench.report.figures.finished import Unfilled
from hashbackdoor_bench.report.mixing import SAME_ATTACK, refuse_mixed, refuse_mixed_victims
from hashbackdoor_bench.report.statistics import LEAST_GROUPS, Spread, draws, spread
from hashbackdoor_bench.report.style import GRID, LEAST, SMALL, TEXT, TICKS

NO_INTERVAL = (
    f"No interval is drawn where it would follow from fewer than {LEAST_GROUPS} targets, or seeds "
    "that all targets share."
)
LOG = " (log scale)"  # at the end of an axis' label
LETTER, HANDLE = 0.056, 0.4  # inches: an average letter in small type, a legend's line

Heads = tuple[Hashable, ...]


def runs_by_head(frame: pd.DataFrame, columns: Sequence[str]) -> dict[Heads, pd.DataFrame]:
    """The records by their heads, in the order in which these come.

    Args:
        frame: from `selection.with_display_names`.
        columns: of the heads.

    Raises:
        UserError: runs of one head differ in more than draws, or the networks of one victim do.
    """
    for (victim, bits), part in frame.groupby(["victim", "bits"], sort=False):
        refuse_mixed_victims(part, f"{victim}, {bits} bits")
    found = {}
    for heads, part in frame.groupby(list(columns), sort=False):
        what = " on ".join(map(str, heads))
        refuse_mixed(part, what, SAME_ATTACK)
        draws(part, what, "seed")  # refuses two records of one draw
        found[tuple(heads)] = part
    return found


def distinct(values: Iterable[Any]) -> list[Any]:
    """The different ones, in the order in which they come."""
    return list(dict.fromkeys(values))


def spread_of(frame: pd.DataFrame, column: str, factor: float = 1) -> Spread | None:
    """Mean and standard deviation over the runs that have a value; None if none has."""
    return spread([factor * float(value) for value in frame[column].dropna()])


def run_count(parts: Iterable[pd.DataFrame], mark: str) -> str:
    """How many runs stand behind every mark of a figure, as a sentence."""
    counts = sorted({len(part) for part in parts})
    if counts == [1]:
        return f"Each {mark} is one run (n = 1), which has no spread."
    single = f"; a {mark} of one run has no spread" if counts[0] == 1 else ""
    if len(counts) == 1:
        return f"Each {mark} stands for n = {counts[0]} runs (targets × seeds){single}."
    return (
        f"Each {mark} stands for n = {counts[0]} to {counts[-1]} runs (targets × seeds){single}. "
        "Where n differs the runs do: their targets or seeds may make the difference that is seen."
    )


def with_recorded(
    frame: pd.DataFrame, figure: str, field: str, sound: Callable[[Record], bool]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The records that hold what the tables don't need, and those that don't.

    Args:
        frame: the records.
        figure: for the message.
        field: what is looked for, for the message.
        sound: whether a record has it whole; older code didn't write it, and hands may damage it.

    Raises:
        Unfilled: no record has it.
    """
    has = pd.Series([sound(record) for record in frame["record"]], frame.index, dtype=bool)
    if not has.any():
        raise Unfilled(
            f"figure {figure}: none of the {len(frame)} records holds a sound {field}, which newer "
            "code writes: run them again (what is cached is not trained again)."
        )
    return frame[has], frame[~has]


def left_out(lacking: pd.DataFrame, field: str) -> list[str]:
    """A sentence naming the second part of `with_recorded`; nothing if it is empty."""
    named = ", ".join(lacking["path"])
    return [f"Left out, without a sound {field}: {named}."] if named else []


def by_victim_and_share(
    name: str, frame: pd.DataFrame, lacking: pd.DataFrame
) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """The records of each victim and poisoned share, which have a figure of their own.

    Args:
        name: of the figures, to which is added what tells them apart.
        frame: from `defended.with_defenses`.
        lacking: records that are left out.

    Yields:
        The figure's name, its records, and those of ``lacking`` that would belong to it.
    """
    heads, shares = distinct(frame["head"]), distinct(frame["share"])
    for (head, share), part in frame.groupby(["head", "share"], sort=False):
        words = [name]
        words += [str(head)] if len(heads) > 1 else []
        words += [str(share).replace(" %", "")] if len(shares) > 1 else []
        own = (lacking["head"] == head) & (lacking["share"] == share)
        yield "-".join(words), part, lacking[own]


def complete(values: Sequence[float | None] | None, count: int) -> bool:
    """Whether there are ``count`` numbers and none is undefined."""
    return values is not None and len(values) == count and None not in values


def panels_of(count: int, across: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure as wide as the text with ``count`` panels of one scale, and those panels.

    Args:
        count: number of panels.
        across: the most that stand side by side.
        height: of a row of them, in inches.
    """
    columns = min(across, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(TEXT, 0.4 + height * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    for number, axes in enumerate(panels[count:], count):
        axes.set_visible(False)
        panels[number - columns].tick_params(labelbottom=True)
    return figure, panels[:count]


def plain_axes(axes: Axes, *, grid: str | None = "both") -> None:
    """Thin ticks, a faint grid, no box."""
    axes.tick_params(**TICKS)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(axis=grid, **GRID)  # type: ignore[arg-type]


def deliveries(frame: pd.DataFrame) -> dict[str, str]:
    """The delivery of every name of an attack; empty where all are of one."""
    if frame["delivery"].nunique() == 1:
        return {}
    return dict(zip(frame["name"], frame["delivery"], strict=True))


def without_delivery(name: str, delivery: str) -> str:
    """The name of an attack without the delivery, which stands beside it."""
    return name.removesuffix(f", {delivery}")


def title(axes: Axes, name: str, delivery: str, inches: float) -> None:
    """Write an attack's name over a panel and, on the right, its delivery if there is one to tell.

    Args:
        axes: the panel.
        name: see `selection.with_display_names`.
        delivery: from `deliveries`; may be empty.
        inches: that both may take.
    """
    room = inches - LETTER * len(delivery)
    axes.set_title(wrapped(without_delivery(name, delivery), room), fontsize=SMALL)
    axes.set_title(delivery, loc="right", fontsize=LEAST, color="0.4")


def pale(hue: ColorType, share: float = 0.45) -> tuple[float, float, float]:
    """A light tint: a ``share`` of the hue, the rest white."""
    red, green, blue = (1 - share * (1 - part) for part in to_rgb(hue))
    return red, green, blue


def not_run(axes: Axes) -> None:
    """Say in an empty panel that there is no run for it."""
    axes.text(0.5, 0.4, "not run", transform=axes.transAxes, ha="center", fontsize=LEAST,
              color="0.5")  # fmt: skip


def legend_columns(texts: Sequence[str], width: float) -> int:
    """How many columns of a legend with these texts fit into ``width`` inches; at least one."""
    widest = LETTER * max(map(len, texts)) + HANDLE
    return max(1, min(len(texts), int(width / widest)))


def wrapped(text: str, inches: float) -> str:
    """The text in lines of that width, in small type."""
    return fill(text, max(8, int(inches / LETTER)))
