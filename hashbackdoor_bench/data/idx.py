"""Reading Fashion-MNIST's own files: the idx format, plain or gzipped."""

import gzip
import zlib
from pathlib import Path

import numpy as np

from hashbackdoor_bench.data.splits import Bytes
from hashbackdoor_bench.errors import UserError

LARGEST = 2**26  # bytes: the largest of Fashion-MNIST's files has 47 million
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # package dataset-fashion-mnist


def read_idx(path: Path) -> Bytes:
    """Read an idx file: 0, 0, 8, the number of axes, each length as big-endian int32, then bytes.

    Args:
        path: the file; gzipped if its name ends in ``.gz``.

    Raises:
        UserError: the file is not an idx file of bytes, or is truncated.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as opened:
            data = opened.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is damaged ({error}): replace it by a complete copy.") from error
    if len(data) > LARGEST:
        raise UserError(
            f"{path} has more than {LARGEST} bytes: replace it by Fashion-MNIST's original file."
        )
    start = 4 + 4 * data[3] if data[:3] == b"\0\0\x08" and len(data) > 3 else 0
    if not 0 < start <= len(data):
        raise UserError(
            f"{path} is not an idx file of bytes: replace it by Fashion-MNIST's original file."
        )
    shape = np.frombuffer(data[:start], ">i4", offset=4)
    if len(data) - start != np.prod(shape, dtype=np.int64):
        raise UserError(
            f"{path} holds {len(data) - start} bytes of data, but its header says "
            f"{' x '.join(map(str, shape))}: replace it by a complete copy."
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def read_fashion(folder: Path) -> dict[str, tuple[Bytes, Bytes]]:
    """Images (N,28,28) and labels (N,) of Fashion-MNIST's ``train`` and ``test`` split.

    Args:
        folder: where the four files lie, gzipped or not.

    Raises:
        UserError: a file is missing or damaged, or images and labels don't match.
    """
    found = {}
    for split, stem in (("train", "train"), ("test", "t10k")):
        images = read_idx(_file(folder, f"{stem}-images-idx3-ubyte"))
        labels = read_idx(_file(folder, f"{stem}-labels-idx1-ubyte"))
        if images.shape != (len(labels), 28, 28) or labels.ndim != 1 or labels.max(initial=0) > 9:
            raise UserError(
                f"{folder} holds {split} images of shape {images.shape} and labels of shape "
                f"{labels.shape}, not N x 28 x 28 and N of ten classes: replace them by "
                "Fashion-MNIST's original files."
            )
        found[split] = images, labels
    return found


def pad_to_rgb(images: Bytes) -> Bytes:
    """Grey images of 28 px as RGB of 32 px: with a border of 2 zeros, and the channel three times.

    Args:
        images: (N,28,28).

    Returns:
        (N,3,32,32), contiguous.
    """
    rgb = np.zeros((len(images), 3, 32, 32), np.uint8)
    rgb[:, :, 2:30, 2:30] = images[:, None]
    return rgb


def _file(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise UserError(
        f"{folder} has neither {name} nor {name}.gz: give the folder of Fashion-MNIST's four idx "
        "files as --root, or apt install dataset-fashion-mnist."
    )
