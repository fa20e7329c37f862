"""Records read and checked, by all cores where there are many."""

import os
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import msgspec

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.records import Record, read_sealed, record_path
from hashbackdoor_bench.report.consistency import check_record
from hashbackdoor_bench.spec import digest

FEW = 500  # records that one process has read before others have started
BATCH = 50  # records that a process reads before it hands them over

Wanted = tuple[Path, bool]  # a file, and whether the user named it


def read_checked(wanted: Sequence[Wanted]) -> Iterator[Record | UserError]:
    """The record of each file, or why it can't be trusted, in the order of the files.

    Reading and checking take most of a leaderboard's time. Other processes do it where there are
    many records and a fork is safe: of a process without other threads, on Linux.

    Args:
        wanted: the files; one that nobody named must stand where its run belongs, and be no link.
    """
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1
    if len(wanted) < FEW or cores < 2 or threading.active_count() > 1:
        yield from map(_checked, wanted)
        return
    number = 0
    try:
        with ProcessPoolExecutor(cores, mp_context=get_context("fork")) as pool:
            decoder = msgspec.msgpack.Decoder(Record)
            batches = [wanted[at : at + BATCH] for at in range(0, len(wanted), BATCH)]
            for batch in pool.map(_packed, batches):
                for one in batch:
                    yield one if isinstance(one, UserError) else decoder.decode(one)
                    number += 1
    except BrokenProcessPool:  # one was killed, such as for memory
        yield from map(_checked, wanted[number:])


def check_place(path: Path, record: Record) -> None:
    """Refuse a record that stands where another run's does.

    Raises:
        UserError: where it belongs.
    """
    place = record_path(Path(), record.spec, record.key)
    found = path.absolute().parts[-3:]
    if found == place.parts:
        return
    beside = place.with_stem(f"{place.stem}-{digest(record.scores)[:6]}")  # see `stages.run`
    if found != beside.parts:
        raise UserError(f"its name and folder are not those of its run, {place.as_posix()}.")


def _checked(wanted: Wanted) -> Record | UserError:
    path, named = wanted
    try:
        record, sealed = read_sealed(path, links=named)
        check_record(record, sealed=sealed)
        if not named:
            check_place(path, record)
    except UserError as error:
        return error
    return record


def _packed(wanted: Iterable[Wanted]) -> list[bytes | UserError]:
    """The same as bytes, which take a quarter of the time of pickling a record."""
    found = map(_checked, wanted)
    return [one if isinstance(one, UserError) else msgspec.msgpack.encode(one) for one in found]
