"""Writing files completely or not at all, checking that folders are writable, hashing files."""

import hashlib
import os
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


def file_hash(path: Path, flag: str) -> str:
    """SHA-256 of a file that a user gave with the option ``flag``.

    Raises:
        UserError: the file can't be read.
    """
    try:
        seen = path.stat()
        return _file_hash(path, seen.st_mtime_ns, seen.st_size)
    except OSError as error:
        raise UserError(f"{flag} {path}: {error.strerror}; give a file that exists.") from error


@cache
def _file_hash(path: Path, changed: int, size: int) -> str:  # cached for the runs of a suite
    return sha256_of(path)
