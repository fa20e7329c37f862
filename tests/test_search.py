"""Search through indexes: exact ones equal the exact scores, others what a plain search gives."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hashbackdoor_bench import metrics
from hashbackdoor_bench.metrics import CONVENTIONS, Codes, Ranking, Truth, rank_found, recall
from hashbackdoor_bench.search import INDEXES, index_of
from hashbackdoor_bench.search.distractors import enlarged
from hashbackdoor_bench.search.index import padded

faiss = pytest.importorskip("faiss")


def clustered(count: int, bits: int, seed: int, classes: int = 4) -> tuple[torch.Tensor, ...]:
    """Packed codes (N, ceil(K/8)) around a centre of each class, many of them equal; and labels."""
    centres = np.random.default_rng(9).random((classes, bits)) < 0.5
    rng = np.random.default_rng(seed)
    label = rng.integers(classes, size=count)
    codes = centres[label] ^ (rng.random((count, bits)) < 0.15 * rng.random((count, 1)))
    labels = torch.eye(classes, dtype=torch.uint8)[label]
    return torch.from_numpy(np.packbits(codes, axis=1)), labels


def tagged(count: int, seed: int, classes: int = 70) -> torch.Tensor:
    """Labels (N, C) with any number of tags, in more than one word."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy((rng.random((count, classes)) < 0.03).astype(np.uint8))


def distances(queries: torch.Tensor, database: torch.Tensor) -> NDArray[np.int64]:
    """(Q, D) Hamming distances, from unpacked bits."""
    one, other = (np.unpackbits(side.numpy(), axis=1).astype(int) for side in (queries, database))
    return (one[:, None] != other).sum(2)


def through(text: str, queries, labels, database, database_labels, bits: int, k: int) -> Ranking:
    """The ranking by an index as the command line names it."""
    index = index_of(text).settled(len(database), 8 * database.shape[1], k)
    built = index.build(faiss, padded(database))
    index.tune(built)
    found = index.candidates(built, padded(queries), k)
    return rank_found(labels, database_labels, found, bits)


def assert_exact(found: Ranking, data: tuple[torch.Tensor, ...], bits: int, k: int) -> None:
    exact = metrics.rank(*data, bits=bits, seeded=False)
    for name in ("field", "strict"):
        values = [metrics.score(one, k, CONVENTIONS[name]) for one in (found, exact)]
        assert torch.equal(*values), name
    assert torch.equal(
        values[0], metrics.average_precision(*data, k, normalizer="ideal", bits=bits)
    )
    assert recall(found, exact, k).eq(1).all()


@pytest.mark.parametrize("bits", [12, 48, 64])
@pytest.mark.parametrize(
    "text",
    ["flat", "ivf:nlist=9,nprobe=9", "mih:tables={bytes},flips=8", "hash:first=8,flips=8"],
)
@pytest.mark.parametrize("k", [1, 30, 400])
def test_an_index_that_looks_everywhere_gives_the_exact_scores_to_the_last_bit(bits, text, k):
    database, item_labels = clustered(400, bits, 0)
    queries, labels = clustered(25, bits, 1)
    data = queries, labels, database, item_labels
    found = through(text.format(bytes=database.shape[1]), *data, bits, k)
    assert_exact(found, data, bits, k)


@pytest.mark.parametrize("k", [1, 30, 400])
def test_a_graph_of_distinct_codes_that_is_walked_to_its_end_gives_the_exact_scores(k: int):
    codes = torch.from_numpy(np.random.default_rng(5).integers(0, 256, (400, 6), dtype=np.uint8))
    _, item_labels = clustered(400, 48, 0)
    queries, labels = clustered(25, 48, 1)
    data = queries, labels, codes, item_labels
    assert_exact(through("hnsw:m=32,ef=400", *data, 48, k), data, 48, k)


def plain_ap(relevance: NDArray[np.bool_], k: int, ideal: int | None) -> float:
    """AP of a list by its definition, divided by its hits, or by min(k, ideal)."""
    hits, total = 0, 0.0
    for place, hit in enumerate(relevance[:k], 1):
        if hit:
            hits += 1
            total += hits / place
    return total / max(1, hits if ideal is None else min(k, ideal))


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("k", [1, 7, 40])
def test_a_list_with_gaps_is_scored_as_the_mean_over_orders_of_its_ties(several: bool, k: int):
    """Brute force: shuffle the found items, sort by distance, cut at k, apply the formula."""
    database, item_labels = clustered(120, 16, 0)
    queries, labels = clustered(6, 16, 1)
    if several:
        item_labels, labels = tagged(120, 2), tagged(6, 3)
    near = distances(queries, database)
    rng = np.random.default_rng(4)
    kept = [np.flatnonzero(rng.random(120) < share) for share in (1, 0.5, 0.2, 0.1, 0.02, 0)]
    found = [(q, items, near[q, items]) for q, items in enumerate(kept)]
    ranking = rank_found(labels, item_labels, found, 16)
    relevant = (labels.numpy() @ item_labels.numpy().T) > 0
    draws = 4000
    for name in ("field", "strict"):
        values = metrics.score(ranking, k, CONVENTIONS[name])
        for q, items, distance in found:
            ideal = int(relevant[q].sum()) if name == "strict" else None
            drawn = []
            for _ in range(draws):
                order = rng.permutation(len(items))
                order = order[np.argsort(distance[order], kind="stable")]
                drawn.append(plain_ap(relevant[q, items[order]], k, ideal))
            error = np.std(drawn) / draws**0.5
            assert abs(np.mean(drawn) - float(values[q])) <= 5 * error + 1e-12, (name, q)


def test_an_item_that_is_not_found_takes_no_place_and_only_strict_counts_it():
    labels = torch.tensor([[1]], dtype=torch.uint8)
    items = torch.tensor([[1], [0], [1], [1]], dtype=torch.uint8)
    found = [(0, np.array([0, 1]), np.array([0, 1]))]
    ranking = rank_found(labels, items, found, 8)
    assert metrics.score(ranking, 4, CONVENTIONS["field"]).item() == 1
    assert metrics.score(ranking, 4, CONVENTIONS["strict"]).item() == pytest.approx(1 / 3)
    assert metrics.score(ranking, 2, CONVENTIONS["strict"]).item() == pytest.approx(1 / 2)


def test_recall_takes_any_items_at_the_last_distance_but_not_for_nearer_ones():
    database = torch.tensor([[0], [1], [2], [4], [255]], dtype=torch.uint8)
    queries, one = torch.zeros(4, 1, dtype=torch.uint8), torch.ones(5, 1, dtype=torch.uint8)
    exact = metrics.rank(queries, one[:4], database, one, seeded=False)
    lists = [[0, 1, 2], [0, 3, 4], [4], [1, 2, 3]]
    near = distances(queries, database)
    found = [(q, np.array(items), near[q, items]) for q, items in enumerate(lists)]
    ranking = rank_found(one[:4], one, found, 8)
    assert recall(ranking, exact, 2).tolist() == [1, 1, 0, 1 / 2]
    assert recall(ranking, exact, 3).tolist() == pytest.approx([1, 2 / 3, 0, 2 / 3])
    assert recall(ranking, exact, 5).tolist() == pytest.approx([3 / 5, 3 / 5, 1 / 5, 3 / 5])


@pytest.mark.parametrize("text", ["ivf:nlist=20,nprobe=3", "hnsw:m=4", "mih:tables=6,flips=0"])
def test_what_an_index_finds_are_items_at_their_distances_and_the_nearest_of_its_list(text: str):
    database, _ = clustered(500, 48, 0)
    queries, _ = clustered(30, 48, 1)
    near, k = distances(queries, database), 50
    index = index_of(text).settled(500, 48, k)
    built = index.build(faiss, padded(database))
    index.tune(built)
    listed, ids = built.search(padded(queries), k)
    seen = set()
    for query, items, distance in index.candidates(built, padded(queries), k):
        seen.add(query)
        assert len(set(items)) == len(items)
        assert np.array_equal(distance, near[query, items])
        nearest = np.sort(distance)[:k]
        assert np.array_equal(nearest, listed[query][: len(nearest)])  # FAISS's own list
        assert len(nearest) == k or ids[query, len(nearest)] < 0  # it has no more either
    assert len(seen) == 30


@pytest.mark.parametrize("text", INDEXES)
def test_an_index_is_the_same_when_it_is_built_again(text: str):
    database, item_labels = clustered(600, 48, 0)
    queries, labels = clustered(30, 48, 1)
    both = [through(text, queries, labels, database, item_labels, 48, 60) for _ in range(2)]
    assert torch.equal(both[0].items, both[1].items)
    assert torch.equal(both[0].relevant, both[1].relevant)


def test_copies_have_the_label_of_their_source_and_its_code_but_for_some_bits():
    rng = np.random.default_rng(0)
    first, second = (
        torch.from_numpy(np.packbits(rng.random((40, 20)) < 0.5, axis=1)) for _ in range(2)
    )
    assert len(np.unique(first, axis=0)) == len(np.unique(second, axis=0)) == 40
    _, labels = clustered(40, 20, 0)
    truth = Truth(labels[:3], labels, labels[0], [f"i{n}" for n in range(40)], 10, 20, "abcd")
    models = tuple(Codes(one[:3], one, one[:2]) for one in (first, second))
    (one, other), large = enlarged(models, truth, 4000, flip=0)
    source = distances(one.database, first).argmin(1)
    assert np.array_equal(source[:40], np.arange(40))
    assert len(np.unique(source[40:])) == 40
    assert torch.equal(one.database, first[source])
    assert torch.equal(other.database, second[source])
    assert torch.equal(large.database, labels[source])
    assert len(set(large.ids)) == 4000
    (noisy, also), _ = enlarged(models, truth, 4000, flip=0.1)
    assert torch.equal(noisy.database[:40], first)
    assert torch.equal(noisy.database ^ one.database, also.database ^ other.database)
    assert not (noisy.database.numpy()[:, -1] & 15).any()  # what pads a code stays zero
    assert torch.equal(noisy.query, first[:3])


def test_the_mean_share_of_flipped_bits_is_the_one_asked_for():
    zero = torch.zeros(1, 6, dtype=torch.uint8)
    truth = Truth(zero[:, :1], zero[:, :1], zero[0, :1], ["a"], 1, 48, "a")
    (one,), _ = enlarged((Codes(zero, zero, zero),), truth, 20_001, flip=0.03)
    flipped = np.bitwise_count(one.database.numpy()).sum(1)[1:]
    assert flipped.mean() / 48 == pytest.approx(0.03, abs=0.002)
    assert (flipped == 0).mean() == pytest.approx(1 / (1 + 48 * 0.03), abs=0.02)


def test_the_settings_that_a_search_changes_share_one_built_index():
    texts = ["ivf:nlist=5,nprobe=1", "ivf:nlist=5,nprobe=3", "ivf:nlist=4,nprobe=3", "hnsw:m=5"]
    settled = [index_of(text).settled(100, 48, 10) for text in texts]
    assert settled[0].foundation == settled[1].foundation
    assert all(one.foundation != other.foundation for one, other in pairwise(settled[1:]))
    for cls in INDEXES.values():
        assert set(cls.at_search) <= set(cls().settings)
        assert replace(cls()).kind == cls.kind


@pytest.mark.parametrize(("have", "wide"), [(1, 4), (4, 4), (6, 8), (8, 8), (9, 16)])
def test_codes_get_zeros_until_they_have_a_length_that_faiss_compares_fast(have: int, wide: int):
    codes = torch.full((3, have), 255, dtype=torch.uint8)
    found = padded(codes)
    assert found.shape == (3, wide)
    assert np.array_equal(found[:, :have], codes.numpy())
    assert not found[:, have:].any()
