"""Checking a folder of results: records against codes, indices, leaderboard and figures.

`report.collection` checks each record by itself. This module compares it with the codes from which
it was scored, with the index, and with the leaderboard and figures that were made from it.
"""

import csv
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pandas as pd

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.progress import Progress, silent
from hashbackdoor_bench.records import CONVENTIONS, INDEX, Record
from hashbackdoor_bench.report import collect
from hashbackdoor_bench.report.board import boards
from hashbackdoor_bench.report.figures import all_figures
from hashbackdoor_bench.report.tables import leaderboard_text
from hashbackdoor_bench.stages import STAGES, Cache
from hashbackdoor_bench.trust.rescoring import rescore

CODES = tuple(stage.name for stage in STAGES if stage.kind == "codes")
ENDINGS = (".md", ".pdf", ".png")  # suffixes of a figure's files


@dataclass(frozen=True)
class Verified:
    """The result of a verification.

    Attributes:
        records: number of records that can be read and have the right key.
        rescored: number of those that have codes in the cache and were scored again.
        problems: one sentence per problem.
    """

    records: int
    rescored: int
    problems: tuple[str, ...]


def verify(folder: Path, cache: Cache, *, progress: Progress = silent, **where: Any) -> Verified:
    """Check all records below a folder, and the files that were made from them.

    Args:
        folder: folder of results.
        cache: cache that may have the records' codes.
        progress: see `Progress`.
        where: ``lists`` and ``root``, if they differ from the records' specs.

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
    board, figures = folder / "LEADERBOARD.md", folder / "figures"
    if board.is_file():
        problems += [f"{board}: {text}" for text in _leaderboard(board, found.frame)]
    if figures.is_dir():
        problems += _figures(figures, found.frame, progress)
    return Verified(len(found.frame), rescored, tuple(problems))


def _scores(record: Record, cache: Cache, where: dict[str, Any]) -> Iterator[str]:
    """Scores that differ from those of the stored codes."""
    try:
        scores = rescore(record, cache, **where)
    except UserError as error:
        yield f"it can't be scored again: {error}"
        return
    for convention in CONVENTIONS:
        for name in scores[convention].__struct_fields__:
            claimed, value = (getattr(one[convention], name) for one in (record.scores, scores))
            if claimed != value:
                yield f"scores.{convention}.{name} is {claimed}; its codes give {value}."


def _index(path: Path, known: dict[Path, Record]) -> Iterator[str]:
    """Rows of an index that differ from the records."""
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = list(csv.DictReader(file))
    for line, row in enumerate(rows, 2):
        record = known.get((path.parent / str(row.get("record"))).absolute())
        if record is None:
            yield f"line {line} names {row.get('record')}, which is not a readable record."
            continue
        for name in ("victim", "bits", "target", "seed"):
            listed, recorded = row.get(name), str(getattr(record.spec, name))
            # the target in the index is empty if the suite takes the protocol's default
            if listed != recorded and not (name == "target" and not listed):
                yield f"line {line} has {name} {listed}, but its record has {recorded}."


def _leaderboard(path: Path, frame: pd.DataFrame) -> Iterator[str]:
    """The first line of a leaderboard that differs from one made again of the same suites."""
    text = path.read_text(encoding="utf-8", errors="replace")
    suites = re.findall(r"^## (.+), [a-z]+$", text, re.MULTILINE)
    try:
        again = leaderboard_text(boards(frame, list(dict.fromkeys(suites))))
    except UserError as error:
        yield f"it can't be made from these records: {error}"
        return
    if text != again:
        lines = zip_longest(text.splitlines(), again.splitlines())
        number = next((n for n, (one, other) in enumerate(lines, 1) if one != other), 1)
        yield f"line {number} is not what the records give: make it again with bench leaderboard."


def _figures(folder: Path, frame: pd.DataFrame, progress: Progress) -> Iterator[str]:
    """Files that ``bench figure --all`` doesn't make, or makes with other bytes."""
    there = {path.name: path for path in folder.iterdir() if path.suffix in ENDINGS}
    with tempfile.TemporaryDirectory() as fresh:
        for done, drawn in enumerate(all_figures(frame)):
            progress("draw again", done, done + 1)
            if isinstance(drawn, str):  # a note on a figure for which there are no records
                continue
            for made in drawn.write(Path(fresh), ("pdf", "png")):
                path = there.pop(made.name, None)
                if path is not None and path.read_bytes() != made.read_bytes():
                    yield (
                        f"{path}: the records give other bytes with matplotlib "
                        f"{version('matplotlib')}: make it again with bench figure --all."
                    )
    for path in there.values():
        yield f"{path}: bench figure --all of these records doesn't make it."
