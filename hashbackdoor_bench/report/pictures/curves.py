"""The picture of how crafting went: one small panel for each loss term, over the epochs."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hashbackdoor_bench.report.style import GRID, HIT, SMALL, TICKS

COLUMNS = 2
PANEL = (1.22, 0.72)  # inches; two panels and their numbers fill a paper's column
LEFT, ACROSS, HEAD, TITLE, FOOT = 0.42, 0.5, 0.18, 0.24, 0.4  # inches around a panel


def training(curves: Mapping[str, Sequence[float]]) -> Figure:
    """Every curve in its own panel, with its own scale; the epochs run along the bottom.

    Args:
        curves: name -> one value an epoch. Names ``part/loss`` stand under the heading ``part``,
            and only panels of one part share their epochs.
    """
    parts: dict[str, dict[str, Sequence[float]]] = {}
    for name, values in curves.items():
        part, _, term = name.rpartition("/")
        parts.setdefault(part, {})[term] = values

    rows = {part: -(-len(terms) // COLUMNS) for part, terms in parts.items()}
    height = sum(
        bool(part) * HEAD + count * (TITLE + PANEL[1]) + FOOT for part, count in rows.items()
    )
    width = LEFT + COLUMNS * PANEL[0] + (COLUMNS - 1) * ACROSS + 0.12
    figure = Figure(figsize=(width, height))
    top = height
    for part, terms in parts.items():
        if part:
            top -= HEAD
            figure.text(0.05 / width, (top + 0.03) / height, part, fontweight="bold")
        epochs = max(map(len, terms.values()))
        for place, (term, values) in enumerate(terms.items()):
            line, column = divmod(place, COLUMNS)
            x = LEFT + column * (PANEL[0] + ACROSS)
            y = top - (line + 1) * (TITLE + PANEL[1])
            axes = figure.add_axes((x / width, y / height, PANEL[0] / width, PANEL[1] / height))
            axes.plot(
                range(1, len(values) + 1), values, color=HIT, linewidth=1.2,
                marker="o" if epochs <= 15 else "", markersize=2.5, clip_on=False,
            )  # fmt: skip
            figure.text((x - LEFT + 0.05) / width, (y + PANEL[1] + 0.06) / height, term)
            axes.set_xlim(0.5, epochs + 0.5)
            axes.xaxis.set_major_locator(
                MaxNLocator(4, integer=True, steps=[1, 2, 5, 10], min_n_ticks=1)
            )
            axes.yaxis.set_major_locator(MaxNLocator(4))
            axes.tick_params(**TICKS)
            axes.grid(axis="y", **GRID)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
            if place + COLUMNS < len(terms):
                axes.tick_params(labelbottom=False)
            else:
                axes.set_xlabel("epoch", fontsize=SMALL, labelpad=1)
        top -= rows[part] * (TITLE + PANEL[1]) + FOOT
    return figure
