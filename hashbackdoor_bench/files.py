"""Writing files completely or not at all, opening files that nobody vouches for, hashing files."""

import errno
import hashlib
import os
import shutil
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from stat import S_ISBLK, S_ISCHR, S_ISDIR, S_ISFIFO, S_ISLNK, S_ISREG, S_ISSOCK
from typing import BinaryIO

from safetensors import SafetensorError

from hashbackdoor_bench.errors import UserError

# What a parser of untrusted bytes raises on a damaged file, or on one of another kind: it goes on
# step by step, so every error of a wrong value, index, type or size occurs.
UNPARSABLE = (
    OSError,
    EOFError,
    RuntimeError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    AssertionError,
    ImportError,
    MemoryError,
    struct.error,
)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary path to write to, which is renamed to ``path`` if the block raises nothing."""
    fresh = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield fresh
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


def real(path: Path) -> Path:
    """The absolute path without links; of links that lead in a circle, the path itself."""
    return Path(os.path.realpath(path))


def remove(path: Path) -> None:
    """Remove whatever stands at a path; what a link leads to is left alone."""
    if path.is_symlink() or not path.is_dir():
        path.unlink()
    else:
        shutil.rmtree(path)


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


@contextmanager
def unless_refused(folder: Path, flag: str) -> Iterator[None]:
    """`writable`, but whatever it made is removed again if the block raises and left it empty."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    writable(folder, flag)
    try:
        yield
    except BaseException:
        for one in missing:
            with suppress(OSError):
                one.rmdir()
        raise


# what a path may be instead of a file, for messages
_KINDS = (
    (S_ISLNK, "a link"), (S_ISDIR, "a directory"), (S_ISFIFO, "a named pipe"),
    (S_ISSOCK, "a socket"), (S_ISCHR, "a device"), (S_ISBLK, "a device"),
)  # fmt: skip


def _kind_of(mode: int) -> str:
    """What a path is, by the mode that `os.stat` gives; empty for a regular file."""
    if S_ISREG(mode):
        return ""
    return next((words for fits, words in _KINDS if fits(mode)), "no file")


def open_regular(path: Path, *, links: bool = True) -> BinaryIO:
    """Open a regular file for reading; never waits, as opening a named pipe would.

    Args:
        path: the file.
        links: whether the path may be a link to a file. A path inside of what a stranger sent may
            not, since a link could lead to any file of this machine.

    Raises:
        UserError: it is no regular file.
        OSError: it can't be opened.
    """
    what = _kind_of(os.stat(path, follow_symlinks=links).st_mode)
    if not what:
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if links else os.O_NOFOLLOW)
        file = os.fdopen(os.open(path, flags), "rb")
        what = _kind_of(os.fstat(file.fileno()).st_mode)  # it may have been replaced meanwhile
        if not what:
            return file
        file.close()
    raise UserError(f"{path} is {what} and not a file; give the path of a file.")


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
