"""The boards of every suite among some records, and why a suite has none."""

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.report.board.boards import Board, boards
from hashbackdoor_bench.report.board.defenses import DefenseBoard, defense_boards
from hashbackdoor_bench.report.collection import Collection
from hashbackdoor_bench.report.selection import undefended

FIRST = "quick"  # the suite that LEADERBOARD.md has, and that comes first on the page


def all_boards(
    collection: Collection,
) -> tuple[list[Board], list[DefenseBoard], tuple[str, ...]]:
    """The boards of attacks and of defenses of all suites.

    Returns:
        Both, and a sentence for each suite whose records no board may hold together.
    """
    suites = sorted(set(collection.frame["suite"].dropna()), key=lambda name: (name != FIRST, name))
    plain = undefended(collection.frame)
    attacks: list[Board] = []
    defenses: list[DefenseBoard] = []
    notes = []
    for suite in suites:
        try:
            if (plain["suite"] == suite).any():
                attacks += boards(plain, [suite])
            defenses += defense_boards(collection.frame, [suite], collection.refused)
        except UserError as error:
            notes.append(f"Suite {suite} has no board: {error}")
    return attacks, defenses, tuple(notes)
