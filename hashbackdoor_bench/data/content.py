"""The content of files as one hash, which is computed again only when a file was written to.

Names, sizes and times of two sets of images can be equal though the images are not (archives with
fixed times, for example), so what is made of files is named by their SHA-256. Hashing takes about
0.6 s per GB and a core. What was found is remembered in a small file, together with a hash of the
stamps of all files. A stamp has the file's inode and the time of its last change of status, which
programs can't set, so other files, or the same file with other bytes, have other stamps. Files that
were changed within MARGIN seconds are not remembered, because a second change could fall into the
same tick of the clock.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from pathlib import Path

from hashbackdoor_bench.data.decode import refused
from hashbackdoor_bench.data.splits import SPLITS, Items
from hashbackdoor_bench.files import sha256_of, stamp, whole
from hashbackdoor_bench.progress import Progress

MARGIN = 2.0  # s: the coarsest clock of a file system in use (FAT's) ticks every two seconds
CHUNK = 64  # files per update of the progress bar
UNREADABLE = "unreadable"  # in place of the hash or the stamp of a file


def remembered(memo: Path, files: Sequence[str], make: Callable[[], str]) -> str:
    """What ``make`` returns, or what it returned when these files had the same stamps.

    Args:
        memo: where that is kept; a memo that can't be read or written is done without.
        files: all files that ``make`` reads.
        make: returns any text.
    """
    stamps = [_stamp(file) for file in files]
    before = _digest(files, stamps)
    with suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(memo.read_text("utf-8"))
        if kept["stamps"] == before and isinstance(kept["found"], str):
            return str(kept["found"])
    start = time.time_ns()
    found = make()
    newest = max((int(one.rpartition(" ")[2]) for one in stamps if one != UNREADABLE), default=0)
    unchanged = before == _digest(files, [_stamp(file) for file in files])
    if unchanged and newest < start - MARGIN * 1e9:
        with suppress(OSError):
            memo.parent.mkdir(parents=True, exist_ok=True)
            with whole(memo) as fresh:
                fresh.write_text(json.dumps({"stamps": before, "found": found}), "utf-8")
    return found


def content_of(items: Items, memo: Path, pool: Executor, progress: Progress, stage: str) -> str:
    """SHA-256 over the ids of all items in their order and the SHA-256 of their files.

    Args:
        items: the items; files that can't be read count as empty.
        memo: see `remembered`.
        pool: where files are hashed.
        progress: called with the number of hashed files, unless the memo knows them.
        stage: what is being done, in words.
    """
    files = sorted({file for part in items.files for file in part})
    splits = zip(SPLITS, items.ids, strict=True)
    ids = [f"{split} {name}" for split, names in splits for name in names]

    def hash_all() -> str:
        progress(stage, 0, len(files))
        each = {}
        for file, found in zip(files, pool.map(_hash, files), strict=True):
            each[file] = found
            if len(each) % CHUNK == 0 or len(each) == len(files):
                progress(stage, len(each), len(files))
        hashes = [each[file] for part in items.files for file in part]
        return _digest(ids, hashes)

    pairs = _digest(ids, [file for part in items.files for file in part])
    return remembered(memo.with_name(f"{memo.name}-{pairs[:16]}.json"), files, hash_all)


def _hash(file: str) -> str:
    if refused(file):
        return UNREADABLE
    try:
        return sha256_of(Path(file))
    except OSError:
        return UNREADABLE


def _stamp(file: str) -> str:
    try:
        return stamp(file)
    except (OSError, ValueError):
        return UNREADABLE


def _digest(names: Iterable[str], values: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for name, value in zip(names, values, strict=True):
        digest.update(f"{name!a} {value!a}\n".encode())
    return digest.hexdigest()
