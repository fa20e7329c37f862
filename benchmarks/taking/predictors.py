"""What could tell beforehand, or early, whether a backdoor will take, and how well it does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import permutation_test, rankdata, zscore

from hashbackdoor_bench.registry import ATTACKS
from hashbackdoor_bench.report.statistics import holm

RESAMPLES = 99_999
SHOWN = 8  # links in a table
EARLY = (1, 3)  # epochs


@dataclass(frozen=True)
class Link:
    """How a number of each run goes with the gain of the run.

    Attributes:
        name: of the number.
        rho: Spearman's rank correlation with the gain.
        p: of a permutation test, two-sided.
        corrected: p after Holm's correction over all numbers of the attack.
    """

    name: str
    rho: float
    p: float
    corrected: float


def numbers_of(run: Mapping[str, float], epochs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The numbers of a run by name: of the patch and the surrogate, then of early epochs."""
    found = dict(run)
    for number in EARLY:
        if number <= len(epochs):
            found |= {
                f"{name}, epoch {number}": value for name, value in epochs[number - 1].items()
            }
    return found


def links(runs: Sequence[Mapping[str, float]], gains: Sequence[float]) -> list[Link]:
    """For each number how it goes with the gain, the closest link first.

    A number that is the same in all runs, or is missing in one, has no link.

    Args:
        runs: numbers of each run, all with the same names.
        gains: of each run.
    """
    columns = {name: [run[name] for run in runs] for name in runs[0]}
    columns = {
        name: values
        for name, values in columns.items()
        if len(set(values)) > 1 and np.isfinite(values).all()
    }
    if len(set(gains)) < 2:
        return []
    found = [correlation(values, gains) for values in columns.values()]
    corrected = holm([p for _, p in found])
    made = [
        Link(name, rho, p, one)
        for name, (rho, p), one in zip(columns, found, corrected, strict=True)
    ]
    return sorted(made, key=lambda link: (link.p, -abs(link.rho)))


def correlation(values: Sequence[float], gains: Sequence[float]) -> tuple[float, float]:
    """Spearman's correlation and its two-sided p-value, by permutations.

    Raises:
        ValueError: all values, or all gains, are equal.
    """
    ranks, others = (zscore(rankdata(one)) for one in (values, gains))
    if not np.isfinite(ranks).all() or not np.isfinite(others).all():
        raise ValueError("equal values have no correlation")

    def rho(given: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
        return np.asarray((given * others).mean(axis))

    test = permutation_test(
        (ranks,), rho, permutation_type="pairings", n_resamples=RESAMPLES, batch=10_000,
        vectorized=True, rng=np.random.default_rng(0),
    )  # fmt: skip
    return float(test.statistic), float(test.pvalue)


def table(runs: Sequence[Mapping[str, Any]]) -> str:
    """What goes with the gain, in Markdown: a table for each attack.

    Args:
        runs: what `looked_into` returned.
    """
    lines = []
    for attack in dict.fromkeys(run["attack"] for run in runs):
        part = [run for run in runs if run["attack"] == attack]
        gains = [run["gain"] for run in part]
        found = links([numbers_of(run["numbers"], run["epochs"]) for run in part], gains)
        shown = ", ".join(f"{100 * gain:.1f}" for gain in sorted(gains))
        lines += [
            f"## {ATTACKS.published(attack)}",
            "",
            f"Gain of the {len(part)} runs, in points: {shown}. Of {len(found)} numbers, those "
            "that go with it the closest: Spearman's rank correlation, its p by permutations, and "
            "p corrected by Holm's method.",
            "",
            "| number | rank correlation | p | corrected |",
            "|---|---:|---:|---:|",
            *(
                f"| {one.name} | {one.rho:+.2f} | {one.p:.4f} | {one.corrected:.3f} |"
                for one in found[:SHOWN]
            ),
            "",
        ]
    return "\n".join(lines).rstrip()
