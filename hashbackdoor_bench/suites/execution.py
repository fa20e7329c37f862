"""Many runs: a layout of stages is handed to an executor, failures are kept and told.

The executor knows processes and machines, the schedule knows what is ready; between them stands the
loop of `execute`. Every message is a dict that ``--json`` prints as it is.
"""

import csv
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from hashbackdoor_bench.files import whole
from hashbackdoor_bench.records import INDEX
from hashbackdoor_bench.spec import RunSpec
from hashbackdoor_bench.stages import Cache, in_use
from hashbackdoor_bench.suites.durations import Times
from hashbackdoor_bench.suites.layout import Failure, Layout, PlannedRun, Task, describe
from hashbackdoor_bench.suites.schedule import Schedule
from hashbackdoor_bench.suites.suite import Cell

Watch = Callable[[Mapping[str, Any]], None]
PATIENCE = 1.0  # seconds between two looks at the clock while nothing is reported


@dataclass(frozen=True)
class Report:
    """What an executor says of a task.

    Attributes:
        state: ``progress``, ``note`` (a warning), ``done`` or ``failed``.
        task: which one.
        worker: who works on it, for a person.
        text: the stage of a progress, the note, or why it failed.
        done: units of a progress; ``total`` and ``facts`` go with it, see `Progress`.
        seconds: what the stage took when it was made; of ``done``.
    """

    state: Literal["progress", "note", "done", "failed"]
    task: Task
    worker: str
    text: str = ""
    done: int = 0
    total: int = 1
    facts: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0


class Executor(Protocol):
    """Makes tasks, several at a time; a context manager that stops its workers when it ends.

    A task that is reported as done is in the driver's cache, a record in its results folder. A
    worker that dies is replaced, and its task tried once more, before it is reported as failed.
    """

    def free(self) -> int:
        """How many tasks more could be made at this moment."""

    def start(self, task: Task) -> str:
        """Begin to make a task whose inputs are in the cache; the worker's name."""

    def reports(self, timeout: float) -> Sequence[Report]:
        """What happened; waits up to ``timeout`` seconds if nothing did."""


def execute(
    layout: Layout, executor: Executor, *, cache: Cache, times: Times, watch: Watch
) -> list[Failure]:
    """Make all that is missing of a suite; the cells that failed, with stage and message.

    Args:
        layout: see `lay_out`.
        executor: entered already.
        cache: of the driver.
        times: for the remaining time; learns on the way.
        watch: is told what happens.
    """
    schedule, failures = Schedule(layout), {one.cell.spec: one for one in layout.refused}
    tell = _Teller(layout, schedule, executor, times, watch)
    told: set[str] = set()
    for refused in layout.refused:
        remember(cache, refused)
    with in_use(cache.root, layout.keys):
        while not schedule.over:
            while executor.free() > 0 and (task := schedule.take()):
                tell("started", task, executor.start(task))
            for report in executor.reports(PATIENCE):
                task = report.task
                if report.state == "done":
                    times.add(task.kind, task.inputs, report.seconds)
                    ended = schedule.finish(task)
                    tell("done", task, report.worker, seconds=round(report.seconds, 3))
                    for one in ended:
                        forget(cache, one.cell)
                        tell.cell(one)
                elif report.state == "failed":
                    for one in schedule.fail(task):
                        if one.cell.spec not in failures:
                            failures[one.cell.spec] = Failure(one.cell, task.title, report.text)
                            remember(cache, failures[one.cell.spec])
                    tell("failed", task, report.worker, message=report.text)
                elif report.state == "progress":
                    tell(
                        "progress",
                        task,
                        report.worker,
                        part=report.text,
                        done=report.done,
                        total=report.total,
                        facts=dict(report.facts),
                    )
                elif report.text not in told:
                    told.add(report.text)
                    tell("note", task, report.worker, message=report.text)
            tell.tick()
    return list(failures.values())


class _Teller:
    """Puts the state of the whole beside each message."""

    def __init__(
        self, layout: Layout, schedule: Schedule, executor: Executor, times: Times, watch: Watch
    ) -> None:
        self.layout, self.schedule, self.executor = layout, schedule, executor
        self.times, self.watch = times, watch
        self.start, self.made, self.failed = time.perf_counter(), 0, 0
        self.todo = [task for task in layout.tasks.values() if task.key in schedule.todo]
        self.looked, self.remaining = float("-inf"), self._remaining()

    def __call__(self, state: str, task: Task, worker: str, **more: Any) -> None:
        self.made += state == "done"
        self.failed += state == "failed"
        self.watch(
            {
                "event": "stage",
                "state": state,
                "stage": task.title,
                "run": describe(task.cell),
                "worker": worker,
                **more,
                **({} if state == "progress" else self.tally()),
            }
        )

    def cell(self, one: PlannedRun) -> None:
        """A cell ended well."""
        spec, self.looked = one.cell.spec, float("-inf")
        self.watch({"event": "cell", "label": one.cell.label, "victim": spec.victim,
                    "bits": spec.bits, "seed": spec.seed, "record": str(one.path),
                    **self.tally()})  # fmt: skip

    def tick(self) -> None:
        """Time has passed."""
        self.watch({"event": "tick", **self.tally()})

    def tally(self) -> dict[str, Any]:
        """How far the suite is; the remaining time is None while a kind of stage is unknown."""
        passed = time.perf_counter() - self.start
        if passed - self.looked > PATIENCE:
            self.looked, self.remaining = passed, self._remaining()
        return {
            "stages_done": self.made,
            "stages": len(self.todo),
            "running": len(self.schedule.running),
            "failed": self.failed,
            "cells_done": len(self.layout.planned) - len(self.layout.missing),
            "cells": len(self.layout.planned) + len(self.layout.refused),
            "seconds": round(passed, 1),
            "remaining": self.remaining,
        }

    def _remaining(self) -> float | None:
        left = [task for task in self.todo if task.key not in self.schedule.done]
        seconds, unknown = self.times.total(left)
        workers = max(1, len(self.schedule.running) + self.executor.free())
        return None if unknown else round(seconds / workers, 1)


# ---- failures, kept until they are made good ----------------------------------------------------


def write_index(layout: Layout, results: Path) -> Path:
    """``index.csv`` beside a suite's records: a row a finished cell, with its label in tables."""
    path = results / INDEX
    with whole(path) as fresh, fresh.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("suite", "label", "victim", "bits", "target", "seed", "record"))
        for one in layout.planned:
            if one.tasks[-1].key in layout.done:
                cell, spec = one.cell, one.cell.spec
                record = one.path.relative_to(results).as_posix()
                rows.writerow(
                    (cell.suite, cell.label, spec.victim, spec.bits, spec.target, spec.seed, record)
                )
    return path


def _file(cache: Cache, spec: RunSpec) -> Path:
    return cache.root / "failures" / f"{spec.key}.json"


def remember(cache: Cache, failure: Failure) -> None:
    """Keep a failure for ``bench suite status``."""
    path = _file(cache, failure.cell.spec)
    path.parent.mkdir(exist_ok=True)
    with whole(path) as fresh:
        body = {"stage": failure.stage, "message": failure.message}
        fresh.write_text(json.dumps(body), encoding="utf-8")


def forget(cache: Cache, cell: Cell) -> None:
    """The cell ended well."""
    _file(cache, cell.spec).unlink(missing_ok=True)


def remembered(cache: Cache, cell: Cell) -> Failure | None:
    """How the cell failed when it was last tried; None if it didn't."""
    try:
        body = json.loads(_file(cache, cell.spec).read_text(encoding="utf-8"))
        return Failure(cell, str(body["stage"]), str(body["message"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
