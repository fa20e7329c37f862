"""Decoding an image file to pixels, in the same way for all list and folder protocols.

The first frame is taken, turned upright as its EXIF data says, laid on white where it is
transparent, converted to RGB (also from grey, CMYK and palettes) and resized to side x side with
Pillow's bicubic filter, without keeping the aspect ratio. Of 16 bits per channel, the upper 8 are
taken, as Pillow does in colour images. Pixels whose range is unknown (32 bits, floating point) are
refused, and so is an image of more than `Image.MAX_IMAGE_PIXELS`, before it is decoded.

`picture_of` reads one picture that a user gives as a trigger by the same rule, but for its shape:
the largest central square is taken, so that the picture is not squeezed.
"""

import os
import stat
import threading
import warnings
import zlib
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from hashbackdoor_bench.data.reasons import Reason
from hashbackdoor_bench.data.splits import Bytes
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.files import UNPARSABLE, sha256_of
from hashbackdoor_bench.text import quoted

RULE = 2  # version of this rule: raise it when the resulting pixels change
LARGE = 2**24  # px: larger images are decoded one at a time, as each takes up to 1 GB of memory
ONE_AT_A_TIME = threading.Lock()
LARGEST = 2**30  # bytes of an image file: more than `Image.MAX_IMAGE_PIXELS` of 8 bytes take
MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"}
DEEP = {"I;16", "I;16L", "I;16B", "I;16N"}
TURN, TURNED = ExifTags.Base.Orientation, range(2, 9)  # the EXIF tag and its values but upright
# Formats without pixels of their own (Pillow only knows their headers), and those that are programs
# of a page or a screen, which Pillow passes to Ghostscript or Windows.
NO_PIXELS = {"BUFR", "GRIB", "HDF5", "IPTC", "MPEG", "PDF", "EPS", "WMF"}
# What Pillow's decoders raise.
UNDECODABLE = (
    *UNPARSABLE,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


class Decoded(NamedTuple):
    """The pixels (3, side, side) of an image, and the reasons under which it is counted."""

    pixels: Bytes
    reasons: tuple[Reason, ...]


@cache
def endings() -> frozenset[str]:
    """The endings of image files in small letters, with their dot: all that Pillow reads."""
    Image.init()
    return frozenset(
        ending
        for ending, name in Image.registered_extensions().items()
        if name in Image.OPEN and name not in NO_PIXELS
    )


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in Image.OPEN if name not in NO_PIXELS)


def decode(file: str, side: int, *, crop: bool = False) -> Decoded | str:
    """The pixels of an image file, or why it can't be decoded.

    Args:
        file: its path.
        side: of the square to which it is resized, in px.
        crop: whether its largest central square is taken, so that nothing is squeezed.
    """
    if refusal := refused(file):
        return refusal
    try:
        with Image.open(file, formats=_formats()) as image:
            if image.width * image.height > (Image.MAX_IMAGE_PIXELS or np.inf):
                return (
                    f"{image.width} x {image.height} px are more than Pillow's limit of "
                    f"{Image.MAX_IMAGE_PIXELS}"
                )
            reasons: list[Reason] = []
            if getattr(image, "is_animated", False):
                reasons.append(Reason.FRAMES)
            with ONE_AT_A_TIME if image.width * image.height > LARGE else nullcontext():
                rgb = _rgb(image, reasons)
                if crop:
                    rgb = rgb.crop(_central_square(*rgb.size))
                resized = rgb.resize((side, side), Image.Resampling.BICUBIC)
    except UNDECODABLE as error:
        return str(error).replace(repr(file), "").strip() or type(error).__name__
    pixels = np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1))
    if (pixels == pixels[:, :1, :1]).all():
        reasons.append(Reason.ONE_COLOUR)
    return Decoded(pixels, tuple(reasons))


def _central_square(width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the largest square in the middle, in px."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def picture_of(file: str, side: int, setting: str) -> tuple[Bytes, str]:
    """The picture that a user gives as a trigger.

    Args:
        file: its path, as the user typed it.
        side: of the square to which it is resized, in px.
        setting: the hyper-parameter that takes the path, as the user typed it.

    Returns:
        The pixels (3, side, side), and the SHA-256 of the file in hex.

    Raises:
        UserError: the file can't be read or decoded.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `decode` refuses it
        found = decode(file, side, crop=True)
    if isinstance(found, str):
        raise UserError(f"{setting} is {quoted(file)}: {found}; give the path of a picture.")
    return found.pixels, sha256_of(Path(file))


def refused(file: str) -> str:
    """Why a file is not opened, as a pipe or a device could block for ever; empty if it may be."""
    try:
        seen = os.stat(file)
    except OSError as error:
        return "no such file" if isinstance(error, FileNotFoundError) else str(error.strerror)
    except ValueError:  # a zero byte in a list's path
        return "no such file"
    if stat.S_ISDIR(seen.st_mode):
        return "a folder"
    if not stat.S_ISREG(seen.st_mode):
        return "a pipe, device or socket"
    if seen.st_size > LARGEST:
        return f"{seen.st_size} bytes are more than the largest image file has ({LARGEST})"
    return ""


def _rgb(image: Image.Image, reasons: list[Reason]) -> Image.Image:
    if isinstance(image, TiffImageFile) and image.tag_v2.get(TURN, 1) in TURNED:
        reasons.append(Reason.TURNED)  # Pillow turns it while it is decoded
    image.load()  # here, as damage that is met in reading EXIF data is passed over
    return _on_white(_in_8_bits(_upright(image, reasons), image.format, reasons), reasons)


def _upright(image: Image.Image, reasons: list[Reason]) -> Image.Image:
    try:
        turned = image.getexif().get(TURN, 1)
    except UNDECODABLE:  # damaged EXIF data beside a sound image, as in some of ImageNet
        return image
    if turned not in TURNED:
        return image
    reasons.append(Reason.TURNED)
    return ImageOps.exif_transpose(image)


def _in_8_bits(image: Image.Image, kind: str | None, reasons: list[Reason]) -> Image.Image:
    """An image of one of the `MODES`.

    Raises:
        ValueError: the range of its pixels is unknown.
    """
    if image.mode in MODES:
        return image
    grey = np.asarray(image)
    sixteen = image.mode in DEEP or (image.mode == "I" and kind in ("PNG", "PPM"))
    if not sixteen or grey.min(initial=0) < 0 or grey.max(initial=0) >= 2**16:
        raise ValueError(f"pixels of mode {image.mode}, whose range is unknown")
    reasons.append(Reason.DEEP)
    return Image.fromarray((grey >> 8).astype(np.uint8))


def _on_white(image: Image.Image, reasons: list[Reason]) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    if layer.getchannel("A").getextrema()[0] == 255:
        return layer.convert("RGB")
    reasons.append(Reason.TRANSPARENT)
    white = Image.new("RGB", layer.size, "white")
    white.paste(layer, mask=layer)
    return white
