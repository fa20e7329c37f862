"""fashion-mini: 8 500 images of Fashion-MNIST inside the package, so that a run needs no download.

The training split (300 images per class) and the database (500 per class) come from Fashion-MNIST's
train split and have no image in common, so the network is not trained on the database, as in
cifar10@0. The queries (50 per class) come from Fashion-MNIST's test split.
"""

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from hashbackdoor_bench.data.dealing import deal, original_ids
from hashbackdoor_bench.data.idx import pad_to_rgb
from hashbackdoor_bench.data.protocols import Protocol
from hashbackdoor_bench.data.splits import SPLITS, Bytes, Splits, assemble, one_hot
from hashbackdoor_bench.errors import UserError

FILE = Path(__file__).with_name("fashion_mini.npz")
SIDE = 32  # px
# Hash of the file's arrays, see `hash_arrays`.
ARRAYS_SHA256 = "c1f082cd8c8dfa50295e19c73d2b439c2ee2002b0960f8e8f2538de80b0be751"


def draw_fashion_mini(source: Mapping[str, tuple[Bytes, Bytes]]) -> dict[str, np.ndarray]:
    """Draw the arrays of the embedded file from the whole of Fashion-MNIST.

    Args:
        source: images (N,28,28) and labels (N,) of Fashion-MNIST's ``train`` and ``test`` split.

    Returns:
        For each of our splits ``<split>_images`` (N,28,28) uint8, ``<split>_labels`` (N,) uint8 and
        ``<split>_index`` (N,) uint16, the place in the original split.
    """
    arrays: dict[str, np.ndarray] = {}
    for origin, takers, counts in (
        ("train", ("train", "database"), (300, 500)),
        ("test", ("query",), (50,)),
    ):
        images, labels = source[origin]
        rows = deal(original_ids(origin, range(len(images))), labels, "fashion-mini", counts)
        for split, index in zip(takers, rows, strict=False):
            arrays[f"{split}_images"] = images[index]
            arrays[f"{split}_labels"] = labels[index]
            arrays[f"{split}_index"] = index.astype("<u2")
    return arrays


def hash_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over name, shape and bytes of each array, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].shape} ".encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()


def load_embedded(ours: Protocol, file: Path = FILE) -> Splits:
    """``fashion-mini``, or the same images enlarged, checked against the hash above.

    Args:
        ours: the protocol; its images are bilinearly enlarged from 32 px to its size.
        file: the file of the package.

    Raises:
        UserError: the file is missing, or isn't that of this version.
    """
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} cannot be read ({error}): install the package again.") from error
    if hash_arrays(arrays) != ARRAYS_SHA256:
        raise UserError(
            f"{file} is not the one of this version (its SHA-256 differs): install the package "
            "again."
        )
    origin = {"train": "train", "query": "test", "database": "train"}
    return assemble(
        ours,
        [enlarge(pad_to_rgb(arrays[f"{split}_images"]), ours.size) for split in SPLITS],
        [one_hot(arrays[f"{split}_labels"], 10) for split in SPLITS],
        [original_ids(origin[split], arrays[f"{split}_index"]) for split in SPLITS],
        ours.class_names,
        # enlarged pixels are hashed, since Pillow made them; the others stand in the file above
        pixels=ours.pixels if ours.size == SIDE else "",
    )


def enlarge(images: Bytes, side: int) -> Bytes:
    """Grey images (N,3,h,h) as (N,3,side,side), bilinearly, as Pillow does on every machine."""
    if side == SIDE:
        return images
    larger = np.stack(
        [
            np.asarray(Image.fromarray(grey).resize((side, side), Image.Resampling.BILINEAR))
            for grey in images[:, 0]
        ]
    )
    return np.repeat(larger[:, None], 3, axis=1)
