"""Locks between processes, each a file; whoever waits is told who holds it and since when.

The operating system releases a lock when its holder ends in any way. A holder that is stopped, by
Ctrl-Z for example, keeps it; so the holder writes its number, machine and time beside the lock.
"""

import json
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.progress import Progress, silent
from hashbackdoor_bench.text import one_line, shortened

MINUTE = 60.0  # seconds between two notes to who waits


@contextmanager
def locked(path: Path, what: str, progress: Progress = silent) -> Iterator[None]:
    """Hold a lock in the block; wait for it as long as another process holds it.

    Args:
        path: the lock's file.
        what: what the holder does, as part of a sentence: ``making codes 1a2b3c``.
        progress: called once if the lock is held by another process.

    Raises:
        UserError: the file can't be made, or its file system has no locks.
    """
    lock = try_lock(path)
    if lock is None:
        progress(f"waiting for the process that is {what}", 0, 1)
        lock = FileLock(path)
        while not _acquired(lock, MINUTE):
            warnings.warn(f"waiting for {holder(path)}, which is {what}.")
    about = _beside(path)
    with suppress(OSError):  # the lock is held without it too
        since = datetime.now().isoformat(" ", "seconds")
        about.write_text(json.dumps([os.getpid(), socket.gethostname(), since]))
    try:
        yield
    finally:
        with suppress(OSError):
            about.unlink(missing_ok=True)
        lock.release()


def try_lock(path: Path) -> FileLock | None:
    """Take a lock, which its caller must release; None if another process holds it.

    Raises:
        UserError: see `locked`.
    """
    lock = FileLock(path)
    return lock if _acquired(lock, 0) else None


def holder(path: Path) -> str:
    """Who holds a lock and since when, in words; what it left is not trusted."""
    try:
        pid, host, since = json.loads(_beside(path).read_text(encoding="utf-8")[:1000])
    except (OSError, ValueError, TypeError):
        return f"another process, which holds {path}"
    words = shortened(one_line(f"process {pid} on {host}, since {since}"), 120)
    if host == socket.gethostname() and _stopped(pid):
        return f"{words}, which is stopped (`kill -CONT {pid}` lets it go on)"
    return words


def _acquired(lock: FileLock, timeout: float) -> bool:
    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        return False
    except (OSError, NotImplementedError) as error:
        path = Path(lock.lock_file)
        if path.is_dir():
            raise UserError(
                f"{path} is a directory where a lock must be: remove it and give the same command "
                "again."
            ) from error
        raise UserError(
            f"{path} can't be locked ({getattr(error, 'strerror', None) or error}): take a folder "
            "on a local disk, for the cache with --cache-dir."
        ) from error
    return True


def _stopped(pid: object) -> bool:
    """Whether a process of this machine is stopped, where /proc says so."""
    if not isinstance(pid, int):
        return False
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state in ("T", "t")


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.held")
