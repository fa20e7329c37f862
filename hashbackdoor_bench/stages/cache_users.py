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
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.files import room, whole
from hashbackdoor_bench.locks import locked, try_lock

Keys = set[str] | None  # None: a running process uses keys that can't be read


@contextmanager
def in_use(root: Path, keys: Iterable[str]) -> Iterator[None]:
    """Keep artifacts from being pruned until the block ends; what dead users left is removed.

    Args:
        root: folder of the cache.
        keys: keys of artifacts, and of attackers for the stages that they share.

    Raises:
        UserError: the folder can't be written.
    """
    path = root / "users" / f"{os.getpid()}-{secrets.token_hex(4)}.json"
    with no_new_users(root):
        for other in _users(root):
            _keys(other)
        lock = try_lock(path.with_suffix(".lock"))
        assert lock is not None, "its name is random"
        with room(root), whole(path) as fresh:
            fresh.write_text(json.dumps(sorted(keys)), encoding="utf-8")
    try:
        yield
    finally:
        _forget(path, lock)


@contextmanager
def no_new_users(root: Path) -> Iterator[None]:
    """Make all other processes wait with `in_use` until the block ends."""
    with room(root):
        (root / "users").mkdir(parents=True, exist_ok=True)
    with locked(root / "no_new_users.lock", "looking at the users of the cache"):
        yield


def keys_in_use(root: Path) -> set[str]:
    """The keys that running processes use; call it in `no_new_users`.

    Raises:
        UserError: a running process uses keys that can't be read.
    """
    found: set[str] = set()
    for path in _users(root):
        keys = _keys(path)
        if keys is None:
            raise UserError(
                f"{path} can't be read, but its process runs and uses what it lists: wait until it "
                "has ended and give the same command again."
            )
        found |= keys
    return found


def _users(root: Path) -> list[Path]:
    """The files of keys, without those that are being written."""
    names = {path.stem for path in (root / "users").iterdir() if not path.name.startswith(".")}
    return [root / "users" / f"{name}.json" for name in sorted(names)]


def _keys(path: Path) -> Keys:
    """The keys of one user; of one that has ended, none, and its files are removed."""
    lock = try_lock(path.with_suffix(".lock"))
    if lock is not None:
        _forget(path, lock)
        return set()
    try:
        keys = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:  # that process has just ended
        return set()
    except (OSError, ValueError, RecursionError):
        return None
    known = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    return set(keys) if known else None


def _forget(path: Path, lock: FileLock) -> None:
    """Remove the files of a user whose lock is held here."""
    path.unlink(missing_ok=True)
    lock.release()
    Path(lock.lock_file).unlink(missing_ok=True)
