"""What running processes use of a cache, so that nobody takes it away from them.

A user, which is a run or a suite, has its keys in ``users/<name>.json`` and holds the lock beside
it. The system releases the lock of a process that died, however it died: the files of a user whose
lock is free are removed by whoever meets them next. (A lock for each key would need more open files
than a process may have, as suites have hundreds of keys; one for the whole cache would let nobody
prune it while a suite runs.)
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
    """Nothing under these keys is pruned before the block ends.

    Args:
        root: of the cache.
        keys: of artifacts, and of attackers for the stages that they share.
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
    """Who wants to use the cache waits until the block ends."""
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
            with suppress(FileNotFoundError):  # its process ends just now
                keys |= set(json.loads(path.read_text(encoding="utf-8")))
        else:
            _forget(path, lock)
    return keys


def _forget(path: Path, lock: FileLock) -> None:
    """Remove the files of a user whose lock is held here."""
    path.unlink(missing_ok=True)
    lock.release()
    Path(lock.lock_file).unlink(missing_ok=True)
