"""The named conventions, and the other figures of a ranking against plain loops."""

import doctest
import math

import numpy as np
import pytest
import torch
from codes_and_labels import (
    all_orders,
    data_with,
    distances_and_relevance,
    random_counts,
    random_data,
)

from hashbackdoor_bench import metrics
from hashbackdoor_bench.metrics import ranking as ranking_module
from hashbackdoor_bench.metrics.ranking import (
    CONVENTIONS,
    Convention,
    average_precision,
    bootstrap,
    distance_shares,
    hit_at,
    mean_distance,
    no_hit_fraction,
    pack,
    precision_recall,
    precision_within,
    rank,
    score_all,
    shares_no_tag,
)

# Conventions


def test_the_named_conventions_are_those_of_the_definitions():
    definitions = {
        "field": Convention("expected", "zero", "retrieved"),
        "ciba": Convention("seeded", "skip", "retrieved"),
        "badhash": Convention("seeded", "zero", "retrieved"),
        "strict": Convention("expected", "zero", "ideal"),
    }
    assert definitions == CONVENTIONS


def test_all_conventions_at_once_are_the_conventions_one_by_one():
    data = random_data(40, 500, 6, 5)
    data[3][:, 0] = 0  # queries of the first class hit nothing
    found = score_all(rank(*data, seed=7), 20)
    ends = {f"field_{ties}": Convention(ties) for ties in ("optimistic", "pessimistic")}
    assert list(found) == [*CONVENTIONS, *ends]
    for name, c in (CONVENTIONS | ends).items():
        words = {"ties": c.ties, "empty": c.empty, "normalizer": c.normalizer}
        wanted = average_precision(*data, 20, seed=7, **words)
        assert torch.equal(found[name].nan_to_num(-1), wanted.nan_to_num(-1)), name
        assert found[name].is_contiguous()
    assert 0 < found["ciba"].isnan().sum() < 40
    assert found["field_pessimistic"].mean() < found["field"].mean()
    assert found["field_optimistic"].mean() > found["field"].mean()


# Other figures


def test_hit_rates_are_the_share_of_orders_with_a_hit():
    rng = np.random.default_rng(5)
    for _ in range(100):
        counts = random_counts(rng)
        n = int(rng.integers(1, 12))
        orders = all_orders(counts)
        wanted = sum(any(order[:n]) for order in orders) / len(orders)
        ranking = rank(*data_with(counts))
        assert hit_at(ranking, n).item() == pytest.approx(wanted, abs=1e-13), (counts, n)
        assert no_hit_fraction(ranking, n) == pytest.approx(1 - wanted, abs=1e-13)


def test_the_no_hit_fraction_is_a_mean_over_queries():
    query, _, codes, labels = data_with([(1, 1), (1, 0)])
    ranking = rank(query.repeat(4, 1), torch.eye(2)[torch.tensor([0, 0, 0, 1])], codes, labels)
    assert no_hit_fraction(ranking, 1) == 0.25


def test_precision_and_recall_within_a_radius_are_those_of_plain_loops():
    data = random_data(9, 80, 12, 4)
    data[1][0], data[3][:, 1] = 0, 0  # queries that have no relevant item
    distance, relevant = distances_and_relevance(data)
    ranking = rank(*data)
    precision, recall = precision_recall(ranking)
    assert precision.shape == recall.shape == (13,)
    for radius in range(13):
        ps, rs = [], []
        for q in range(9):
            within = [bool(r) for d, r in zip(distance[q], relevant[q], strict=True) if d <= radius]
            ps.append(sum(within) / len(within) if within else 0)
            if relevant[q].any():
                rs.append(sum(within) / relevant[q].sum())
        np.testing.assert_allclose(precision_within(ranking, radius), ps, atol=1e-15)
        assert precision[radius].item() == pytest.approx(np.mean(ps))
        assert recall[radius].item() == pytest.approx(np.mean(rs))
    assert precision_within(ranking, 99).tolist() == precision_within(ranking, 12).tolist()
    assert 0 < len(rs) < 9


def test_distance_shares_are_those_of_a_count_bit_by_bit():
    codes = torch.tensor([[1, 1, 1], [1, -1, 1], [-1, -1, 1], [1, 1, -1]])
    anchor = torch.tensor([1, 1, 1])
    assert distance_shares(codes, anchor).tolist() == [0.25, 0.5, 0.25, 0]
    assert distance_shares(-codes, anchor).tolist() == [0, 0.25, 0.5, 0.25]
    assert distance_shares(codes[:0], anchor).isnan().tolist() == [True] * 4


def test_mean_distance_counts_the_bits_that_differ():
    anchor = torch.tensor([1, 1, -1, 1])
    codes = torch.tensor([[1, 1, -1, 1], [-1, 1, -1, -1], [-1, -1, 1, -1]])
    assert mean_distance(codes, anchor) == 2
    assert mean_distance(pack(codes), anchor) == 2
    assert mean_distance(pack(codes), pack(anchor[None])[0]) == 2
    assert math.isnan(mean_distance(codes[:0], anchor))


def test_queries_that_share_a_tag_with_the_target_are_left_out_of_t_map():
    labels = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0]])
    target = torch.tensor([1, 0, 1])
    assert shares_no_tag(labels, target).tolist() == [False, True, False, True]


def test_the_bootstrap_finds_the_normal_interval_of_a_mean():
    values = torch.randn(4000, generator=torch.Generator().manual_seed(0)).double() + 5
    low, high = bootstrap(values, confidence=0.9)
    half = 1.6449 * values.std().item() / math.sqrt(4000)
    assert low == pytest.approx(values.mean().item() - half, abs=half / 10)
    assert high == pytest.approx(values.mean().item() + half, abs=half / 10)


def test_the_bootstrap_is_seeded_and_leaves_out_skipped_queries():
    values = torch.rand(50, generator=torch.Generator().manual_seed(0))
    skipped = torch.cat((values, torch.full((30,), math.nan)))
    assert bootstrap(values) == bootstrap(skipped) == bootstrap(values)
    assert bootstrap(values) != bootstrap(values, seed=1)
    assert bootstrap(torch.full((5,), 2.0)) == (2.0, 2.0)
    assert all(map(math.isnan, bootstrap(torch.full((5,), math.nan))))


def test_a_paired_difference_has_the_narrower_interval():
    before = torch.rand(500, generator=torch.Generator().manual_seed(0))
    low, high = bootstrap((before + 0.01) - before)
    assert low == pytest.approx(0.01, abs=1e-6)
    assert high == pytest.approx(0.01, abs=1e-6)


def test_the_nearest_items_are_those_of_a_full_sort_and_ties_belong_to_the_ids():
    generator = torch.Generator().manual_seed(0)
    query, database = (torch.randint(0, 2, (n, 8), generator=generator) * 2 - 1 for n in (5, 60))
    distance = (8 - query @ database.T) // 2
    found = metrics.nearest(query, database, 10)
    for row, positions in zip(distance, found, strict=True):
        assert torch.equal(row[positions], row.sort().values[:10])
        assert len(positions.unique()) == 10
    ids = torch.randperm(60, generator=generator)
    shuffled = torch.randperm(60, generator=generator)
    named = metrics.nearest(query, database, 10, ids=ids)
    again = metrics.nearest(query, database[shuffled], 10, ids=ids[shuffled])
    assert torch.equal(ids[named], ids[shuffled][again])
    assert metrics.nearest(query, database, 100).shape == (5, 60)


def test_the_example_in_the_docstring_runs():
    failed, attempted = doctest.testmod(ranking_module)
    assert (failed, attempted) == (0, 2)
