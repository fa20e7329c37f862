"""What a board says in plain words, and no more than its tests say.

A sentence names only pairs that `statistics.wins` tells apart: paired by run, with each group
(`statistics.unit_of`) left out in turn, two-sided at 5 %, after Holm's correction over all pairs of
the board.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from hashbackdoor_bench.report.board import wording
from hashbackdoor_bench.report.board.boards import Board
from hashbackdoor_bench.report.board.defenses import DefenseBoard
from hashbackdoor_bench.report.board.victims import VictimBoard
from hashbackdoor_bench.report.statistics import Draws, Estimate, difference, unit_of, wins
from hashbackdoor_bench.text import listed

MOST_GROUPS = 3  # sentences on who is above whom


@dataclass(frozen=True)
class Contender:
    """Something with a place on a board.

    Attributes:
        name: in tables.
        draws: what it is compared by.
        mean: of the draws, with its interval.
    """

    name: str
    draws: Draws
    mean: Estimate | None


@dataclass(frozen=True)
class Words:
    """How the contenders of a board are spoken of.

    Attributes:
        kind: one of them, such as ``attack``.
        above: what one does that is above another, such as ``has more gain than``.
        above_plural: what several do.
        score: what is compared, such as ``gain``.
    """

    kind: str
    above: str
    above_plural: str
    score: str


ATTACKS = Words("attack", "has more gain than", "have more gain than", "gain")
VICTIMS = Words("victim", "is hurt more than", "are hurt more than", "mean gain")
DEFENSES = Words("defense", "removes more than", "remove more than", "removal")


def takeaway(contenders: Sequence[Contender], words: Words) -> str:
    """What can be told about those that have a place, as sentences.

    Args:
        contenders: those with a place, in the order of the board.
        words: how they are spoken of.
    """
    kind, n = words.kind, len(contenders)
    if not n:
        return (
            f"No {kind} has a place here, for the reasons in the table, so none is compared with "
            "another."
        )
    sentences = [
        f"{_quoted(contenders[0].name)} is the only {kind} with a place: there is nothing to "
        "compare it with."
    ]
    if n > 1:
        sentences = _compared(contenders, words)
    if n > 1 and all(one.mean is None or one.mean.low is None for one in contenders):
        sentences.append("There are too few targets and seeds for a test.")
    zero = [_contains_zero(one.mean) for one in contenders]
    if all(zero):
        sentences.append(
            f"The 95 % interval of its {words.score} contains 0."
            if n == 1
            else f"The 95 % interval of every {words.score} contains 0."
        )
    found = {draw for one in contenders for values in one.draws.values() for draw in values}
    targets = sorted({target for target, _ in found})
    if unit_of(found) == "seed" and len(targets) <= wording.MOST_NAMED:
        sentences.append(f"This is about target{'s' * (len(targets) > 1)} {listed(targets)} alone.")
    return " ".join(sentences)


def _compared(contenders: Sequence[Contender], words: Words) -> list[str]:
    """Who is above whom among two or more."""
    kind, n = words.kind, len(contenders)
    names = [_quoted(one.name) for one in contenders]
    (above,) = wins([[one.draws for one in contenders]])
    told, pairs = sum(map(len, above)), n * (n - 1) // 2
    strangers = sum(
        difference(one.draws, other.draws) is None for one, other in combinations(contenders, 2)
    )
    apart = [f"{strangers} of the {pairs} pairs share no run, so nothing compares them."]
    if not told:
        both = f"{names[0]} and {names[1]}" if n == 2 else f"No two of the {n} {kind}s"
        sentence = f"{both} can{'not' if n == 2 else ''} be told apart."
        return [sentence, *(apart if strangers else [])]
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, below in enumerate(above):
        if below:
            groups.setdefault(tuple(sorted(below)), []).append(number)
    ordered = len({len(below) for below in above}) == n  # no circle, as of unequal draws
    if told == pairs and n > 2 and ordered:
        order = sorted(range(n), key=lambda number: -len(above[number]))
        chain = " > ".join(names[number] for number in order)
        return [f"All {n} {kind}s can be told apart by their {words.score}: {chain}."]
    sentences = []
    for losers, winners in list(groups.items())[:MOST_GROUPS]:
        verb = words.above if len(winners) == 1 else words.above_plural
        beaten = [names[number] for number in losers]
        sentences.append(f"{_and([names[w] for w in winners])} {verb} {_and(beaten)}.")
    left = sum(len(losers) * len(of) for losers, of in list(groups.items())[MOST_GROUPS:])
    if left:
        sentences.append(f"So it is with {left} more pair{'s' if left > 1 else ''}.")
    open_pairs = pairs - told - strangers
    if open_pairs:
        sentences.append(f"{open_pairs} of the {pairs} pairs cannot be told apart.")
    return sentences + (apart if strangers else [])


def _contains_zero(value: Estimate | None) -> bool:
    if value is None or value.low is None or value.high is None:
        return False
    return value.low <= 0 <= value.high


def _quoted(name: str) -> str:
    """A name, in quotation marks where a comma in it would be read as one between names."""
    return f"“{name}”" if "," in name else name


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def of_attacks(board: Board) -> str:
    """What a board of attacks says."""
    return takeaway(
        [
            Contender(board.name(one), one.counted_draws, one.gain)
            for one in board.entries
            if one.place
        ],
        ATTACKS,
    )


def of_victims(board: VictimBoard) -> str:
    """What a board of victims says."""
    return takeaway(
        [
            Contender(wording.column(one.victim, board.board), one.draws, one.gain)
            for one in board.entries
            if one.place
        ],
        VICTIMS,
    )


def of_defenses(board: DefenseBoard) -> str:
    """What a board of defenses says."""
    return takeaway(
        [Contender(one.name, one.draws, one.removal) for one in board.entries if one.place],
        DEFENSES,
    )
