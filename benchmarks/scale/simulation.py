"""A suite of stub stages on this machine: planning, scheduling, executing, and looking at it later.

It runs in a process of its own, whose memory and processor time are those of the suite.
"""

import json
import resource
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from hashbackdoor_bench.stages import Cache
from hashbackdoor_bench.suites import Layout, Task, Times, execute, write_index
from hashbackdoor_bench.suites.execution import Report
from hashbackdoor_bench.suites.executors import LocalExecutor

from ..speed.clock import Goal, Row, Setting
from ..speed.scale import peak
from .suite import PLUGIN, Simulated, load_stubs

SEEDS = 200  # 14 400 runs, 100 400 stages
WORKERS = 2
SLOTS = 64  # tasks at a time of `Instant`


class Instant:
    """An executor without workers: a task is done as soon as it was started."""

    def __init__(self) -> None:
        self.running: deque[Task] = deque()

    def free(self) -> int:
        """See `Executor`."""
        return SLOTS - len(self.running)

    def start(self, task: Task) -> str:
        """See `Executor`."""
        self.running.append(task)
        return "0"

    def reports(self, timeout: float) -> list[Report]:
        """See `Executor`."""
        return [Report("done", self.running.popleft(), "0", seconds=1.0)]


def measure(setting: Setting) -> Iterator[Row]:
    """The rows of this part."""
    seeds = 1 if setting.quick else SEEDS
    words = [sys.executable, "-m", __spec__.name, str(setting.work), str(seeds)]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    stages, runs = found["stages"], found["runs"]
    size = f"{stages:,} stages of {runs:,} runs".replace(",", " ")
    same = "every run has its record"
    yield Row(
        "planning",
        size,
        {"ours": [found["read_seconds"] + found["plan_seconds"]]},
        [
            Goal("seconds", found["read_seconds"] + found["plan_seconds"], 60, True),
            Goal("peak memory, GB", found["peak_bytes"] / 1e9, 2, True),
        ],
        least="the key of every stage: JSON and SHA-256",
        facts={
            "ms_per_run": 1e3 * found["plan_seconds"] / runs,
            "memory_of_imports_GB": found["import_bytes"] / 1e9,
        },
    )
    yield Row(
        "scheduling",
        f"{size}, no workers, {SLOTS} tasks at a time",
        {"ours": [found["schedule_seconds"]]},
        [Goal("ms per stage", 1e3 * found["schedule_seconds"] / stages, 1, True)],
        least="choosing the stage, and two messages as JSON",
    )
    main, workers = found["main_seconds"], found["worker_seconds"]
    yield Row(
        "executing",
        f"{size}, {WORKERS} workers of 1 thread, stages that compute nothing",
        {"ours": [found["execute_seconds"]]},
        [
            Goal("processor ms per stage", 1e3 * (main + workers) / stages, 5, True),
            Goal("peak memory of the main process, GB", found["last_peak_bytes"] / 1e9, 2, True),
        ],
        equal=same,
        least="two files and a lock per stage",
        facts={
            "main_process_ms_per_stage": 1e3 * main / stages,
            "worker_ms_per_stage": 1e3 * workers / stages,
            "elapsed_ms_per_stage_and_worker": 1e3 * WORKERS * found["execute_seconds"] / stages,
            "cache_bytes_per_stage": found["cache_bytes"] / stages,
            "record_bytes_per_run": found["record_bytes"] / runs,
        },
    )
    again = found["again_seconds"] + found["index_seconds"]
    yield Row(
        "a finished suite",
        size,
        {"ours": [again]},
        [Goal("ms per run", 1e3 * again / runs, 5, True)],
        equal=same,
        least="planning again, and reading every record",
        facts={
            "index_seconds": found["index_seconds"],
            "seconds_to_read_the_times_of_all_stages": found["times_seconds"],
        },
    )


def simulate(work: Path, seeds: int) -> dict[str, float]:
    """All of it, in this process; returns seconds, bytes and counts by name."""
    torch.set_num_threads(1)
    load_stubs()
    found: dict[str, float] = {"import_bytes": peak()}
    large = Simulated(work, seeds)
    found["read_seconds"], suite = _timed(large.read)
    found["plan_seconds"], (cache, layout) = _timed(lambda: large.lay_out(suite))
    found |= {"runs": len(layout.planned), "stages": len(layout.tasks), "peak_bytes": peak()}
    assert len(layout.missing) == len(suite.runs), "the folder is new"
    copy = replace(layout, done=set(layout.done))
    found["schedule_seconds"], _ = _timed(lambda: _execute(copy, Instant(), cache))
    workers = LocalExecutor(
        jobs=WORKERS,
        threads=1,
        gpus=[],
        cache=cache.root,
        results=large.results,
        device="cpu",
        plugins=[PLUGIN],
    )
    before = time.process_time()
    with workers:
        found["execute_seconds"], _ = _timed(lambda: _execute(layout, workers, cache))
    found["main_seconds"] = time.process_time() - before
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    found["worker_seconds"] = ended.ru_utime + ended.ru_stime
    found["last_peak_bytes"] = peak()
    found["again_seconds"], (_, layout) = _timed(lambda: large.lay_out(suite))
    assert not layout.missing
    found["index_seconds"], _ = _timed(lambda: write_index(layout, large.results))
    found["times_seconds"], _ = _timed(lambda: Times(cache))
    found["cache_bytes"] = _bytes(large.cache)
    found["record_bytes"] = _bytes(large.results)
    return found


def _timed(call: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def _written(message: Mapping[str, Any]) -> None:
    json.dumps(message)


def _execute(layout: Layout, executor: Any, cache: Cache) -> None:
    """Execute, with every message written as ``--json`` does."""
    failures = execute(layout, executor, cache=cache, times=Times(cache), watch=_written)
    assert not failures, failures[0].message


def _bytes(folder: Path) -> int:
    """The sizes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    print(json.dumps(simulate(Path(sys.argv[1]), int(sys.argv[2]))))
