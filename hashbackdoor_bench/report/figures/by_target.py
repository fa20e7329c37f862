"""t-MAP by target: how much the class that an attacker chooses decides."""

import pandas as pd
from matplotlib.figure import Figure

from hashbackdoor_bench.report.captions import conditions, provenance, surrogates
from hashbackdoor_bench.report.figures.finished import FinishedFigure, Unfilled
from hashbackdoor_bench.report.figures.groups import (
    distinct,
    run_count,
    runs_by_head,
    spread_of,
    wrapped,
)
from hashbackdoor_bench.report.figures.heatmap import Cells, heatmap, limits_of, scale
from hashbackdoor_bench.report.selection import victim_heads
from hashbackdoor_bench.report.statistics import Spread, spread
from hashbackdoor_bench.report.style import COLUMN, SMALL, TEXT

MEAN, CONTROL = "mean", "larger control"
LABEL = 1.2  # inches for the attacks' names
ROW = 0.22  # inches, of two lines in a cell
LINE, APART = 0.12, 0.05  # inches: a line of an attack's name, and between two names
LEAST_SIDE = 0.32  # inches of a cell
SCALE = 0.55  # inches for the scale of the colours


def by_target(frame: pd.DataFrame, convention: str) -> list[FinishedFigure]:
    """Attacks × targets, one panel per victim, with the mean over targets and the control.

    Raises:
        Unfilled: the records are of one target.
    """
    targets = distinct(sorted(map(str, frame["target"])))
    if len(targets) < 2:
        raise Unfilled(
            "figure by-target: these records have one target; `bench suite run frozen` makes runs "
            "of four."
        )
    frame = frame.assign(head=victim_heads(frame), target=frame["target"].astype(str))
    runs_by_head(frame, ("name", "head"))
    victims, names = distinct(frame["head"]), distinct(frame["name"])
    columns, rows = [*targets, MEAN], [*names, CONTROL]
    cells = {
        victim: _cells(frame[frame["head"] == victim], columns, convention) for victim in victims
    }
    wide = LEAST_SIDE * len(columns)
    across = min(len(victims), max(1, int((TEXT - LABEL - SCALE) / wide)))
    width = COLUMN if across == 1 and wide <= COLUMN - LABEL - SCALE else TEXT
    down = -(-len(victims) // across)
    texts = [wrapped(row, LABEL) for row in rows]
    row = max(ROW, APART + LINE * max(1 + text.count("\n") for text in texts))
    figure = Figure(figsize=(width, down * (row * len(rows) + 0.35) + 0.5), layout="constrained")
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    limits = limits_of(one for of_victim in cells.values() for one in of_victim.values())
    side = (width - LABEL - SCALE) / across / len(columns)
    for axes in panels.flat[len(victims) :]:
        axes.set_visible(False)
    for axes, victim in zip(panels.flat, victims, strict=False):
        picture = heatmap(axes, cells[victim], (rows, columns), limits, side)
        axes.set_yticks(range(len(rows)), texts)
        axes.axvline(len(targets) - 0.5, color="white", linewidth=2)
        axes.axhline(len(names) - 0.5, color="white", linewidth=2)
        axes.set_title(wrapped(victim, side * len(columns)), fontsize=SMALL)
    for number in range(len(victims), len(panels.flat)):  # the panel above shows its ticks
        panels.flat[number - across].tick_params(labelbottom=True)
    scale(figure, picture, panels.flat, "t-MAP (%)")
    of_cells = [part for _, part in frame.groupby(["name", "head", "target"], sort=False)]
    caption = (
        "t-MAP of every attack (rows) by the target class (columns): the mean over seeds and below "
        "it the standard deviation of a single run; × was not run. Last column: the mean over "
        "targets, with the standard deviation of a target's mean. Last row: the larger control "
        "(the trigger on a victim without poison, the poisoned victim without the trigger), mean "
        "and deviation over all runs.",
        run_count(of_cells, "cell of a target"),
        *conditions(frame, convention),
        *surrogates(frame),
        *provenance(frame),
    )
    return [FinishedFigure("by-target", figure, caption)]


def _cells(frame: pd.DataFrame, columns: list[str], convention: str) -> Cells:
    """The cells of one victim."""
    score = f"{convention}.t_map"
    frame = frame.assign(control=frame[score] - frame[f"{convention}.backdoor_gain"])
    found: dict[tuple[str, str], Spread | None] = {}
    parts = [(str(name), part, score) for name, part in frame.groupby("name", sort=False)]
    for row, part, column in (*parts, (CONTROL, frame, "control")):
        of_target = {
            str(target): spread_of(runs, column, 100) for target, runs in part.groupby("target")
        }
        found |= {(row, target): one for target, one in of_target.items()}
        means = [one.mean for one in of_target.values() if one is not None]
        found[row, MEAN] = spread(means) if len(means) == len(columns) - 1 else None
    return found
