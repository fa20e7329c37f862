"""How many targets, seeds and budgets a suite needs: computed from pilot records.

    python -m benchmarks.design results/quick --between 10     its records have one target
    python -m benchmarks.design results/frozen

The difference of two attacks varies between targets, between the seeds of a target, and between
the runs of a target and seed (victims and budgets). The command measures the three in pilot records
(`report.power.components`), takes the time of stages from them, and prints for several designs of
one cost what they can tell.
"""

from dataclasses import dataclass

BUDGETS = (0.05, 0.1, 0.2, 0.4, 0.6)


@dataclass(frozen=True)
class Design:
    """Which runs every attack of a suite has.

    Attributes:
        targets: number of target classes.
        seeds: of each target; no seed has two targets.
        victims: number of them.
        budgets: of each victim, target and seed, out of `BUDGETS`.
    """

    targets: int
    seeds: int
    victims: int
    budgets: int

    @property
    def runs(self) -> int:
        """Of each attack."""
        return self.targets * self.seeds * self.victims * self.budgets


def rotation(design: Design) -> list[tuple[int, int, int, float]]:
    """The cells (victim, target, seed, budget) of a design, sorted by seed.

    Seed s is of target s mod `Design.targets`, so that the runs of one target share nothing with
    those of another. Budgets rotate: every victim meets every target, and each budget on equally
    many targets if their number is a multiple of five.
    """
    count = len(BUDGETS)
    return [
        (v, t, t + design.targets * r, BUDGETS[(2 * t + v + r + 2 * k) % count])
        for r in range(design.seeds)
        for t in range(design.targets)
        for v in range(design.victims)
        for k in range(design.budgets)
    ]
