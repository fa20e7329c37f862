"""Timing in turn, and what a part says in the end."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch


@dataclass(frozen=True)
class Setting:
    """What every part is given.

    Attributes:
        quick: tiny sizes, for tests: the numbers mean nothing.
        repeat: rounds of all contestants.
        device: where networks run.
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
        scale: the whole work over the sample.
        sample: what the sample is, for a person; empty: the whole work.
    """

    run: Callable[[], object]
    scale: float = 1.0
    sample: str = ""


@dataclass(frozen=True)
class Goal:
    """What a part must reach.

    Attributes:
        what: the quantity, with its unit.
        found: its value.
        bound: what it must be.
        most: it may be ``bound`` at most; else it must be that at least.
    """

    what: str
    found: float
    bound: float
    most: bool = False

    @property
    def reached(self) -> bool:
        """Whether it is."""
        return self.found <= self.bound if self.most else self.found >= self.bound


@dataclass(frozen=True)
class Row:
    """One part on one work.

    Attributes:
        part: its name.
        work: what is done, for a person.
        seconds: by contestant, of each round, of the whole work; ``ours`` is the first.
        goals: what it must reach.
        samples: contestants that did a sample, and which.
        equal: what was compared before timing, and how far it differed.
        least: what must be done at least.
        ceiling: how the least was measured.
        share: of the ceiling that ours reaches; None where there is none.
        facts: other numbers, with their units in their names.
        peers: contestants that are another tool, or another way, for the table.
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
        """All of it, with medians, ranges and ratios to ours, pair by pair."""
        found = asdict(self)
        found["seconds"] = {
            name: {"rounds": list(times), **spread(times)} for name, times in self.seconds.items()
        }
        found["ratios"] = {
            name: spread(ratios(self.seconds, name)) for name in list(self.seconds)[1:]
        }
        found["goals"] = [{**asdict(goal), "reached": goal.reached} for goal in self.goals]
        return found


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
    """Seconds of one call; on a GPU until all that it queued is done."""
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


def in_turn(
    entries: Mapping[str, Entry], setting: Setting, *, warm: bool = True
) -> dict[str, list[float]]:
    """Seconds of each contestant for the whole work, A B A B, once in each round.

    Args:
        entries: the contestants; the order turns round from one round to the next.
        setting: rounds and device.
        warm: each runs once before, uncounted.
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
    """The contestants that do a sample, for `Row.samples`."""
    return {name: entry.sample for name, entry in entries.items() if entry.sample}
