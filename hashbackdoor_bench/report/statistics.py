"""All statistics of tables, figures and the leaderboard: draws, intervals, comparisons, places.

The victims v are fixed, and the draws s (target and seed) of each are random:

    mean = 1/V sum_v mean_s x[v,s]
    se²  = 1/V² sum_v u_v                  u_v = var_s(x[v,s]) / n_v
    df   = (sum_v u_v)² / sum_v u_v² / (n_v - 1)                  Welch and Satterthwaite
    95 % interval: mean ± t(df) se

Two attacks are compared by the same mean over their paired differences (equal victim, target and
seed), two-sided. The p-values of all pairs of a family of comparisons, such as those of a board or
of a table's block, are corrected together by Holm's method and tested at 5 %.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import sqrt
from statistics import fmean, stdev, variance

import pandas as pd
from scipy.stats import t as student

from hashbackdoor_bench.errors import UserError

LEVEL = 0.05

VictimKey = tuple[str, int]  # name and bits
Draw = tuple[str, int]  # target and seed
Draws = Mapping[VictimKey, Mapping[Draw, float]]


def draws(frame: pd.DataFrame, what: str, column: str) -> Draws:
    """The values of a column by victim, target and seed; a victim without any is left out.

    Args:
        frame: records, with the columns of a `Collection`.
        what: they are together, for the message.
        column: of the frame; NaN where a record has no value.

    Raises:
        UserError: two records are of one victim, target and seed.
    """
    found: dict[VictimKey, dict[Draw, float]] = {}
    paths: dict[tuple[VictimKey, Draw], str] = {}
    for row in frame.to_dict("records"):
        victim, draw = (row["victim"], row["bits"]), (row["target"], row["seed"])
        other = paths.setdefault((victim, draw), row["path"])
        if other != row["path"]:
            raise UserError(
                f"{what}: {other} and {row['path']} are both of {victim[0]}, target {draw[0]}, "
                f"seed {draw[1]}: leave one of them out, or give them two labels in the suite."
            )
        if not pd.isna(row[column]):
            found.setdefault(victim, {})[draw] = float(row[column])
    return found


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
    """A mean over victims and draws.

    Attributes:
        mean: over victims of the means over draws: each victim weighs the same.
        low: lower end of the 95 % interval; None where a victim has one draw only.
        high: its upper end.
        p: two-sided, that the mean is zero; 1 where there is no interval.
        n: number of values.
    """

    mean: float
    low: float | None
    high: float | None
    p: float
    n: int


def estimate(values: Draws) -> Estimate | None:
    """The mean over victims and draws with its interval; None if there is no value."""
    samples = [list(of_victim.values()) for of_victim in values.values() if of_victim]
    if not samples:
        return None
    mean, n = fmean(map(fmean, samples)), sum(map(len, samples))
    if min(map(len, samples)) < 2:
        return Estimate(mean, None, None, 1.0, n)
    parts = [variance(sample) / len(sample) for sample in samples]
    error = sqrt(sum(parts)) / len(samples)
    if error == 0:
        return Estimate(mean, mean, mean, float(mean == 0), n)
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(sample) - 1) for part, sample in zip(parts, samples, strict=True)
    )
    reach = float(student.isf(LEVEL / 2, freedom)) * error
    p = 2 * float(student.sf(abs(mean) / error, freedom))
    return Estimate(mean, mean - reach, mean + reach, p, n)


def difference(one: Draws, other: Draws) -> Estimate | None:
    """How much higher one is than the other, paired over the draws of both; None if none is."""
    return estimate(
        {
            victim: {
                draw: value - other[victim][draw]
                for draw, value in values.items()
                if draw in other[victim]
            }
            for victim, values in one.items()
            if victim in other
        }
    )


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
