"""Listing the artifacts of a cache, and removing those that no running process uses.

Prepared data and downloads are not artifacts: they are neither listed nor removed.
"""

import json
import os
import shutil
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.locks import try_lock
from hashbackdoor_bench.stages.cache import FILES, Cache
from hashbackdoor_bench.stages.cache_users import keys_in_use, no_new_users
from hashbackdoor_bench.stages.dispersing import DISPERSION
from hashbackdoor_bench.stages.plan import attacker_of

CHECKPOINT = "checkpoint"  # the kind of the files that an interrupted stage left in ``work``


@dataclass(frozen=True)
class Entry:
    """An artifact, or the checkpoint of an unfinished one.

    Attributes:
        kind: kind of stage, or ``CHECKPOINT``.
        key: key of the artifact.
        path: its folder.
        lock: name of the lock that a process holds while it makes the artifact.
        size: size in bytes.
        age: seconds since it was last read or written.
        attacker: see `attacker_of`; only backdoors and shared stages have one.
        backdoor: key of the backdoor whose poison was measured, of an artifact that records don't
            name.
    """

    kind: str
    key: str
    path: Path
    lock: str
    size: int
    age: float
    attacker: str | None = None
    backdoor: str | None = None


def entries(cache: Cache) -> list[Entry]:
    """All artifacts and checkpoints of a cache, the oldest first."""
    found = list(_artifacts(cache))
    for path in (cache.root / "work").glob("*"):
        size, last = _measure(path)
        key = path.name.rpartition("-")[2]
        found.append(Entry(CHECKPOINT, key, path, path.name, size, time.time() - last))
    return sorted(found, key=lambda entry: -entry.age)


def _artifacts(cache: Cache) -> Iterator[Entry]:
    for kind, key, path in cache.stored():
        size, last = _measure(path)
        attacker = backdoor = None
        if kind in ("backdoor", "shared", DISPERSION.kind):
            try:
                inputs = json.loads((path / FILES[0]).read_text(encoding="utf-8"))["inputs"]
                if kind == DISPERSION.kind:
                    backdoor = str(inputs["backdoor"])
                else:
                    attacker = attacker_of(inputs)
            except (OSError, ValueError, KeyError):
                attacker = None  # a damaged artifact can't be used
        yield Entry(kind, key, path, f"{kind}-{key}", size, time.time() - last, attacker, backdoor)


def _measure(folder: Path) -> tuple[int, float]:
    """Bytes of a folder and when it was last touched; a process may be writing to it."""
    size, last = 0, 0.0
    for path in (folder, *folder.rglob("*")):
        try:
            seen = path.lstat()
        except FileNotFoundError:
            continue
        size += seen.st_size if path.is_file() else 0
        last = max(last, seen.st_mtime)
    return size, last


def referenced(results: Path) -> set[str]:
    """The keys of the artifacts that the records in a folder name.

    Records of any schema count.

    Raises:
        UserError: there is no record, or a file can't be read, so nothing may be removed.
    """
    keys: set[str] = set()
    for path in sorted(results.rglob("*.json")):
        try:
            body = json.loads(path.read_text(encoding="utf-8"))
            artifacts = body.get("artifacts", {}) if isinstance(body, dict) else {}
            keys |= {key for key in artifacts.values() if isinstance(key, str)}
        except (OSError, ValueError, AttributeError) as error:
            raise UserError(
                f"{path} can't be read ({error}), so the artifacts that it refers to are unknown: "
                "repair it or move it away."
            ) from error
    if not keys:
        raise UserError(
            f"{results} holds no record, so everything would be removed: give another folder."
        )
    return keys


def prune(
    cache: Cache,
    *,
    older_than: float | None = None,
    keep: int | None = None,
    unreferenced: Path | None = None,
    dry_run: bool = False,
) -> list[Entry]:
    """Remove artifacts and checkpoints that meet all conditions; returns them, the oldest first.

    Args:
        cache: the cache.
        older_than: remove what was not used for this many seconds.
        keep: remove the oldest until the rest has at most this many bytes.
        unreferenced: folder of records; remove only what none of them refers to. A shared stage is
            in use if a record refers to a backdoor that was made from it, and what was measured of
            a backdoor's poison if a record refers to the backdoor.
        dry_run: remove nothing, only return what would be removed.

    Raises:
        UserError: see `referenced`.
    """
    named = None if unreferenced is None else referenced(unreferenced)
    with no_new_users(cache.root):
        found, busy = entries(cache), keys_in_use(cache.root)
        total, gone = sum(entry.size for entry in found), []
        made = {entry.attacker for entry in found if named and entry.key in named} - {None}
        for entry in found:
            if {entry.key, entry.attacker, entry.backdoor} & busy:
                continue
            if older_than is not None and entry.age < older_than:
                continue
            if named is not None and ({entry.key, entry.backdoor} & named or _shares(entry, made)):
                continue
            if keep is not None and total <= keep:
                break
            if dry_run or _remove(cache.root, entry):
                total -= entry.size
                gone.append(entry)
    return gone


def _shares(entry: Entry, attackers: Collection[str | None]) -> bool:
    return entry.kind == "shared" and entry.attacker in attackers


def _remove(root: Path, entry: Entry) -> bool:
    """Remove an entry in one step, as seen by other processes; False if one is making it."""
    (root / "locks").mkdir(exist_ok=True)
    lock = try_lock(root / "locks" / f"{entry.lock}.lock")
    if lock is None:
        return False
    try:
        away = root / "work" / f"pruned-{entry.key}"
        away.parent.mkdir(exist_ok=True)
        if away != entry.path:
            shutil.rmtree(away, ignore_errors=True)
            os.replace(entry.path, away)
        shutil.rmtree(away)
    except FileNotFoundError:  # the process that made it has just finished or removed it
        return False
    finally:
        lock.release()
    return True
