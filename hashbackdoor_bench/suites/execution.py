"""Many runs: a layout of stages is handed to an executor, failures are kept and told.

The executor knows processes and machines, the schedule knows what is ready; between them stands the
loop of `execute`. Every message is a dict that ``--json`` prints as it is.
"""

import csv
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from hashbackdoor_bench.files import whole
from hashbackdoor_bench.records import INDEX
from hashbackdoor_bench.stages import Cache, in_use
from hashbackdoor_bench.suites.durations import Times
from hashbackdoor_bench.suites.failures import Failure, forget_failure, keep_failure
from hashbackdoor_bench.suites.layout import Layout, PlannedRun, Task, describe
from hashbackdoor_bench.suites.schedule import Schedule

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
    """Make all that is missing of a suite; the runs that failed, with stage and message.

    Args:
        layout: see `lay_out`.
        executor: entered already.
        cache: of the driver.
        times: for the remaining time; learns on the way.
        watch: is told what happens.
    """
    schedule, failures = Schedule(layout), {one.run.spec: one for one in layout.refused}
    tell = _Teller(layout, schedule, executor, times, watch)
    told: set[str] = set()
    for refused in layout.refused:
        keep_failure(cache, refused)
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
                        forget_failure(cache, one.run)
                        tell.ended(one)
                elif report.state == "failed":
                    for one in schedule.fail(task):
                        if one.run.spec not in failures:
                            failures[one.run.spec] = Failure(one.run, task.title, report.text)
                            keep_failure(cache, failures[one.run.spec])
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
                "run": describe(task.run),
                "worker": worker,
                **more,
                **({} if state == "progress" else self.tally()),
            }
        )

    def ended(self, one: PlannedRun) -> None:
        """A run ended well."""
        spec, self.looked = one.run.spec, float("-inf")
        self.watch({"event": "run", "label": one.run.label, "victim": spec.victim,
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
            "runs_done": len(self.layout.planned) - len(self.layout.missing),
            "runs": len(self.layout.planned) + len(self.layout.refused),
            "seconds": round(passed, 1),
            "remaining": self.remaining,
        }

    def _remaining(self) -> float | None:
        left = [task for task in self.todo if task.key not in self.schedule.done]
        seconds, unknown = self.times.total(left)
        workers = max(1, len(self.schedule.running) + self.executor.free())
        return None if unknown else round(seconds / workers, 1)


def write_index(layout: Layout, results: Path) -> Path:
    """``index.csv`` beside a suite's records: a row a finished run, with its label in tables."""
    path = results / INDEX
    with whole(path) as fresh, fresh.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("suite", "label", "victim", "bits", "target", "seed", "record"))
        for one in layout.planned:
            if one.tasks[-1].key in layout.done:
                run, spec = one.run, one.run.spec
                record = one.path.relative_to(results).as_posix()
                rows.writerow(
                    (run.suite, run.label, spec.victim, spec.bits, spec.target, spec.seed, record)
                )
    return path
