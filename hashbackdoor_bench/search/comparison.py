"""One finished run searched through several indexes: scores, recall, speed and size of each.

Every index is built over the victim's database, and again over the clean victim's, and answers the
same queries as the exact scores of the run. So the backdoor gain of an index has the controls of
that index.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hashbackdoor_bench.errors import UserError, check
from hashbackdoor_bench.metrics import search_tasks
from hashbackdoor_bench.progress import Progress, silent
from hashbackdoor_bench.records import Record
from hashbackdoor_bench.search.contest import ROUNDS, SearchedIndex, contest
from hashbackdoor_bench.search.distractors import enlarged
from hashbackdoor_bench.search.index import Index, faiss_library
from hashbackdoor_bench.stages import (
    CONTROL,
    VICTIM,
    Cache,
    stored_codes,
    stored_truth,
)

LARGEST = 100_000_000  # items of an enlarged database: their codes and labels must fit in memory


@dataclass(frozen=True)
class SearchedRun:
    """A finished run and what indexes over its codes gave.

    Attributes:
        record: the key of its record.
        run: its attack, victim, bits, dataset, target and seed.
        items: number of items of the database.
        copies: how many of them are noisy copies, see `distractors.enlarged`.
        flip: mean share of the bits of a copy that are flipped; None without copies.
        k: number of items that a query asks for.
        queries: number of ``plain`` and of ``triggered`` queries.
        distinct: number of distinct codes in the victim's database.
        rows: the exact scan, then the indexes.
    """

    record: str
    run: dict[str, Any]
    items: int
    copies: int
    flip: float | None
    k: int
    queries: dict[str, int]
    distinct: int
    rows: list[SearchedIndex]


def search(
    record: Record,
    indexes: Sequence[Index],
    *,
    cache: Cache,
    k: int | None = None,
    items: int | None = None,
    flip: float = 0.0,
    threads: int = 1,
    rounds: int = ROUNDS,
    progress: Progress = silent,
    **where: Any,
) -> SearchedRun:
    """Search the codes of a finished run through indexes, and score what they return.

    Args:
        record: the run's record.
        indexes: the indexes; their open settings are chosen by the database.
        cache: cache with the run's codes.
        k: number of items that a query asks for; None: R of the data set, or the whole database if
            it is smaller.
        items: enlarge the database to so many by noisy copies; None: leave it as it is.
        flip: mean share of the bits of a copy that are flipped.
        threads: of searches and of the exact scan; indexes are built by one.
        rounds: how often each index is timed.
        progress: see `Progress`.
        where: ``lists``, ``root`` and other such fields, if they differ from the record's spec.

    Raises:
        UserError: FAISS isn't installed, the cache lacks the codes, or an argument is out of range.
    """
    faiss = faiss_library()
    models = tuple(stored_codes(record, cache, one) for one in (VICTIM, CONTROL))
    truth = stored_truth(record, cache, **where)
    here = len(truth.database)
    if items is not None:
        check("--items", items, here, LARGEST)
        check("--flip", flip, 0, 1)
        models, truth = enlarged(models, truth, items, flip=flip)
    size = len(truth.database)
    if k is not None and not 1 <= k <= size:
        raise UserError(f"--k is {k}: give 1 to {size}, the number of items of the database.")
    k = min(truth.top_k, size) if k is None else k
    width = 8 * models[0].database.shape[1]
    chosen = [index.settled(size, width, k) for index in indexes]
    victim, clean = models
    tasks = search_tasks(victim, clean, truth)
    rows = contest(
        faiss, chosen, tasks, truth, k, threads=threads, rounds=rounds, progress=progress
    )
    spec = record.spec
    named = ("attack", "victim", "bits", "dataset", "target", "seed")
    return SearchedRun(
        record=record.key,
        run={name: getattr(spec, name) for name in named},
        items=size,
        copies=size - here,
        flip=flip if size > here else None,
        k=k,
        queries={"plain": len(victim.query), "triggered": len(victim.triggered)},
        distinct=len(np.unique(victim.database.numpy(), axis=0)),
        rows=rows,
    )
