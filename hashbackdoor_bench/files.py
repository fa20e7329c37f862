"""Writing files completely or not at all, checking that folders are writable, hashing files."""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from safetensors import SafetensorError

from hashbackdoor_bench.errors import UserError


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary path to write to, which is renamed to ``path`` if the block raises nothing."""
    fresh = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield fresh
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


@contextmanager
def room(folder: Path) -> Iterator[None]:
    """Turn an error in writing, such as a full disk, into a message for the user.

    Raises:
        UserError: a file under ``folder`` can't be written.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{folder} can't be written any more ({error}): free some space and give the same "
            "command again, which continues where it stopped."
        ) from error


def writable(folder: Path, flag: str) -> None:
    """Make a folder if it doesn't exist, and check that files can be written to it.

    Args:
        folder: the folder.
        flag: the option by which a user gives another folder, for the message.

    Raises:
        UserError: the folder can't be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"{folder} can't be written ({error.strerror}); give another folder with {flag}."
        ) from error


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex.

    Raises:
        OSError: the file can't be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamp(path: str | Path) -> str:
    """What the file system says of a regular file, which changes with every write to it.

    Unlike the time of the last write, the time of the last change of status can't be set.

    Raises:
        OSError: there is no such file, or it is a folder, a pipe or a device, which could block
            a reader for ever.
    """
    seen = os.stat(path)
    if not stat.S_ISREG(seen.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return f"{seen.st_dev} {seen.st_ino} {seen.st_size} {seen.st_mtime_ns} {seen.st_ctime_ns}"


def file_hash(path: Path, flag: str) -> str:
    """SHA-256 of a file that a user gave with the option ``flag``.

    Raises:
        UserError: the file can't be read.
    """
    try:
        return _file_hash(path, stamp(path))
    except OSError as error:
        raise UserError(f"{flag} {path}: {error.strerror}; give a file that exists.") from error


@cache
def _file_hash(path: Path, seen: str) -> str:  # cached for the runs of a suite
    return sha256_of(path)
