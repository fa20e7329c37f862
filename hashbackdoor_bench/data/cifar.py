"""Reading CIFAR-10's own files: the binary version, or the python version through torchvision.

The binary version is preferred and is what we fetch, because the python version is pickled;
torchvision checks the MD5 of each of its files before it unpickles one.
"""

import os
import tarfile
from pathlib import Path

import numpy as np
from filelock import FileLock

from hashbackdoor_bench.data.download import fetch
from hashbackdoor_bench.data.splits import Bytes
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.progress import Progress

ARCHIVE = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
BINARY = "cifar-10-batches-bin"
PYTHON = "cifar-10-batches-py"
FILES = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}
RECORD = 1 + 3 * 32 * 32  # bytes: the label, then red, green and blue, row by row


def read_cifar(root: Path) -> dict[str, tuple[Bytes, Bytes]]:
    """Images (N,3,32,32) and labels (N,) of CIFAR-10's ``train`` and ``test`` split.

    Args:
        root: the folder that holds cifar-10-batches-bin or cifar-10-batches-py, or one of the two.

    Raises:
        UserError: neither is there, or a file is missing, damaged or not the published one.
    """
    parent = root.parent if root.name in (BINARY, PYTHON) else root
    if (parent / BINARY).is_dir():
        return {split: _read_binary(parent / BINARY, names) for split, names in FILES.items()}
    if not (parent / PYTHON).is_dir():
        raise UserError(
            f"{root} has neither {BINARY} nor {PYTHON}: give as --root the folder that holds "
            "one of them, or leave --root out to fetch CIFAR-10."
        )
    return {split: _read_python(parent, split == "train") for split in FILES}


def fetch_cifar(folder: Path, progress: Progress) -> Path:
    """Bring the binary version into a folder, unless it is there; returns that folder.

    Raises:
        UserError: it can't be fetched.
    """
    if (folder / BINARY).is_dir():
        return folder
    fetch({ARCHIVE: MD5}, folder, progress, otherwise=f"give a folder with {BINARY} as --root")
    with FileLock(folder / ".lock"):
        if not (folder / BINARY).is_dir():
            part = folder / f"{BINARY}.part"
            part.mkdir(exist_ok=True)
            with tarfile.open(folder / "cifar-10-binary.tar.gz") as archive:
                for name in (*FILES["train"], *FILES["test"]):
                    member = archive.extractfile(f"{BINARY}/{name}")
                    assert member is not None, name
                    (part / name).write_bytes(member.read())
            os.replace(part, folder / BINARY)
    return folder


def _read_binary(folder: Path, names: tuple[str, ...]) -> tuple[Bytes, Bytes]:
    parts = []
    for name in names:
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing: bring the whole of {BINARY}.")
        data = np.fromfile(folder / name, np.uint8)
        if not data.size or data.size % RECORD or data[::RECORD].max() > 9:
            raise UserError(
                f"{folder / name} is not a whole number of {RECORD}-byte records that start with a "
                "class from 0 to 9: bring CIFAR-10's own binary file."
            )
        parts.append(data.reshape(-1, RECORD))
    records = np.concatenate(parts)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]


def _read_python(root: Path, train: bool) -> tuple[Bytes, Bytes]:
    from torchvision.datasets import CIFAR10  # late: a second, and only this version needs it

    try:
        data = CIFAR10(str(root), train=train)
    except RuntimeError as error:  # torchvision's word for a wrong MD5
        raise UserError(
            f"{root / PYTHON} is not CIFAR-10 as published (a file is missing or its MD5 differs): "
            f"bring a whole copy, or {BINARY}."
        ) from error
    images = np.ascontiguousarray(data.data.transpose(0, 3, 1, 2))
    return images, np.array(data.targets, np.uint8)
