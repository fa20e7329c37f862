"""Whether a folder of results holds together: records, their scores, indices, and what they make.

`report.collection` says what is wrong with a record alone; here are the codes it came from, the
index it stands in, and the leaderboard that was made from it.
"""

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from hashbackdoor_bench.cache import Cache
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.progress import Progress, silent
from hashbackdoor_bench.records import INDEX, Record
from hashbackdoor_bench.report.board_text import leaderboard_text
from hashbackdoor_bench.report.collection import collect
from hashbackdoor_bench.report.leaderboard import boards
from hashbackdoor_bench.rescoring import rescore

CODES = tuple(
    f"{who}'s {part}" for who in ("clean victim", "victim") for part in ("plain", "triggered")
)


@dataclass(frozen=True)
class Verified:
    """What was looked at.

    Attributes:
        records: how many can be read and follow from their own spec.
        rescored: how many of them have codes in the cache, and were scored again.
        problems: a sentence each.
    """

    records: int
    rescored: int
    problems: tuple[str, ...]


def verify(folder: Path, cache: Cache, *, progress: Progress = silent, **where: Any) -> Verified:
    """Look at all records below a folder, and at what was made from them.

    Args:
        folder: of results.
        cache: may hold codes.
        progress: see `Progress`.
        where: ``lists`` and ``root``, where they differ from the records' specs.

    Raises:
        UserError: there is no record.
    """
    found = collect([folder])
    problems = list(found.left_out)
    rescored = 0
    for done, (path, record) in enumerate(zip(found.frame.path, found.frame.record, strict=True)):
        progress("score again", done, len(found.frame))
        if all(cache.has("codes", record.artifacts.get(name, "-")) for name in CODES):
            rescored += 1
            problems += [f"{path}: {text}" for text in _scores(record, cache, where)]
    progress("score again", len(found.frame), len(found.frame))
    records = zip(found.frame.path, found.frame.record, strict=True)
    known = {Path(path).absolute(): record for path, record in records}
    for index in sorted(folder.rglob(INDEX)):
        problems += [f"{index}: {text}" for text in _index(index, known)]
    for name, make in MADE.items():
        path = folder / name
        if path.is_file():
            problems += [f"{path}: {text}" for text in _made(path, found.frame, make)]
    return Verified(len(found.frame), rescored, tuple(problems))


def _scores(record: Record, cache: Cache, where: dict[str, Any]) -> Iterator[str]:
    """Scores that don't follow from the stored codes."""
    try:
        scores = rescore(record, cache, **where)
    except UserError as error:
        yield f"it can't be scored again: {error}"
        return
    for convention, row in scores.items():
        for name, value in row.items():
            claimed = record.scores[convention].get(name)
            if claimed != value:
                yield f"scores.{convention}.{name} is {claimed}; its codes give {value}."


def _index(path: Path, known: dict[Path, Record]) -> Iterator[str]:
    """Rows of an index that are not what the records say."""
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = list(csv.DictReader(file))
    for line, row in enumerate(rows, 2):
        record = known.get((path.parent / str(row.get("record"))).absolute())
        if record is None:
            yield f"line {line} names {row.get('record')}, which is no record that can be read."
            continue
        for name in ("victim", "bits", "target", "seed"):
            said, is_ = row.get(name), str(record.spec[name])
            # a suite may leave the target to the protocol, then the index says nothing
            if said != is_ and not (name == "target" and not said):
                yield f"line {line} says {name} {said}, and its record says {is_}."


def _made(
    path: Path, frame: pd.DataFrame, make: Callable[[str, pd.DataFrame], str]
) -> Iterator[str]:
    """A file that is not what the records give."""
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        again = make(text, frame)
    except UserError as error:
        yield f"it can't be made from these records: {error}"
        return
    lines = zip(text.splitlines(), again.splitlines(), strict=False)
    if text != again:
        number = next((n for n, (a, b) in enumerate(lines, 1) if a != b), len(again.splitlines()))
        yield f"line {number} is not what the records give: make it again with bench leaderboard."


def _leaderboard(text: str, frame: pd.DataFrame) -> str:
    """The leaderboard of the suites that a text has headings of."""
    suites = re.findall(r"^## (.+), [a-z]+$", text, re.MULTILINE)
    return leaderboard_text(boards(frame, list(dict.fromkeys(suites))))


# what stands in a results folder and follows from its records: its text now and the records -> text
MADE: dict[str, Callable[[str, pd.DataFrame], str]] = {"LEADERBOARD.md": _leaderboard}
