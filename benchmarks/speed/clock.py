"""Timing contestants alternately, and the rows of the result."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch


@dataclass(frozen=True)
class Setting:
    """The settings of a measurement.

    Attributes:
        quick: whether to use tiny sizes, for tests; the times are then meaningless.
        repeat: number of rounds of all contestants.
        device: device of the networks.
        work: an empty folder, which is removed afterwards.
    """

    quick: bool
    repeat: int
    device: torch.device
    work: Path


@dataclass(frozen=True)
class Entry:
    """A contestant.

    Attributes:
        run: does the work, or a sample of it.
        scale: ratio of the whole work to the sample.
        sample: description of the sample; empty if ``run`` does the whole work.
    """

    run: Callable[[], object]
    scale: float = 1.0
    sample: str = ""


@dataclass(frozen=True)
class Goal:
    """A value that a part must reach.

    Attributes:
        what: the quantity, with its unit.
        found: the measured value.
        bound: the bound.
        most: whether ``bound`` is an upper bound; else it is a lower bound.
    """

    what: str
    found: float
    bound: float
    most: bool = False

    @property
    def reached(self) -> bool:
        """Whether the value is within the bound."""
        return self.found <= self.bound if self.most else self.found >= self.bound


@dataclass(frozen=True)
class Row:
    """The result of one part on one task.

    Attributes:
        part: name of the part.
        work: description of the task.
        seconds: seconds for the whole task in each round, by contestant; ``ours`` is the first.
        goals: the goals of the part.
        samples: descriptions of samples, by contestant.
        equal: what was compared before timing, and the largest difference.
        least: the unavoidable work.
        ceiling: how the ceiling was measured.
        share: share of the ceiling that ours reaches; None if there is no ceiling.
        facts: other numbers, with their units in their names.
        peers: contestants for the table's column of peers.
    """

    part: str
    work: str
    seconds: Mapping[str, Sequence[float]]
    goals: Sequence[Goal] = ()
    samples: Mapping[str, str] = field(default_factory=dict)
    equal: str = ""
    least: str = ""
    ceiling: str = ""
    share: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    peers: Sequence[str] = ()

    def as_json(self) -> dict[str, Any]:
        """All attributes, with medians, ranges, and the ratios to ours of each round."""
        found = asdict(self)
        found["seconds"] = {
            name: {"rounds": list(times), **spread(times)} for name, times in self.seconds.items()
        }
        found["ratios"] = {
            name: spread(ratios(self.seconds, name)) for name in list(self.seconds)[1:]
        }
        found["goals"] = [{**asdict(goal), "reached": goal.reached} for goal in self.goals]
        return found

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Row":
        """The row of which `as_json` made ``found``."""
        values = {name: value for name, value in found.items() if name != "ratios"}
        values["seconds"] = {name: one["rounds"] for name, one in found["seconds"].items()}
        values["goals"] = [
            Goal(**{name: value for name, value in goal.items() if name != "reached"})
            for goal in found["goals"]
        ]
        return cls(**values)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and largest of several values."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def ratios(seconds: Mapping[str, Sequence[float]], name: str, to: str = "ours") -> list[float]:
    """Seconds of a contestant over those of another, round by round."""
    return [a / b for a, b in zip(seconds[name], seconds[to], strict=True)]


def ratio(seconds: Mapping[str, Sequence[float]], name: str, to: str = "ours") -> float:
    """The median of `ratios`."""
    return median(ratios(seconds, name, to))


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call; on a GPU including all kernels that it launched."""
    if device.type != "cuda":
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    event: Any = torch.cuda.Event
    begin, end = (event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    begin.record()
    run()
    end.record()
    torch.cuda.synchronize(device)
    return float(begin.elapsed_time(end)) / 1000


def peak_bytes(run: Callable[[], object], device: torch.device) -> int | None:
    """The most memory of a GPU that tensors take during one call; None on the CPU."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    run()
    return int(torch.cuda.max_memory_allocated(device))


def in_turn(
    entries: Mapping[str, Entry], setting: Setting, *, warm: bool = True
) -> dict[str, list[float]]:
    """Seconds of each contestant for the whole work, A B A B, once in each round.

    Args:
        entries: the contestants; every second round runs them in reverse order.
        setting: number of rounds, and device.
        warm: whether each runs once before the first round.
    """
    if warm:
        for entry in entries.values():
            entry.run()
    found: dict[str, list[float]] = {name: [] for name in entries}
    for turn in range(setting.repeat):
        for name, entry in list(entries.items())[:: -1 if turn % 2 else 1]:
            found[name].append(seconds_of(entry.run, setting.device) * entry.scale)
    return found


def samples_of(entries: Mapping[str, Entry]) -> dict[str, str]:
    """The descriptions of the contestants' samples, for `Row.samples`."""
    return {name: entry.sample for name, entry in entries.items() if entry.sample}
