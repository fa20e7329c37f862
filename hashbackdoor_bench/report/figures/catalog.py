"""All figures by name, drawn from records."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import pandas as pd
from matplotlib.style import context

from hashbackdoor_bench.errors import UserError, unknown
from hashbackdoor_bench.report.board.rules import CONVENTION
from hashbackdoor_bench.report.figures.against_setting import SETTINGS, against_setting
from hashbackdoor_bench.report.figures.boards import by_target, over_budgets, places
from hashbackdoor_bench.report.figures.codes import codes
from hashbackdoor_bench.report.figures.defended_distances import defended_distances
from hashbackdoor_bench.report.figures.defense_trade_off import defense_trade_off
from hashbackdoor_bench.report.figures.detection import detection
from hashbackdoor_bench.report.figures.dispersion import dispersion
from hashbackdoor_bench.report.figures.distances import distances
from hashbackdoor_bench.report.figures.finished import FinishedFigure, Unfilled
from hashbackdoor_bench.report.figures.gains import gains, takes
from hashbackdoor_bench.report.figures.precision_recall import precision_recall
from hashbackdoor_bench.report.figures.suspicions import suspicions
from hashbackdoor_bench.report.figures.transfer import transfer
from hashbackdoor_bench.report.figures.visibility import visibility
from hashbackdoor_bench.report.selection import undefended, with_display_names
from hashbackdoor_bench.report.style import STYLE


def _of_boards(
    draw: Callable[[pd.DataFrame], list[FinishedFigure]], frame: pd.DataFrame, convention: str
) -> list[FinishedFigure]:
    if convention != CONVENTION:
        raise Unfilled(f"--convention {convention}: boards are of convention {CONVENTION} only.")
    return draw(frame)


# of the leaderboard's boards, whatever they mix, and in its convention
OF_BOARDS: dict[str, Callable[[pd.DataFrame], list[FinishedFigure]]] = {
    "places": places,
    "area": over_budgets,
    "targets": by_target,
}
FIGURES: dict[str, Callable[[pd.DataFrame, str], list[FinishedFigure]]] = {
    "gains": gains,
    "takes": takes,
    "visibility": visibility,
    "transfer": transfer,
    **{setting.name: partial(against_setting, setting) for setting in SETTINGS},
    "dispersion-reached": dispersion,
    "distances": distances,
    "precision-recall": precision_recall,
    "codes": codes,
    "defense-trade-off": defense_trade_off,
    "detection": detection,
    "suspicions": suspicions,
    "defended-distances": defended_distances,
    **{name: partial(_of_boards, draw) for name, draw in OF_BOARDS.items()},
}

# Those of runs with a defense.
DEFENDED = frozenset({"defense-trade-off", "detection", "suspicions", "defended-distances"})


def figures(name: str, frame: pd.DataFrame, convention: str = "field") -> list[FinishedFigure]:
    """One kind of figure; several if a victim needs one of its own.

    Args:
        name: of ``FIGURES``.
        frame: of a `Collection`, or a part of it; for those of ``DEFENDED`` with the runs that have
            a defense, and for others without them.
        convention: whose scores are shown.

    Raises:
        UserError: no such figure, the records can't fill it, or they are never mixed.
    """
    if name not in FIGURES:
        raise unknown("figure", name, FIGURES)
    with context(["default", STYLE]):
        shown = frame if name in OF_BOARDS else with_display_names(frame)
        return FIGURES[name](shown, convention)


def all_figures(frame: pd.DataFrame, convention: str = "field") -> Iterator[FinishedFigure | str]:
    """All figures that the records of each suite can fill, and in a sentence why others can't be.

    The figures' names begin with the suite's. Beside suites, records outside one are passed over:
    single runs have pictures of their own. Without any suite they count as one, named as the data.
    """
    suites = frame["suite" if frame["suite"].notna().any() else "dataset"]
    for suite, part in frame.groupby(suites, sort=True):
        unfilled = []
        without = undefended(part)
        for name in FIGURES:
            shown = part.drop(without.index) if name in DEFENDED else without
            if shown.empty:
                continue
            try:
                for drawn in figures(name, shown, convention):
                    yield replace(drawn, name=f"{suite}-{drawn.name}")
            except Unfilled:
                unfilled.append(name)
            except UserError as error:
                yield f"{suite}: no figure {name}: {error}"
        if unfilled:
            yield (
                f"{suite}: its records hold nothing for {', '.join(unfilled)}; "
                f"`bench figure {unfilled[0]}` of them says what is missing."
            )
