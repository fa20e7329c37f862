"""Merging folders of results that several machines have made.

    RESULTS/[SUITE/]index.csv, refused.csv
    RESULTS/[SUITE/]DATASET/VICTIM-BITS/RUN.json, RUN/*.png

A record keeps its place below its folder. Two machines may train other weights in the same run;
then the second record stands beside the first, as `stages.run` puts it, and tables count the first.
Nothing that stands in the merged folder is changed but the index and the list of refused runs,
which are made of those of all folders. Whatever is not taken is named.
"""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from msgspec import structs

from hashbackdoor_bench import report
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.files import open_regular, real, room, whole, writable
from hashbackdoor_bench.png import read_png
from hashbackdoor_bench.progress import Progress, silent
from hashbackdoor_bench.records import (
    INDEX,
    LARGEST,
    REFUSED,
    Record,
    load_record,
    read_record,
    record_path,
)
from hashbackdoor_bench.sharing.joined_index import (
    JoinedIndex,
    files_below,
    indexed,
    refused_and_made,
)
from hashbackdoor_bench.spec import digest
from hashbackdoor_bench.text import visible

LARGEST_PICTURE = 50_000_000  # bytes; a usual one has 100 000


@dataclass
class Merged:
    """What was merged.

    Attributes:
        copied: number of records that were copied.
        known: number of records that were there already, or came from two folders.
        conflicts: a sentence for whatever two folders say differently, and what became of it.
        refused: a sentence for every record that was not taken, and why.
        left: a sentence for every other file that was not taken, and why.
        unread: a sentence for every record of the merged folder that tables leave out, and why.
        apart: keys of the runs whose record stands beside another one.
    """

    copied: int = 0
    known: int = 0
    conflicts: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    apart: list[str] = field(default_factory=list)


def merge(sources: Sequence[Path], into: Path, progress: Progress = silent) -> Merged:
    """Copy the records of several folders of results into one, with their pictures and index.

    The same call again continues an interrupted one.

    Args:
        sources: the folders; what two of them have is taken from the first.
        into: the merged folder, which may hold results already; they come first.
        progress: see `Progress`.

    Raises:
        UserError: a folder is missing, is given twice or lies in another, or can't be written.
    """
    _check_folders(sources, into)
    writable(into, "--into")
    merged = Merged()
    indexes: dict[Path, JoinedIndex] = {}
    for root in indexed(into):
        index = indexes.setdefault(root.relative_to(into), JoinedIndex())
        merged.conflicts += index.add(root)
    for source in sources:
        if real(source) != real(into):
            _merge_one(source, into, indexes, merged, progress)
    with room(into):
        for place, index in indexes.items():
            index.write(into / place)
    try:
        found = report.collect([into.absolute()])
    except report.NoRecords as error:
        merged.unread += error.left_out
    else:
        merged.unread += found.left_out
        merged.conflicts += refused_and_made(found)
    return merged


def _check_folders(sources: Sequence[Path], into: Path) -> None:
    """Refuse folders that can't be merged.

    Raises:
        UserError: which, and why.
    """
    if into.exists() and not into.is_dir():
        raise UserError(f"--into {into} is no folder: give another name.")
    seen: dict[Path, Path] = {}
    for source in sources:
        if not source.is_dir():
            raise UserError(f"{source} is no folder: give folders of results.")
        place = real(source)
        if place in seen:
            raise UserError(f"{source} is given twice, as {seen[place]}: give each folder once.")
        seen[place] = source
    for one, other in ((a, b) for a in (*seen, real(into)) for b in seen if a != b):
        if one.is_relative_to(other) or other.is_relative_to(one):
            raise UserError(
                f"{one} and {other} lie in one another: give folders that have no file in common, "
                "and another --into."
            )


def _merge_one(
    source: Path, into: Path, indexes: dict[Path, JoinedIndex], merged: Merged, progress: Progress
) -> None:
    """Merge one folder."""
    scan = report.scan_records(source.absolute())
    merged.left += scan.left_out
    taken: set[Path] = set()  # files of the source that are dealt with
    places: dict[Path, dict[str, str]] = {}  # by root: where its records have gone
    for done, path in enumerate(scan.paths):
        progress(f"merge {source}", done, len(scan.paths))
        taken.add(path)
        try:
            root, record, data = _read(path, source.absolute())
        except UserError as error:
            merged.refused.append(visible(f"{path} is left out: {error}"))
            continue
        place = root.relative_to(source.absolute())
        found = _put(path, record, data, into / place, merged)
        if found is not None:
            taken |= _put_pictures(path.with_suffix(""), found.with_suffix(""), merged)
            names = places.setdefault(place, {})
            names[path.relative_to(root).as_posix()] = found.relative_to(into / place).as_posix()
    progress(f"merge {source}", len(scan.paths), len(scan.paths))
    for root in indexed(source.absolute()):
        taken |= {root / INDEX, root / REFUSED}
        place = root.relative_to(source.absolute())
        index = indexes.setdefault(place, JoinedIndex())
        merged.conflicts += index.add(root, places.get(place, {}))
    for path in files_below(source.absolute()):
        if path not in taken:
            merged.left.append(visible(f"{path} is not copied: it belongs to no record."))


def _read(path: Path, source: Path) -> tuple[Path, Record, bytes]:
    """A record with the bytes of its file, and the folder in which its data set's folder lies.

    Raises:
        UserError: it can't be read, contradicts itself, or stands in another run's place.
    """
    try:
        with open_regular(path, links=False) as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise UserError(f"it can't be read ({error.strerror}).") from error
    record = load_record(io.BytesIO(data), "it")
    report.check_record(record)
    report.check_place(path, record)
    root = path.parent.parent.parent
    if not root.is_relative_to(source):
        raise UserError("give the folder in which the folder of its data set lies.")
    return root, record, data


def _put(path: Path, record: Record, data: bytes, root: Path, merged: Merged) -> Path | None:
    """Copy a record below ``root``; returns where it or its equal stands, None if it can't."""
    first = record_path(root, record.spec, record.key)
    beside = first.with_stem(f"{first.stem}-{digest(record.scores)[:6]}")
    for place in (first, beside):
        if not os.path.lexists(place):
            with room(root):
                place.parent.mkdir(parents=True, exist_ok=True)
                with whole(place) as fresh:
                    fresh.write_bytes(data)
            merged.copied += 1
            if place is beside:
                merged.apart.append(record.key)
                merged.conflicts.append(
                    visible(
                        f"{path} is the run of {first} with other results (made on "
                        f"{record.device}): kept beside it as {place.name}; tables count the first."
                    )
                )
            return place
        try:
            other = read_record(place, links=False)
        except UserError as error:
            merged.refused.append(visible(f"{path} is left out: in its place, {error}"))
            return None
        if _results(other) == _results(record):
            merged.known += 1
            if place is beside:
                merged.apart.append(record.key)
            return place
    merged.refused.append(
        visible(
            f"{path} is left out: it has the scores of {beside.name} but differs in other results, "
            "so one of the two was changed: look at both, and remove one."
        )
    )
    return None


def _results(record: Record) -> Record:
    """A record without what says where and when it was made."""
    return structs.replace(
        record, seconds={}, device="", versions={}, commit=None, dirty=None, checksum=None
    )


def _put_pictures(folder: Path, to: Path, merged: Merged) -> set[Path]:
    """Copy the pictures of a run that are missing; returns the files that were dealt with."""
    seen: set[Path] = set()
    if folder.is_symlink() or not folder.is_dir():
        return seen
    for path in sorted(folder.glob("*.png")):
        seen.add(path)
        try:
            with open_regular(path, links=False) as file:
                data = file.read(LARGEST_PICTURE + 1)
            if len(data) > LARGEST_PICTURE:
                raise UserError(f"it has more than {LARGEST_PICTURE / 1e6:g} MB")
            read_png(data)
        except (OSError, ValueError, UserError) as error:
            merged.left.append(visible(f"{path} is not copied: {error}"))
            continue
        place = to / path.name
        if not os.path.lexists(place):
            with room(to.parent):
                to.mkdir(exist_ok=True)
                with whole(place) as fresh:
                    fresh.write_bytes(data)
        elif place.read_bytes() != data:
            merged.conflicts.append(
                visible(f"{path} differs from {place}, of the same results: the latter is kept.")
            )
    return seen
