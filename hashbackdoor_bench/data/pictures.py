"""Pictures of a user's folder that are no data set: those that an attacker brings along."""

import warnings
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hashbackdoor_bench.data.decode import RULE, decode
from hashbackdoor_bench.data.folder import find_images
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.files import file_hash
from hashbackdoor_bench.spec import digest
from hashbackdoor_bench.text import quoted, visible


def read_pictures(folder: str, flag: str, size: int) -> tuple[Tensor, Tensor]:
    """The images of a folder of class folders, see `folder.find_images`.

    Args:
        folder: the folder.
        flag: the option that it was given with, for messages.
        size: S, to which each image is resized as the images of data sets are.

    Returns:
        Images (N,3,S,S) uint8 and the numbers of their class folders (N,) long.

    Raises:
        UserError: there is no such folder, it holds no class folder with images, or an image can't
            be decoded.
    """
    pixels, numbers = [], []
    for number, file in _files(folder, flag):
        decoded = decode(str(file), size)
        if isinstance(decoded, str):
            raise UserError(
                f"{flag} {visible(str(file))} can't be read ({decoded}): take it out of the folder."
            )
        pixels.append(torch.from_numpy(np.array(decoded.pixels)))
        numbers.append(number)
    return torch.stack(pixels), torch.tensor(numbers)


def pictures_hash(folder: str, flag: str, size: int) -> str:
    """SHA-256 over the class numbers and bytes of what `read_pictures` reads, and how it reads.

    Each image is decoded once in a process, so that a damaged one is found before any training.

    Raises:
        UserError: see `read_pictures`.
    """
    read = [(number, file_hash(file, flag)) for number, file in _files(folder, flag)]
    value = digest([RULE, read])
    _try_decoding(folder, flag, size, value)
    return value


@cache
def _try_decoding(folder: str, flag: str, size: int, value: str) -> None:
    """Decode all images of ``folder``, whose hash is ``value``."""
    read_pictures(folder, flag, size)


def _files(folder: str, flag: str) -> list[tuple[int, Path]]:
    root = Path(folder)
    if not folder.strip() or not root.is_dir():
        raise UserError(
            f"{flag} {quoted(folder)} is not a folder: give one that holds one folder of images "
            "per class."
        )
    found = find_images(root)
    for note in found.reasons.notes():
        warnings.warn(f"{flag} {visible(folder)}: {note}")
    members = [(n, root / path) for n, paths in enumerate(found.images.values()) for path in paths]
    if not members:
        raise UserError(
            f"{flag} {visible(folder)} holds no folder of images: give one that holds one folder "
            "of images per class."
        )
    return members
