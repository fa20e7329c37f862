"""The structure of PNG files that nobody vouches for, checked before any pixel is decoded.

    signature, then chunks: length (4 bytes), name (4), content, CRC-32 of name and content (4)

The first chunk, IHDR, holds the size and the kind of pixels, and the last one is IEND.
"""

import struct
import zlib
from dataclasses import dataclass

SIGNATURE = b"\x89PNG\r\n\x1a\n"
TRUE_COLOUR = 2  # the kind of pixels that are red, green and blue


@dataclass(frozen=True)
class Png:
    """What the chunks of a file say.

    Attributes:
        width: in px.
        height: in px.
        depth: bits of a channel.
        colour: the kind of pixels, ``TRUE_COLOUR`` or another.
        interlaced: whether it is.
        chunks: their names in order; ``IHDR`` first, ``IEND`` last.
        data: the compressed pixels.
    """

    width: int
    height: int
    depth: int
    colour: int
    interlaced: bool
    chunks: tuple[str, ...]
    data: bytes

    def has_pixels(self, size: int) -> bool:
        """Whether the pixels are so many bytes, before they are compressed."""
        unpack = zlib.decompressobj()
        try:
            found = len(unpack.decompress(self.data, size + 1))
        except zlib.error:
            return False
        return found == size and unpack.eof and not unpack.unused_data


def read_png(data: bytes) -> Png:
    """The structure of a PNG file.

    Raises:
        ValueError: it is no PNG, is cut short, has a chunk whose content was changed, or goes on
            after its end.
    """
    if not data.startswith(SIGNATURE):
        raise ValueError("it is no PNG")
    names: list[bytes] = []
    pixels: list[bytes] = []
    place, head = len(SIGNATURE), b""
    while not names or names[-1] != b"IEND":
        if len(data) < place + 12:
            raise ValueError("it is cut short")
        (length,) = struct.unpack_from(">I", data, place)
        name, end = data[place + 4 : place + 8], place + 8 + length
        if len(data) < end + 4:
            raise ValueError("it is cut short")
        if zlib.crc32(data[place + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise ValueError("its content was changed, or damaged")
        if not names:
            head = data[place + 8 : end]
            if name != b"IHDR" or length != 13:
                raise ValueError("it doesn't begin with its size")
        if name == b"IDAT":
            pixels.append(data[place + 8 : end])
        names.append(name)
        place = end + 4
    if place != len(data):
        raise ValueError("it goes on after its end")
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", head)
    if not width or not height:
        raise ValueError("it has no pixels")
    chunks = tuple(one.decode("latin-1") for one in names)
    return Png(width, height, depth, colour, bool(interlace), chunks, b"".join(pixels))
