"""Average precision against brute force over orders of ties, fractions and torchmetrics."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from codes_and_labels import (
    Data,
    all_orders,
    data_with,
    distances_and_relevance,
    random_counts,
    random_data,
)
from torchmetrics.functional.retrieval import retrieval_average_precision

from hashbackdoor_bench import metrics
from hashbackdoor_bench.metrics import kernels as counting
from hashbackdoor_bench.metrics.ranking import Convention, average_precision, rank, score


def plain_ap(relevance: list[int], top_k: int, normalizer: str = "retrieved") -> Fraction | None:
    """The definition, on 0/1 in ranked order; None for a query without a hit in the top R."""
    found = [i for i, hit in enumerate(relevance[:top_k], 1) if hit]
    total = sum(Fraction(n, i) for n, i in enumerate(found, 1))
    ideal = min(top_k, len(relevance), sum(relevance))
    return total / (len(found) if normalizer == "retrieved" else ideal) if found else None


def mean_of(values: list[Fraction | None], empty: str) -> float:
    kept = [value or Fraction(0) for value in values if empty == "zero" or value is not None]
    return float(sum(kept) / len(kept)) if kept else math.nan


def without_ties(queries: int = 20, database: int = 60, seed: int = 0) -> Data:
    """Every item at a distance of its own from each query: all queries share one code."""
    rng = np.random.default_rng(seed)
    rows = np.where(np.arange(64) < rng.permutation(database)[:, None], -1.0, 1.0)
    labels = np.eye(5)[rng.integers(5, size=queries + database)]
    return (
        torch.ones(queries, 64),
        torch.tensor(labels[:queries]),
        torch.tensor(rows),
        torch.tensor(labels[queries:]),
    )


# Average precision


@pytest.mark.parametrize("normalizer", ["retrieved", "ideal"])
@pytest.mark.parametrize("empty", ["zero", "skip"])
def test_expected_ap_is_the_mean_over_all_orders_of_ties(empty, normalizer):
    rng = np.random.default_rng(1)
    for _ in range(60):
        counts = random_counts(rng)
        top_k = int(rng.integers(1, sum(t for t, _ in counts) + 3))
        wanted = mean_of([plain_ap(o, top_k, normalizer) for o in all_orders(counts)], empty)
        kind = {"empty": empty, "normalizer": normalizer}
        (found,) = average_precision(*data_with(counts), top_k, **kind).tolist()
        assert found == pytest.approx(wanted, abs=1e-13, nan_ok=True), (counts, top_k)


@pytest.mark.parametrize("normalizer", ["retrieved", "ideal"])
@pytest.mark.parametrize("empty", ["zero", "skip"])
@pytest.mark.parametrize("ties", ["optimistic", "pessimistic"])
def test_the_ends_put_relevant_items_first_or_last_in_each_tie(ties, empty, normalizer):
    rng = np.random.default_rng(2)
    for _ in range(60):
        counts = random_counts(rng)
        top_k = int(rng.integers(1, sum(t for t, _ in counts) + 3))
        flags = ([1] * k + [0] * (t - k) for t, k in counts)
        order = [hit for f in flags for hit in (f if ties == "optimistic" else f[::-1])]
        wanted = mean_of([plain_ap(order, top_k, normalizer)], empty)
        convention = Convention(ties, empty, normalizer)
        (found,) = score(rank(*data_with(counts)), top_k, convention).tolist()
        assert found == pytest.approx(wanted, abs=1e-13, nan_ok=True), (counts, top_k)


@pytest.mark.parametrize(
    ("t", "k", "top_k"), [(100_000, 900, 1000), (20_000, 10_000, 4000), (9000, 8990, 8990)]
)
def test_a_large_cut_bucket_is_exact_to_12_digits(t, k, top_k):
    m = top_k - 20  # twenty nearer items, three of them relevant
    first = [Fraction(3, 20) * (1 + (i - 1) * Fraction(2, 19)) / i for i in range(1, 21)]
    places = 1 / np.arange(21, top_k + 1, dtype=np.longdouble)
    h, rise = places.sum(), (np.arange(m) * places).sum()
    wanted, middle = np.longdouble(0), m * k // t
    for x in range(max(0, m + k - t, middle - 200), min(k, m, middle + 200) + 1):
        chance = Fraction(math.comb(k, x) * math.comb(t - k, m - x), math.comb(t, m))
        inner = np.longdouble(x) / m * (4 * h + np.longdouble(x - 1) / (m - 1) * rise)
        wanted += np.longdouble(float(chance)) * (float(sum(first)) + inner) / (3 + x)
    found = average_precision(*data_with([(20, 3), (t, k)]), top_k).item()
    assert found == pytest.approx(float(wanted), rel=1e-12)


def test_a_whole_database_in_large_buckets_is_exact_to_12_digits():
    counts = [(3, 0), (50_000, 0), (2, 2), (40_000, 400), (7, 5)]
    seen, hits, total = 0, 0, np.longdouble(0)
    for t, k in counts:
        i = np.arange(1, t + 1, dtype=np.longdouble)
        inner = hits + 1 + (i - 1) * np.longdouble(k - 1) / max(t - 1, 1)
        total += (np.longdouble(k) / t * inner / (seen + i)).sum()
        seen, hits = seen + t, hits + k
    found = average_precision(*data_with(counts), None).item()
    assert found == pytest.approx(float(total / hits), rel=1e-12)


@pytest.mark.parametrize("a", [0, 1, 63, 64, 65, 1000, 99_999])
@pytest.mark.parametrize("n", [0, 1, 2, 63, 64, 500])
def test_partial_harmonic_sums_are_right_to_the_last_digits(a, n):
    exact = float(sum(Fraction(1, a + i) for i in range(1, n + 1)))
    assert counting.harmonic(a, n) == pytest.approx(exact, rel=2e-15, abs=0)


def test_expected_ap_is_the_mean_over_many_random_orders():
    counts = [(2, 0), (9, 4), (40, 11), (60, 20)]
    rng, top_k = np.random.default_rng(3), 40
    sample = []
    for _ in range(3000):
        order = [rng.permutation([1] * k + [0] * (t - k)) for t, k in counts]
        hit = np.flatnonzero(np.concatenate(order)[:top_k]) + 1
        sample.append((np.arange(1, len(hit) + 1) / hit).mean())
    found = average_precision(*data_with(counts), top_k).item()
    assert abs(found - np.mean(sample)) < 4 * np.std(sample) / math.sqrt(len(sample))


def test_relevance_1_0_1_scores_five_sixths():
    counts = [(1, 1), (1, 0), (1, 1)]
    assert average_precision(*data_with(counts), 3).item() == pytest.approx(5 / 6, abs=1e-15)


def test_a_query_without_a_hit_scores_zero_or_is_skipped():
    data = data_with([(2, 0), (3, 0), (1, 1)])
    assert average_precision(*data, 5).item() == 0
    assert math.isnan(average_precision(*data, 5, empty="skip").item())
    assert average_precision(*data, 5, normalizer="ideal").item() == 0
    nothing = data_with([(2, 0)])
    assert average_precision(*nothing, 2, normalizer="ideal").item() == 0


def test_chance_level_at_130_000_items_and_one_percent_is_0164():
    found = average_precision(*data_with([(130_000, 1300)]), 1000).item()
    h = sum(1 / i for i in range(1, 1001))
    at_ten_hits = (h + (10 - 1) / (1000 - 1) * (1000 - h)) / 1000
    assert at_ten_hits == pytest.approx(0.01643, abs=5e-6)
    assert found == pytest.approx(at_ten_hits, abs=2e-6)  # none in 4e-5 of the orders


@pytest.mark.parametrize("top_k", [None, -1, 7, 1000])
def test_a_cut_off_beyond_the_database_takes_all_of_it_and_drops_no_item(top_k):
    data = data_with([(3, 0), (3, 0), (1, 1)])
    assert average_precision(*data, top_k).item() == pytest.approx(1 / 7)


@pytest.mark.parametrize("ties", ["expected", "seeded", "optimistic", "pessimistic"])
@pytest.mark.parametrize("top_k", [1, 10, 60])
def test_without_ties_every_order_agrees_with_torchmetrics(ties, top_k):
    data = without_ties()
    distance, relevant = distances_and_relevance(data)
    wanted = [
        retrieval_average_precision(torch.tensor(65.0 - d), torch.tensor(r), top_k=top_k).item()
        for d, r in zip(distance, relevant, strict=True)
    ]
    found = average_precision(*data, top_k, ties=ties)
    np.testing.assert_allclose(found, wanted, atol=1e-6)  # torchmetrics counts in float32


@pytest.mark.parametrize("top_k", [3, 30, 60])
def test_without_ties_it_is_the_rule_of_the_public_implementations(top_k):
    query, query_label, database, label = (side.numpy() for side in without_ties(seed=4))
    total = 0.0
    for q in range(len(query)):
        gnd = (query_label[q] @ label.T > 0).astype(np.float32)
        hamming = 0.5 * (64 - query[q] @ database.T)
        gnd = gnd[np.argsort(hamming)][:top_k]
        tsum = int(gnd.sum())
        if tsum == 0:
            continue
        count = np.linspace(1, tsum, tsum)
        index = np.asarray(np.where(gnd == 1)) + 1.0
        total += np.mean(count / index)
    found = average_precision(*without_ties(seed=4), top_k).mean().item()
    assert found == pytest.approx(total / len(query), abs=1e-12)


def test_a_database_sorted_by_class_favours_no_class():
    labels = torch.eye(100).repeat_interleave(20, 0)
    codes = torch.ones(2000, 16)
    found = average_precision(torch.ones(100, 16), torch.eye(100), codes, labels, 50)
    assert found[0] > 0
    assert (found == found[0]).all()


# The seeded order


def test_the_seeded_order_follows_the_ids_and_not_the_database():
    for tags in (1, 2):
        query, query_label, codes, labels = random_data(30, 400, 6, 5, tags)
        ids = torch.randperm(10_000, generator=torch.Generator().manual_seed(0))[:400]
        shuffle = torch.randperm(400, generator=torch.Generator().manual_seed(1))
        here = average_precision(
            query, query_label, codes, labels, 50, ties="seeded", ids=ids, seed=3
        )
        moved = (query, query_label, codes[shuffle], labels[shuffle])
        there = average_precision(*moved, 50, ties="seeded", ids=ids[shuffle], seed=3)
        assert torch.equal(here, there)
        assert not torch.equal(here, average_precision(*moved, 50, ties="seeded", ids=ids, seed=3))


def test_the_seeded_order_is_one_of_the_orders_and_they_average_to_expected():
    counts = [(1, 0), (5, 2), (6, 3)]
    orders, draws = all_orders(counts), 300
    rankings = [rank(*data_with(counts), seed=seed) for seed in range(draws)]
    for top_k, normalizer in itertools.product((4, 9, 12), ("retrieved", "ideal")):
        possible = np.array([float(plain_ap(o, top_k, normalizer) or 0) for o in orders])
        seeded = Convention(ties="seeded", normalizer=normalizer)
        sample = np.array([score(ranking, top_k, seeded).item() for ranking in rankings])
        assert (abs(sample[:, None] - possible).min(1) < 1e-12).all()
        expected = score(rankings[0], top_k, Convention(normalizer=normalizer)).item()
        assert abs(sample.mean() - expected) < 4 * sample.std() / math.sqrt(draws)


def test_the_seeded_order_is_the_same_for_every_query():
    query, query_label, codes, labels = data_with([(0, 0), (300, 150)])
    data = query.repeat(5, 1), query_label.repeat(5, 1), codes, labels
    by_seed = [average_precision(*data, 20, ties="seeded", seed=seed) for seed in range(9)]
    assert all((found == found[0]).all() for found in by_seed)
    assert len({found[0].item() for found in by_seed}) == 9


def test_ids_may_be_negative_and_seeds_too():
    data = random_data(3, 50, 4, 2)
    first = average_precision(*data, 9, ties="seeded", ids=torch.arange(50) - 25, seed=-1)
    again = average_precision(*data, 9, ties="seeded", ids=(torch.arange(50) - 25).int(), seed=-1)
    assert torch.equal(first, again)


@pytest.mark.parametrize("seed", [0, 7])
def test_the_seeded_order_is_that_of_splitmix64_over_the_ids(seed):
    """Records of earlier commits were scored in this order."""

    def mix(x: int) -> int:
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
        return x ^ x >> 31

    ids = [5, 900, 2**62 + 3, 0, 77, 12, 31, 4]
    salt = mix(seed + 0x9E3779B97F4A7C15)
    wanted = sorted(range(len(ids)), key=lambda place: mix(ids[place] ^ salt))
    same = torch.ones(len(ids), 8)
    found = metrics.nearest(same[:1], same, len(ids), ids=torch.tensor(ids), seed=seed)
    assert found.tolist() == [wanted]


def test_a_ranking_without_its_order_scores_all_but_the_seeded_ties():
    data = random_data(10, 50, 16, 4)
    ranking = rank(*data, seeded=False)
    assert ranking.sides is None
    plain = metrics.Convention()
    assert torch.equal(metrics.score(ranking, 9, plain), metrics.score(rank(*data), 9, plain))
    with pytest.raises(ValueError, match="seeded=True"):
        metrics.score(ranking, 9, metrics.CONVENTIONS["ciba"])
