"""Ranking and scoring of codes: all scores are computed from counts per Hamming distance.

A ranking by Hamming distance has only K+1 distinct places, so most of it is ties. With N_0 items
and H_0 relevant ones nearer than a bucket of t tied items, k of them relevant, position i = 1..t of
the bucket adds to the sum of precisions, in expectation over the order of the tied items,

    (k/t) (H_0 + 1 + (i-1)(k-1)/(t-1)) / (N_0 + i)

Over i that needs only h = sum 1/(N_0+i), as sum (i-1)/(N_0+i) = t - (N_0+1) h. Of the bucket that
the cut-off R falls into, m = R - N_0 places lie inside; the number x of hits among them is
hypergeometric(t, k, m), and given x the formula holds with t -> m and k -> x. So the exact expected
AP costs one count per item and O(K) arithmetic: no sort, and no array of queries times database.

An item is relevant if it shares a tag with the query. Everything is computed on the CPU, by
`torch.get_num_threads()` threads, from tensors on any device; inputs are not changed.
"""

from dataclasses import dataclass
from math import nan
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashbackdoor_bench.metrics.code_words import (
    Floats,
    Sides,
    by_word,
    check_classes,
    check_ids,
    check_labels,
    code_words,
    common_bits,
    hot_rows,
    pack_codes,
    seeded_order,
    tag_words,
    whole_number,
)

# The kernels are imported where they run: numba takes .3 s, which a finished run would wait for.

Ties = Literal["expected", "seeded", "optimistic", "pessimistic"]
Empty = Literal["zero", "skip"]
Normalizer = Literal["retrieved", "ideal"]

PART = 2**18  # items of the database that are counted at once


@dataclass(frozen=True)
class Convention:
    """How MAP is computed; the defaults are the convention called ``field``.

    Args:
        ties: order of items at one distance. ``expected`` is the exact mean over all orders,
            ``seeded`` one fixed random order, ``optimistic`` puts relevant items first and
            ``pessimistic`` last (no bounds under ``retrieved``: AP can rise when a hit falls out
            of the top R).
        empty: a query without a relevant item in the top R counts as ``zero`` or is left out
            (``skip``).
        normalizer: the sum of precisions is divided by the relevant items in the top R
            (``retrieved``) or by min(R, relevant items in the database) (``ideal``).

    Raises:
        ValueError: a word is none of these.
    """

    ties: Ties = "expected"
    empty: Empty = "zero"
    normalizer: Normalizer = "retrieved"

    def __post_init__(self) -> None:
        for name, words in (("ties", Ties), ("empty", Empty), ("normalizer", Normalizer)):
            if getattr(self, name) not in get_args(words):
                choice = ", ".join(get_args(words))
                raise ValueError(f"{name}={getattr(self, name)!r}: choose one of {choice}")


CONVENTIONS = {
    "field": Convention(),
    "ciba": Convention(ties="seeded", empty="skip"),
    "badhash": Convention(ties="seeded"),
    "strict": Convention(normalizer="ideal"),
}


@dataclass(frozen=True, eq=False, repr=False)
class Ranking:
    """Counts of a ranking of queries against a database, made by `rank` or `rank_found`.

    Args:
        items: (Q, K+1) int32, ranked items at each Hamming distance 0..K from a query: those of the
            whole database, or those that an index found.
        relevant: (Q, K+1) int32, those of them that share a tag with the query.
        all_relevant: (Q,) int64, items of the whole database that share a tag with the query.
        database: D.
        sides: codes of queries (Q, W) and database (W, D), labels of queries (Q, T) and database
            (T, D), all packed in 64-bit words, the database in its seeded order; None unless
            ``seeded``.
    """

    items: Tensor
    relevant: Tensor
    all_relevant: Tensor
    database: int
    sides: Sides | None


def pack(codes: Tensor) -> Tensor:
    """Packs codes (N, K) of ±1 into uint8 (N, ceil(K/8)), +1 as a one, as `numpy.packbits` does.

    Padding bits are zero. Raises ValueError for an entry that is not ±1 (0 and NaN included).
    """
    common_bits({"codes": codes}, None)
    return torch.from_numpy(pack_codes("codes", codes))


def unpack(packed: Tensor, bits: int) -> Tensor:
    """Unpacks uint8 (N, ceil(bits/8)) into codes (N, bits), int8 ±1; the inverse of `pack`."""
    if packed.dtype != torch.uint8:
        raise ValueError(f"packed: expected uint8, not {packed.dtype}")
    common_bits({"packed": packed}, bits)
    ones = np.unpackbits(packed.cpu().numpy(), axis=1, count=bits)
    return torch.from_numpy(ones.astype(np.int8) * 2 - 1)


def rank(
    query_codes: Tensor,
    query_labels: Tensor,
    database_codes: Tensor,
    database_labels: Tensor,
    *,
    bits: int | None = None,
    ids: Tensor | None = None,
    seed: int = 0,
    seeded: bool = True,
) -> Ranking:
    """Counts, for every query and Hamming distance, the items and the relevant items.

    Time is linear in Q times D. Beyond its input it takes memory for Q (K+1) counts and for a part
    of the database, which is checked part by part; ``seeded`` adds all of the database, packed, and
    ``ids`` a sorted copy of themselves.

    Args:
        query_codes: (Q, K), or (Q, ceil(K/8)) bit-packed. A uint8 tensor is packed, any other
            dtype holds ±1; the two sides need not agree.
        query_labels: (Q, C) of 0 and 1; a query without a tag has no relevant item.
        database_codes: (D, K) or (D, ceil(K/8)).
        database_labels: (D, C).
        bits: K, for packed codes whose padding bits may differ; by default they are all compared.
        ids: (D,) distinct integers that name the items. The seeded order belongs to them, not to
            the order in which the database stands; by default they are its positions.
        seed: chooses the order that ``ties="seeded"`` means.
        seeded: keep what ``ties="seeded"`` needs.

    Raises:
        ValueError: for a code that is not ±1, a label that is not 0 or 1, shapes that do not fit
            each other, or ids that are not distinct.
    """
    from hashbackdoor_bench.metrics.kernels import count_by_class, count_by_tag, in_threads

    codes = {"query_codes": query_codes, "database_codes": database_codes}
    bits = common_bits(codes, bits)
    seed = whole_number("seed", seed)
    for name, labels in (("query_labels", query_labels), ("database_labels", database_labels)):
        check_labels(name, labels)
    check_classes(query_labels, database_labels)
    size = len(database_codes)
    if (len(query_labels), len(database_labels)) != (len(query_codes), size):
        raise ValueError(
            f"{len(query_codes)} query_codes with {len(query_labels)} query_labels, "
            f"{size} database_codes with {len(database_labels)} database_labels"
        )
    if ids is not None:
        check_ids(size, ids)
    query = code_words("query_codes", query_codes, bits)
    tags, query_class = tag_words("query_labels", query_labels)
    items = np.zeros((len(query), bits + 1), np.int32)
    relevant = np.zeros_like(items)
    for start in range(0, size, PART):
        part = slice(start, start + PART)
        words = code_words("database_codes", database_codes[part], bits, start)
        item_tags, item_class = tag_words("database_labels", database_labels[part])
        if query_class is None or item_class is None:
            sides = query, np.ascontiguousarray(words.T), tags, np.ascontiguousarray(item_tags.T)
            in_threads(count_by_tag, sides, items, relevant)
        else:
            # One tag per item: sorted by class, the relevant items of a query are one range.
            untagged = query_labels.shape[1]
            by_class = by_word(words, np.argsort(item_class, kind="stable"))
            count = np.bincount(item_class, minlength=untagged + 1)
            stop = np.cumsum(count)
            begin = stop - count
            begin[untagged] = stop[untagged]
            spans = begin[query_class], stop[query_class]
            in_threads(count_by_class, query, by_class, *spans, items, relevant)
    kept = None
    if seeded:
        order = seeded_order(size, ids, seed)
        words = by_word(code_words("database_codes", database_codes, bits), order)
        kept = query, words, tags, by_word(tag_words("database_labels", database_labels)[0], order)
    counts = torch.from_numpy(items), torch.from_numpy(relevant)
    return Ranking(*counts, counts[1].sum(1), size, kept)


def average_precision(
    query_codes: Tensor,
    query_labels: Tensor,
    database_codes: Tensor,
    database_labels: Tensor,
    top_k: int | None,
    *,
    ties: Ties = "expected",
    empty: Empty = "zero",
    normalizer: Normalizer = "retrieved",
    bits: int | None = None,
    ids: Tensor | None = None,
    seed: int = 0,
) -> Tensor:
    """AP of each query among its ``top_k`` nearest items: `rank` and `score` in one call.

    All arguments but ``top_k`` are described at `rank` and `Convention`. A ``top_k`` (R) of None,
    of -1 or above the number of items means the whole database.

    >>> query, database = torch.tensor([[1, 1]]), torch.tensor([[1, 1], [1, -1], [-1, -1]])
    >>> average_precision(query, torch.ones(1, 1), database, torch.tensor([[1], [0], [1]]), 3)
    tensor([0.8333], dtype=torch.float64)

    Returns:
        (Q,) float64; NaN for a query that ``empty="skip"`` leaves out.

    Raises:
        ValueError: as `rank` and `Convention` do; and for a ``top_k`` that is no whole number, of 0
            or below -1.
    """
    convention = Convention(ties, empty, normalizer)
    both = query_codes, query_labels, database_codes, database_labels
    ranking = rank(*both, bits=bits, ids=ids, seed=seed, seeded=ties == "seeded")
    return score(ranking, top_k, convention)


def score(ranking: Ranking, top_k: int | None, convention: Convention) -> Tensor:
    """AP (Q,) float64 of each query, see `average_precision`."""
    return _score(ranking, top_k, convention, _sums(ranking, top_k, convention.ties))


def score_all(ranking: Ranking, top_k: int | None) -> dict[str, Tensor]:
    """AP (Q,) under all `CONVENTIONS`, and under ``field`` with the best and worst order of ties.

    The keys are field, ciba, badhash, strict, field_optimistic and field_pessimistic. Each order of
    ties is computed once. Queries that ``ciba`` leaves out are NaN.
    """
    ends: tuple[Ties, ...] = ("optimistic", "pessimistic")
    named = CONVENTIONS | {f"field_{ties}": Convention(ties=ties) for ties in ends}
    sums = {ties: _sums(ranking, top_k, ties) for ties in {c.ties for c in named.values()}}
    return {name: _score(ranking, top_k, c, sums[c.ties]) for name, c in named.items()}


def leave_one_out(query_codes: Tensor, database_codes: Tensor, labels: Tensor) -> Tensor:
    """AP (N,) float64 of each item among the N-1 others, under the convention ``field``.

    Args:
        query_codes: (N, K) of ±1, the items as they search.
        database_codes: (N, K) of ±1, the same items as they are found.
        labels: (N, C) of 0 and 1.

    Raises:
        ValueError: as `rank` does.
    """
    ranking = rank(query_codes, labels, database_codes, labels, seeded=False)
    away = (query_codes != database_codes).sum(1)  # of an item from itself
    item, tagged = torch.arange(len(labels)), (labels > 0).any(1)
    items, relevant = ranking.items.clone(), ranking.relevant.clone()
    items[item, away] -= 1
    relevant[item, away] -= tagged.int()
    total = ranking.all_relevant - tagged.long()
    return score(Ranking(items, relevant, total, len(labels) - 1, None), None, Convention())


def hit_at(ranking: Ranking, n: int) -> Tensor:
    """Probability (Q,) that a relevant item is among the first ``n``, over all orders of ties."""
    return torch.from_numpy(_sums(ranking, n, "expected")[:, 2].copy())


def no_hit_fraction(ranking: Ranking, top_k: int | None) -> float:
    """Share of queries with no relevant item in the top R, expected over ties; NaN if Q = 0."""
    hit = torch.from_numpy(_sums(ranking, top_k, "expected")[:, 2])
    return float(1 - hit.mean())


def precision_within(ranking: Ranking, radius: int) -> Tensor:
    """Share (Q,) of relevant items among those within a Hamming radius, in bits; 0 without items.

    A radius above K means K. Raises ValueError for one below 0.
    """
    radius = whole_number("radius", radius)
    if radius < 0:
        raise ValueError(f"radius={radius}: expected 0 or more bits")
    items, relevant = (side[:, : radius + 1].sum(1) for side in (ranking.items, ranking.relevant))
    return relevant.double() / items.clamp(min=1)


def precision_recall(ranking: Ranking) -> tuple[Tensor, Tensor]:
    """Precision and recall (K+1,) within each Hamming radius 0..K, as means over queries.

    Every query has the same weight, as usual in the field. Without items within a radius, precision
    is 0, so ``precision[r]`` is the mean of `precision_within`. Queries without relevant items in
    the database are left out of the recall. NaN if no query is left.
    """
    items, relevant = ranking.items.cumsum(1), ranking.relevant.cumsum(1).double()
    total = ranking.all_relevant
    return (relevant / items.clamp(min=1)).mean(0), (relevant / total[:, None])[total > 0].mean(0)


def nearest(
    query_codes: Tensor,
    database_codes: Tensor,
    n: int,
    *,
    bits: int | None = None,
    ids: Tensor | None = None,
    seed: int = 0,
) -> Tensor:
    """Positions (Q, min(n, D)) of the nearest items in the database, ties in the seeded order.

    This is for showing a few queries; scores are computed by `rank`. The arguments ``bits``,
    ``ids`` and ``seed`` are those of `rank`.
    """
    from hashbackdoor_bench.metrics.kernels import distances

    n = whole_number("n", n)
    if n < 0:
        raise ValueError(f"n={n}: expected 0 or more items")
    codes = {"query_codes": query_codes, "database_codes": database_codes}
    bits = common_bits(codes, bits)
    query, database = (code_words(name, code, bits) for name, code in codes.items())
    if ids is not None:
        check_ids(len(database), ids)
    order = seeded_order(len(database), ids, seed)
    words, row = by_word(database, order), np.zeros(len(database), np.uint32)
    found = np.zeros((len(query), min(n, len(database))), np.int64)
    for q, code in enumerate(query):
        distances(code, words, 0, len(row), row)
        found[q] = order[np.argsort(row, kind="stable")[: found.shape[1]]]
    return torch.from_numpy(found)


def mean_distance(codes: Tensor, anchor: Tensor) -> float:
    """Mean Hamming distance, in bits, from codes (N, K) to one anchor code (K,); NaN if N = 0.

    Either may be bit-packed, as in `rank`; raises ValueError as `rank` does.
    """
    distance, _ = _distances_to(codes, anchor)
    return float(torch.from_numpy(distance.astype(np.float64)).mean())


def distance_shares(codes: Tensor, anchor: Tensor) -> Tensor:
    """Share (K+1,) of the codes (N, K) at each Hamming distance 0..K from an anchor code (K,).

    NaN if N = 0. Either may be bit-packed, as in `rank`; raises ValueError as `rank` does.
    """
    distance, bits = _distances_to(codes, anchor)
    count = torch.from_numpy(np.bincount(distance, minlength=bits + 1))
    return count.double() / len(distance)


def _distances_to(codes: Tensor, anchor: Tensor) -> tuple[NDArray[np.intp], int]:
    """Hamming distances (N,) from codes (N, K) to an anchor (K,); and K."""
    both = {"codes": codes, "anchor": anchor[None]}
    bits = common_bits(both, None)
    words, anchor_words = (code_words(name, code, bits) for name, code in both.items())
    return np.bitwise_count(words ^ anchor_words).sum(1, dtype=np.intp), bits


def shares_no_tag(labels: Tensor, target: Tensor) -> Tensor:
    """Mask (N,) of label rows (N, C) without a tag of the target (C,): t-MAP is their mean."""
    ((_, target_hot),) = hot_rows("target", target[None])
    parts = list(hot_rows("labels", labels))
    check_classes(labels, target[None])
    return torch.from_numpy(np.concatenate([~(hot & target_hot).any(1) for _, hot in parts]))


def bootstrap(
    values: Tensor, *, confidence: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean of values (Q,), by drawing Q queries with replacement.

    NaN (a skipped query) is left out first. For the interval of a difference between two scores of
    the same queries, pass the differences. The same seed gives the same interval.

    Returns:
        The lower and the upper end; NaN twice where no value is left.

    Raises:
        ValueError: for a confidence not between 0 and 1, fewer than one draw, or another shape.
    """
    draws, seed = whole_number("draws", draws), whole_number("seed", seed)
    if values.dim() != 1 or not 0 < confidence < 1 or draws < 1:
        raise ValueError("expected values (Q,), a confidence between 0 and 1 and at least one draw")
    kept = values.double().cpu().numpy()
    kept = kept[~np.isnan(kept)]
    if not len(kept):
        return nan, nan
    rng = np.random.default_rng(seed)
    step = max(1, 2**21 // len(kept))  # draws at a time, so that their indices take 16 MB
    means = [
        kept[rng.integers(len(kept), size=(min(step, draws - done), len(kept)))].mean(1)
        for done in range(0, draws, step)
    ]
    low, high = np.quantile(np.concatenate(means), (0.5 - confidence / 2, 0.5 + confidence / 2))
    return float(low), float(high)


def _top_k(ranking: Ranking, top_k: int | None) -> int:
    top_k = None if top_k is None else whole_number("top_k", top_k)
    if top_k is not None and (top_k == 0 or top_k < -1):
        raise ValueError(f"top_k={top_k}: expected a positive number, or -1 for the whole database")
    if top_k is None or top_k == -1:
        return ranking.database
    return min(top_k, ranking.database)


def _sums(ranking: Ranking, top_k: int | None, ties: Ties) -> Floats:
    """(Q, 3): AP under ``retrieved`` and ``zero``, sum of precisions, probability of any hit."""
    from hashbackdoor_bench.metrics.kernels import in_threads, sum_from_counts, sum_in_order

    cut = _top_k(ranking, top_k)
    items, relevant = ranking.items.numpy(), ranking.relevant.numpy()
    sums = np.zeros((len(items), 3))
    if ties == "seeded":
        if ranking.sides is None:
            raise ValueError('ties="seeded" needs rank(..., seeded=True)')
        in_threads(sum_in_order, ranking.sides, items, cut, sums)
    else:
        end = {"expected": 0, "optimistic": 1, "pessimistic": -1}[ties]
        in_threads(sum_from_counts, items, relevant, cut, end, sums)
    return sums


def _score(ranking: Ranking, top_k: int | None, convention: Convention, sums: Floats) -> Tensor:
    retrieved, precisions, hit = torch.from_numpy(sums).unbind(1)
    ideal = ranking.all_relevant.clamp(1, max(1, _top_k(ranking, top_k)))
    value = retrieved if convention.normalizer == "retrieved" else precisions / ideal
    # The mean over those orders in which the query hits; 0/0 = NaN where there is none.
    return value / hit if convention.empty == "skip" else value.clone()
