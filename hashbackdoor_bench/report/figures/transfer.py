"""How triggers made on one network do on another: one heatmap per attack."""

from itertools import product

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from hashbackdoor_bench.report.captions import conditions, provenance
from hashbackdoor_bench.report.figures.finished import FinishedFigure, Unfilled
from hashbackdoor_bench.report.figures.groups import (
    LETTER,
    distinct,
    run_count,
    runs_by_head,
    spread_of,
    wrapped,
)
from hashbackdoor_bench.report.figures.heatmap import heatmap, limits_of, scale
from hashbackdoor_bench.report.selection import surrogate_difference, surrogate_heads, victim_heads
from hashbackdoor_bench.report.style import COLUMN, SMALL, TEXT

WIDEST = 1.1  # inches: a line of a row's head, unless a word is longer
LEAST_SIDE = 0.33  # inches: a cell's numbers


def transfer(frame: pd.DataFrame, convention: str) -> list[FinishedFigure]:
    """Backdoor gain, surrogates × victims; the white box is framed.

    Raises:
        Unfilled: no attack has two surrogates.
    """
    taken = frame[frame["surrogate"].notna()]
    taken = taken.assign(head=victim_heads(taken), other=surrogate_heads(taken))
    # the white box alone, with one surrogate per victim, shows no transfer
    crossed = taken.groupby(["name", "head"])["other"].transform("nunique") > 1
    taken = taken[taken["name"].isin(set(taken["name"][crossed]))]
    if taken.empty:
        raise Unfilled(
            "figure transfer: no attack among these records was crafted on two surrogates for one "
            "victim; `bench suite run transfer-mini` makes such runs."
        )
    found = runs_by_head(taken, ("name", "other", "head"))
    names, rows, columns = (distinct(taken[column]) for column in ("name", "other", "head"))
    longest = max(len(word) for row in rows for word in row.split())
    heads = {row: wrapped(row, max(WIDEST, LETTER * (longest + 1))) for row in rows}
    letters = max(len(line) for head in heads.values() for line in head.split("\n"))
    beside = max(1.2, 0.9 + LETTER * letters)  # inches: heads of rows, scale of the colours
    width = COLUMN if len(columns) <= 4 and len(names) <= 2 else TEXT
    if (width - beside) / min(len(names), 2) / len(columns) < LEAST_SIDE:
        width = TEXT
    across = min(len(names), 2 if width == COLUMN else 3)
    down = -(-len(names) // across)
    side = (width - beside) / across / len(columns)
    titles = {name: wrapped(name, side * len(columns)) for name in names}
    lines = max(title.count("\n") for title in titles.values())
    figure = Figure(
        figsize=(width, down * (min(max(side, 0.4), 0.6) * len(rows) + 0.55 + 0.13 * lines) + 0.15),
        layout="constrained",
    )
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    for axes in panels.flat[len(names) :]:
        axes.set_visible(False)
    levels = {
        heads: spread_of(part, f"{convention}.backdoor_gain", 100) for heads, part in found.items()
    }
    limits = limits_of(levels.values())
    for axes, name in zip(panels.flat, names, strict=False):
        cells = {
            (heads[row], column): levels.get((name, row, column))
            for row in rows
            for column in columns
        }
        picture = heatmap(axes, cells, ([*heads.values()], columns), limits, side)
        for row, column in product(rows, columns):
            if levels.get((name, row, column)) and not surrogate_difference(
                found[name, row, column].iloc[0].to_dict()
            ):
                place = columns.index(column) - 0.46, rows.index(row) - 0.46
                axes.add_patch(
                    Rectangle(place, 0.92, 0.92, fill=False, edgecolor="black", linewidth=0.9)
                )
        axes.set_title(titles[name], fontsize=SMALL)
    for axes in panels[-1]:
        axes.set_xlabel("victim")
    for axes in panels[:, 0]:
        axes.set_ylabel("surrogate")
    scale(figure, picture, panels.flat, "backdoor gain (points)")
    caption = (
        "Backdoor gain, in percentage points, of triggers crafted on one network (rows) against "
        "another (columns): the mean and below it the standard deviation of a single run; × was "
        "not run. The colours span the gains that are shown. "
        "A frame is the white box: the surrogate is of the victim's method, backbone, training and "
        "bits, with a seed of its own.",
        run_count(found.values(), "cell"),
        *conditions(taken, convention),
        *provenance(taken),
    )
    return [FinishedFigure("transfer", figure, caption)]
