"""What comparisons can tell, and looking at them several times, against simulations."""

from math import sqrt
from statistics import fmean

import numpy as np
import pytest
from made_records import made
from scipy import stats

from hashbackdoor_bench.report.power import closed, detectable, groups_for, power, seconds_of
from hashbackdoor_bench.report.sequential import CAUTION, bounds, looks, spent
from hashbackdoor_bench.report.statistics import Draws, Estimate, wins


def test_the_detectable_difference_is_found_in_80_percent_of_experiments():
    rng = np.random.default_rng(0)
    for groups, comparisons in ((3, 10), (4, 1), (10, 1), (10, 28), (59, 10)):
        shift = detectable(1 / sqrt(groups), groups, comparisons)
        found = stats.ttest_1samp(rng.normal(shift, 1, (20_000, groups)), 0, axis=1).pvalue
        assert np.mean(found < 0.05 / comparisons) == pytest.approx(0.8, abs=0.012)


def test_the_groups_for_a_difference_are_the_fewest_that_can_tell_it():
    error, groups = 0.05, 4
    needed = groups_for(0.1, error, groups, 6)
    assert needed is not None

    def tells(count: int) -> float:
        return detectable(error * sqrt(groups / count), count, 6)

    assert tells(needed) <= 0.1 < tells(needed - 1)
    assert groups_for(1e-9, error, groups) is None


def of_seeds(*values: float) -> Draws:
    return {("csq", 48): {("Coat", seed): value for seed, value in enumerate(values)}}


def test_an_attack_has_the_power_of_its_paired_differences():
    mine, other = of_seeds(0.5, 0.6, 0.8), of_seeds(0.4, 0.3, 0.6)
    found = power(mine, [other], 3)
    assert found is not None
    assert (found.runs, found.groups) == (3, 3)
    assert found.error == pytest.approx(stats.sem([0.1, 0.3, 0.2]))
    assert found.tells == detectable(found.error, 3, 3)
    assert found.runs_for(found.tells) == 3
    third = of_seeds(0.1, 0.5, 0.8, 0.9)
    found = power(mine, [other, third], 3)
    assert found is not None
    assert found.error == pytest.approx(
        sqrt((stats.sem([0.1, 0.3, 0.2]) ** 2 + stats.sem([0.4, 0.1, 0.0]) ** 2) / 2)
    )
    four = of_seeds(0.5, 0.6, 0.8, 0.7)
    few = power(four, [of_seeds(0.4, 0.3, 0.6, 0.2), other], 3)
    assert few is not None
    assert (few.runs, few.groups) == (4, 3)
    assert power(mine, [of_seeds(0.1, 0.5)], 1) is None  # two groups have no interval
    assert power(mine, [], 1) is None
    assert power(of_seeds(0.5), [of_seeds(0.4)], 1) is None


def test_what_three_seeds_say_they_can_tell_is_mostly_within_a_factor_of_two():
    rng = np.random.default_rng(1)
    error = 0.1 * sqrt(2 / 3)  # of the difference of two attacks, over three seeds
    truth = detectable(error, 3, 10)
    found = []
    for _ in range(400):
        mine, *others = (of_seeds(*rng.normal(0.3, 0.1, 3)) for _ in range(5))
        told = power(mine, others, 10)
        assert told is not None
        found.append(told)
    assert fmean(told.error**2 for told in found) == pytest.approx(error**2, rel=0.1)
    near = [truth / 2 < told.tells < 2 * truth for told in found]
    assert 0.88 < fmean(near) < 0.99


def test_as_many_runs_as_are_said_to_be_needed_tell_the_goal():
    rng = np.random.default_rng(2)
    needed = groups_for(0.05, 0.1 * sqrt(2 / 3), 3, 10)
    assert needed is not None
    hits = []
    for _ in range(200):
        means = (0.35, 0.3, 0.3, 0.3, 0.3)
        board = [of_seeds(*rng.normal(mean, 0.1, needed)) for mean in means]
        ((above, *_),) = wins([board])
        hits.append(len(above) / 4)
    assert 0.75 < fmean(hits) < 0.9  # Holm's later steps are easier than the first


def test_a_stage_that_records_share_takes_time_once():
    one, other = made(seed=0), made(seed=1)
    assert seconds_of([one]) == sum(one.seconds.values())
    shared = {"backdoor": "k"}
    for record in (one, other):
        record.artifacts.update(shared)
    assert seconds_of([one, other]) == 1.5 + 2 * 2.0


# ---- several looks ------------------------------------------------------------------------------


def test_the_last_look_of_one_has_the_whole_error_and_looks_are_even():
    assert bounds([1.0], 0.05) == [pytest.approx(0.05, rel=1e-3)]
    assert spent(1.0, 0.05) == pytest.approx(0.05)
    assert looks(10) == [3, 4, 6, 8, 10]
    assert looks(3) == [3]
    assert looks(2) == [2]
    assert looks(40) == [8, 16, 24, 32, 40]


def test_the_bounds_are_those_of_the_published_table():
    """Five equal looks at 5 % two-sided, O'Brien-Fleming spending (Lan and DeMets; ldbounds)."""
    z = stats.norm.isf(np.array(bounds([0.2, 0.4, 0.6, 0.8, 1.0], 0.05 / CAUTION)) / 2)
    assert z == pytest.approx([4.877, 3.357, 2.680, 2.290, 2.031], abs=0.01)


def errors_of_looks(groups: int, error: float, times: int, shift: float = 0.0) -> float:
    """How often any look at Student's t tells attacks with this difference apart."""
    values = np.random.default_rng(3).normal(shift, 1, (times, groups))
    seen = looks(groups)
    limits = bounds([one / groups for one in seen], error)
    crossed = np.zeros(times, dtype=bool)
    for count, limit in zip(seen, limits, strict=True):
        crossed |= stats.ttest_1samp(values[:, :count], 0, axis=1).pvalue < limit
    return float(crossed.mean())


@pytest.mark.parametrize("groups", [3, 4, 6, 10, 40])
@pytest.mark.parametrize("error", [0.05, 0.05 / 8])
def test_equal_attacks_are_told_apart_by_any_look_as_seldom_as_stated(groups, error):
    times = 40_000
    found = errors_of_looks(groups, error, times)
    assert found <= error + 3 * sqrt(error / times)
    assert found >= 0.75 * error


def test_several_looks_find_nearly_as_much_as_one():
    shift = detectable(1 / sqrt(10), 10)
    assert errors_of_looks(10, 0.05, 20_000, shift) > 0.75


def test_a_comparison_is_closed_by_a_difference_or_by_an_interval_within_the_goal():
    lead = Estimate(0.1, 0.05, 0.15, 0.001, 9, 0.02, 3)
    assert closed(lead, 0.05, 0.01) == "above"
    assert closed(Estimate(-0.1, -0.2, 0.0, 0.001, 9, 0.02, 3), 0.05, 0.01) == "below"
    assert closed(lead, 0.05, 0.0001) == ""
    assert closed(Estimate(0.001, 0.0, 0.0, 0.6, 9, 0.002, 10), 0.05, 0.05) == "near"
    assert closed(None, 0.05, 0.05) == closed(Estimate(0.1, None, None, 1.0, 1), 0.05, 0.5) == ""
