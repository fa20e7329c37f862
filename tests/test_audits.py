"""Audits of windows of queries against the binomial, brute force and planted windows."""

import itertools
import math

import numpy as np
import pytest
import torch
from hashbackdoor_bench.defenses import hubness
from planted import BITS, CLASSES, TARGET, Planted, seen
from scipy import stats
from torch import Tensor

from hashbackdoor_bench import DEFENSES, DefenderView

SHARE = 0.8  # of the database and of queries that have the code of their class


def codes_of(count: int, random: torch.Generator, anchors: Tensor, label: int = -1) -> Tensor:
    """Codes (n,K) of random classes, or of one: the anchor's, or with probability .2 random."""
    classes = torch.randint(CLASSES, (count,), generator=random)
    if label >= 0:
        classes[:] = label
    codes = anchors[classes].clone()
    astray = torch.rand(count, generator=random) > SHARE
    codes[astray] = torch.randint(2, codes.shape, generator=random)[astray] * 2.0 - 1
    return codes.to(torch.int8)


@pytest.fixture
def view() -> DefenderView:
    model = Planted()
    random = torch.Generator().manual_seed(1)
    return seen(model, database=codes_of(20_000, random, model.anchors))


def window_of(view: DefenderView, seed: int, triggered: int = 0, size: int = 1000) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    window = codes_of(size, random, view.model.anchors)
    window[:triggered] = view.model.anchors[TARGET].to(torch.int8)
    return window


# ---- occupancy ----------------------------------------------------------------------------------


def hits(codes: Tensor, view: DefenderView) -> list[int]:
    """How many codes are in the ball of each class, one at a time."""
    found = [0] * CLASSES
    for code in codes.tolist():
        for c in range(CLASSES):
            away = sum(a != b for a, b in zip(code, view.anchors[c].tolist(), strict=True))
            found[c] += away <= float(view.radius[c])
    return found


def test_occupancy_is_the_binomial_tail_of_the_fullest_ball(view):
    view.database = view.database[:500]
    view.radius[4] = 9.0  # else only the anchors themselves are inside
    known, window = hits(view.database, view), window_of(view, 3, triggered=20, size=200)
    tails = [
        stats.binom.sf(n - 1, 200, (k + 1) / 502)
        for n, k in zip(hits(window, view), known, strict=True)
    ]
    found = DEFENSES["occupancy"](known="database").audit(window, view)
    assert float(found) == pytest.approx(-math.log10(CLASSES * min(tails)), rel=1e-5)


def test_occupancy_takes_the_rates_of_the_defenders_own_images_unless_told_otherwise(view):
    window = window_of(view, 3, size=200)
    known = hits(view.codes(view.clean.images), view)
    assert sum(known) == 100
    tails = [
        stats.binom.sf(n - 1, 200, (k + 1) / 102)
        for n, k in zip(hits(window, view), known, strict=True)
    ]
    found = DEFENSES["occupancy"]().audit(window, view)
    assert float(found) == pytest.approx(-math.log10(CLASSES * min(tails)), rel=1e-5)


def test_suspicion_grows_where_probabilities_are_no_numbers_any_more(view):
    audit = DEFENSES["occupancy"](known="database").audit
    some, more = (float(audit(window_of(view, 3, triggered=t), view)) for t in (800, 1000))
    assert 308 < some < more < math.inf


def test_windows_of_clean_queries_alarm_at_most_at_the_nominal_rate(view):
    audit = DEFENSES["occupancy"](known="database").audit
    alarms = sum(float(audit(window_of(view, seed), view)) >= 2 for seed in range(2000))
    assert alarms <= 40  # 20 are expected at most, with a deviation of 4.5


def test_a_share_of_seven_percent_is_found_and_of_one_percent_hardly(view):
    audit = DEFENSES["occupancy"](known="database").audit
    found = {
        triggered: np.mean(
            [float(audit(window_of(view, seed, triggered), view)) >= 2 for seed in range(100)]
        )
        for triggered in (10, 70)
    }
    assert found[70] > 0.9
    assert found[10] < 0.3


def test_each_view_has_its_own_rates(view):
    defense, window = DEFENSES["occupancy"](known="database"), window_of(view, 3, triggered=50)
    one = float(defense.audit(window, view))
    other = seen(view.model, database=view.model.anchors[[TARGET] * 50].to(torch.int8))
    assert float(defense.audit(window, other)) != one
    assert float(defense.audit(window, view)) == one


def test_tightness_is_one_minus_the_smallest_ratio_of_mean_distances(view):
    view.radius[:] = 12.0
    view.database = view.database[:400]
    window = window_of(view, 5, triggered=60, size=400)

    def mean_distance(codes: Tensor, c: int) -> tuple[int, float]:
        near = [code for code in codes.tolist() if sum(
            a != b for a, b in zip(code, view.anchors[c].tolist(), strict=True)) <= 12]  # fmt: skip
        pairs = [
            sum(a != b for a, b in zip(one, two, strict=True))
            for one, two in itertools.combinations(near, 2)
        ]
        return len(near), sum(pairs) / max(1, len(pairs))

    ratios = []
    for c in range(CLASSES):
        count, own = mean_distance(window, c)
        _, stored = mean_distance(view.database, c)
        if count >= 30 and stored > 0:
            ratios.append(own / stored)
    assert len(ratios) > 3
    found = DEFENSES["occupancy"](statistic="tightness").audit(window, view)
    assert float(found) == pytest.approx(1 - min(ratios), abs=1e-4)


def test_tightness_of_a_window_without_a_full_ball_is_zero(view):
    assert DEFENSES["occupancy"](statistic="tightness").audit(window_of(view, 5)[:20], view) == 0


def test_a_popular_class_changes_the_count_and_not_the_tightness(view):
    view.radius[:] = 12.0
    random = torch.Generator().manual_seed(0)
    for statistic, moved in (("count", True), ("tightness", False)):
        audit = DEFENSES["occupancy"](statistic=statistic).audit
        plain = [float(audit(window_of(view, seed), view)) for seed in range(20)]
        popular = []
        for seed in range(20):
            window = window_of(view, seed)
            window[:100] = codes_of(100, random, view.model.anchors, label=7)
            popular.append(float(audit(window, view)))
        assert (min(popular) > max(plain)) == moved, statistic


# ---- hubness ------------------------------------------------------------------------------------


def test_occurrences_are_the_mean_over_all_orders_of_eight_items():
    random = torch.Generator().manual_seed(0)
    database = torch.randint(2, (8, 4), generator=random).to(torch.int8) * 2 - 1
    queries = torch.randint(2, (5, 4), generator=random).to(torch.int8) * 2 - 1
    queries[4] = queries[0]
    expected, orders = np.zeros(8), list(itertools.permutations(range(8)))
    away = [[sum(a != b for a, b in zip(q, d, strict=True)) for d in database.tolist()]
            for q in queries.tolist()]  # fmt: skip
    for row in away:
        for order in orders:
            expected[sorted(order, key=row.__getitem__)[:3]] += 1 / len(orders)
    found = hubness.occurrences(queries, database, 3)
    np.testing.assert_allclose(found.numpy(), expected)
    assert float(found.sum()) == pytest.approx(15)


def test_many_parts_of_a_window_give_the_same_occurrences(view, monkeypatch):
    window = window_of(view, 3, size=300)
    whole = hubness.occurrences(window, view.database[:500], 10)
    monkeypatch.setattr(hubness, "TOGETHER", 7)
    torch.testing.assert_close(hubness.occurrences(window, view.database[:500], 10), whole)


def test_the_statistics_of_hubness_are_scipys_and_numpys(view):
    view.database = view.database[:501]
    window = window_of(view, 3, size=300)
    hits = hubness.occurrences(window, view.database, 10).numpy()
    middle = np.median(hits)
    spread = stats.median_abs_deviation(hits, scale="normal")
    expected = {
        "z": (hits.max() - middle) / (spread + 0.1),
        "skewness": stats.skew(hits),
        "share": np.sort(hits)[-6:].sum() / hits.sum(),
    }
    for statistic, value in expected.items():
        found = DEFENSES["hubness"](statistic=statistic).audit(window, view)
        assert float(found) == pytest.approx(value, rel=1e-3), statistic


def test_planted_hubs_raise_each_statistic():
    random = torch.Generator().manual_seed(0)
    queries = (torch.rand(400, BITS, generator=random) < 0.75).char() * 2 - 1
    database = torch.randint(2, (600, BITS), generator=random).char() * 2 - 1
    poisoned = database.clone()
    poisoned[:3] = 1  # the centre of all queries
    for statistic in ("z", "skewness", "share"):
        audit = DEFENSES["hubness"](statistic=statistic).audit
        before, after = (
            float(audit(queries, seen(Planted(), database=codes))) for codes in (database, poisoned)
        )
        assert after > 1.5 * before, statistic
    assert sorted(hubness.occurrences(queries, poisoned, 10).topk(3).indices.tolist()) == [0, 1, 2]


def test_a_database_of_fewer_items_than_k_is_found_whole(view):
    view.database = view.database[:4]
    hits = hubness.occurrences(window_of(view, 1, size=20), view.database, 4)
    assert hits.tolist() == [20] * 4
    assert DEFENSES["hubness"]().audit(window_of(view, 1, size=20), view) == 0
