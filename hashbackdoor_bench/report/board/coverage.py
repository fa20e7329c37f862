"""Which runs a board has, and which it lacks.

The cells of a board are all that any of its methods was run in, see `boards` and `defenses`; what a
suite plans beyond them is not known from records. What stands apart has cells of its own: the
control without a trigger on a board over budgets, and runs whose attacker expects a defense.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from hashbackdoor_bench.registry import DEFENSES
from hashbackdoor_bench.report.board import wording
from hashbackdoor_bench.report.board.boards import Board
from hashbackdoor_bench.report.board.defenses import DefenseBoard
from hashbackdoor_bench.report.defended import attacker_of, share_in
from hashbackdoor_bench.report.refusals import Refusal
from hashbackdoor_bench.report.selection import published_victims
from hashbackdoor_bench.spec import RunSpec

Draw = tuple[float | None, str, int]  # budget (None: the attack's own), target and seed


@dataclass(frozen=True)
class CoverageRow:
    """The runs of one method.

    Attributes:
        name: of the method.
        cells: by column how many runs there are, and how many there should be.
    """

    name: str
    cells: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Coverage:
    """The runs of a board by method and column.

    Attributes:
        columns: victims; for defenses attacks and victims.
        rows: methods, in the order of the board.
        missing: what is missing and could be run, a clause for each method, column, budget and
            target.
        refused: how many runs are missing because the suite refused them.
    """

    columns: tuple[str, ...]
    rows: tuple[CoverageRow, ...]
    missing: tuple[str, ...]
    refused: int

    @property
    def runs(self) -> tuple[int, int]:
        """How many runs there are, and how many there should be."""
        cells = [cell for row in self.rows for cell in row.cells]
        return sum(have for have, _ in cells), sum(wanted for _, wanted in cells)


def attack_coverage(board: Board, refused: Iterable[Refusal] = ()) -> Coverage:
    """The runs of a board of attacks, by attack and victim.

    Args:
        board: the board.
        refused: runs that suites could not plan.
    """
    columns = [wording.column(victim, board) for victim in board.victims]
    named = dict(zip(board.victims, columns, strict=True))
    by_key = {(name, str(bits)): named[one] for one in named for name, bits in [one.key]}
    never = {
        (one.label, by_key[one.victim, one.bits], one.seed)
        for one in refused
        if one.suite == board.suite
        and one.defense in ("", RunSpec.defense)
        and (one.victim, one.bits) in by_key
    }
    done = []
    apart = {entry.label for entry in board.entries if entry.apart and board.budgets}
    for entry in board.entries:
        runs: dict[str, set[Draw]] = {}
        for run in entry.runs:
            budget = run.record.spec.budget if board.budgets else None
            runs.setdefault(named[run.victim], set()).add((budget, run.target, run.seed))
        done.append((entry.label, runs))
    return _coverage(done, columns, never, apart)


def defense_coverage(board: DefenseBoard, refused: Iterable[Refusal] = ()) -> Coverage:
    """The runs of a board of defenses, by defense, and by attack and victim.

    Args:
        board: the board.
        refused: runs that suites could not plan.
    """
    names = published_victims({cell[1] for entry in board.entries for cell in entry.cells})
    columns: dict[str, tuple[str, str, str]] = {}
    done = []
    for entry in board.entries:
        runs: dict[str, set[Draw]] = {}
        for attack, victim, bits, target, seed in entry.cells:
            column = f"{attack} on {names[victim]}, {bits} bits"
            columns[column] = attack, victim, str(bits)
            runs.setdefault(column, set()).add((None, target, seed))
        done.append((entry.name, runs))
    never = {
        (DEFENSES.published(one.defense), column, one.seed)
        for one in refused
        if one.suite == board.suite
        for column, (attack, *victim_and_bits) in columns.items()
        if _is_of(attack, one.label) and victim_and_bits == [one.victim, one.bits]
    }
    apart = {entry.name for entry in board.entries if entry.expected}
    return _coverage(done, sorted(columns), never, apart)


def _is_of(attack: str, label: str) -> bool:
    """Whether the attack of a cell, with its share of poison, is that of a suite's row."""
    attacker, share = attacker_of(label), share_in(label)
    if share is not None:
        return attack == f"{attacker} {share}"
    return re.fullmatch(r"[\d.]+ %|–", attack.removeprefix(f"{attacker} ")) is not None


def _coverage(
    done: Sequence[tuple[str, Mapping[str, AbstractSet[Draw]]]],
    columns: Sequence[str],
    never: AbstractSet[tuple[str, str, str]],
    apart: AbstractSet[str] = frozenset(),
) -> Coverage:
    """Count runs against all draws with which any of the methods was run in a column.

    Args:
        done: the runs of each method, by column.
        columns: in their order.
        never: method, column and seed of runs that were refused.
        apart: methods that are counted against their own runs.
    """
    empty: set[Draw] = set()
    wanted = {
        column: empty.union(*(runs.get(column, empty) for name, runs in done if name not in apart))
        for column in columns
    }
    rows, missing, refused = [], [], 0
    for name, runs in done:
        cells = []
        for column in columns:
            own = runs.get(column, empty)
            due = own if name in apart else wanted[column]
            cells.append((len(own), len(due)))
            lacking = due - own
            possible = {draw for draw in lacking if (name, column, str(draw[2])) not in never}
            missing += _missing(name, column, possible)
            refused += len(lacking) - len(possible)
        rows.append(CoverageRow(name, tuple(cells)))
    return Coverage(tuple(columns), tuple(rows), tuple(missing), refused)


def _missing(name: str, column: str, draws: Iterable[Draw]) -> list[str]:
    """Clauses on the runs that a method lacks in a column."""
    seeds: dict[tuple[float | None, str], list[int]] = {}
    for budget, target, seed in sorted(draws, key=lambda one: (one[0] or 0.0, one[1], one[2])):
        seeds.setdefault((budget, target), []).append(seed)
    return [
        f"{name} on {column}: "
        f"{'' if budget is None else f'budget {100 * budget:g} %, '}target {target}, "
        f"seed{'s' if len(of) > 1 else ''} {', '.join(map(str, of))}"
        for (budget, target), of in seeds.items()
    ]


@dataclass(frozen=True)
class Refused:
    """Runs that a suite could not plan, all for one reason.

    Attributes:
        suite: its name.
        what: the attack, and the defense if there is one.
        victims: names and bits.
        runs: how many runs are refused.
        reason: a clause.
    """

    suite: str
    what: str
    victims: tuple[str, ...]
    runs: int
    reason: str


def refusals(refused: Iterable[Refusal]) -> list[Refused]:
    """The refused runs, those of one suite, method and reason together."""
    groups: dict[tuple[str, str, str], list[Refusal]] = {}
    for one in refused:
        defended = one.defense not in ("", RunSpec.defense)
        what = DEFENSES.published(one.defense) if defended else one.label
        groups.setdefault((one.suite, what, one.reason.rstrip(".")), []).append(one)
    return [
        Refused(
            suite,
            what,
            tuple(dict.fromkeys(f"{one.victim} {one.bits}" for one in of)),
            len(of),
            reason,
        )
        for (suite, what, reason), of in groups.items()
    ]
