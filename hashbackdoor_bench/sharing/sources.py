"""Where shared files come from: a folder, a web server, or a repository of Hugging Face's hub.

A source gives bytes, and nothing of what it gives is believed: the listing says how many bytes a
file has, no more than that are read, and `pulling` compares their hash.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.files import open_regular, room

BLOCK = 1 << 20  # bytes that are read at once
Tell = Callable[[int], None]  # is told how many bytes came


class Source(Protocol):
    """A shared folder somewhere."""

    @property
    def name(self) -> str:
        """As the user has named it."""

    def read(self, path: str, most: int) -> bytes:
        """A small file.

        Args:
            path: its path in the shared folder.
            most: bytes that it may have; at most one more is read.

        Raises:
            UserError: it can't be had.
        """

    def fetch(self, path: str, to: Path, size: int, tell: Tell) -> None:
        """Write a file, and go on where an interrupted attempt has stopped, if that is possible.

        Args:
            path: its path in the shared folder.
            to: where to write it; what an earlier attempt has written may stand there.
            size: its bytes.
            tell: called with the number of bytes as they come.

        Raises:
            UserError: it can't be had, or has another size.
        """


@dataclass(frozen=True)
class Folder:
    """A shared folder on this machine. Links in it are not followed: they lead anywhere."""

    root: Path

    @property
    def name(self) -> str:
        """The folder."""
        return str(self.root)

    def read(self, path: str, most: int) -> bytes:
        """See `Source`."""
        try:
            with open_regular(self._path(path), links=False) as file:
                return file.read(most + 1)
        except OSError as error:
            raise self._failed(path, str(error.strerror)) from error

    def fetch(self, path: str, to: Path, size: int, tell: Tell) -> None:
        """See `Source`; begins anew each time, since a disk is fast."""
        left = size
        try:
            source = open_regular(self._path(path), links=False)
        except OSError as error:
            raise self._failed(path, str(error.strerror)) from error
        with source, room(to.parent), to.open("wb") as file:
            while block := source.read(min(BLOCK, left + 1)):
                left -= len(block)
                if left < 0:
                    break
                file.write(block)
                tell(len(block))
        if left:
            raise self._failed(path, f"it has not the {size} bytes that the listing says")

    def _path(self, path: str) -> Path:
        found = self.root / path
        if not found.resolve().is_relative_to(self.root.resolve()):
            raise self._failed(path, "a link in it leads out of the folder")
        return found

    def _failed(self, path: str, why: str) -> UserError:
        return UserError(
            f"{self.root / path} can't be pulled ({why}): give a folder that `bench push` has "
            "written, as it was written."
        )
