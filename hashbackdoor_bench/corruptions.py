"""Corruptions of images that more than one defense uses.

Shapes: N images, S side in pixels.
"""

import io
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import PIL
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, features
from torch import Tensor

from hashbackdoor_bench.api import to_bytes, to_unit


def gaussian_blur(x: Tensor, sigma: float) -> Tensor:
    """Smooth images: a separable Gaussian of 2 ceil(3 s) + 1 taps, edges mirrored.

    Args:
        x: (N,3,S,S) in [0,1].
        sigma: s = sigma S / 224 is the standard deviation in px; 0: a copy.

    Returns:
        (N,3,S,S) in [0,1], a new tensor.
    """
    width = sigma * x.shape[-1] / 224
    if width == 0:
        return x.clone()
    reach = min(math.ceil(3 * width), x.shape[-1] - 1)
    place = torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device)
    taps = torch.exp(-(place**2) / (2 * width**2))
    taps = (taps / taps.sum()).expand(3, 1, 1, -1)  # (3,1,1,2 reach + 1)
    padded = F.pad(x, (reach,) * 4, mode="reflect")
    out = F.conv2d(F.conv2d(padded, taps, groups=3), taps.mT, groups=3)
    return out.clamp(0, 1)


def jpeg(x: Tensor, quality: int) -> Tensor:
    """Compress images and decompress them, with chroma at half the resolution (4:2:0).

    Args:
        x: (N,3,S,S) in [0,1].
        quality: of the JPEG file, 1 to 95.

    Returns:
        (N,3,S,S) in [0,1], a new tensor of 8-bit levels, which depends on `jpeg_versions`.
    """

    def through(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling="4:2:0")
        return np.asarray(Image.open(file))

    pixels = to_bytes(x).permute(0, 2, 3, 1).contiguous().cpu().numpy()
    with ThreadPoolExecutor() as pool:
        decoded = list(pool.map(through, pixels))  # (S,S,3) each
    if not decoded:
        return x.clone()
    out = torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2)
    return to_unit(out.contiguous()).to(x.device)


def jpeg_versions() -> dict[str, str]:
    """The versions of Pillow and its codec, by name; each codec rounds in its own way."""
    return {"Pillow": PIL.__version__, "libjpeg": str(features.version("jpg"))}
