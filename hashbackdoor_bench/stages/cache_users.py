"""Which artifacts of a cache are in use by running processes, so that they are not pruned.

A user (a run or a suite) writes its keys to ``users/<name>.json`` and holds a lock beside that
file. The operating system releases the lock when the process ends in any way; the next process that
finds the lock free removes both files. (One lock per key would exceed the limit of open files,
since suites have hundreds of keys; with one lock for the whole cache, nothing could be pruned while
a suite runs.)
"""

import json
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def in_use(root: Path, keys: Iterable[str]) -> Iterator[None]:
    """Keep artifacts from being pruned until the block ends.

    Args:
        root: folder of the cache.
        keys: keys of artifacts, and of attackers for the stages that they share.
    """
    path = root / "users" / f"{os.getpid()}-{secrets.token_hex(4)}.json"
    lock = FileLock(path.with_suffix(".lock"))
    with no_new_users(root):
        lock.acquire()
        path.write_text(json.dumps(sorted(keys)), encoding="utf-8")
    try:
        yield
    finally:
        _forget(path, lock)


@contextmanager
def no_new_users(root: Path) -> Iterator[None]:
    """Make all other processes wait with `in_use` until the block ends."""
    (root / "users").mkdir(parents=True, exist_ok=True)
    with FileLock(root / "no_new_users.lock"):
        yield


def keys_in_use(root: Path) -> set[str]:
    """The keys that running processes use; call it in `no_new_users`."""
    keys: set[str] = set()
    for name in {path.stem for path in (root / "users").iterdir()}:
        path = root / "users" / f"{name}.json"
        lock = FileLock(path.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            with suppress(FileNotFoundError):  # that process has just ended
                keys |= set(json.loads(path.read_text(encoding="utf-8")))
        else:
            _forget(path, lock)
    return keys


def _forget(path: Path, lock: FileLock) -> None:
    """Remove the files of a user whose lock is held here."""
    path.unlink(missing_ok=True)
    lock.release()
    Path(lock.lock_file).unlink(missing_ok=True)
