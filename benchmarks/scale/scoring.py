"""The scores of a run among 10^6 database items of 1000 classes, in a process of its own."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator

import numba
import torch

from hashbackdoor_bench.metrics import Codes, Truth, average_precision, score_run

from ..speed.clock import Goal, Row, Setting
from ..speed.scale import forget, peak
from ..speed.scoring import BITS, TINY, Size, side

IMAGENET = Size(120, 1_000_000, 1000, 1, 1000)
EXTRA = "memory beyond the labels and codes, GB"
FEWER = 4  # the smaller size has so many times fewer queries


def measure(setting: Setting) -> Iterator[Row]:
    """The row of this part."""
    size = TINY if setting.quick else IMAGENET
    words = [sys.executable, "-m", __spec__.name, json.dumps(vars(size))]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True)
    found = json.loads(done.stdout)
    yield Row(
        "scores of a run",
        f"all conventions, {size}, processor time of 1 thread",
        {"ours": [found["seconds"]]},
        [Goal(EXTRA, found["extra_bytes"] / 1e9, 4, True)],
        least="five rankings: the distance of every query and item",
        facts={
            "seconds_without_queries": found["seconds_without_queries"],
            "seconds_per_query": found["seconds_per_query"],
            "average_precision_seconds_per_query": found["average_precision_seconds_per_query"],
            "label_bytes_of_the_database": size.items * size.classes,
        },
    )


def scored(size: Size) -> dict[str, float]:
    """Processor seconds of a scoring, as a constant and a part per query, and bytes beyond input.

    ``average_precision_seconds_per_query`` is one exact ranking alone, of which a run has five.
    """
    torch.set_num_threads(1)
    numba.set_num_threads(1)
    database, labels = side(size.items, size, 2)
    query, wanted = side(size.queries, size, 1)
    target = torch.zeros(size.classes, dtype=torch.uint8)
    target[0] = 1
    ids, names = [str(n) for n in range(size.items)], [str(n) for n in range(size.classes)]

    def run_scores(queries: int, items: int = size.items) -> float:
        truth = Truth(
            wanted[:queries], labels[:items], target, ids[:items], size.top_k, BITS, names
        )
        codes = Codes(query[:queries], database[:items], query[:queries][truth.attacked])
        start = time.process_time()
        score_run(codes, codes, truth)
        return time.process_time() - start

    def ranking(queries: int) -> float:
        start = time.process_time()
        average_precision(query[:queries], wanted[:queries], database, labels, size.top_k)
        return time.process_time() - start

    few = size.queries // FEWER
    run_scores(few, TINY.items)  # compiles
    ranking(few)
    forget()
    before = peak()
    fewer, seconds = run_scores(few), run_scores(size.queries)
    extra = peak() - before
    each = (seconds - fewer) / (size.queries - few)
    return {
        "seconds": seconds,
        "seconds_per_query": each,
        "seconds_without_queries": seconds - each * size.queries,
        "average_precision_seconds_per_query": (ranking(size.queries) - ranking(few))
        / (size.queries - few),
        "extra_bytes": extra,
    }


if __name__ == "__main__":
    print(json.dumps(scored(Size(**json.loads(sys.argv[1])))))
