"""How sure a mean over victims and seeds is, and which attacks it tells apart.

The victims v of a board are fixed, the draws s (seed and target) of each are random:

    mean = 1/V sum_v mean_s x[v,s]
    se²  = 1/V² sum_v u_v                  u_v = var_s(x[v,s]) / n_v
    df   = (sum_v u_v)² / sum_v u_v² / (n_v - 1)                  Welch and Satterthwaite
    95 % interval: mean ± t(df) se

Two attacks are compared by the same mean over their paired differences, two-sided, with Holm's
correction over all pairs of a board, at 5 %. The place of an attack is the range from one more than
the number of attacks above it to the number of those not below it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import sqrt
from statistics import fmean, variance

from scipy.stats import t as student

LEVEL = 0.05

Draws = Sequence[Sequence[float]]  # for each victim, a value a draw


@dataclass(frozen=True)
class Estimate:
    """A mean over victims and draws.

    Attributes:
        mean: over victims of the means over draws.
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


def estimate(draws: Draws) -> Estimate:
    """The mean over victims and draws, with its interval; every victim has a draw."""
    mean, n = fmean(map(fmean, draws)), sum(map(len, draws))
    if min(map(len, draws)) < 2:
        return Estimate(mean, None, None, 1.0, n)
    parts = [variance(values) / len(values) for values in draws]
    error = sqrt(sum(parts)) / len(draws)
    if error == 0:
        return Estimate(mean, mean, mean, float(mean == 0), n)
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(values) - 1) for part, values in zip(parts, draws, strict=True)
    )
    reach = float(student.isf(LEVEL / 2, freedom)) * error
    p = 2 * float(student.sf(abs(mean) / error, freedom))
    return Estimate(mean, mean - reach, mean + reach, p, n)


def holm(values: Sequence[float]) -> list[float]:
    """P-values corrected for their number, step by step from the smallest."""
    corrected, least = [0.0] * len(values), 0.0
    for step, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        least = max(least, min(1.0, (len(values) - step) * values[place]))
        corrected[place] = least
    return corrected


def ranks(scores: Sequence[Draws]) -> list[tuple[int, int]]:
    """First and last place that each attack may have, 1 is the highest mean.

    Args:
        scores: an attack each; the same victims and draws in the same order for all.
    """
    pairs = list(combinations(range(len(scores)), 2))
    differences = [estimate(_paired(scores[a], scores[b])) for a, b in pairs]
    first, last = [1] * len(scores), [len(scores)] * len(scores)
    for (a, b), one, p in zip(
        pairs, differences, holm([one.p for one in differences]), strict=True
    ):
        if p < LEVEL:
            above, below = (a, b) if one.mean > 0 else (b, a)
            first[below] += 1
            last[above] -= 1
    return list(zip(first, last, strict=True))


def _paired(one: Draws, other: Draws) -> list[list[float]]:
    return [
        [a - b for a, b in zip(mine, theirs, strict=True)]
        for mine, theirs in zip(one, other, strict=True)
    ]
