"""One image file to pixels, by the rule that all list and folder protocols share.

Converted to RGB (grey three times, CMYK, palettes; transparency is dropped), then resized to
side x side with Pillow's bicubic filter, without keeping the aspect ratio. EXIF rotation is
ignored, as in the references. More than 8 bits a channel are refused: Pillow would clip to white.
"""

import struct
import zlib

import numpy as np
from PIL import Image

from hashbackdoor_bench.data.splits import Bytes

RULE = 1  # goes up when the pixels that come out change
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
    """The pixels (3, side, side) of an image file, or in a few words why there are none."""
    try:
        with Image.open(file) as image:
            if image.mode not in MODES:
                return f"pixels of mode {image.mode} instead of 8 bits a channel"
            rgb = image.convert("RGB")
    except FileNotFoundError:
        return "no such file"
    except DAMAGED as error:
        return str(error).replace(repr(file), "").strip() or type(error).__name__
    resized = rgb.resize((side, side), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1))
