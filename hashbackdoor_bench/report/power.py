"""What a comparison can tell: the smallest difference found at 80 %, and the runs for another.

A difference of two attacks has the standard error of `statistics.estimate`, from G groups. With
G' groups of as many runs each it has that times sqrt(G / G'). That error is an estimate too: with
three groups and four other attacks, what the runs can tell is found within a factor of two of the
truth in 9 of 10 cases (tests/test_power.py).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from statistics import fmean, variance

from scipy.optimize import brentq
from scipy.special import nctdtr, stdtrit

from hashbackdoor_bench.records import Record
from hashbackdoor_bench.report.statistics import LEAST_GROUPS, LEVEL, Draws, Estimate, difference

POWER = 0.8
MOST_GROUPS = 10_000


def detectable(error: float, groups: int, comparisons: int = 1) -> float:
    """The difference that is found in 80 % of experiments.

    Args:
        error: standard error of the difference.
        groups: that it was found from, at least 2.
        comparisons: of the family; the smallest of their p-values must be below 5 % of this.
    """
    freedom = groups - 1
    bound = -float(stdtrit(freedom, LEVEL / comparisons / 2))

    def missing(shift: float) -> float:
        return 1 - float(nctdtr(freedom, shift, bound)) - POWER

    return error * float(brentq(missing, 0.0, 3 * bound + 10))


def groups_for(goal: float, error: float, groups: int, comparisons: int = 1) -> int | None:
    """The fewest groups that can tell a difference; None if it is more than `MOST_GROUPS`."""

    def enough(count: int) -> bool:
        return detectable(error * sqrt(groups / count), count, comparisons) <= goal

    low, high = LEAST_GROUPS - 1, LEAST_GROUPS
    while not enough(high):
        low, high = high, 2 * high
        if high > MOST_GROUPS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


@dataclass(frozen=True)
class Power:
    """What the runs of one attack can tell against the others of a board.

    Attributes:
        runs: of the attack that count.
        groups: number of targets, or of seeds, see `statistics.unit_of`.
        error: of its difference from another attack, the root of the mean square over the others.
        comparisons: over which Holm corrects.
        tells: the difference that is found at 80 %, as a share.
    """

    runs: int
    groups: int
    error: float
    comparisons: int
    tells: float

    def runs_for(self, goal: float) -> int | None:
        """How many runs can tell a difference, as a share; None if none reasonable can."""
        needed = groups_for(goal, self.error, self.groups, self.comparisons)
        return None if needed is None else ceil(self.runs * needed / self.groups)


def power(mine: Draws, others: Sequence[Draws], comparisons: int) -> Power | None:
    """What an attack's runs can tell; None without another attack, or with few groups.

    Args:
        mine: its gains on the victims that count.
        others: those of the other attacks that have a place.
        comparisons: over which Holm corrects.
    """
    found = [one for one in (difference(mine, other) for other in others) if one]
    known = [(one, error) for one in found if (error := one.error)]
    if not known:
        return None
    error = sqrt(fmean(error**2 for _, error in known))
    groups = min(one.groups for one, _ in known)
    runs = max(one.n for one, _ in known)
    return Power(runs, groups, error, comparisons, detectable(error, groups, comparisons))


def seconds_of(records: Iterable[Record]) -> float:
    """Seconds that records took together, a stage that several share once."""
    stages: dict[tuple[str, str], float] = {}
    for record in records:
        for name, seconds in record.seconds.items():
            stages[name, record.artifacts.get(name, record.key)] = seconds
    return sum(stages.values())


def closed(one: Estimate | None, goal: float, p: float) -> str:
    """Whether a comparison is decided: ``above``, ``below``, ``near``, or empty if it is open.

    Args:
        one: the lead of an attack over another.
        goal: a difference within which they are taken as near, as a share.
        p: the bound of this look.
    """
    if one is None or one.error is None:
        return ""
    if one.p < p:
        return "above" if one.mean > 0 else "below"
    reach = -float(stdtrit(max(1, one.groups - 1), p / 2)) * one.error
    return "near" if abs(one.mean) + reach < goal else ""


@dataclass(frozen=True)
class Components:
    """Standard deviations of the difference of two attacks, as shares.

    Attributes:
        target: between targets; None where there is one target.
        seed: between the seeds of a target; None where every target has one seed.
        rest: between the runs of a target and seed, beside what victims and budgets share.
    """

    target: float | None
    seed: float | None
    rest: float

    def error(self, targets: int, seeds: int, runs: int) -> float:
        """The standard error of the mean difference.

        Args:
            targets: number of them.
            seeds: of each target, used by no other target.
            runs: of each target and seed, over victims and budgets.
        """
        parts = (self.target or 0.0) ** 2 / targets, (self.seed or 0.0) ** 2 / targets / seeds
        return sqrt(sum(parts) + self.rest**2 / targets / seeds / runs)


def components(one: Draws, other: Draws) -> Components | None:
    """The components of the paired differences, by the method of moments; None without two runs."""
    gaps: dict[tuple[str, int], list[float]] = {}
    for column in one.keys() & other.keys():
        common = {d: x - other[column][d] for d, x in one[column].items() if d in other[column]}
        for draw, gap in common.items():
            gaps.setdefault(draw, []).append(gap - fmean(common.values()))
    runs = [len(some) for some in gaps.values()]
    if not gaps or max(runs) < 2:
        return None
    count = len(runs) / sum(1 / number for number in runs)  # harmonic mean
    rest = fmean(variance(some) for some in gaps.values() if len(some) > 1)
    targets: dict[str, list[float]] = {}
    for (target, _), some in gaps.items():
        targets.setdefault(target, []).append(fmean(some))
    several = [means for means in targets.values() if len(means) > 1]
    seed = max(0.0, fmean(map(variance, several)) - rest / count) if several else None
    between = None
    if len(targets) > 1:
        seeds = len(targets) / sum(1 / len(means) for means in targets.values())
        below = ((seed or 0.0) + rest / count) / seeds
        between = max(0.0, variance(map(fmean, targets.values())) - below)
    return Components(_root(between), _root(seed), sqrt(rest))


def _root(value: float | None) -> float | None:
    return None if value is None else sqrt(value)


def typical(found: Sequence[Components]) -> Components:
    """The root of the mean square of each component over pairs of attacks; None where all are."""

    def middle(values: Iterable[float | None]) -> float | None:
        known = [value**2 for value in values if value is not None]
        return sqrt(fmean(known)) if known else None

    rest = middle(one.rest for one in found)
    assert rest is not None
    return Components(middle(one.target for one in found), middle(one.seed for one in found), rest)
