"""Temporary folders that are removed even if their process was killed: by the next one.

Each process holds a lock in its folder, which the operating system releases when it ends.
"""

import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.locks import try_lock

PREFIX = "hashbackdoor-"
LOCK = ".lock"
YOUNG = 60.0  # seconds in which a folder may not have its lock yet
_held: list[FileLock] = []  # a lock is released when it is no longer referred to


def temporary_folder() -> tuple[Path, FileLock]:
    """A new folder and the lock that keeps it; what dead processes left is removed."""
    for other in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError, UserError):
            seen = other.lstat()
            mine = seen.st_uid == os.getuid() and other.is_dir() and not other.is_symlink()
            if mine and time.time() - seen.st_mtime > YOUNG:
                lock = try_lock(other / LOCK)
                if lock is not None:
                    remove(other, lock)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    lock = try_lock(folder / LOCK)
    assert lock is not None, "its name is random"
    _held.append(lock)
    return folder, lock


def remove(folder: Path, lock: FileLock) -> None:
    """Remove a folder whose lock is held here."""
    shutil.rmtree(folder, ignore_errors=True)
    lock.release()
