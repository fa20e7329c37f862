"""Repeating the run of a record, and comparing the results.

On the CPU, the same processor, number of threads and version of torch train the same weights from
one seed, so every score must be equal to the last bit. Elsewhere sums are rounded in another order,
which changes the training, and the scores must lie within ``TOLERANCE``: with one seed, CIBA on
HashNet at 48 bits differed by 6.1 points of gain and 1.0 of MAP between one thread and two. So a
larger difference is reported, and need not be a mistake: a backdoor works in one training and fails
in another.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from hashbackdoor_bench.progress import Progress, silent
from hashbackdoor_bench.records import CONVENTION_FIELDS, CONVENTIONS, Record
from hashbackdoor_bench.stages import (
    Cache,
    Run,
    device_name,
    device_of,
    in_use,
    keys_of,
    moved,
    threads_set,
    write_record,
)
from hashbackdoor_bench.trust.submission import Submission, hand_in

MOST_THREADS = 1024
TOLERANCE = 0.05  # of a score, which is a share: 5 points of percent


@dataclass(frozen=True)
class Difference:
    """A value that differs from the one in the record.

    Attributes:
        name: path of the value in the record, such as ``scores.field.map``.
        recorded: the value in the record; None if it has none.
        found: the new value.
    """

    name: str
    recorded: Any
    found: Any


@dataclass(frozen=True)
class Reproduction:
    """The result of repeating a run.

    Attributes:
        record: the new record.
        path: its path.
        exact: whether all values had to be equal.
        inputs: the stages whose inputs (code, data or weights) differ from the record's, and before
            them the pixels of the images, if those do.
        differences: the values that differ more than allowed.
    """

    record: Record
    path: Path
    exact: bool
    inputs: tuple[str, ...]
    differences: tuple[Difference, ...]


def reproduce(
    record: Record,
    *,
    cache: Cache,
    results: Path,
    device: str = "auto",
    threads: int | None = None,
    progress: Progress = silent,
    submission: Submission | None = None,
    **where: Any,
) -> Reproduction:
    """Run a record's spec again and compare.

    Args:
        record: the record to check.
        cache: stages in it are not repeated, so a real test needs an empty one.
        results: folder of the new record.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: torch's threads; None: as many as the record's.
        progress: see `Progress`.
        submission: if given, its poison is used, and nothing is crafted.
        where: ``lists``, ``root`` and ``weights``, if they differ from the record's spec.

    Raises:
        UserError: the spec can't be run here.
    """
    spec = moved(record.spec, **where)
    chosen = device_of(device)
    with threads_set(threads or threads_of(record.device)):
        run = Run(spec, cache=cache, device=chosen, progress=progress)
        with in_use(cache.root, keys_of(run.plan)):
            if submission is not None:
                hand_in(submission, run)
            made, path = write_record(run, results)
        exact = chosen.type == "cpu" and same_machine(record, device_name(chosen))
    now = run.plan.keys_under(record.numerics)
    names = {*record.artifacts, *now}
    inputs = sorted(n for n in names if record.artifacts.get(n) != now.get(n))
    if record.protocol.pixels != run.plan.splits.pixels:
        inputs.insert(0, "the pixels of the images")
    return Reproduction(made, path, exact, tuple(inputs), tuple(compare(record, made, exact)))


def threads_of(device: str) -> int | None:
    """The number of threads in a record's ``device``; None for a GPU, and for nonsense."""
    found = re.search(r", ([0-9]{1,4}) threads$", device)
    return int(found[1]) if found and 0 < int(found[1]) <= MOST_THREADS else None


def same_machine(record: Record, device: str) -> bool:
    """Whether results must be bit-equal: same processor, number of threads and torch version."""
    return record.device == device and record.versions.get("torch") == version("torch")


def compare(record: Record, made: Record, exact: bool) -> Iterator[Difference]:
    """The values of a record that differ in another record of the same spec.

    Args:
        record: the record to check.
        made: the new record.
        exact: if True, all values of scores, retrieval and imperceptibility must be equal; else the
            scores of every convention must lie within ``TOLERANCE``.
    """
    if exact:
        for part in ("scores", "retrieval", "imperceptibility"):
            parts = (msgspec.to_builtins(getattr(one, part)) for one in (record, made))
            old, new = (dict(flat(values, part)) for values in parts)
            for name in sorted(old.keys() | new.keys() if part == "scores" else old):
                if old.get(name) != new.get(name):
                    yield Difference(name, old.get(name), new.get(name))
        return
    for convention in CONVENTIONS:
        for name in CONVENTION_FIELDS:
            known, found = (getattr(one.scores[convention], name) for one in (record, made))
            if (known is None) != (found is None) or (
                known is not None and abs(known - found) > TOLERANCE
            ):
                yield Difference(f"scores.{convention}.{name}", known, found)


def flat(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The numbers and texts in a JSON value, each with its path, such as ``scores.field.map``."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield from flat(entry, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for place, entry in enumerate(value):
            yield from flat(entry, f"{name}.{place}")
    else:
        yield name, value
