"""All statistics of tables, figures and the leaderboard: draws, intervals, comparisons, places.

Scores stand in columns k, which are victims, or victims at a budget. In each there are draws of a
target and a seed. All columns weigh the same:

    mean = 1/K sum_k mean_i x[k,i]

Scores of one target rise and fall together, whatever the victim, the budget and the seed, so a
group g is everything of one target. Where all targets were run with the same seeds, at least as
many as there are targets, a group is everything of one seed; the interval is then about these
targets alone, as it is where there is one. The spread is found by leaving one of the G groups out:

    se²  = (G-1)/G sum_g (mean without g - mean of these)²
    95 % interval: mean ± t(G-1) se

Two attacks are compared by the same mean over their paired differences (equal column, target and
seed), two-sided. The p-values of all pairs of a family of comparisons, such as those of a board or
of a table's block, are corrected together by Holm's method and tested at 5 %.

On made-up boards this tells two equal attacks apart in about 5 % of cases, and a t-test that takes
all runs as independent in more than 30 % (tests/test_places.py), because there are few targets.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import sqrt
from statistics import fmean, stdev
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit  # scipy.stats takes a second to import

from hashbackdoor_bench.errors import UserError

LEVEL = 0.05
LEAST_GROUPS = 3  # for an interval: that of two would reach 12.7 standard errors to each side
ROUNDING = 1e-12  # a standard error below it is that of equal values

VictimKey = tuple[str, int]  # name and bits
Column = VictimKey | tuple[str, int, float]  # of a victim, or of a victim at a budget
Draw = tuple[str, int]  # target and seed
Draws = Mapping[Column, Mapping[Draw, float]]
Unit = Literal["target", "seed"]  # what a group is all of


def draws(frame: pd.DataFrame, what: str, column: str, *, by_budget: bool = False) -> Draws:
    """The values of a column of the frame by victim, target and seed; empty ones are left out.

    Args:
        frame: records, with the columns of a `Collection`.
        what: they are together, for the message.
        column: of the frame; NaN where a record has no value.
        by_budget: whether runs of several budgets are draws of different columns.

    Raises:
        UserError: two records are of one victim, target and seed.
    """
    found: dict[Column, dict[Draw, float]] = {}
    paths: dict[tuple[Column, Draw], str] = {}
    budgets = [one.spec.budget for one in frame["record"]] if by_budget else [None] * len(frame)
    rows = rows_of(frame, "victim", "bits", "target", "seed", "path", column)
    for (victim, bits, *draw, path, value), budget in zip(rows, budgets, strict=True):
        key: Column = (victim, bits) if budget is None else (victim, bits, budget)
        target, seed = draw
        other = paths.setdefault((key, (target, seed)), path)
        if other != path:
            raise UserError(
                f"{what}: {other} and {path} are both of {victim}, target {target}, seed {seed}: "
                "leave one of them out, or give them two labels in the suite."
            )
        if not pd.isna(value):
            found.setdefault(key, {})[target, seed] = float(value)
    return found


def rows_of(frame: pd.DataFrame, *columns: str) -> Iterator[tuple[Any, ...]]:
    """The values of some columns, row by row: a frame of eighty columns is slow to walk as a whole.

    Args:
        frame: of a `Collection`.
        columns: of it.
    """
    return zip(*(frame[name].tolist() for name in columns), strict=True)


@dataclass(frozen=True)
class Spread:
    """A mean over runs that are equal in everything but target and seed.

    Attributes:
        mean: over the runs.
        deviation: standard deviation of a single run; None of one run alone.
        n: number of runs.
    """

    mean: float
    deviation: float | None
    n: int


def spread(values: Sequence[float]) -> Spread | None:
    """Mean and standard deviation of some runs; None if there is no run."""
    if not values:
        return None
    return Spread(fmean(values), stdev(values) if len(values) > 1 else None, len(values))


@dataclass(frozen=True)
class Estimate:
    """A mean over columns and draws.

    Attributes:
        mean: over columns of the means over draws: each column weighs the same.
        low: lower end of the 95 % interval; None where a column is of one group only, or there are
            fewer than ``LEAST_GROUPS``.
        high: its upper end.
        p: two-sided, that the mean is zero; 1 where there is no interval.
        n: number of values.
        error: standard error of the mean; None where there is no interval.
        groups: number of targets, or of seeds.
    """

    mean: float
    low: float | None
    high: float | None
    p: float
    n: int
    error: float | None = None
    groups: int = 1


def unit_of(draws: Iterable[Draw]) -> Unit:
    """What the groups of such draws are: seeds if all targets have the same, and no fewer."""
    seeds: dict[str, set[int]] = {}
    for target, seed in draws:
        seeds.setdefault(target, set()).add(seed)
    shared = next(iter(seeds.values()), set())
    same = all(some == shared for some in seeds.values())
    return "seed" if same and len(shared) >= len(seeds) else "target"


def unit_of_values(values: Draws) -> Unit:
    """`unit_of` all draws of some columns."""
    return unit_of(draw for column in values.values() for draw in column)


def estimate(values: Draws, *, unit: Unit | None = None) -> Estimate | None:
    """The mean over columns and draws with its interval; None if there is no value.

    Args:
        values: of each column.
        unit: what the groups are; None: as `unit_of` says. An interval over seeds holds for these
            targets alone.
    """
    columns = [column for column in values.values() if column]
    if not columns:
        return None
    part, n = int((unit or unit_of_values(values)) == "seed"), sum(map(len, columns))
    mean = fmean(fmean(column.values()) for column in columns)
    groups = sorted({draw[part] for column in columns for draw in column}, key=str)
    count = len(groups)
    few = any(len({draw[part] for draw in column}) < 2 for column in columns)
    if few or count < LEAST_GROUPS:
        return Estimate(mean, None, None, 1.0, n, None, count)
    without = _means_without(columns, part, groups)
    middle = fmean(without)
    error = sqrt((count - 1) / count * sum((one - middle) ** 2 for one in without))
    if error <= ROUNDING * max(1.0, abs(mean)):
        return Estimate(mean, mean, mean, float(abs(mean) <= ROUNDING), n, 0.0, count)
    reach = -float(stdtrit(count - 1, LEVEL / 2)) * error
    p = 2 * float(stdtr(count - 1, -abs(mean) / error))
    return Estimate(mean, mean - reach, mean + reach, p, n, error, count)


def _means_without(
    columns: Sequence[Mapping[Draw, float]], part: int, groups: Sequence[str | int]
) -> list[float]:
    """The mean over columns when a group is left out, for each group."""
    number = {group: place for place, group in enumerate(groups)}
    sums = np.zeros((len(columns), len(groups)))
    counts = np.zeros_like(sums)
    for row, column in enumerate(columns):
        for draw, value in column.items():
            sums[row, number[draw[part]]] += value
            counts[row, number[draw[part]]] += 1
    left = (sums.sum(1, keepdims=True) - sums) / (counts.sum(1, keepdims=True) - counts)
    return [float(one) for one in left.mean(0)]


def difference(one: Draws, other: Draws, *, unit: Unit | None = None) -> Estimate | None:
    """How much higher one is than the other, paired over the draws of both; None if none is.

    The groups are those of `estimate`.
    """
    pairs = {
        column: {
            draw: value - other[column][draw]
            for draw, value in values.items()
            if draw in other[column]
        }
        for column, values in one.items()
        if column in other
    }
    return estimate(pairs, unit=unit)


def holm(values: Sequence[float]) -> list[float]:
    """P-values corrected for their number, step by step from the smallest."""
    corrected, least = [0.0] * len(values), 0.0
    for step, number in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        least = max(least, min(1.0, (len(values) - step) * values[number]))
        corrected[number] = least
    return corrected


def wins(families: Sequence[Sequence[Draws]]) -> list[list[set[int]]]:
    """Which entries each entry is significantly above.

    Args:
        families: groups of entries; only entries of one group are compared, and Holm's correction
            is over all pairs of all groups. Two entries without a common draw are not told apart.

    Returns:
        For every group and entry, the numbers of the entries of the group that it is above.
    """
    pairs, found = [], []
    for number, entries in enumerate(families):
        for a, b in combinations(range(len(entries)), 2):
            pairs.append((number, a, b))
            found.append(difference(entries[a], entries[b]))
    corrected = holm([one.p if one else 1.0 for one in found])
    above: list[list[set[int]]] = [[set() for _ in entries] for entries in families]
    for (number, a, b), one, p in zip(pairs, found, corrected, strict=True):
        if one and p < LEVEL:
            winner, loser = (a, b) if one.mean > 0 else (b, a)
            above[number][winner].add(loser)
    return above


def places(entries: Sequence[Draws]) -> list[tuple[int, int]]:
    """First and last place that each entry may have among the others; equal ranges are ties.

    The range goes from one more than the number of entries above it to the number of those that are
    not below it; Holm's correction is over all pairs.
    """
    (above,) = wins([entries])
    return [
        (1 + sum(number in losers for losers in above), len(entries) - len(above[number]))
        for number in range(len(entries))
    ]


def best(columns: Sequence[Sequence[Draws]]) -> list[int | None]:
    """For every column the entry that is significantly above all the others, if there is one.

    Args:
        columns: the entries of each; Holm's correction is over all pairs of all columns.
    """
    found: list[int | None] = []
    for above in wins(columns):
        others = len(above) - 1
        leaders = [number for number, losers in enumerate(above) if 0 < len(losers) == others]
        found.append(leaders[0] if leaders else None)
    return found
