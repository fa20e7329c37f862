"""CIFAR-10's own files, read by torchvision, which checks their MD5 before it unpickles them."""

import os
import shutil
import tarfile
import warnings
from pathlib import Path

import numpy as np

from hashbackdoor_bench.data.download import fetch
from hashbackdoor_bench.data.splits import Bytes
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.locks import locked
from hashbackdoor_bench.progress import Progress

FOLDER = "cifar-10-batches-py"


def read_cifar(root: Path) -> dict[str, tuple[Bytes, Bytes]]:
    """Images (N,3,32,32) and labels (N,) of CIFAR-10's ``train`` and ``test`` split.

    Args:
        root: cifar-10-batches-py, or the folder that holds it.

    Raises:
        UserError: the folder is missing, or one of its files is missing or not as published.
    """
    from torchvision.datasets import CIFAR10  # late: a second, and only CIFAR-10 needs it

    parent = root.parent if root.name == FOLDER else root
    if not (parent / FOLDER).is_dir():
        raise UserError(
            f"{root} has no {FOLDER}: give the folder that holds it as --root, or leave --root out "
            "to fetch CIFAR-10."
        )
    found = {}
    for split in ("train", "test"):
        try:
            data = CIFAR10(str(parent), train=split == "train")
        except RuntimeError as error:  # torchvision raises it for a missing or different file
            raise UserError(
                f"{parent / FOLDER} is not CIFAR-10 as published (a file is missing or its MD5 "
                "differs): replace it by a complete copy, or remove it and leave --root out to "
                "fetch one."
            ) from error
        images = np.ascontiguousarray(data.data.transpose(0, 3, 1, 2))
        found[split] = images, np.array(data.targets, np.uint8)
    return found


def fetched_cifar(folder: Path, progress: Progress) -> dict[str, tuple[Bytes, Bytes]]:
    """What `read_cifar` returns for CIFAR-10 in a folder of the cache, downloaded if necessary.

    Raises:
        UserError: the download fails.
    """
    try:
        return read_cifar(fetch_cifar(folder, progress))
    except UserError as error:
        if not (folder / FOLDER).is_dir():
            raise
        warnings.warn(f"{folder / FOLDER} is damaged ({error}): unpacked again.")
        shutil.rmtree(folder / FOLDER)
        return read_cifar(fetch_cifar(folder, progress))


def fetch_cifar(folder: Path, progress: Progress) -> Path:
    """Download cifar-10-batches-py into a folder, unless it is there; returns that folder.

    Raises:
        UserError: the download fails.
    """
    from torchvision.datasets import CIFAR10

    if not (folder / FOLDER).is_dir():
        otherwise = f"give a folder with {FOLDER} as --root"
        fetch({CIFAR10.url: CIFAR10.tgz_md5}, folder, progress, otherwise=otherwise)
        archive = folder / Path(CIFAR10.url).name
        with locked(folder / ".lock", "unpacking CIFAR-10", progress), tarfile.open(archive) as tar:
            if not (folder / FOLDER).is_dir():
                part = folder / "unpacked.part"
                tar.extractall(part, filter="data")
                os.replace(part / FOLDER, folder / FOLDER)  # never an incomplete folder
                shutil.rmtree(part)
    return folder
