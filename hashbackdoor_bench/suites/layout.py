"""A suite as one list of tasks, some of which are done already.

Runs share stages, so each stage is one task for all runs that have it. No stage is computed here:
the plans give the keys of all stages, and the cache shows which of them are done.
"""

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from hashbackdoor_bench.errors import NotApplicable, UserError
from hashbackdoor_bench.memory import no_collection
from hashbackdoor_bench.progress import Progress, silent
from hashbackdoor_bench.records import read_record, record_path
from hashbackdoor_bench.registry import ATTACKS
from hashbackdoor_bench.spec import RunSpec
from hashbackdoor_bench.stages import (
    Cache,
    LoadedSets,
    Plan,
    attacker_of,
    idle_surrogate,
    keys_of,
    refuse_idle,
)
from hashbackdoor_bench.suites.failures import Failure
from hashbackdoor_bench.suites.suite import SuiteRun

RECORD = "record"  # the name and kind of the last task of a run: its record and its pictures


@dataclass(frozen=True, eq=False)
class Task:
    """A stage to be made, or the record of a run to be written.

    Attributes:
        kind: see `Stage`; or ``RECORD``.
        key: key of the artifact or the record.
        title: its name for users.
        group: see `Stage.group`.
        inputs: see `PlannedStage`.
        run: a run that has this stage.
        spec: spec of that run, with the precision of the main process, so that all workers use the
            same.
        name: name of the stage in that run's plan.
        needs: the tasks whose results it reads.
        attacker: for a backdoor, see `attacker_of`. Two backdoors of one attacker may need the same
            shared stage, so they are not made at the same time: one worker would only wait.
    """

    kind: str
    key: str
    title: str
    group: str
    inputs: Mapping[str, Any]
    run: SuiteRun
    spec: RunSpec
    name: str
    needs: tuple["Task", ...]
    attacker: str | None = None


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """A run with its tasks.

    Attributes:
        run: the run of the suite.
        spec: its spec with all defaults filled in.
        path: path of its record, which may not exist yet.
        tasks: its tasks, in order; the last one writes the record.
        keys: keys of all that it reads or makes, for `in_use`.
    """

    run: SuiteRun
    spec: RunSpec
    path: Path
    tasks: tuple[Task, ...]
    keys: frozenset[str]


@dataclass
class Layout:
    """The stages of a suite.

    Attributes:
        planned: the runs that can be run.
        refused: the runs that can't be planned, with the reason.
        unfit: the runs whose defense doesn't go with the attack or victim, which is a result.
        tasks: all tasks by key, each once, after the tasks that it needs.
        done: keys of the tasks that are done.
    """

    planned: list[PlannedRun] = field(default_factory=list)
    refused: list[Failure] = field(default_factory=list)
    unfit: list[Failure] = field(default_factory=list)
    tasks: dict[str, Task] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)

    @property
    def missing(self) -> list[PlannedRun]:
        """The runs without a record."""
        return [one for one in self.planned if one.tasks[-1].key not in self.done]

    @property
    def repeated(self) -> dict[str, str]:
        """The rows that have a run of an earlier row again, each with that row, by their labels."""
        first: dict[Path, str] = {}
        rows: dict[str, str] = {}
        for one in self.planned:
            known = first.setdefault(one.path, one.run.label)
            if known != one.run.label:
                rows.setdefault(one.run.label, known)
        return rows

    @property
    def merged(self) -> Counter[str]:
        """How many runs of a row are another run of it again, by the label of the row.

        They differ in a setting that changes nothing there, as the share of clean images does for
        a defense that asks for none.
        """
        again: Counter[str] = Counter()
        for (label, _), count in Counter((one.run.label, one.path) for one in self.planned).items():
            if count > 1:
                again[label] += count - 1
        return again

    @property
    def keys(self) -> set[str]:
        """What all runs read or make, for `in_use`."""
        return {key for one in self.planned for key in one.keys}


def describe(run: SuiteRun) -> str:
    """A run in words."""
    spec = run.spec
    defended = "" if spec.defense == RunSpec.defense else f", defense {spec.defense}"
    return f"{run.label} on {spec.victim}, {spec.bits} bits{defended}, seed {spec.seed}"


def lay_out(
    runs: Iterable[SuiteRun],
    *,
    cache: Cache,
    results: Path,
    device: torch.device,
    threads: int | None = None,
    progress: Progress = silent,
) -> Layout:
    """The layout of a suite's runs, with the tasks that are done.

    Args:
        runs: the runs of the suite.
        cache: where artifacts are.
        results: folder of the records.
        device: where they would be computed; decides precision and numerics.
        threads: threads of each worker; None: those of this process.
        progress: called while data is prepared.

    Raises:
        UserError: no run can be planned; the message is that of the first run.
    """
    layout, loaded = Layout(), LoadedSets(cache, progress)
    with no_collection():
        for run in runs:
            try:
                plan = Plan(
                    run.spec, cache=cache, device=device, loaded=loaded(run.spec), threads=threads
                )
                layout.planned.append(_planned(layout.tasks, run, plan, results))
            except NotApplicable as error:
                layout.unfit.append(Failure(run, "plan", str(error)))
            except UserError as error:
                where = f"suite {run.suite}, {run.key_path}"
                layout.refused.append(Failure(run, "plan", f"{where}: {error}"))
    if not layout.planned and (reasons := layout.refused or layout.unfit):
        raise UserError(reasons[0].message)
    _find_done(layout, cache)
    return layout


def lay_out_run(
    spec: RunSpec,
    *,
    cache: Cache,
    results: Path,
    device: torch.device,
    threads: int | None = None,
    progress: Progress = silent,
) -> Layout:
    """The layout of one run that is of no suite, see `lay_out`.

    Raises:
        UserError: it can't be planned, or has an option that changes nothing.
    """
    layout, run = Layout(), SuiteRun("", ATTACKS.published(spec.attack), spec, "")
    plan = Plan(spec, cache=cache, device=device, progress=progress, threads=threads)
    refuse_idle(spec, plan.spec)
    for told in idle_surrogate(plan.spec):
        warnings.warn(told)
    layout.planned.append(_planned(layout.tasks, run, plan, results))
    _find_done(layout, cache)
    return layout


def _find_done(layout: Layout, cache: Cache) -> None:
    """Fill in ``layout.done``."""
    stored = {kind: cache.keys(kind) for kind in {t.kind for t in layout.tasks.values()}}
    for task in layout.tasks.values():
        if task.key in stored[task.kind] and cache.has(task.kind, task.key):
            layout.done.add(task.key)
    for one in layout.planned:
        if stands(one.path, one.tasks[-1].key):
            layout.done.add(one.tasks[-1].key)


def _planned(tasks: dict[str, Task], run: SuiteRun, plan: Plan, results: Path) -> PlannedRun:
    """A run's tasks; those that are new are added to ``tasks``."""
    mine: dict[str, Task] = {}
    spec = replace(run.spec, precision=plan.spec.precision)
    for name, stage in plan.stages.items():
        mine[name] = tasks.setdefault(
            stage.key,
            Task(
                kind=stage.kind,
                key=stage.key,
                title=stage.title,
                group=stage.row.group,
                inputs=stage.inputs,
                run=run,
                spec=spec,
                name=name,
                needs=tuple(dict.fromkeys(mine[other] for other in stage.needs)),
                attacker=attacker_of(stage.inputs),
            ),
        )
    key = plan.record_key
    parts = tuple(dict.fromkeys(mine.values()))
    record = tasks.setdefault(
        key,
        Task(
            kind=RECORD, key=key, title="write the record", group=RECORD, inputs={}, run=run,
            spec=spec, name=RECORD, needs=parts,
        ),
    )  # fmt: skip
    path = record_path(results, plan.spec, key)
    return PlannedRun(run, plan.spec, path, (*parts, record), frozenset(keys_of(plan)))


def stands(path: Path, key: str) -> bool:
    """Whether the record of this key is there and can be read."""
    try:
        return path.is_file() and read_record(path).key == key
    except UserError:
        return False
