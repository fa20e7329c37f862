"""The boards of the leaderboard as figures: places with ties, gain over budget, gain by target.

Every board is a panel, so that what is never compared stands side by side and apart.
"""

from collections.abc import Callable, Mapping, Sequence
from math import nan
from operator import attrgetter

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hashbackdoor_bench.report.board.boards import Board, boards
from hashbackdoor_bench.report.board.entries import Entry
from hashbackdoor_bench.report.board.rules import CONVENTION
from hashbackdoor_bench.report.board.wording import PLACES, caption, place, without_places
from hashbackdoor_bench.report.captions import provenance
from hashbackdoor_bench.report.figures.finished import FinishedFigure, Unfilled
from hashbackdoor_bench.report.figures.groups import (
    LOG,
    NO_INTERVAL,
    legend_columns,
    pale,
    plain_axes,
    wrapped,
)
from hashbackdoor_bench.report.statistics import Draws, Estimate, estimate, wins
from hashbackdoor_bench.report.style import (
    COLUMN,
    DASHES,
    HIT,
    HUES,
    LEAST,
    MARKERS,
    SMALL,
    TEXT,
    cycled,
)

ROW = 0.19  # inches for each attack
LINE = 0.12  # inches for each further line of its name
HEAD = 0.55  # inches for a panel's title and axis
NAMES = 1.15  # inches for the attacks' names
NO_PLACE = (
    "Hollow marks on a pale line: an attack without a place, as it lacks runs or breaks another "
    "rule; see below."
)
TIED = 0.035  # of a panel's width between two brackets


def places(frame: pd.DataFrame) -> list[FinishedFigure]:
    """Every board as a forest plot: gain with its interval, place, and ties as brackets."""
    found = _boards(frame)
    few = any(one.gain and one.gain.low is None for board in found for one in _attacks(board))
    sentences = (
        "Backdoor gain of every attack with its 95 % interval over targets, or over seeds that all "
        "targets share, and its place on the right; brackets join attacks that the tests can't "
        "tell apart.",
        *([NO_INTERVAL] if few else []),
        f"A hollow mark has no place. {PLACES}",
    )
    return [_stacked("places", frame, found, _forest, sentences)]


def gain_by_target(frame: pd.DataFrame) -> list[FinishedFigure]:
    """Every board with the gain of each attack on each target.

    Raises:
        Unfilled: no board has two targets.
    """
    found = _boards(frame)
    if not any(len(board.targets) > 1 for board in found):
        raise Unfilled(
            "figure targets: these records have one target each; `bench suite run standard` makes "
            "runs of ten."
        )
    sentence = (
        "Backdoor gain of every attack on each target class, averaged over victims, budgets and "
        "seeds (small marks), and over the targets (line). A grey line joins the marks of one "
        "target."
    )
    return [_stacked("targets", frame, found, _spread, [sentence])]


def over_budgets(frame: pd.DataFrame) -> list[FinishedFigure]:
    """Gain over budget with a band, a panel for each board that has budgets.

    Raises:
        Unfilled: no board has several budgets.
    """
    found = [board for board in _boards(frame) if board.budgets]
    if not found:
        raise Unfilled(
            "figure area: in these records every attack has one budget; `bench suite run standard` "
            "makes runs of five."
        )
    across = min(2, len(found))
    rows = -(-len(found) // across)
    labels = list(dict.fromkeys(one.label for board in found for one in _attacks(board)))
    width = TEXT if across > 1 else COLUMN
    columns = legend_columns(labels, width)
    height = 1.75 * rows + 0.15 * -(-len(labels) // columns) + 0.2
    figure = Figure(figsize=(width, height), layout="constrained")
    panels = figure.subplots(rows, across, squeeze=False, sharey=True).flat
    lines, few = {}, False
    for axes, board in zip(panels, found, strict=False):
        for one in _attacks(board):
            gains = _by_budget(board, one)
            few |= any(gain.low is None for gain in gains.values())
            line = _curve(axes, gains, labels.index(one.label), placed=bool(one.place))
            if one.place or one.label not in lines:
                lines[one.label] = line
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.set_xticks(board.budgets, [f"{100 * share:g}" for share in board.budgets])
        axes.set_xlabel(f"poison in % of the target class{LOG}")
        axes.set_title(wrapped(_title(board), width / across - 0.5), fontsize=SMALL)
        axes.axhline(0, color="0.4", linewidth=0.6, zorder=1)
        plain_axes(axes)
    for axes in list(panels)[len(found) :]:
        axes.remove()
    figure.supylabel("backdoor gain (percentage points)", fontsize=SMALL)
    figure.legend([lines[label] for label in labels], labels, loc="outside upper center",
                  ncols=columns, handlelength=2.2, columnspacing=1.2)  # fmt: skip
    sentences = (
        "Backdoor gain over the share of the target class that is poisoned: mean over the victims "
        "that count, with a band of its 95 % interval over targets, or over seeds that all "
        "targets share. The headline of the leaderboard is the mean of a curve over its budgets.",
        *([NO_INTERVAL] if few else []),
        *([NO_PLACE] if not all(one.place for board in found for one in _attacks(board)) else []),
    )
    return [FinishedFigure("area", figure, (*sentences, *_shared(frame, found)))]


def _boards(frame: pd.DataFrame) -> list[Board]:
    suites = list(dict.fromkeys(frame["suite"].dropna()))
    if not suites:
        raise Unfilled(
            "these records are of no suite, and only the attacks of a suite have places; give the "
            "folder of a suite with its index.csv."
        )
    return boards(frame, suites)


def _attacks(board: Board) -> list[Entry]:
    """Those that are compared and have a gain, in the order of the board."""
    return [one for one in board.entries if not one.apart and one.gain]


def _title(board: Board) -> str:
    return f"{board.suite}: {board.title}"


def _shared(frame: pd.DataFrame, found: Sequence[Board]) -> list[str]:
    paths = {run.path for board in found for entry in board.entries for run in entry.runs}
    about = [
        " ".join(
            filter(
                None,
                (
                    f"{board.suite}: {caption(board)}",
                    without_places(_attacks(board), attrgetter("label")),
                ),
            )
        )
        for board in found
    ]
    return [*about, f"Convention {CONVENTION}.", *provenance(frame[frame["path"].isin(paths)])]


def _row(board: Board) -> float:
    """Inches for each attack of a board, with the longest name on several lines."""
    lines = max(wrapped(one.label, NAMES).count("\n") for one in _attacks(board))
    return ROW + LINE * lines


def _stacked(
    name: str,
    frame: pd.DataFrame,
    found: Sequence[Board],
    draw: Callable[[Axes, Board], None],
    sentences: Sequence[str],
) -> FinishedFigure:
    """One panel per board that has attacks, of a height that follows from these."""
    found = [board for board in found if _attacks(board)]
    if not found:
        raise Unfilled(f"figure {name}: no attack with a trigger is among these records.")
    heights = [_row(board) * len(_attacks(board)) + HEAD for board in found]
    figure = Figure(figsize=(COLUMN, sum(heights)), layout="constrained")
    panels = figure.subplots(
        len(found), squeeze=False, sharex=True, gridspec_kw={"height_ratios": heights}
    )[:, 0]
    for axes, board in zip(panels, found, strict=True):
        entries = _attacks(board)
        draw(axes, board)
        axes.set_yticks(range(len(entries)), [wrapped(one.label, NAMES) for one in entries])
        axes.set_ylim(len(entries) - 0.4, -0.6)
        axes.axvline(0, color="0.4", linewidth=0.6, zorder=1)
        axes.set_title(wrapped(_title(board), COLUMN - 0.3), fontsize=SMALL, x=-0.45)
        plain_axes(axes, grid="x")
        axes.tick_params(axis="y", length=0)
    panels[-1].set_xlabel("backdoor gain (percentage points)")
    return FinishedFigure(name, figure, (*sentences, *_shared(frame, found)))


def _forest(axes: Axes, board: Board) -> None:
    entries = _attacks(board)
    for row, one in enumerate(entries):
        assert one.gain is not None
        hue = HIT if one.place else "0.6"
        if one.gain.low is not None and one.gain.high is not None:
            axes.plot([100 * one.gain.low, 100 * one.gain.high], [row, row], color=hue, linewidth=1)
        axes.plot(
            100 * one.gain.mean, row, "o", color=hue, markersize=3.6,
            markerfacecolor=hue if one.place else "white",
        )  # fmt: skip
        axes.text(1.04, row, place(one), transform=axes.get_yaxis_transform(), va="center",
                  ha="center", fontsize=LEAST)  # fmt: skip
    longest = max((len(place(one)) for one in entries), default=0)
    beside = max(1.1, 1.055 + 0.0125 * longest)  # right of the places
    ends: list[int] = []  # the last row of the brackets of each lane
    for first, last in _ties(entries):
        number = next((n for n, end in enumerate(ends) if end < first), len(ends))
        ends[number : number + 1] = [last]
        axes.plot(
            [beside + TIED * number] * 2, [first - 0.3, last + 0.3], color="0.3", linewidth=1,
            transform=axes.get_yaxis_transform(), clip_on=False, solid_capstyle="butt",
        )  # fmt: skip


def _ties(entries: Sequence[Entry]) -> list[tuple[int, int]]:
    """Longest runs of rows of which no two are told apart, each of at least two rows."""
    found: list[tuple[int, int]] = []
    placed = [one.counted_draws for one in entries if one.place]
    (above,) = wins([placed])
    for first in range(len(placed)):
        last = first
        while last + 1 < len(placed) and not any(
            last + 1 in above[row] or row in above[last + 1] for row in range(first, last + 1)
        ):
            last += 1
        if last > first and not any(last <= other for _, other in found):
            found.append((first, last))
    return found


def _spread(axes: Axes, board: Board) -> None:
    entries = _attacks(board)
    of_target: dict[str, list[tuple[float, int]]] = {}
    for row, one in enumerate(entries):
        for target in board.targets:
            gain = estimate(_on(one.counted_draws, target))
            if gain is not None:
                of_target.setdefault(target, []).append((100 * gain.mean, row))
        assert one.gain is not None
        mean = 100 * one.gain.mean
        axes.plot([mean, mean], [row - 0.3, row + 0.3], color="black", linewidth=1.4, zorder=4)
    for number, target in enumerate(board.targets):
        x, rows = zip(*of_target.get(target, [(float("nan"), 0)]), strict=True)
        hue = cycled(HUES, number)
        axes.plot(x, rows, "-", color="0.8", linewidth=0.5, zorder=2)
        axes.plot(x, rows, cycled(MARKERS, number), color=hue, markersize=3, zorder=3, label=target)
    others = (other.get_legend() for other in axes.figure.axes if other is not axes)
    shown = [[text.get_text() for text in one.get_texts()] for one in others if one]
    if list(board.targets) in shown:  # one legend for panels of the same targets
        return
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.05), fontsize=LEAST, handlelength=0.8,
                handletextpad=0.4, labelspacing=0.2, borderpad=0)  # fmt: skip


def _on(values: Draws, target: str) -> Draws:
    kept = {
        column: {draw: value for draw, value in some.items() if draw[0] == target}
        for column, some in values.items()
    }
    return {column: some for column, some in kept.items() if some}


def _by_budget(board: Board, one: Entry) -> dict[float, Estimate]:
    """An attack's gain at every budget where it has runs."""
    found = {
        budget: estimate({k: v for k, v in one.counted_draws.items() if k[2:] == (budget,)})
        for budget in board.budgets
    }
    return {budget: gain for budget, gain in found.items() if gain is not None}


def _curve(axes: Axes, gains: Mapping[float, Estimate], number: int, *, placed: bool) -> Line2D:
    """An attack's line and band; what the legend shows."""
    hue = cycled(HUES, number)
    shade = hue if placed else pale(hue)
    low, high = (
        [nan if end is None else 100 * end for end in ends]
        for ends in zip(*((gain.low, gain.high) for gain in gains.values()), strict=True)
    )
    axes.fill_between(list(gains), low, high, color=shade, alpha=0.12, linewidth=0)
    (line,) = axes.plot(
        list(gains), [100 * gain.mean for gain in gains.values()], color=shade,
        marker=cycled(MARKERS, number), linestyle=cycled(DASHES, number), linewidth=1,
        markersize=3.2, markeredgecolor=hue, markeredgewidth=0.7,
        markerfacecolor=hue if placed else "white", zorder=2 if placed else 1.5,
    )  # fmt: skip
    return line
