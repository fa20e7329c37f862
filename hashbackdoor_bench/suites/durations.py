"""Estimates of how long stages will take, from the times of similar stages in the cache."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import median
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
        self.seconds: dict[str, list[float]] = defaultdict(list)
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
        for name in (_similar(kind, inputs), kind):
            self.seconds[name].append(seconds / _units(kind, inputs))

    def of(self, kind: str, inputs: Mapping[str, Any]) -> float | None:
        """Seconds of a stage: the median of similar ones, else of its kind; None if unknown."""
        if kind not in self.seconds:
            return RECORD_SECONDS if kind == RECORD else None
        found = self.seconds.get(_similar(kind, inputs)) or self.seconds[kind]
        return median(found) * _units(kind, inputs)

    def total(self, tasks: Iterable[Task]) -> tuple[float, int]:
        """Seconds of all tasks whose time is known, and the number of the other tasks.

        A shared stage is made during the first crafting of an attacker, so its time is added there.
        """
        known, unknown, attackers = 0.0, 0, set(self.shared)
        for task in tasks:
            seconds = self.of(task.kind, task.inputs)
            if seconds is None:
                unknown += 1
                continue
            known += seconds
            if task.attacker and task.attacker not in attackers:
                attackers.add(task.attacker)
                known += median(self.seconds.get(_similar("shared", task.inputs)) or [0.0])
        return known, unknown


def _similar(kind: str, inputs: Mapping[str, Any]) -> str:
    """The inputs that stages of about equal duration have in common: method, backbone, data."""
    names = ("method", "backbone", "attack", "data")
    return canonical([kind, {name: inputs[name] for name in names if name in inputs}])


def _units(kind: str, inputs: Mapping[str, Any]) -> int:
    """What a stage's time is proportional to: the epochs of a training."""
    return int(inputs["recipe"]["epochs"]) if kind == "train" else 1
