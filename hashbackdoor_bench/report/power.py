"""What a comparison can tell: the smallest difference found at 80 %, and the runs for another.

A difference of two attacks has the standard error of `statistics.estimate`, from G groups. With
G' groups of as many runs each it has that times sqrt(G / G').
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from statistics import fmean

from scipy.optimize import brentq
from scipy.stats import nct
from scipy.stats import t as student

from hashbackdoor_bench.records import Record
from hashbackdoor_bench.report.statistics import LEVEL, Draws, Estimate, difference

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
    bound = float(student.isf(LEVEL / comparisons / 2, freedom))

    def missing(shift: float) -> float:
        return float(nct.sf(bound, freedom, shift)) - POWER

    return error * float(brentq(missing, 0.0, 3 * bound + 10))


def groups_for(goal: float, error: float, groups: int, comparisons: int = 1) -> int | None:
    """The fewest groups that can tell a difference; None if it is more than `MOST_GROUPS`."""

    def enough(count: int) -> bool:
        return detectable(error * sqrt(groups / count), count, comparisons) <= goal

    low, high = 1, 2
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
        groups: of these runs: targets, or seeds where there is one target.
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
    """What an attack's runs can tell; None without another attack, or with one group.

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
    reach = float(student.isf(p / 2, max(1, one.groups - 1))) * one.error
    return "near" if abs(one.mean) + reach < goal else ""
