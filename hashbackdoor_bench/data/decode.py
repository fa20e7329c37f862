"""Decoding an image file to pixels, in the same way for all list and folder protocols.

The image is converted to RGB (also from grey, CMYK and palettes; transparency is dropped) and
resized to side x side with Pillow's bicubic filter, without keeping the aspect ratio. EXIF rotation
is ignored, as in the reference code. Files with more than 8 bits per channel are refused, because
Pillow would clip them to white.
"""

import struct
import zlib

import numpy as np
from PIL import Image

from hashbackdoor_bench.data.splits import Bytes

RULE = 1  # version of this rule: raise it when the resulting pixels change
MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"}
# What Pillow's decoders raise on a damaged file.
DAMAGED = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    IndexError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def decode(file: str, side: int) -> Bytes | str:
    """The pixels (3, side, side) of an image file, or the reason why it can't be decoded."""
    try:
        with Image.open(file) as image:
            if image.mode not in MODES:
                return f"pixels of mode {image.mode} instead of 8 bits per channel"
            rgb = image.convert("RGB")
    except FileNotFoundError:
        return "no such file"
    except DAMAGED as error:
        return str(error).replace(repr(file), "").strip() or type(error).__name__
    resized = rgb.resize((side, side), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1))
