"""The work of every worker: make one stage, or one record with its pictures."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from hashbackdoor_bench.errors import Diverged, UserError
from hashbackdoor_bench.memory import keep_freed_memory
from hashbackdoor_bench.plugin_faults import plugin_fault, spelt
from hashbackdoor_bench.progress import Progress, ends_epoch
from hashbackdoor_bench.report.pictures import draw_missing
from hashbackdoor_bench.spec import RunSpec
from hashbackdoor_bench.stages import Cache, LoadedSets, Run, write_record
from hashbackdoor_bench.suites.layout import RECORD

EVERY = 0.5  # seconds between two messages on the progress of one stage


def limits(threads: int) -> dict[str, str]:
    """The environment variables that limit a process to a number of threads.

    OpenMP and numba read them when they are loaded, so they are set before the process starts.
    """
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    return {name: str(threads) for name in names}


class Workbench:
    """What a worker keeps between tasks: the cache and the data that it has loaded.

    Args:
        cache: where artifacts are.
        results: folder of the records.
        device: where to compute.
    """

    def __init__(self, cache: Cache, results: Path, device: torch.device) -> None:
        self.cache, self.results, self.device = cache, results, device
        self.data = LoadedSets(cache)
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        keep_freed_memory()

    def make(self, spec: RunSpec, name: str, key: str, progress: Progress) -> float:
        """Make a stage by its name in the plan, or ``RECORD``.

        Args:
            spec: the run.
            name: name of the stage.
            key: key of the stage according to the main process.
            progress: see `Progress`.

        Returns:
            Seconds that it took to make the stage.

        Raises:
            UserError: the key differs here; or whatever the stage raises.
        """
        start = time.perf_counter()
        run = Run(
            spec,
            cache=self.cache,
            device=self.device,
            progress=progress,
            loaded=self.data(spec),
        )
        keys = {stage: entry.key for stage, entry in run.plan.stages.items()}
        keys[RECORD] = run.plan.record_key
        if keys.get(name) != key:
            raise UserError(
                "the worker has other code or data than the main process, or rounds otherwise "
                f"(here: {run.plan.numerics}): take "
                "equal machines with equal versions, provide the same data, and give the same "
                "command again."
            )
        if name != RECORD:
            return run.make(name).seconds
        write_record(run, self.results, draw_missing)
        return time.perf_counter() - start


class Telling:
    """The `Progress` of a worker, which sends messages to the main process.

    Every epoch of a training is sent, for its log; of the other messages, two a second.

    Args:
        send: sends a message, the fields of a `Report` of ``progress`` or ``epoch``.
    """

    def __init__(self, send: Callable[[dict[str, Any]], None]) -> None:
        self.send = send
        self.sent: dict[str, float] = {}  # time of the last message on each stage

    def __call__(self, stage: str, done: int, total: int, **facts: float) -> None:
        """See `Progress`."""
        if ends_epoch(facts):
            self.send({"state": "epoch", "text": stage, "facts": facts})
        now = time.monotonic()
        if now - self.sent.get(stage, -EVERY) >= EVERY:
            self.sent[stage] = now
            told = {"text": stage, "done": done, "total": total, "facts": facts}
            self.send({"state": "progress", **told})


def sentence(error: BaseException) -> str:
    """The message on a stage that failed."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, Diverged):
        return f"{error} ({' '.join(getattr(error, '__notes__', ()))})"
    return plugin_fault(error) or spelt(error)
