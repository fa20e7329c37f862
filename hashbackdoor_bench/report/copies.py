"""Records that are copies of one another: none of them may become a second row of a table."""

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hashbackdoor_bench.errors import printable
from hashbackdoor_bench.records import Record
from hashbackdoor_bench.registry import ATTACKS
from hashbackdoor_bench.report.suite_index import IndexLine


@dataclass(frozen=True)
class Found:
    """A record that can be trusted as far as it can be checked by itself.

    Attributes:
        path: its file.
        record: the record.
        folder: number of its folder of results, in the order in which they were found.
        line: its line of the index in that folder; None if it has none.
    """

    path: Path
    record: Record
    folder: int
    line: IndexLine | None

    @property
    def name(self) -> str:
        """The path for messages."""
        return printable(self.path.as_posix())

    @property
    def suite(self) -> str | None:
        """Name of its suite."""
        return self.line.suite if self.line else None

    @property
    def order(self) -> tuple[int, float]:
        """Its place among the rows: that of the index."""
        return self.folder, self.line.number if self.line else math.inf


def without_copies(found: Iterable[Found]) -> tuple[list[Found], list[str]]:
    """The records of which none is a copy of another, and a sentence for each that is left out.

    A run that is there twice counts once, the first time; but two suites may share a run. Of two
    runs with the same artifacts, or the same scores to the last bit, one is the other again if they
    are of one attack, victim, class, seed and data set, such as with a budget that was given as a
    number of images. If they are not, one was made of the other. Which one can't be told, so both
    are left out.
    """
    kept: list[Found] = []
    told: list[str] = []
    first: dict[tuple[str | None, str], Found] = {}
    for one in found:
        known = first.setdefault((one.suite, one.record.key), one)
        if known is one:
            kept.append(one)
        else:
            told.append(f"{one.name} is left out: it is the run of {known.name} again.")
    groups: dict[str, list[Found]] = {}
    for one in kept:
        for trace in _traces(one.record):
            groups.setdefault(trace, []).append(one)
    gone: set[Path] = set()
    for group in groups.values():
        for one, other in _copies([one for one in group if one.path not in gone]):
            gone.add(one.path)
            told.append(
                f"{one.name} is left out: it has the scores of {other.name} to the last bit"
                + (
                    ", which is the same run with other words."
                    if _what(one.record) == _what(other.record)
                    else ", a run of something else: one of the two is a copy."
                )
            )
    return [one for one in kept if one.path not in gone], told


def _copies(group: list[Found]) -> Iterator[tuple[Found, Found]]:
    """Those of a group with equal results that are left out, each with one that it repeats."""
    for number, one in enumerate(group):
        others = [o for o in group if _what(o.record) != _what(one.record)]
        earlier = [
            o for o in group[:number]
            if o.suite == one.suite and o.record.threat.delivery == one.record.threat.delivery
            and o.record.key != one.record.key
        ]  # fmt: skip
        if others or earlier:
            yield one, (others or earlier)[0]


def _what(record: Record) -> tuple[object, ...]:
    """What can't differ between two runs that give the same scores, to the last bit."""
    spec = record.spec
    attack = ATTACKS.module(spec.attack)  # presets of one file may be the same attack
    return attack, spec.victim, spec.bits, spec.dataset, spec.target, spec.seed


def _traces(record: Record) -> Iterator[str]:
    """Hashes that two runs have in common only if one is a copy of the other.

    Runs of which the trigger moves no code, such as those of the controls, may well be equal.
    """
    parts: list[object] = [record.artifacts]
    if record.scores.field.t_map != record.scores.field.t_map_untriggered:
        parts.append([record.scores, record.retrieval])
    for part in parts:
        yield hashlib.sha256(msgspec.json.encode(part, order="sorted")).hexdigest()
