"""Reading zips that nobody vouches for: no part is read before its size is known to be allowed.

A zip says most things twice, and programs differ in what they believe: a name can stand twice or be
overridden by an extra field, parts can overlap, a second table of contents can follow the first. So
a zip is read only if it is laid out as `submission.pack` does it: parts one after the other from
the first byte on, then one table of contents, and nothing between, before or after them.
"""

import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.files import open_regular
from hashbackdoor_bench.text import visible

END = struct.Struct("<4s4H2LH")  # the last record of a zip without a comment
LOCAL, CENTRAL = 30, 46  # bytes of a part's two headers, without its name
LONGEST = 64  # characters of a name
MOST = 65_534  # parts; more are written in another format
RATIO = 1100  # no part can be compressed to less than 1/1032
NAME = re.compile(r"[a-z]+(/[0-9]{6})?\.[a-z]+")


class Refused(Exception):
    """Why a zip is not read, as a clause."""


class Archive:
    """An open zip whose layout was checked.

    Attributes:
        names: the names of its parts.
    """

    def __init__(self, file: zipfile.ZipFile) -> None:
        self._file = file
        self.names = frozenset(file.namelist())

    def read(self, name: str, most: int) -> bytes:
        """The content of a part.

        Args:
            name: its name.
            most: bytes that it may have; if it says that it has more, nothing of it is read.

        Raises:
            Refused: there is no such part, it is larger or smaller than it says, or damaged.
        """
        if name not in self.names:
            raise Refused(f"there is no {name}")
        size = self._file.getinfo(name).file_size
        if size > most:
            raise Refused(f"its {name} has {size} bytes, and can need {most} at most")
        try:
            with self._file.open(name) as part:
                content = part.read(most + 1)
        except (
            zipfile.BadZipFile,
            OSError,
            EOFError,
            ValueError,
            RuntimeError,
            zlib.error,
        ) as error:
            raise Refused(f"its {name} can't be read: {error}") from error
        if len(content) != size:
            raise Refused(f"its {name} has not the {size} bytes that it says")
        return content


@contextmanager
def open_archive(path: Path, refused: Callable[[str], UserError]) -> Iterator[Archive]:
    """Open a zip, check its layout, and turn every `Refused` of the block into a message.

    Args:
        path: the zip.
        refused: the message, of a clause that says why.

    Raises:
        UserError: it is no file, or it is refused.
    """
    try:
        with open_regular(path) as raw:
            expected = _number_of_parts(os.fstat(raw.fileno()).st_size, raw.seek, raw.read)
            with zipfile.ZipFile(raw) as file:
                _check_layout(file, expected)
                yield Archive(file)
    except Refused as error:
        raise refused(visible(str(error))) from error
    except (zipfile.BadZipFile, NotImplementedError, struct.error, UnicodeDecodeError) as error:
        raise refused(visible(f"it can't be read: {error}")) from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give a zip of bench submit.") from error


def _number_of_parts(size: int, seek: Callable[[int], int], read: Callable[[int], bytes]) -> int:
    """How many parts a zip says that it has, if its table of contents can be so large."""
    if size < END.size:
        raise Refused("it is no zip")
    seek(size - END.size)
    mark, disk, first, here, parts, length, start, comment = END.unpack(read(END.size))
    if mark != b"PK\x05\x06" or comment or disk or first or here != parts:
        raise Refused("it is no zip that ends with its table of contents")
    if start + length + END.size != size or not 0 < parts <= MOST:
        raise Refused("its table of contents is not where it says, or has too many parts")
    if length > parts * (CENTRAL + LONGEST):
        raise Refused("its table of contents says more than the names of its parts")
    seek(0)
    return int(parts)


def _check_layout(file: zipfile.ZipFile, expected: int) -> None:
    parts = sorted(file.infolist(), key=lambda part: part.header_offset)
    if len(parts) != expected or len(set(file.namelist())) != len(parts):
        raise Refused("it has a part twice")
    place = 0
    for part in parts:
        name = part.filename
        if not NAME.fullmatch(name) or part.orig_filename != name:
            raise Refused(f"it has a part {name[:LONGEST]!r}, which bench submit doesn't write")
        if part.flag_bits & ~0x0006 or part.extra or part.comment:
            raise Refused(f"its {name} is encrypted, or written by another program")
        if part.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise Refused(f"its {name} is compressed by a method that bench submit doesn't use")
        if stat.S_IFMT(part.external_attr >> 16) not in (0, stat.S_IFREG):
            raise Refused(f"its {name} is a link or another thing that is no file")
        if part.file_size > RATIO * (part.compress_size + 1):
            raise Refused(
                f"its {name} says that it is {part.file_size} bytes, which is not possible"
            )
        if part.header_offset != place:
            raise Refused(f"its {name} doesn't follow the part before it")
        place += LOCAL + len(name) + part.compress_size
    if place != file.start_dir:
        raise Refused("there is something between its parts and its table of contents")
