"""How well suspicions tell poisoned or triggered items from clean ones.

Shapes: P positives, N negatives, m calibration items. Larger suspicions are more suspicious; a
score whose AUROC is below .5 is never turned round.
"""

from collections.abc import Sequence
from math import ceil, inf, nan
from typing import Any

import numpy as np
from torch import Tensor

RATES = (0.01, 0.05)  # false positive rates
BINS, TAIL = 30, 0.005  # of a histogram, and the share of items beyond each of its ends


def auroc(positive: Tensor, negative: Tensor) -> float:
    """P(s+ > s-) + P(s+ = s-) / 2; NaN without a positive or a negative item.

    >>> import torch
    >>> auroc(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 0.0]))
    0.875
    """
    if not len(positive) or not len(negative):
        return nan
    known = np.sort(negative.double().numpy())
    values = positive.double().numpy()
    below = np.searchsorted(known, values, "left")
    upto = np.searchsorted(known, values, "right")
    return float((below + upto).mean() / (2 * len(known)))


def auroc_interval(
    positive: Tensor, negative: Tensor, *, draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of `auroc`, by drawing items with replacement; NaN without items."""
    if not len(positive) or not len(negative):
        return nan, nan
    rng = np.random.default_rng(seed)
    found = [
        auroc(
            positive[rng.integers(len(positive), size=len(positive))],
            negative[rng.integers(len(negative), size=len(negative))],
        )
        for _ in range(draws)
    ]
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)


def tpr_at(positive: Tensor, negative: Tensor, rate: float) -> float:
    """True positive rate at a false positive rate, with ties in random order; NaN without items.

    Between two points of the ROC curve it is linear, which is the expectation over all orders of
    ties.
    """
    if not len(positive) or not len(negative):
        return nan
    cuts = np.unique(np.concatenate([positive.double().numpy(), negative.double().numpy()]))[::-1]
    shares = [
        np.concatenate([[0.0], np.searchsorted(np.sort(-side), -cuts, "right") / len(side)])
        for side in (negative.double().numpy(), positive.double().numpy())
    ]
    # of several points at one false positive rate, the last has the largest true positive rate
    last = np.append(np.diff(shares[0]) > 0, True)
    return float(np.interp(rate, shares[0][last], shares[1][last]))


def threshold(calibration: Tensor, rate: float) -> float:
    """The value above which at most the share ``rate`` of clean items lie, from m of them.

    It is the ceil((1 - rate)(m + 1))-th smallest, so that the rate holds for a new item; infinite
    if m is too small.
    """
    place = ceil((1 - rate) * (len(calibration) + 1) - 1e-9)
    return inf if place > len(calibration) else float(calibration.sort().values[place - 1])


def share_above(values: Tensor, limit: float) -> float:
    """Share of values (N,) above a threshold; NaN if N = 0."""
    return float((values > limit).double().mean())


def rates(positive: Tensor, negative: Tensor) -> dict[str, float]:
    """`tpr_at` each of ``RATES``."""
    return {f"{rate:g}": tpr_at(positive, negative, rate) for rate in RATES}


def operating(
    positive: Tensor, negative: Tensor, calibration: Tensor, at: Sequence[float] = RATES
) -> dict[str, dict[str, float]]:
    """By intended rate: the ``threshold`` of calibration items, and ``fpr`` and ``tpr`` there."""
    found = {}
    for rate in at:
        limit = threshold(calibration, rate)
        found[f"{rate:g}"] = {
            "threshold": limit,
            "fpr": share_above(negative, limit),
            "tpr": share_above(positive, limit),
        }
    return found


def standardised(scores: Tensor) -> Tensor:
    """Scores (n,) less their median, over 1.4826 times their median absolute deviation."""
    centred = scores - scores.median()
    return centred / (1.4826 * centred.abs().median() + 1e-12)


def histogram(
    positive: Tensor, negative: Tensor, control: Tensor | None = None
) -> dict[str, Any] | None:
    """Suspicions in ``BINS`` equal bins, as shares; what lies beyond the ends is in the outer bins.

    The ends are the quantiles ``TAIL`` and 1 - ``TAIL`` of positives and negatives together.

    Args:
        positive: (P,).
        negative: (N,).
        control: (W,), positives on a victim without poison.

    Returns:
        ``low``, ``high``, and the shares of each; None without a positive or a negative item.
    """
    if not len(positive) or not len(negative):
        return None
    both = np.concatenate([positive.double().numpy(), negative.double().numpy()])
    low, high = map(float, np.quantile(both, (TAIL, 1 - TAIL)))
    edges = np.linspace(low, high, BINS + 1)[1:-1]

    def shares(values: Tensor) -> list[float]:
        place = np.searchsorted(edges, values.double().numpy(), "right")
        return [float(count) / len(values) for count in np.bincount(place, minlength=BINS)]

    found = {"low": low, "high": high, "positive": shares(positive), "negative": shares(negative)}
    return {**found, "control": shares(control)} if control is not None else found
