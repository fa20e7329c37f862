"""What comparisons can tell, and looking at them several times, against simulations."""

from math import sqrt

import numpy as np
import pytest
from made_records import made
from scipy import stats

from hashbackdoor_bench.report.power import closed, detectable, groups_for, power, seconds_of
from hashbackdoor_bench.report.sequential import CAUTION, bounds, looks, spent
from hashbackdoor_bench.report.statistics import Draws, Estimate


def test_the_detectable_difference_is_found_in_80_percent_of_experiments():
    rng = np.random.default_rng(0)
    for groups, comparisons in ((4, 1), (10, 1), (10, 28)):
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
    assert power(mine, [], 1) is None
    assert power(of_seeds(0.5), [of_seeds(0.4)], 1) is None


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
