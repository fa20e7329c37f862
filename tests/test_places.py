"""What predicts places, on made-up gains: how often it errs, and what it finds."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
from scipy import stats

from hashbackdoor_bench.report.statistics import Draws, places

BUDGETS = (0.05, 0.1, 0.2, 0.4, 0.6)


@dataclass(frozen=True)
class Made:
    """Standard deviations of an attack's gain, as shares; differences have sqrt(2) of them.

    Attributes:
        target: of a target, the same for all its runs.
        seed: of a target and seed, the same for all victims and budgets.
        shared: of a seed, the same for all targets too.
        these: whether attacks are equal on average over these targets, not over all there may be.
        victim: of a victim and target.
        rest: of a run.
        misses: share of the targets on which no attack gains, so that none differs there.
    """

    target: float
    seed: float
    victim: float
    rest: float
    misses: float = 0.0
    shared: float = 0.0
    these: bool = False

    def gains(
        self, cells: list[tuple[int, int, int, int]], means: list[float], rng: np.random.Generator
    ) -> list[Draws]:
        """Gains of attacks with these means, in cells of victim, target, seed and budget."""
        count = [1 + max(cell[part] for cell in cells) for part in range(4)]
        takes = rng.random(count[1]) >= self.misses
        found = []
        for mean in means:
            shape = (count[0], count[1])
            of_target = self.target * rng.normal(size=count[1])
            of_seed = self.seed * rng.normal(size=(count[1], count[2]))
            of_seed += self.shared * rng.normal(size=count[2])
            of_victim = self.victim * rng.normal(size=shape)
            if self.these:
                of_target -= of_target.mean()
                of_victim -= of_victim.mean()
            draws: dict[tuple[str, int, float], dict[tuple[str, int], float]] = {}
            for v, t, s, b in cells:
                effect = of_target[t] + of_seed[t, s] + of_victim[v, t]
                gain = 0.2 + 0.1 * b + mean + takes[t] * effect + self.rest * rng.normal()
                draws.setdefault((f"v{v}", 48, BUDGETS[b]), {})[f"class{t}", s] = gain
            found.append(draws)
        return found


FROZEN = Made(target=0.025, seed=0.004, victim=0.008, rest=0.008)  # as measured, see the suites
SCRATCH = Made(target=0.07, seed=0.05, victim=0.05, rest=0.05)


def whole(targets: int, seeds: int) -> list[tuple[int, int, int, int]]:
    """Four victims at five budgets on every target and seed."""
    return list(product(range(4), range(targets), range(seeds), range(5)))


def incomplete() -> list[tuple[int, int, int, int]]:
    """Two of five budgets for each of four victims on each of ten targets, in rotation."""
    return [(v, t, 0, (2 * t + v + 2 * k) % 5) for v in range(4) for t in range(10) for k in (0, 1)]


DESIGNS = {
    "frozen": (FROZEN, whole(10, 1)),
    "frozen, half of the targets miss": (
        Made(target=0.035, seed=0.004, victim=0.008, rest=0.008, misses=0.5), whole(10, 1)
    ),
    "scratch, incomplete": (SCRATCH, incomplete()),
    "scratch, four targets": (SCRATCH, whole(4, 2)),
    "four targets, four seeds": (
        Made(target=0.1, seed=0.05, victim=0.05, rest=0.05, shared=0.05, these=True),
        whole(4, 4),
    ),
    "one target, three seeds": (
        Made(target=0.0, seed=0.07, victim=0.0, rest=0.05), whole(1, 3)
    ),
}  # fmt: skip


def told_apart(design: str, means: list[float], times: int) -> Iterator[list[tuple[int, int]]]:
    """The places of repeated made-up boards of a design."""
    made, cells = DESIGNS[design]
    rng = np.random.default_rng(7)
    for _ in range(times):
        yield places(made.gains(cells, means, rng))


def false_places(design: str, attacks: int, times: int) -> float:
    """Share of boards of equal attacks on which any two are told apart."""
    tie = [(1, attacks)] * attacks
    return sum(found != tie for found in told_apart(design, [0.0] * attacks, times)) / times


def most_by_chance(share: float, times: int) -> float:
    """Three standard deviations above a share that is counted in so many boards."""
    return share + 3 * float(np.sqrt(share * (1 - share) / times))


@pytest.mark.parametrize(
    "design",
    ["frozen", "scratch, incomplete", "four targets, four seeds", "one target, three seeds"],
)
def test_two_equal_attacks_are_told_apart_in_five_percent_of_boards(design):
    times = 300
    assert false_places(design, 2, times) <= most_by_chance(0.05, times)


@pytest.mark.parametrize("design", ["frozen", "scratch, incomplete", "one target, three seeds"])
def test_runs_taken_as_independent_tell_equal_attacks_apart_in_thirty_percent_of_boards(design):
    made, cells = DESIGNS[design]
    rng = np.random.default_rng(7)
    wrong, times = 0, 300
    for _ in range(times):
        one, other = made.gains(cells, [0.0, 0.0], rng)
        leads = [x - other[key][draw] for key, some in one.items() for draw, x in some.items()]
        wrong += stats.ttest_1samp(leads, 0).pvalue < 0.05
    assert wrong / times > 0.3


@pytest.mark.slow
@pytest.mark.parametrize("attacks", [2, 6])
@pytest.mark.parametrize("design", list(DESIGNS))
def test_boards_of_equal_attacks_have_a_false_place_in_five_percent(design, attacks):
    times = 1200 if attacks == 2 else 200
    found = false_places(design, attacks, times)
    assert found <= most_by_chance(0.05, times)
    if attacks == 2 and "miss" not in design:  # and no less: the test isn't blunt
        assert found >= 0.03
