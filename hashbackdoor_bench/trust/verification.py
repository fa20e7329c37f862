"""Checking a folder of results: records against codes, indices, leaderboard and figures.

`report.collection` checks each record by itself. This module compares it with the codes from which
it was scored, with the index, and with the leaderboard and figures that were made from it.
"""

import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pandas as pd
from msgspec import to_builtins

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.files import open_regular
from hashbackdoor_bench.progress import Progress, silent
from hashbackdoor_bench.records import CONVENTIONS, INDEX, Record
from hashbackdoor_bench.report import (
    Collection,
    NoRecords,
    collect,
    for_markdown,
    read_index,
    undefended,
)
from hashbackdoor_bench.report.board import boards, defense_boards
from hashbackdoor_bench.report.figures import all_figures
from hashbackdoor_bench.report.tables import leaderboard_text
from hashbackdoor_bench.stages import CONTROL, VICTIM, Cache, code_stages
from hashbackdoor_bench.text import visible
from hashbackdoor_bench.trust.reproduction import flat
from hashbackdoor_bench.trust.rescoring import rescore

CODES = (*code_stages(CONTROL).values(), *code_stages(VICTIM).values())
LARGEST = 50_000_000  # bytes of a leaderboard or a figure
# of a board: suite, delivery, type of labels, regime
HEAD = re.compile(r"^## (.+), delivery [a-z]+(?::\d+)?, [a-z]+ labels, [a-z -]+$", re.MULTILINE)
ENDINGS = (".md", ".pdf", ".png")  # suffixes of a figure's files


@dataclass(frozen=True)
class Verified:
    """The result of a verification.

    Attributes:
        records: number of records that can be read and agree with themselves.
        rescored: number of those that have codes in the cache and were scored again.
        without_checksum: number of those that older code wrote, without a checksum.
        not_verifiable: paths of those whose codes are not here, so that nothing shows whether their
            scores are true.
        problems: one sentence per problem.
    """

    records: int
    rescored: int
    without_checksum: int
    not_verifiable: tuple[str, ...]
    problems: tuple[str, ...]


def verify(
    folder: Path, cache: Cache | None, *, progress: Progress = silent, **where: Any
) -> Verified:
    """Check all records below a folder, and the files that were made from them.

    Args:
        folder: folder of results.
        cache: cache that may have the records' codes; None: there is none.
        progress: see `Progress`.
        where: ``lists`` and ``root``, if they differ from the records' specs.

    Raises:
        UserError: there is nothing that could be a record.
    """
    try:
        found = collect([folder])
    except NoRecords as error:
        if error.left_out:
            return Verified(0, 0, 0, (), error.left_out)
        raise
    problems = list(found.left_out)
    not_verifiable = []
    records = dict(zip(found.frame.path, found.frame.record, strict=True))
    for done, (path, record) in enumerate(records.items()):
        progress("score again", done, len(records))
        if cache and all(cache.has("codes", record.artifacts.get(name, "-")) for name in CODES):
            problems += [f"{path}: {text}" for text in _scores(record, cache, where)]
        else:
            not_verifiable.append(path)
    progress("score again", len(records), len(records))
    problems += _clean_victims(records)
    known = {Path(path).absolute() for path in records}
    for index in sorted(folder.rglob(INDEX)):
        problems += [text for text in _index(index, known) if text not in problems]
    board, figures = folder / "LEADERBOARD.md", folder / "figures"
    if board.exists():
        problems += [f"{board}: {text}" for text in _leaderboard(board, found)]
    if figures.is_dir():
        problems += _figures(figures, found.frame, progress)
    return Verified(
        records=len(records),
        rescored=len(records) - len(not_verifiable),
        without_checksum=sum(record.checksum is None for record in records.values()),
        not_verifiable=tuple(not_verifiable),
        problems=tuple(problems),
    )


def _scores(record: Record, cache: Cache, where: dict[str, Any]) -> Iterator[str]:
    """What differs from the scores and the retrieval of the stored codes."""
    try:
        scores, retrieval = rescore(record, cache, **where)
    except UserError as error:
        yield f"it can't be scored again: {error}"
        return
    for convention in CONVENTIONS:
        for name in scores[convention].__struct_fields__:
            claimed, value = (getattr(one[convention], name) for one in (record.scores, scores))
            if claimed != value:
                yield f"scores.{convention}.{name} is {claimed}; its codes give {value}."
    old, new = (dict(flat(to_builtins(one), "retrieval")) for one in (record.retrieval, retrieval))
    for name, claimed in old.items():  # records of older code lack some of the new values
        value = new.get(name)
        rounding = 2e-3 if name.startswith("retrieval.codes_2d") else 1e-9
        same = (
            abs(claimed - value) <= rounding
            if isinstance(claimed, float) and isinstance(value, float)
            else claimed == value
        )
        if not same:
            yield f"{name} is {claimed}; its codes give {value}."


def _clean_victims(records: Mapping[str, Record]) -> Iterator[str]:
    """Records of one clean victim that give it different scores."""
    first: dict[tuple[object, ...], tuple[str, Record]] = {}
    for path, record in records.items():
        codes = record.artifacts.get(code_stages(CONTROL)["plain"])
        if codes is None:
            continue
        facts = record.protocol
        known, other = first.setdefault(
            (codes, facts.sha256, facts.top_k, record.device, *record.versions.items()),
            (path, record),
        )
        for convention in CONVENTIONS:
            one, two = (r.scores[convention].map_clean_victim for r in (record, other))
            if one != two and (one is None or two is None or abs(one - two) > 1e-9):
                yield (
                    f"{path}: scores.{convention}.map_clean_victim is {one}, and {two} in {known} "
                    f"of the same clean victim, {codes[:12]}: one of the two was changed, or they "
                    "were not computed by the same number of threads."
                )


def _index(path: Path, known: set[Path]) -> Iterator[str]:
    """What is wrong with an index, and its lines that name no readable record."""
    index = read_index(path)
    yield from index.problems
    for line in index.lines.values():
        if (path.parent / line.record).absolute() not in known:
            yield (
                f"{visible(str(path))}: line {line.number} names {visible(line.record)}, which "
                "is not a readable record."
            )


def _content(path: Path) -> bytes | None:
    """A file's bytes, at most ``LARGEST``; None where there is no such file."""
    try:
        with open_regular(path, links=False) as file:
            return file.read(LARGEST)
    except (OSError, UserError):
        return None


def _leaderboard(path: Path, read: Collection) -> Iterator[str]:
    """The first line of a leaderboard that differs from one made again of the same suites."""
    text = (_content(path) or b"").decode("utf-8", errors="replace")
    frame = undefended(read.frame)
    written = {for_markdown(name): name for name in frame["suite"].dropna()}
    heads = dict.fromkeys(HEAD.findall(text))
    try:
        suites = [written.get(head, head) for head in heads]
        defenses = defense_boards(read.frame, suites, read.refused)
        again = leaderboard_text(boards(frame, suites), defenses)
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
                if path is not None and _content(path) != made.read_bytes():
                    yield (
                        f"{path}: the records give other bytes with matplotlib "
                        f"{version('matplotlib')}: make it again with bench figure --all."
                    )
    for path in there.values():
        yield f"{path}: bench figure --all of these records doesn't make it."
