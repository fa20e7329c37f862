"""Ranking and scoring codes: exact expected AP@R, with one tag per item and with several."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashbackdoor_bench import metrics

from .ceilings import bytes_a_second, counting_seconds
from .clock import Entry, Goal, Row, Setting, in_turn, ratio, samples_of

BITS = 64


@dataclass(frozen=True)
class Size:
    """A retrieval task.

    Attributes:
        queries: Q.
        items: D.
        classes: C.
        tags: mean number of tags per item.
        top_k: R.
    """

    queries: int
    items: int
    classes: int
    tags: float
    top_k: int

    def __str__(self) -> str:
        """For a person."""
        kind = f"{self.classes} classes" if self.tags == 1 else f"{self.classes} tags"
        both = f"{self.queries:,} queries × {self.items:,} items".replace(",", " ")
        return f"AP@{self.top_k}, {both}, {BITS} bits, {kind}"


IMAGENET, COCO = Size(5000, 128_503, 100, 1, 1000), Size(5000, 112_218, 80, 2.9, 5000)
HUGE = Size(1000, 10_000_000, 100, 1, 1000)
TINY = Size(40, 600, 10, 1, 50)


def side(count: int, size: Size, seed: int) -> tuple[Tensor, Tensor]:
    """Packed codes (N,8) uint8, similar for items with the same tags, and labels (N,C) uint8.

    They are made in parts, to save memory.
    """
    centres = np.random.default_rng(0).normal(size=(size.classes, BITS)).astype(np.float32)
    rng = np.random.default_rng(seed)
    codes, labels = (
        np.empty((count, BITS // 8), np.uint8),
        np.zeros((count, size.classes), np.uint8),
    )
    for start in range(0, count, 2**14):
        part = labels[start : start + 2**14]
        if size.tags > 1:
            part[:] = rng.random(part.shape) < (size.tags - 1) / size.classes
        part[np.arange(len(part)), rng.integers(size.classes, size=len(part))] = 1
        noise = rng.normal(scale=1.5, size=(len(part), BITS))
        codes[start : start + 2**14] = np.packbits(part @ centres + noise > 0, axis=1)
    return torch.from_numpy(codes), torch.from_numpy(labels)


def literal(
    task: Sequence[NDArray[np.float64]], top_k: int, kind: Any = None
) -> NDArray[np.float64]:
    """AP (Q,) as in released code: for each query two products and a full sort, in float64.

    Args:
        task: codes (Q,K) of ±1 and labels (Q,C) of queries, then (D,K) and (D,C) of the database.
        top_k: R.
        kind: kind of numpy's sort; released code uses the default, which is unstable for ties.
    """
    codes, labels, database, database_labels = task
    found = np.zeros(len(codes))
    for query, (code, label) in enumerate(zip(codes, labels, strict=True)):
        relevant = database_labels @ label > 0
        distance = (len(code) - database @ code) / 2
        hit = relevant[np.argsort(distance, kind=kind)][:top_k]
        if hit.any():
            place = np.flatnonzero(hit) + 1
            found[query] = np.mean(np.arange(1, len(place) + 1) / place)
    return found


def measure(setting: Setting) -> Iterator[Row]:
    """The rows of this part."""
    for size in (TINY, replace(TINY, tags=2.0)) if setting.quick else (IMAGENET, COCO):
        yield _scored(size, setting)
    yield _growth(setting)


def _scored(size: Size, setting: Setting) -> Row:
    query, labels = side(size.queries, size, seed=1)
    database, item_labels = side(size.items, size, seed=2)
    task = query, labels, database, item_labels
    codes = (metrics.unpack(x, BITS).double().numpy() for x in (query, database))
    tags = (x.double().numpy() for x in (labels, item_labels))
    wide = [rows for pair in zip(codes, tags, strict=True) for rows in pair]
    count = min(size.queries, 250)
    few = [wide[0][:count], wide[1][:count], *wide[2:]]
    entries = {
        "ours": Entry(lambda: metrics.average_precision(*task, size.top_k)),
        "literal": Entry(
            lambda: literal(few, size.top_k), size.queries / count, f"{count} queries"
        ),
    }
    index = _faiss(database)
    if index is not None:
        entries["FAISS"] = Entry(lambda: index.search(query.numpy(), size.top_k))
    equal = _compare(size, task, few, index)
    seconds = in_turn(entries, setting)
    facts: dict[str, float] = {}
    goals = [Goal("literal / ours", ratio(seconds, "literal"), 40)]
    if size.tags == 1:
        if index is not None:
            goals.append(Goal("FAISS top-R / ours", ratio(seconds, "FAISS"), 2))
        facts["extra_memory_MB"] = child(size)[0]["extra_bytes"] / 1e6
        goals.append(Goal("extra memory, MB", facts["extra_memory_MB"], 300, most=True))
    sides = metrics.rank(*task).sides
    assert sides is not None
    bare = counting_seconds(sides[0], sides[1], setting)
    pairs = size.queries * size.items
    return Row(
        "scoring",
        str(size),
        seconds,
        goals,
        samples_of(entries),
        equal,
        f"{pairs / 1e6:.0f} M popcounts and as many counters raised; codes and labels read once, "
        f"{(database.nbytes + item_labels.nbytes) / 1e6:.0f} MB",
        f"bare loops: popcounts {pairs / bare['popcount'] / 1e9:.1f} G/s, counters "
        f"{pairs / bare['count'] / 1e9:.1f} G/s; the sum of both",
        (bare["popcount"] + bare["count"]) / min(seconds["ours"]),
        {
            **facts,
            "popcounts_per_second": pairs / bare["popcount"],
            "counters_per_second": pairs / bare["count"],
            "memory_bytes_per_second": bytes_a_second(replace(setting, device=torch.device("cpu"))),
        },
        ["FAISS"] if index is not None else [],
    )


def _compare(
    size: Size, task: tuple[Tensor, ...], few: list[NDArray[np.float64]], index: Any
) -> str:
    """Compare ours with the literal procedure for one and for random orders of ties, and FAISS.

    Raises:
        AssertionError: the results differ.
    """
    query, labels, database, item_labels = task
    sample = min(40, len(query))
    head = query[:sample], labels[:sample], database, item_labels
    same = torch.zeros_like(database)
    (order,) = metrics.nearest(same[:1], same, len(same)).numpy()
    q, ql, d, dl = few[0][:sample], few[1][:sample], few[2], few[3]
    seeded = metrics.average_precision(*head, size.top_k, ties="seeded").numpy()
    off = np.abs(seeded - literal((q, ql, d[order], dl[order]), size.top_k, "stable")).max()
    assert off < 1e-12, f"seeded AP differs from the literal by {off}"
    rng = np.random.default_rng(0)
    orders = [rng.permutation(len(database)) for _ in range(10)]
    drawn = np.stack([literal((q, ql, d[o], dl[o]), size.top_k, "stable") for o in orders])
    mean = metrics.average_precision(*head, size.top_k).numpy()
    error = np.sqrt(drawn.var(0, ddof=1).sum() / len(orders)) / sample
    off_mean = abs((drawn.mean(0) - mean).mean())
    assert off_mean <= 5 * error + 1e-12, f"expected AP is {off_mean} off, {error} is its error"
    if index is not None:
        distance, _ = index.search(query[:sample].numpy(), min(size.top_k, len(database)))
        items = metrics.rank(*head).items.numpy()
        for row, counts in zip(distance, items, strict=True):
            near = np.repeat(np.arange(BITS + 1), counts)[: len(row)]
            assert np.array_equal(row, near), "FAISS finds other distances"
    return (
        f"{sample} queries: seeded AP within {off:.0e} of the literal, expected AP within "
        f"{off_mean / max(error, 1e-30):.1f} standard errors of its mean over 10 orders"
        + ("" if index is None else "; FAISS's distances equal")
    )


def _faiss(database: Tensor) -> Any:
    """FAISS's exact index of packed codes (D,8); None where it isn't installed."""
    try:
        import faiss
    except ImportError:
        return None
    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexBinaryFlat(BITS)
    index.add(database.numpy())
    return index


def child(*sizes: Size) -> list[dict[str, float]]:
    """Seconds and bytes of scorings in a process of their own, see `scale`."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            f"{__package__}.scale",
            json.dumps([asdict(size) for size in sizes]),
        ],
        stdout=subprocess.PIPE,
        check=True,
    )
    found: list[dict[str, float]] = json.loads(done.stdout)
    return found


def _growth(setting: Setting) -> Row:
    """Twice the queries, twice the items, and ten million items."""
    base = replace(TINY, queries=20) if setting.quick else Size(2000, 1_000_000, 100, 1, 1000)
    huge = replace(TINY, items=2000) if setting.quick else HUGE
    works = {
        "once": base,
        "twice the queries": replace(base, queries=2 * base.queries),
        "twice the items": replace(base, items=2 * base.items),
        "ours": huge,
    }
    rounds = []
    for _ in range(setting.repeat):
        if setting.quick:
            found = child(*works.values())
        else:  # one process each, since a process may keep memory that it has freed
            found = [child(size)[0] for size in works.values()]
        rounds.append(dict(zip(works, found, strict=True)))
    seconds = {name: [turn[name]["seconds"] for turn in rounds] for name in ("ours", *works)}
    last = rounds[-1]
    extra = {name: last[name]["extra_bytes"] for name in works}
    more_queries = (extra["twice the queries"] - extra["once"]) / base.queries
    more_items = (extra["twice the items"] - extra["once"]) / base.items
    return Row(
        "scoring, growth",
        str(huge),
        seconds,
        [
            Goal(
                "twice the queries: time ×", ratio(seconds, "twice the queries", "once"), 2.2, True
            ),
            Goal("twice the items: time ×", ratio(seconds, "twice the items", "once"), 2.2, True),
            Goal("extra memory, MB", extra["ours"] / 1e6, 300, True),
        ],
        {name: str(size) for name, size in works.items() if name != "ours"},
        least="counts by distance, and a part of the database at a time",
        facts={
            "extra_memory_MB": extra["ours"] / 1e6,
            "input_MB": last["ours"]["input_bytes"] / 1e6,
            "extra_bytes_an_item": more_items,
            "extra_bytes_a_query": more_queries,
            "items_per_second": huge.queries * huge.items / min(seconds["ours"]),
        },
    )
