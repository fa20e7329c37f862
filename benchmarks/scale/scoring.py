"""The scores of a run among 10^6 database items of 1000 classes, in a process of its own."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import torch

from hashbackdoor_bench.metrics import Codes, Truth, score_run

from ..speed.clock import Goal, Row, Setting
from ..speed.scale import forget, peak
from ..speed.scoring import BITS, TINY, Size, side

IMAGENET = Size(2000, 1_000_000, 1000, 1, 1000)
FEWER = 4  # the smaller size has so many times fewer queries


def measure(setting: Setting) -> Iterator[Row]:
    """The row of this part."""
    size = TINY if setting.quick else IMAGENET
    words = [sys.executable, "-m", __spec__.name, json.dumps(vars(size))]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True)
    found = json.loads(done.stdout)
    yield Row(
        "scores of a run",
        f"all conventions, {size}, 1 thread",
        {"ours": [found["seconds"]]},
        [Goal("memory beyond the labels and codes, GB", found["extra_bytes"] / 1e9, 4, True)],
        least="five rankings: the distance of every query and item",
        facts={
            "seconds_without_queries": found["seconds_without_queries"],
            "seconds_per_query": found["seconds_per_query"],
            "pairs_per_second": 5 * size.items / found["seconds_per_query"],
            "label_bytes_of_the_database": size.items * size.classes,
        },
    )


def scored(size: Size) -> dict[str, float]:
    """Seconds of a scoring, as a constant and a part per query, and bytes beyond its input."""
    torch.set_num_threads(1)
    database, labels = side(size.items, size, 2)
    query, wanted = side(size.queries, size, 1)
    target = torch.zeros(size.classes, dtype=torch.uint8)
    target[0] = 1
    ids, names = [str(n) for n in range(size.items)], [str(n) for n in range(size.classes)]

    def once(queries: int) -> float:
        truth = Truth(wanted[:queries], labels, target, ids, size.top_k, BITS, names)
        codes = Codes(query[:queries], database, query[:queries][truth.attacked])
        start = time.perf_counter()
        score_run(codes, codes, truth)
        return time.perf_counter() - start

    few = size.queries // FEWER
    once(few)  # compiles
    forget()
    before = peak()
    fewer, seconds = once(few), once(size.queries)
    each = (seconds - fewer) / (size.queries - few)
    return {
        "seconds": seconds,
        "seconds_per_query": each,
        "seconds_without_queries": seconds - each * size.queries,
        "extra_bytes": peak() - before,
    }


if __name__ == "__main__":
    print(json.dumps(scored(replace(IMAGENET, **json.loads(sys.argv[1])))))
