"""AUROC, rates and thresholds against their definitions, one pair at a time."""

import math

import pytest
import torch

from hashbackdoor_bench import metrics
from hashbackdoor_bench.records import worth


def small(seed: int, count: int) -> torch.Tensor:
    """Small integers, so that there are many ties."""
    return torch.randint(0, 5, (count,), generator=torch.Generator().manual_seed(seed)).float()


def test_auroc_counts_pairs_and_half_of_the_ties():
    positive, negative = small(0, 13) + 1, small(1, 17)
    pairs = [(a > b) + (a == b) / 2 for a in positive.tolist() for b in negative.tolist()]
    assert metrics.auroc(positive, negative) == pytest.approx(sum(pairs) / len(pairs))
    assert metrics.auroc(negative, positive) == pytest.approx(1 - sum(pairs) / len(pairs))
    assert math.isnan(metrics.auroc(positive[:0], negative))


def test_the_interval_of_auroc_holds_it_and_shrinks_with_more_items():
    widths = []
    for count in (20, 2000):
        positive, negative = small(2, count) + 1, small(3, count)
        low, high = metrics.auroc_interval(positive, negative, draws=200)
        assert low < metrics.auroc(positive, negative) < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 5


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.3, 0.7])
def test_tpr_is_the_mean_over_random_orders_of_ties(rate):
    """With ties in random order, a threshold at rate f takes a share of those on its value."""
    positive, negative = small(4, 50) + 1, small(5, 100)
    wanted = rate * len(negative)
    found = 0.0
    for value in sorted({*positive.tolist(), *negative.tolist()}, reverse=True):
        here = int((negative == value).sum())
        part = 1.0 if here == 0 else min(1.0, max(0.0, wanted / here))
        if wanted < 0 or (wanted == 0 and here):
            break
        found += part * float((positive == value).sum())
        wanted -= part * here
        if part < 1:
            break
    assert metrics.tpr_at(positive, negative, rate) == pytest.approx(found / 50)


def test_a_threshold_is_an_order_statistic_and_infinite_with_too_few_images():
    values = torch.randperm(99, generator=torch.Generator().manual_seed(0)).float()
    assert metrics.threshold(values, 0.05) == 94  # the 95th smallest of 0..98
    assert metrics.threshold(values, 0.01) == 98
    assert metrics.threshold(values[:98], 0.01) == math.inf
    at = metrics.operating(values + 50, values, values, at=(0.05,))["0.05"]
    assert (at["fpr"], at["tpr"]) == (pytest.approx(4 / 99), pytest.approx(54 / 99))


def test_leave_one_out_is_the_ap_among_the_others():
    random = torch.Generator().manual_seed(0)
    codes, changed = (torch.randint(2, (12, 6), generator=random) * 2 - 1 for _ in range(2))
    labels = torch.eye(3)[torch.arange(12) % 3]
    for query in (codes, changed):
        found = metrics.leave_one_out(query, codes, labels)
        for i in range(12):
            rest = torch.arange(12) != i
            one = metrics.average_precision(
                query[i : i + 1], labels[i : i + 1], codes[rest], labels[rest], None
            )
            assert float(found[i]) == pytest.approx(float(one))


def test_the_worth_of_a_defense_is_its_formula():
    before, after = {"map": 0.8, "t_map": 0.9}, {"map": 0.75, "t_map": 0.3}
    found = worth(before, after, 0.1)
    assert found["removal"] == pytest.approx(0.6 / 0.8)
    assert found["clean_cost"] == pytest.approx(0.05)
    assert found["der"] == pytest.approx((0.6 - 0.05 + 1) / 2)
    worse = worth(before, {"map": 0.85, "t_map": 0.95}, 0.1)  # nothing is removed, MAP gains
    assert worse["der"] == 0.5
    assert worse["removal"] == pytest.approx(-0.05 / 0.8)
    assert math.isnan(worth(before, after, 0.86)["removal"])  # less than .05 is above the floor


def test_a_histogram_holds_every_suspicion_once_and_what_is_beyond_in_the_outer_bins():
    positive, negative = torch.randn(400) + 2, torch.cat([torch.randn(599), torch.tensor([1e6])])
    found = metrics.histogram(positive, negative, positive - 2)
    assert found is not None
    bins, low, high = len(found["positive"]), found["low"], found["high"]
    assert high < 10  # one item of a thousand is beyond
    for name, values in (("positive", positive), ("negative", negative), ("control", positive - 2)):
        counts = [0] * bins
        for value in values.double().tolist():
            place = math.floor((value - low) / (high - low) * bins)
            counts[min(max(place, 0), bins - 1)] += 1
        assert [share * len(values) for share in found[name]] == pytest.approx(counts)
    assert "control" not in metrics.histogram(positive, negative)
    assert metrics.histogram(positive, negative[:0]) is None


def test_the_shares_at_a_distance_are_those_of_the_anchor_of_a_database():
    generator = torch.Generator().manual_seed(0)
    query, database, triggered = (
        torch.randint(0, 2, (n, 8), generator=generator) * 2 - 1 for n in (6, 9, 4)
    )
    labels = torch.eye(3, dtype=torch.uint8)
    of_query, of_database = labels[[0, 1, 1, 2, 0, 2]], labels[[0, 0, 0, 0, 1, 1, 2, 2, 2]]
    truth = metrics.Truth(
        query=of_query, database=of_database, target=labels[0], classes=("a", "b", "c"),
        ids=tuple(map(str, range(9))), bits=8, top_k=5,
    )  # fmt: skip
    packed = metrics.Codes(
        *(metrics.pack(codes.to(torch.int8)) for codes in (query, database, triggered))
    )
    found = metrics.anchor_shares(packed, truth)
    anchor = [1 if sum(int(row[bit]) for row in database[:4]) >= 0 else -1 for bit in range(8)]
    for name, codes in (("untriggered", query[[1, 2, 3, 5]]), ("triggered", triggered)):
        distances = [sum(int(b) != a for b, a in zip(row, anchor, strict=True)) for row in codes]
        assert found[name] == [distances.count(d) / 4 for d in range(9)]
