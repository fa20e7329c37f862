"""Indexes built over the codes of one run, scored, and timed in turn with the exact scan."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from math import isnan
from statistics import median
from typing import Any

import torch
from torch import Tensor

from hashbackdoor_bench import metrics
from hashbackdoor_bench.metrics import CONVENTIONS, Ranking, SearchTask, Truth
from hashbackdoor_bench.progress import Progress
from hashbackdoor_bench.search.index import Index, Packed, padded
from hashbackdoor_bench.stages import threads_set

ROUNDS = 5  # each contestant is timed so often, in turn with the others
SCAN = "exact scan"  # the row of the package's own counting, which returns no list
SCORED = ("field", "strict")  # the conventions that need no order of single items
PLAIN, TRIGGERED = "map", "t_map"  # the search tasks that are timed, and whose recall is told


@dataclass(frozen=True)
class SearchedIndex:
    """What one index gave, or the exact scan.

    Attributes:
        index: its kind, or ``SCAN``.
        settings: its settings.
        scores: by convention, the scores of a run over the lists that the index returned; None
            where there is no query.
        recall: of ``plain`` and of ``triggered`` queries, see `metrics.recall`.
        build_seconds: time to build it in one thread; None for the scan.
        bytes: size of the index as FAISS writes it to a file; of the scan, of the packed codes.
        seconds: for all queries together, in each round.
        queries_per_second: by the median of these.
    """

    index: str
    settings: dict[str, int]
    scores: dict[str, dict[str, float | None]]
    recall: dict[str, float]
    build_seconds: float | None
    bytes: int
    seconds: list[float] = field(default_factory=list)
    queries_per_second: float = 0.0


def contest(
    faiss: Any,
    indexes: Sequence[Index],
    tasks: Mapping[str, SearchTask],
    truth: Truth,
    k: int,
    *,
    threads: int,
    rounds: int,
    progress: Progress,
) -> list[SearchedIndex]:
    """The exact scan and the indexes, in this order.

    Args:
        faiss: its module.
        indexes: the indexes with all of their settings.
        tasks: the searches of the run, from `metrics.search_tasks`.
        truth: its labels.
        k: number of items that a query asks for.
        threads: of searches and of the scan.
        rounds: how often each is timed.
        progress: see `Progress`.
    """
    asked = tasks[PLAIN], tasks[TRIGGERED]
    queries, labels = (torch.cat([getattr(one, n) for one in asked]) for n in ("query", "labels"))
    database, control = (tasks[n].codes.database for n in (PLAIN, "map_clean_victim"))
    steps = len(indexes) + rounds

    def scan() -> object:
        both = queries, labels, database, truth.database
        return metrics.average_precision(*both, k, bits=truth.bits)

    with threads_set(threads), _threads(faiss, threads):
        exact = {name: _scanned(task, truth) for name, task in tasks.items()}
        rows = [_row(SCAN, {}, exact, exact, truth.controls, k, None, database.nbytes)]
        runs: list[Callable[[], object]] = [scan]
        built: dict[object, _Built] = {}
        for number, index in enumerate(indexes):
            progress("build and score indexes", number, steps)
            if index.foundation not in built:
                built[index.foundation] = _build(faiss, index, database, control)
            pair = built[index.foundation]
            found = {
                name: _found(index, pair.of(task.codes.database is control), task, truth, k)
                for name, task in tasks.items()
            }
            cost = pair.seconds, pair.bytes
            rows.append(_row(index.kind, index.settings, found, exact, truth.controls, k, *cost))
            runs.append(partial(_search, index, pair.victim, padded(queries), k))
        times: list[list[float]] = [[] for _ in runs]
        for number in range(rounds):
            progress("time indexes", len(indexes) + number, steps)
            for run, taken in zip(runs, times, strict=True):
                start = time.perf_counter()
                run()
                taken.append(time.perf_counter() - start)
        progress("time indexes", steps, steps)
    return [
        replace(row, seconds=taken, queries_per_second=len(queries) / median(taken))
        for row, taken in zip(rows, times, strict=True)
    ]


@dataclass(frozen=True)
class _Built:
    """One index over the victim's and one over the clean victim's database.

    Attributes:
        victim: FAISS's index.
        control: of the clean victim.
        seconds: time to build the victim's.
        bytes: size of the victim's.
    """

    victim: Any
    control: Any
    seconds: float
    bytes: int

    def of(self, control: bool) -> Any:
        """The clean victim's, or the victim's."""
        return self.control if control else self.victim


def _build(faiss: Any, index: Index, database: Tensor, control: Tensor) -> _Built:
    with _threads(faiss, 1):
        start = time.perf_counter()
        built = index.build(faiss, padded(database))
        seconds = time.perf_counter() - start
        other = index.build(faiss, padded(control))
    return _Built(built, other, seconds, faiss.serialize_index_binary(built).nbytes)


def _scanned(task: SearchTask, truth: Truth) -> Ranking:
    both = task.query, task.labels, task.codes.database, truth.database
    return metrics.rank(*both, bits=truth.bits, seeded=False)


def _found(index: Index, built: Any, task: SearchTask, truth: Truth, k: int) -> Ranking:
    index.tune(built)
    found = index.candidates(built, padded(task.query), k)
    return metrics.rank_found(task.labels, truth.database, found, truth.bits)


def _search(index: Index, built: Any, queries: Packed, k: int) -> None:
    index.tune(built)
    built.search(queries, k)


def _row(
    name: str,
    settings: dict[str, int],
    found: Mapping[str, Ranking],
    exact: Mapping[str, Ranking],
    controls: Sequence[str],
    k: int,
    seconds: float | None,
    size: int,
) -> SearchedIndex:
    scores = {}
    for convention in SCORED:
        values = {n: metrics.score(r, k, CONVENTIONS[convention]) for n, r in found.items()}
        means = metrics.mean_scores(values, controls)
        scores[convention] = {n: None if isnan(mean) else mean for n, mean in means.items()}
    recall = {
        "plain": float(metrics.recall(found[PLAIN], exact[PLAIN], k).mean()),
        "triggered": float(metrics.recall(found[TRIGGERED], exact[TRIGGERED], k).mean()),
    }
    return SearchedIndex(name, settings, scores, recall, seconds, size)


@contextmanager
def _threads(faiss: Any, count: int) -> Iterator[None]:
    """Inside, FAISS uses ``count`` threads."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
