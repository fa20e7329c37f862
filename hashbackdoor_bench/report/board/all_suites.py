"""The boards of every suite among some records, and why a suite has none."""

from collections.abc import Container, Sequence

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.report.board.boards import Board, boards
from hashbackdoor_bench.report.board.defenses import DefenseBoard, defense_boards
from hashbackdoor_bench.report.collection import Collection
from hashbackdoor_bench.report.selection import undefended

PUBLISHED = ("standard", "standard_frozen")  # the published comparison, see RULES.md
TRY = "quick"  # the five-minute try
# Suites of which no board can be right, each with the reason and with what shows it instead.
WITHOUT_BOARD = {
    "sensitivity": (
        "each of its rows is run with one value of one setting, the code length among them, so "
        "that none has the runs of all others and none could have a place. It is shown by its "
        "figures: bench figure budget sensitivity, and in the same way size, epsilon, dispersion "
        "and bits."
    ),
}


def first_suites(suites: Container[str]) -> tuple[str, ...]:
    """Of these suites, those of the table: the published comparison, or else the try."""
    return tuple(name for name in PUBLISHED if name in suites) or (TRY,)


def all_boards(
    collection: Collection,
    attacks: Sequence[Board] = (),
    defenses: Sequence[DefenseBoard] = (),
) -> tuple[list[Board], list[DefenseBoard], tuple[str, ...]]:
    """The boards of attacks and of defenses of all suites.

    Args:
        collection: of the records.
        attacks: all boards of some suites that are already there.
        defenses: the boards of defenses of the same suites.

    Returns:
        Both, and a sentence for each suite that has no board.
    """
    there, before = set(collection.frame["suite"].dropna()), (*PUBLISHED, TRY)
    suites = [name for name in before if name in there] + sorted(there - {*before})
    plain = undefended(collection.frame)
    found, defended = list(attacks), list(defenses)
    known = {one.suite for one in attacks} | {one.suite for one in defenses}
    notes = []
    for suite in suites:
        if suite in known:
            continue
        if suite in WITHOUT_BOARD:
            notes.append(f"Suite {suite} has no board: {WITHOUT_BOARD[suite]}")
            continue
        try:
            if (plain["suite"] == suite).any():
                found += boards(plain, [suite])
            defended += defense_boards(collection.frame, [suite], collection.refused)
        except UserError as error:
            notes.append(f"Suite {suite} has no board: {error}")
    return found, defended, tuple(notes)
