"""JPEG: each query is compressed and decompressed before it is hashed.

Das et al., "SHIELD: Fast, Practical Defense and Vaccination for Deep Learning using JPEG
Compression", KDD 2018. https://arxiv.org/abs/1802.06816, code: https://github.com/poloclub/jpeg-defense
Guo et al., "Countering Adversarial Images using Input Transformations", ICLR 2018.
https://arxiv.org/abs/1711.00117

    x' = decode(encode(8-bit x, quality))           chroma at half the resolution (4:2:0)

What is removed are fine patterns: at quality 75 the luminance of an 8 x 8 block is rounded to steps
of 5 to 56 grey levels, the larger the finer. An opaque patch stays.

Differs from the authors: SHIELD draws a quality for each block and trains the network on compressed
images; both are left out. Codecs round differently, so results belong to a version of Pillow.
"""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from PIL import Image, features
from torch import Tensor

from hashbackdoor_bench import DEFENSES, Assumes, Defense, check, to_bytes, to_unit


@DEFENSES.register
class Jpeg(Defense):
    """Lossy compression of queries.

    Args:
        quality: of the JPEG file, 1 to 95.
    """

    published = "JPEG"
    assumes = Assumes(sees=frozenset({"queries"}))
    strength = "quality"
    grid = (95, 90, 75, 50, 30, 10)

    def __init__(self, *, quality: int = 75) -> None:
        check("defense.quality", quality, 1, 95)
        self.quality = quality

    def versions(self) -> dict[str, str]:
        """Those of Pillow and its codec, which round in their own way."""
        return {"Pillow": PIL.__version__, "libjpeg": str(features.version("jpg"))}

    def purify(self, x: Tensor, item: Tensor) -> Tensor:
        """See `Defense.purify`."""
        pixels = to_bytes(x).permute(0, 2, 3, 1).contiguous().cpu().numpy()
        with ThreadPoolExecutor() as pool:
            decoded = list(pool.map(self._through, pixels))
        if not decoded:
            return x.clone()
        out = torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2)
        return to_unit(out.contiguous()).to(x.device)

    def _through(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """One image (S,S,3) uint8 through a file in memory."""
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=self.quality, subsampling="4:2:0")
        return np.asarray(Image.open(file))
