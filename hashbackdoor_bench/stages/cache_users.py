"""What running processes use of a cache, so that nobody takes it away from them.

A mark is a file ``users/<name>.json`` with keys, and a lock beside it that its process holds: the
system releases the lock of a process that died, however it died, so a mark can't outlive it.
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
    """Mark keys as used until the block ends.

    Args:
        root: of the cache.
        keys: of artifacts, and of attackers for the stages that they share.
    """
    mark = root / "users" / f"{os.getpid()}-{secrets.token_hex(4)}.json"
    lock = FileLock(mark.with_suffix(".lock"))
    with no_new_users(root):
        lock.acquire()
        mark.write_text(json.dumps(sorted(keys)), encoding="utf-8")
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


@contextmanager
def no_new_users(root: Path) -> Iterator[None]:
    """No mark appears while the block runs: who starts meanwhile waits."""
    (root / "users").mkdir(parents=True, exist_ok=True)
    with FileLock(root / "users" / "no_new_users.lock"):
        yield


def keys_in_use(root: Path) -> set[str]:
    """The keys that running processes use; call it in `no_new_users`. Marks of the dead go."""
    keys: set[str] = set()
    for mark in (root / "users").glob("*.json"):
        lock = FileLock(mark.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            with suppress(FileNotFoundError):  # its process ends just now
                keys |= set(json.loads(mark.read_text(encoding="utf-8")))
            continue
        mark.unlink(missing_ok=True)
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)
    return keys
