"""What records may not do together: have each other's labels, or be copies of one another."""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.records import INDEX, Record
from hashbackdoor_bench.registry import ATTACKS
from hashbackdoor_bench.report.suite_index import IndexLine, attack_of_label
from hashbackdoor_bench.text import visible


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
        return visible(self.path.as_posix())

    @property
    def suite(self) -> str | None:
        """Name of its suite."""
        return self.line.suite if self.line else None

    @property
    def order(self) -> tuple[int, float]:
        """Its place among the rows: that of the index."""
        return self.folder, self.line.number if self.line else math.inf


def with_checked_labels(
    found: Iterable[Found], folders: Sequence[Path]
) -> tuple[list[Found], list[str]]:
    """The records, without those labels that contradict them, and a sentence for each of these.

    Args:
        found: the records.
        folders: the folders that their numbers mean.
    """
    some = list(found)
    attacks: dict[int, set[str]] = {}
    for one in some:
        attacks.setdefault(one.folder, set()).add(ATTACKS.published(one.record.spec.attack))
    begins = {text: attack_of_label(text) for text in {one.line.label for one in some if one.line}}
    kept: list[Found] = []
    told: list[str] = []
    labelled: dict[tuple[int, str], str] = {}  # the attack of each label of an index
    for one in some:
        if one.line is None:
            kept.append(one)
            continue
        try:
            one.line.check(one.record, begins[one.line.label], attacks[one.folder])
            attack = one.record.spec.attack
            known = labelled.setdefault((one.folder, one.line.label), attack)
            if known != attack:
                raise UserError(
                    f"it labels {attack} {one.line.label!r}, as another line labels {known}"
                )
            kept.append(one)
        except UserError as error:
            index = folders[one.folder] / INDEX
            told.append(visible(f"{index.as_posix()}, line {one.line.number} is refused: {error}."))
            kept.append(replace(one, line=None))
    return kept, told


def without_copies(found: Iterable[Found]) -> tuple[list[Found], list[str]]:
    """The records of which none is a copy of another, and a sentence for each that is left out.

    A run that is there twice counts once, the first time; but two suites may share a run. Of two
    runs with the same artifacts, or the same scores to the last bit, one is the other again if they
    are of one attack, victim, class, seed and data set, such as with a budget that was given as a
    number of images; but two rows of a suite may be equal, if what they differ in changes nothing.
    If they are not of one attack and so on, one was made of the other. Which one can't be told, so
    both are left out.
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
    groups: dict[object, list[Found]] = {}
    scored = Counter(_scores(one.record) for one in kept)
    for one in kept:
        for trace in _traces(one.record, alone=scored[_scores(one.record)] == 1):
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
            and o.record.key != one.record.key and _defense(o.record) == _defense(one.record)
            and not _of_two_rows(o, one)
        ]  # fmt: skip
        if others or earlier:
            yield one, (others or earlier)[0]


def _of_two_rows(one: Found, other: Found) -> bool:
    """Whether an index labels two runs of one attack differently: a setting changes nothing there.

    Presets of one file are other attacks here: the scores of Tri can't be those of CIBA.
    """
    same = one.record.spec.attack == other.record.spec.attack
    return same and bool(one.line and other.line and one.line.label != other.line.label)


def _what(record: Record) -> tuple[object, ...]:
    """What can't differ between two runs that give the same scores, to the last bit."""
    spec = record.spec
    attack = ATTACKS.module(spec.attack)  # presets of one file may be the same attack
    return attack, spec.victim, spec.bits, spec.dataset, spec.target, spec.seed


def _defense(record: Record) -> tuple[object, ...]:
    """What the scores of a run don't depend on, since they are those without it."""
    spec = record.spec
    return spec.defense, spec.defense_settings, spec.clean_share, spec.operating_point


def _scores(record: Record) -> tuple[object, ...]:
    """A few of the scores, which two runs with the same results have in common."""
    field = record.scores.field
    return field.map, field.t_map, field.t_map_clean_victim, field.t_map_untriggered


def _traces(record: Record, *, alone: bool) -> Iterator[object]:
    """What two runs have in common only if one is a copy of the other.

    Runs of which the trigger moves no code, such as those of the controls, may well be equal.

    Args:
        record: of the run.
        alone: whether no other record has its `_scores`.
    """
    yield frozenset(record.artifacts.items())
    if not alone and record.scores.field.t_map != record.scores.field.t_map_untriggered:
        results = msgspec.json.encode([record.scores, record.retrieval], order="sorted")
        yield hashlib.sha256(results).digest()
