"""Counts of near and of relevant items: plain loops, any form of input, read in parts."""

import math
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from codes_and_labels import distances_and_relevance, random_data
from torch import Tensor

from hashbackdoor_bench import metrics
from hashbackdoor_bench.metrics import code_words as packing
from hashbackdoor_bench.metrics import kernels as counting
from hashbackdoor_bench.metrics import ranking as ranking_module
from hashbackdoor_bench.metrics.ranking import (
    average_precision,
    no_hit_fraction,
    pack,
    rank,
    score_all,
    unpack,
)


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


def test_kernels_compile_where_no_cache_can_be_written(monkeypatch):
    plain = counting.njit

    def njit(*, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return plain(**options)

    monkeypatch.setattr(counting, "njit", njit)
    assert counting.compiled(lambda a: a + 1)(2) == 3


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
