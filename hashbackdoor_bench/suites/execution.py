"""Executing a suite: the loop between the schedule and an executor, and its messages.

The schedule chooses the next task, and the executor makes it on some process or machine. Every
message is a dict that ``--json`` prints unchanged.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from hashbackdoor_bench.progress import Log
from hashbackdoor_bench.stages import Cache, in_use
from hashbackdoor_bench.suites.durations import Remaining, Times
from hashbackdoor_bench.suites.failures import Failure, forget_failure, keep_failure
from hashbackdoor_bench.suites.layout import Layout, PlannedRun, Task, describe
from hashbackdoor_bench.suites.schedule import Schedule

Watch = Callable[[Mapping[str, Any]], None]
PATIENCE = 1.0  # seconds to wait for a report


@dataclass(frozen=True)
class Report:
    """A message of an executor about a task.

    Attributes:
        state: ``progress``, ``epoch`` (one was finished), ``note`` (a warning), ``done`` or
            ``failed``.
        task: the task.
        worker: name of the worker that makes it.
        text: for ``progress`` and ``epoch`` the stage, for ``note`` the warning, for ``failed`` the
            reason.
        done: for ``progress``, finished units; see `Progress`.
        total: for ``progress``, units in all.
        facts: for ``progress``, numbers to show; for ``epoch``, all that `Progress` gives.
        seconds: for ``done``, the time it took to make the stage.
    """

    state: Literal["progress", "epoch", "note", "done", "failed"]
    task: Task
    worker: str
    text: str = ""
    done: int = 0
    total: int = 1
    facts: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0


class Executor(Protocol):
    """Makes several tasks at a time; as a context manager, it stops its workers at the end.

    When a task is reported as done, its artifact is in the cache of the main process, or its record
    in the results folder. If a worker dies, it is replaced and its task is tried again, before the
    task is reported as failed.
    """

    def free(self) -> int:
        """The number of tasks that can be started now."""

    def start(self, task: Task) -> str:
        """Start a task whose inputs are in the cache; returns the worker's name."""

    def reports(self, timeout: float) -> Sequence[Report]:
        """The reports since the last call; waits up to ``timeout`` seconds for the first."""


def execute(
    layout: Layout,
    executor: Executor,
    *,
    cache: Cache,
    times: Times,
    watch: Watch,
    log: Log | None = None,
) -> list[Failure]:
    """Make all missing tasks of a suite; returns the failed runs, with stage and message.

    Args:
        layout: see `lay_out`.
        executor: an executor whose context was entered.
        cache: the cache of the main process.
        times: estimates the remaining time; the times of finished stages are added.
        watch: called with each message.
        log: called at the end of each epoch of training. A training that several runs share is that
            of the first of them.
    """
    schedule, failures = Schedule(layout), {one.run.spec: one for one in layout.refused}
    tell = _Messenger(layout, schedule, executor, times, watch)
    noted: set[str] = set()  # each warning is shown once
    paths = {one.run: one.path for one in layout.planned} if log is not None else {}
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
                            failures[one.run.spec] = Failure(
                                one.run, task.title, report.text, one.spec
                            )
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
                elif report.state == "epoch":
                    if log is not None:
                        log(paths[task.run], report.text, report.facts)
                elif report.text not in noted:
                    noted.add(report.text)
                    tell("note", task, report.worker, message=report.text)
            tell.tick()
    return list(failures.values())


class _Messenger:
    """Sends messages, each with the state of the whole suite."""

    def __init__(
        self, layout: Layout, schedule: Schedule, executor: Executor, times: Times, watch: Watch
    ) -> None:
        self.layout, self.schedule, self.executor = layout, schedule, executor
        self.watch = watch
        self.start, self.made, self.failed = time.perf_counter(), 0, 0
        self.finished = len(layout.planned) - len(schedule.runs)  # runs, before this execution
        self.left = Remaining(times, schedule.todo.values())
        self.looked, self.remaining = float("-inf"), self._remaining()

    def __call__(self, state: str, task: Task, worker: str, **more: Any) -> None:
        self.made += state == "done"
        self.failed += state == "failed"
        if state == "done":
            self.left.remove(task)
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
        """Send the message that a run is finished."""
        spec, self.looked = one.run.spec, float("-inf")
        self.watch({"event": "run", "label": one.run.label, "victim": spec.victim,
                    "bits": spec.bits, "seed": spec.seed, "record": str(one.path),
                    **self.tally()})  # fmt: skip

    def tick(self) -> None:
        """Send the state of the suite."""
        self.watch({"event": "tick", **self.tally()})

    def tally(self) -> dict[str, Any]:
        """The state of the suite; ``remaining`` is None while the time of a stage is unknown."""
        passed = time.perf_counter() - self.start
        if passed - self.looked > PATIENCE:
            self.looked, self.remaining = passed, self._remaining()
        return {
            "stages_done": self.made,
            "stages": len(self.schedule.todo),
            "running": len(self.schedule.running),
            "failed": self.failed,
            "runs_done": self.finished + self.schedule.ended,
            "runs": len(self.layout.planned) + len(self.layout.refused),
            "seconds": round(passed, 1),
            "remaining": self.remaining,
        }

    def _remaining(self) -> float | None:
        seconds, unknown = self.left.total()
        workers = max(1, len(self.schedule.running) + self.executor.free())
        return None if unknown else round(seconds / workers, 1)
