"""Estimates of how long stages will take, from the times of similar stages in the cache."""

import json
from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hashbackdoor_bench.spec import canonical
from hashbackdoor_bench.stages import FILES, Cache, attacker_of
from hashbackdoor_bench.suites.layout import RECORD, Task

RECORD_SECONDS = 1.0  # of one core, for a record and its pictures, whose time is not stored


class Times:
    """Times of the stages in a cache, grouped by similarity.

    Args:
        cache: the cache; damaged artifacts are ignored.
    """

    def __init__(self, cache: Cache) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)  # per unit, sorted
        self.shared: set[str | None] = set()  # attackers whose shared stages are made
        for kind, _, folder in cache.stored():
            try:
                body = json.loads((folder / FILES[0]).read_text(encoding="utf-8"))
                self.add(kind, body["inputs"], body["seconds"])
            except (OSError, ValueError, KeyError):
                continue
            if kind == "shared":
                self.shared.add(attacker_of(body["inputs"]))

    def add(self, kind: str, inputs: Mapping[str, Any], seconds: float) -> None:
        """Add the time of one more stage."""
        for name in (_similar(kind, inputs), _family(kind, inputs)):
            insort(self.seconds[name], seconds / _units(kind, inputs))

    def of(self, kind: str, inputs: Mapping[str, Any]) -> float | None:
        """Seconds of a stage: the median of similar ones, else of its family; None if unknown.

        How long an attack crafts says nothing about others, see `_family` too.
        """
        each = self.of_unit(_family(kind, inputs), _similar(kind, inputs))
        return None if each is None else each * _units(kind, inputs)

    def of_unit(self, family: str, similar: str) -> float | None:
        """Seconds of one unit (see `_units`) of the stages that `_similar` describes so."""
        if family not in self.seconds:
            return RECORD_SECONDS if family == RECORD else None
        if similar not in self.seconds and family == "backdoor":  # of one attack, nothing of others
            return None
        return _middle(self.seconds.get(similar) or self.seconds[family])

    def total(self, tasks: Iterable[Task]) -> tuple[float, int]:
        """Seconds of all tasks whose time is known, and the number of the other tasks."""
        return Remaining(self, tasks).total()


class Remaining:
    """The tasks that are left of a suite, and how long they will take.

    It is asked after every run, so the tasks that are expected to take equally long are counted
    together: a suite has many thousand tasks in some dozens of such groups. A shared stage is made
    during the first crafting of an attacker, so its time is added there.

    Args:
        times: the times so far; those that are added to it later count as well.
        tasks: the tasks that are left.
    """

    def __init__(self, times: Times, tasks: Iterable[Task]) -> None:
        self.times = times
        self.tasks: Counter[tuple[str, str]] = Counter()  # by family and similarity
        self.units: Counter[tuple[str, str]] = Counter()
        self.crafts: Counter[str] = Counter()  # tasks by attacker
        self.attackers: Counter[tuple[str, str]] = Counter()  # by kind, and that of their shared
        for task in tasks:
            self._count(task, 1)

    def remove(self, task: Task) -> None:
        """Count a task as done."""
        self._count(task, -1)

    def _count(self, task: Task, change: int) -> None:
        group = _family(task.kind, task.inputs), _similar(task.kind, task.inputs)
        self.tasks[group] += change
        self.units[group] += change * _units(task.kind, task.inputs)
        if task.attacker and task.attacker not in self.times.shared:
            before = self.crafts[task.attacker]
            self.crafts[task.attacker] += change
            if not before or not self.crafts[task.attacker]:
                self.attackers[task.kind, _similar("shared", task.inputs)] += change

    def total(self) -> tuple[float, int]:
        """Seconds of all tasks whose time is known, and the number of the other tasks."""
        known, unknown = 0.0, 0
        for (family, similar), count in self.tasks.items():
            seconds = self.times.of_unit(family, similar)
            if seconds is None:
                unknown += count
            else:
                known += seconds * self.units[family, similar]
        for (kind, similar), count in self.attackers.items():
            if kind in self.times.seconds:
                known += count * _middle(self.times.seconds.get(similar) or [0.0])
        return known, unknown


def _middle(ordered: Sequence[float]) -> float:
    """The median of sorted numbers."""
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def _similar(kind: str, inputs: Mapping[str, Any]) -> str:
    """The inputs that stages of about equal duration have in common: method, backbone, data."""
    names = ("method", "backbone", "attack", "data")
    common = {name: inputs[name] for name in names if name in inputs}
    return canonical([_family(kind, inputs), common])


def _family(kind: str, inputs: Mapping[str, Any]) -> str:
    """The stages among which a time says something of another: the kind, and what decides it.

    A hash layer on frozen features is of another family than a whole network, and so is every
    backbone; a defense says nothing of others.
    """
    words = [kind]
    if kind == "train":
        frozen = inputs["recipe"].get("frozen", False)
        words.append("a hash layer" if frozen else str(inputs.get("backbone")))
    if defense := inputs.get("defense"):
        words.append(defense["module"])
    return " ".join(words)


def _units(kind: str, inputs: Mapping[str, Any]) -> int:
    """What a stage's time is proportional to: the epochs of a training."""
    return int(inputs["recipe"]["epochs"]) if kind == "train" else 1
