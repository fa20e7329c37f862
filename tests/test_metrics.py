"""metrics.py against brute force over orders of ties, exact arithmetic and two other libraries."""

import doctest
import itertools
import math
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics.functional.retrieval import retrieval_average_precision

from hashbackdoor_bench import metrics
from hashbackdoor_bench.metrics import code_words as packing
from hashbackdoor_bench.metrics import kernels as counting
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
    score,
    score_all,
    shares_no_tag,
    unpack,
)

Counts = list[tuple[int, int]]  # (items, relevant items) at the distances 0, 1, 2, ...
Data = tuple[Tensor, Tensor, Tensor, Tensor]


def plain_ap(relevance: list[int], top_k: int, normalizer: str = "retrieved") -> Fraction | None:
    """The definition, on 0/1 in ranked order; None for a query without a hit in the top R."""
    found = [i for i, hit in enumerate(relevance[:top_k], 1) if hit]
    total = sum(Fraction(n, i) for n, i in enumerate(found, 1))
    ideal = min(top_k, len(relevance), sum(relevance))
    return total / (len(found) if normalizer == "retrieved" else ideal) if found else None


def all_orders(counts: Counts) -> list[list[int]]:
    """Every order of the tied items; orders that look the same are one, all equally likely."""
    buckets = (sorted(set(itertools.permutations([1] * k + [0] * (t - k)))) for t, k in counts)
    return [list(itertools.chain(*order)) for order in itertools.product(*buckets)]


def mean_of(values: list[Fraction | None], empty: str) -> float:
    kept = [value or Fraction(0) for value in values if empty == "zero" or value is not None]
    return float(sum(kept) / len(kept)) if kept else math.nan


def data_with(counts: Counts, bits: int = 8) -> Data:
    """One query and a database that lies around it as ``counts`` say."""
    rows, labels = [], []
    for distance, (t, k) in enumerate(counts):
        rows += [[-1] * distance + [1] * (bits - distance)] * t
        labels += [[1, 0]] * k + [[0, 1]] * (t - k)
    return (
        torch.ones(1, bits),
        torch.tensor([[1, 0]]),
        torch.tensor(rows, dtype=torch.float32).reshape(-1, bits),
        torch.tensor(labels).reshape(-1, 2),
    )


def random_counts(rng: np.random.Generator, size: int = 4) -> Counts:
    sizes = rng.integers(0, size + 1, 4)
    return [(int(t), int(rng.integers(0, t + 1))) for t in sizes]


def random_data(
    queries: int, database: int, bits: int, classes: int, tags: int = 1, seed: int = 0
) -> Data:
    """Codes that lean towards the class, so that near items are more often relevant."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, bits))

    def side(n: int) -> tuple[Tensor, Tensor]:
        labels = np.zeros((n, classes), np.int64)
        for _ in range(tags):
            labels[np.arange(n), rng.integers(classes, size=n)] = 1
        codes = np.where(labels @ centres + rng.normal(size=(n, bits)) > 0, 1.0, -1.0)
        return torch.tensor(codes, dtype=torch.float32), torch.tensor(labels)

    return *side(queries), *side(database)


def distances_and_relevance(data: Data) -> tuple[np.ndarray, np.ndarray]:
    q, ql, d, dl = (side.double().numpy() for side in data)
    return ((q.shape[1] - q @ d.T) / 2).astype(int), ql @ dl.T > 0


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


# Counting


@pytest.mark.parametrize("bits", [1, 8, 48, 64, 65, 130])
@pytest.mark.parametrize("tags", [1, 3])
@pytest.mark.parametrize("threads", [1, 3])
def test_counts_are_those_of_plain_loops(bits, tags, threads):
    data = random_data(7, 2500, bits, 70, tags)  # more items than a block, more tags than a word
    data[1][0], data[3][5] = 0, 0  # a query and an item without a tag
    distance, relevant = distances_and_relevance(data)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        ranking = rank(*data)
    finally:
        torch.set_num_threads(before)
    for q in range(7):
        wanted = np.bincount(distance[q], minlength=bits + 1)
        np.testing.assert_array_equal(ranking.items[q], wanted)
        wanted = np.bincount(distance[q][relevant[q]], minlength=bits + 1)
        np.testing.assert_array_equal(ranking.relevant[q], wanted)


def test_items_are_relevant_when_they_share_any_tag():
    query, item = torch.tensor([[1, 0, 1, 0]]), torch.tensor([[0, 0, 1, 1], [0, 1, 0, 1]])
    ranking = rank(torch.ones(1, 4), query, torch.ones(2, 4), item)
    assert ranking.items[0].tolist() == [2, 0, 0, 0, 0]
    assert ranking.relevant[0].tolist() == [1, 0, 0, 0, 0]


def test_one_tag_an_item_counts_as_the_same_tag_written_twice():
    query, query_label, codes, labels = random_data(20, 1500, 16, 9)
    query_label[3], labels[4] = 0, 0
    once = rank(query, query_label, codes, labels)
    twice = rank(query, query_label.repeat(1, 2), codes, labels.repeat(1, 2))
    assert torch.equal(once.relevant, twice.relevant)
    assert torch.equal(once.items, twice.items)


@pytest.mark.parametrize("bits", [8, 20, 64, 70])
def test_packed_codes_score_as_the_codes_they_hold(bits):
    query, query_label, codes, labels = random_data(10, 300, bits, 4)
    wanted = average_precision(query, query_label, codes, labels, 25)
    for q, d in ((pack(query), pack(codes)), (query, pack(codes)), (pack(query), codes)):
        assert torch.equal(average_precision(q, query_label, d, labels, 25), wanted)
    spoiled = pack(codes)
    spoiled[:, -1] |= (1 << (-bits % 8)) - 1  # padding bits
    both = pack(query), query_label, spoiled, labels
    assert torch.equal(average_precision(*both, 25, bits=bits), wanted)


def test_padding_that_is_equal_on_both_sides_does_no_harm():
    query, query_label, codes, labels = random_data(10, 300, 20, 4)
    wanted = average_precision(query, query_label, codes, labels, 25)
    q, d = pack(query), pack(codes)
    q[:, -1] |= 15
    d[:, -1] |= 15
    assert torch.equal(average_precision(q, query_label, d, labels, 25), wanted)


@pytest.mark.parametrize("bits", [1, 7, 8, 48, 100])
def test_unpack_inverts_pack(bits):
    codes = random_data(5, 9, bits, 2)[2]
    packed = pack(codes)
    assert packed.dtype == torch.uint8
    assert packed.shape == (9, math.ceil(bits / 8))
    assert unpack(packed, bits).dtype == torch.int8
    assert torch.equal(unpack(packed, bits).float(), codes)
    assert packed[0, 0].item() >> 7 == int(codes[0, 0] > 0)


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.int64, torch.float16, torch.bfloat16, torch.float64]
)
def test_any_dtype_of_codes_and_labels_scores_the_same(dtype):
    data = random_data(10, 100, 16, 4)
    wanted = average_precision(*data, 10)
    assert torch.equal(average_precision(*(side.to(dtype) for side in data), 10), wanted)
    q, ql, d, dl = data
    assert torch.equal(average_precision(q, ql.bool(), d.requires_grad_(), dl.byte(), 10), wanted)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tensors_on_a_gpu_score_as_on_the_cpu():
    data = random_data(10, 100, 16, 4)
    on_gpu = tuple(side.cuda() for side in data)
    found = average_precision(*on_gpu, 10, ties="seeded", ids=torch.arange(100).cuda())
    assert torch.equal(found, average_precision(*data, 10, ties="seeded"))


def test_no_input_is_written_into():
    data = random_data(10, 100, 12, 4)
    packed = pack(data[0]) | 15, data[1], pack(data[2]) | 15, data[3]  # 15: padding bits
    ids = torch.arange(100)
    for given in (data, packed):
        copies = [side.clone() for side in given]
        ranking = rank(*given, ids=ids, bits=12)
        counts = ranking.items.clone(), ranking.relevant.clone()
        for value in score_all(ranking, 10).values():
            value.zero_()
        assert all(torch.equal(a, b) for a, b in zip(given, copies, strict=True))
        assert torch.equal(ids, torch.arange(100))
        assert torch.equal(counts[0], ranking.items)
        assert torch.equal(counts[1], ranking.relevant)
        assert score_all(ranking, 10)["field"].mean() > 0


def test_several_python_threads_may_score_at_once():
    data = random_data(50, 2000, 32, 5)
    wanted = average_precision(*data, 100)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: average_precision(*data, 100), range(12)))
    assert all(torch.equal(one, wanted) for one in found)


def test_no_array_of_queries_times_database_is_made():
    data = random_data(2000, 20_000, 16, 10, tags=2)
    average_precision(*data, 10)
    tracemalloc.start()
    ranking = rank(*data)
    score_all(ranking, 100)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2000 * 20_000 / 8


def test_empty_sides_give_empty_or_zero_scores():
    query, query_label, codes, labels = random_data(3, 5, 8, 2)
    assert average_precision(query[:0], query_label[:0], codes, labels, 5).shape == (0,)
    nothing = rank(query, query_label, codes[:0], labels[:0])
    assert score_all(nothing, 5)["strict"].tolist() == [0, 0, 0]
    assert score_all(nothing, None)["ciba"].isnan().all()
    assert no_hit_fraction(nothing, 5) == 1


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


# Refusals


def changed(position: int, value: Tensor) -> Data:
    data = list(random_data(3, 5, 8, 2))
    data[position] = value
    return tuple(data)


NOT_A_CODE = torch.ones(3, 8)
NOT_A_CODE[1, 2] = 0
NAN_CODE = torch.ones(5, 8)
NAN_CODE[4, 7] = math.nan


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (changed(0, NOT_A_CODE), r"query_codes: 0.0 in row 1, column 2 .* torch.sign"),
        (changed(2, NAN_CODE), r"database_codes: nan in row 4, column 7 is neither"),
        (changed(0, torch.ones(3, 9)), r"different lengths: .*'query_codes': 9"),
        (changed(2, torch.ones(5, 2, dtype=torch.uint8)), r"2 packed bytes .* do not hold 8 bits"),
        (changed(0, torch.ones(8)), r"query_codes: expected the shape"),
        (changed(1, torch.full((3, 2), 2)), r"query_labels: expected 0 and 1 only"),
        (changed(3, torch.full((5, 2), math.nan)), r"database_labels: expected 0 and 1 only"),
        (changed(1, torch.ones(4, 2)), r"3 query_codes with 4 query_labels"),
        (changed(3, torch.ones(4, 2)), r"5 database_codes with 4 database_labels"),
        (changed(3, torch.ones(5, 3)), r"2 classes against 3"),
        (changed(3, torch.ones(5)), r"database_labels: expected the shape"),
    ],
)
def test_bad_input_is_refused_with_what_is_wrong(data, message):
    with pytest.raises(ValueError, match=message):
        average_precision(*data, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 0}, "top_k=0"),
        ({"top_k": -2}, "top_k=-2"),
        ({"ties": "stable"}, "ties='stable': choose one of expected, seeded"),
        ({"empty": "drop"}, "empty='drop'"),
        ({"normalizer": "none"}, "normalizer='none'"),
        ({"bits": 9}, "different lengths"),
        ({"ids": torch.arange(4)}, "ids: expected 5 integers"),
        ({"ids": torch.rand(5)}, "ids: expected 5 integers"),
        ({"ids": torch.zeros(5, dtype=torch.int64)}, "one id names two items"),
    ],
)
def test_bad_options_are_refused_with_what_is_wrong(options, message):
    with pytest.raises(ValueError, match=message):
        average_precision(*random_data(3, 5, 8, 2), **{"top_k": 3} | options)


def test_packed_codes_are_refused_where_codes_are_wanted_and_the_other_way_round():
    packed = torch.zeros(2, 1, dtype=torch.uint8)
    with pytest.raises(ValueError, match="uint8 means packed already"):
        pack(packed)
    with pytest.raises(ValueError, match="expected uint8"):
        unpack(torch.ones(2, 1), 8)
    with pytest.raises(ValueError, match="do not hold 9 bits"):
        unpack(packed, 9)
    with pytest.raises(ValueError, match="expected the shape"):
        pack(torch.ones(3))
    with pytest.raises(ValueError, match=r"-0\.5 in row 0"):
        pack(torch.tensor([[-0.5]]))


def test_figures_refuse_what_they_cannot_mean():
    ranking = rank(*random_data(3, 5, 8, 2))
    with pytest.raises(ValueError, match="radius=-1"):
        precision_within(ranking, -1)
    with pytest.raises(ValueError, match="top_k=0"):
        hit_at(ranking, 0)
    with pytest.raises(ValueError, match="different lengths"):
        mean_distance(torch.ones(2, 8), torch.ones(9))
    with pytest.raises(ValueError, match="2 classes against 3"):
        shares_no_tag(torch.ones(4, 2), torch.ones(3))
    for values, options in ((torch.ones(2, 2), {}), (torch.ones(2), {"confidence": 1.0})):
        with pytest.raises(ValueError, match="expected values"):
            bootstrap(values, **options)


def test_kernels_compile_where_no_cache_can_be_written(monkeypatch):
    plain = counting.njit

    def njit(*, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return plain(**options)

    monkeypatch.setattr(counting, "njit", njit)
    assert counting.compiled(lambda a: a + 1)(2) == 3


def test_the_example_in_the_docstring_runs():
    failed, attempted = doctest.testmod(ranking_module)
    assert (failed, attempted) == (0, 2)


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


@pytest.mark.parametrize("tags", [1, 2])
def test_labels_read_in_parts_are_those_read_at_once(tags, monkeypatch):
    data = random_data(50, 300, 16, 70, tags)
    whole = rank(*data)
    monkeypatch.setattr(packing, "LABELS", 70 * 7)  # seven rows a part
    parts = rank(*data)
    assert torch.equal(whole.items, parts.items)
    assert torch.equal(whole.relevant, parts.relevant)
    assert whole.sides is not None
    assert parts.sides is not None
    assert all(np.array_equal(*pair) for pair in zip(whole.sides, parts.sides, strict=True))


@pytest.mark.parametrize("tags", [1, 2])
def test_a_database_counted_in_parts_gives_what_it_gives_at_once(tags, monkeypatch):
    data = random_data(50, 300, 16, 70, tags)
    data[3][290:] = 0  # nothing in the last parts is tagged
    whole = rank(*data)
    monkeypatch.setattr(ranking_module, "PART", 7)
    parts = rank(*data)
    assert torch.equal(whole.items, parts.items)
    assert torch.equal(whole.relevant, parts.relevant)
    scores, again = metrics.score_all(whole, 20), metrics.score_all(parts, 20)
    assert all(
        torch.equal(scores[name].nan_to_num(-1), again[name].nan_to_num(-1)) for name in scores
    )
    data[2][-1, 3] = 0
    with pytest.raises(ValueError, match="row 299, column 3"):
        rank(*data)


def test_one_part_may_have_items_of_one_tag_and_the_next_of_two(monkeypatch):
    query, query_labels, database, labels = random_data(20, 100, 16, 5)
    labels[60:] = torch.roll(labels[60:], 1, 1) | labels[60:]
    monkeypatch.setattr(ranking_module, "PART", 30)
    ranking = rank(query, query_labels, database, labels)
    distance, relevance = distances_and_relevance((query, query_labels, database, labels))
    assert torch.equal(ranking.items, counted(distance, relevance * 0 + 1))
    assert torch.equal(ranking.relevant, counted(distance, relevance))


def counted(distance: Tensor, weight: Tensor) -> Tensor:
    rows = [
        torch.bincount(d.long().flatten(), w.double().flatten(), minlength=17)
        for d, w in zip(torch.as_tensor(distance), torch.as_tensor(weight), strict=True)
    ]
    return torch.stack(rows).int()


def test_a_ranking_without_its_order_scores_all_but_the_seeded_ties():
    data = random_data(10, 50, 16, 4)
    ranking = rank(*data, seeded=False)
    assert ranking.sides is None
    plain = metrics.Convention()
    assert torch.equal(metrics.score(ranking, 9, plain), metrics.score(rank(*data), 9, plain))
    with pytest.raises(ValueError, match="seeded=True"):
        metrics.score(ranking, 9, metrics.CONVENTIONS["ciba"])


@pytest.mark.parametrize("where", ["items with two tags", "a wrong entry"])
def test_what_only_the_last_part_of_the_labels_holds_is_seen(where, monkeypatch):
    query, query_labels, database, labels = random_data(20, 100, 16, 5)
    monkeypatch.setattr(packing, "LABELS", 5 * 7)
    if where == "a wrong entry":
        labels[-1, 0] = 2
        with pytest.raises(ValueError, match="0 and 1 only"):
            rank(query, query_labels, database, labels)
        return
    labels[-1] = 1
    ranking = rank(query, query_labels, database, labels)
    _, relevance = distances_and_relevance((query, query_labels, database, labels))
    assert ranking.relevant.sum(1).tolist() == relevance.sum(1).tolist()


def test_labels_of_no_class_and_of_more_than_sixteen_bits_of_classes_are_counted():
    query, _, database, _ = random_data(3, 8, 16, 2)
    none = rank(query, torch.zeros(3, 0), database, torch.zeros(8, 0))
    assert none.items.sum(1).tolist() == [8] * 3
    assert none.relevant.sum() == 0
    labels = torch.zeros(8, 2**16 + 2, dtype=torch.uint8)
    labels[:, -1] = 1
    assert rank(query, labels[:3], database, labels).relevant.sum(1).tolist() == [8] * 3


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.int8, torch.int64, torch.float64])
def test_labels_of_any_dtype_count_the_same_and_stay_as_they_are(dtype):
    query, query_labels, database, labels = random_data(5, 40, 16, 6, tags=2)
    given = query_labels.to(dtype), labels.to(dtype)
    found = rank(query, given[0], database, given[1])
    assert torch.equal(found.relevant, rank(query, query_labels, database, labels).relevant)
    assert torch.equal(given[1], labels.to(dtype))


@pytest.mark.parametrize("wrong", [2, 255, -1, 0.5, math.nan])
def test_a_label_that_is_neither_zero_nor_one_is_refused_in_every_dtype(wrong):
    query, query_labels, database, labels = random_data(5, 40, 16, 6)
    dtype = torch.uint8 if wrong in (2, 255) else torch.float32
    labels = labels.to(dtype)
    labels[7, 3] = wrong
    with pytest.raises(ValueError, match="0 and 1 only"):
        rank(query, query_labels, database, labels)


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


@pytest.mark.parametrize("wrong", [1.5, math.nan, True, np.True_, "3", torch.tensor(3), 0, -2])
def test_a_cut_off_that_is_no_positive_whole_number_is_refused(wrong):
    query, labels = torch.tensor([[1, 1]]), torch.ones(1, 1)
    database, ours = torch.tensor([[1, 1], [1, -1]]), torch.ones(2, 1)
    with pytest.raises(ValueError, match="top_k"):
        metrics.average_precision(query, labels, database, ours, wrong)
    ranking = metrics.rank(query, labels, database, ours)
    for function in (metrics.hit_at, metrics.no_hit_fraction, metrics.score_all):
        with pytest.raises(ValueError, match="top_k"):
            function(ranking, wrong)


@pytest.mark.parametrize("wrong", [1.5, math.nan, True, -1])
def test_other_counts_must_be_whole_numbers_too(wrong):
    codes, labels = torch.tensor([[1, 1], [1, -1]]), torch.ones(2, 1)
    ranking = metrics.rank(codes, labels, codes, labels)
    with pytest.raises(ValueError, match="radius"):
        metrics.precision_within(ranking, wrong)
    with pytest.raises(ValueError, match="n="):
        metrics.nearest(codes, codes, wrong)
    with pytest.raises(ValueError, match="draw"):
        metrics.bootstrap(torch.ones(3), draws=wrong)
    with pytest.raises(ValueError, match="bits"):
        metrics.rank(codes, labels, codes, labels, bits=wrong)


def test_whole_numbers_of_numpy_are_taken():
    codes, labels = torch.tensor([[1, 1], [1, -1]]), torch.ones(2, 1)
    both = [metrics.average_precision(codes, labels, codes, labels, k) for k in (2, np.int64(2))]
    assert torch.equal(*both)
