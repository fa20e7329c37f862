"""The full Fashion-MNIST and CIFAR-10: reading their files, and splitting with a named seed."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hashbackdoor_bench.data.cifar import FOLDER, fetched_cifar, read_cifar
from hashbackdoor_bench.data.dealing import deal, original_ids
from hashbackdoor_bench.data.download import fetch
from hashbackdoor_bench.data.idx import DEBIAN, pad_to_rgb, read_fashion
from hashbackdoor_bench.data.protocols import Protocol
from hashbackdoor_bench.data.splits import Bytes, Splits, assemble, check_counts, one_hot
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.progress import Progress

MIRROR = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
FASHION_MD5 = {
    f"{MIRROR}/train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    f"{MIRROR}/train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    f"{MIRROR}/t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    f"{MIRROR}/t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}


def on_hand(ours: Protocol, cache: Path) -> bool:
    """Whether the protocol's files are where they are looked for without a ``root``."""
    folder = _fetched(ours, cache)
    if ours.source == "cifar10":
        return (folder / FOLDER).is_dir()
    names = [address.rpartition("/")[2] for address in FASHION_MD5]
    return DEBIAN.is_dir() or all((folder / name).is_file() for name in names)


def load_drawn(ours: Protocol, root: Path | None, cache: Path, progress: Progress) -> Splits:
    """Read the files of ``fashion-mnist`` or ``cifar10``, downloaded if necessary, and split them.

    Args:
        ours: the protocol.
        root: the user's folder; None: look where Debian puts the files, else download them.
        cache: folder of the cache; downloaded files go into its folder ``downloads``.
        progress: called during a download.

    Raises:
        UserError: the files are missing, incomplete, or not as published.
    """
    if root is not None and not root.is_dir():
        raise UserError(
            f"{root} is not a folder: --root must be the folder of {ours.name}'s files."
        )
    if ours.source == "cifar10":
        found = read_cifar(root) if root else fetched_cifar(_fetched(ours, cache), progress)
        return split_by_class(ours, found)
    if root is not None:
        inside = (root, root / "raw", root / "FashionMNIST" / "raw")  # torchvision's layout
        folder = next((f for f in inside if any(f.glob("train-images-idx3-ubyte*"))), root)
    elif DEBIAN.is_dir():
        folder = DEBIAN
    else:
        folder = _fetched(ours, cache)
        fetch(
            FASHION_MD5,
            folder,
            progress,
            otherwise="apt install dataset-fashion-mnist, or give its files' folder as --root",
        )
    source = read_fashion(folder)
    return split_by_class(ours, {name: (pad_to_rgb(x), y) for name, (x, y) in source.items()})


def split_by_class(ours: Protocol, source: Mapping[str, tuple[Bytes, Bytes]]) -> Splits:
    """Split the pooled images of ``train`` and ``test`` as the protocol says.

    cifar10@2 keeps the official split, and its train split is the database. The others take the
    same number of queries and of train images from each class of all images; the rest is the
    database, which in cifar10@1 also contains the train images.

    Args:
        ours: the protocol; the splits must have its numbers of images.
        source: images (N,3,32,32) and labels (N,) of the official ``train`` and ``test`` split.

    Raises:
        UserError: the number of images is not the protocol's.
    """
    images = np.concatenate([source[name][0] for name in ("test", "train")])
    labels = np.concatenate([source[name][1] for name in ("test", "train")])
    ids = np.array(
        [i for name in ("test", "train") for i in original_ids(name, range(len(source[name][1])))]
    )
    if ours.name == "cifar10@2":
        query, train = np.split(np.arange(len(ids)), [len(source["test"][1])])
        database = train
    else:
        assert ours.classes
        assert ours.query
        assert ours.train
        each = (ours.query // ours.classes, ours.train // ours.classes)
        query, train, database = deal(list(ids), labels, ours.source, each)
        if ours.name == "cifar10@1":
            database = np.sort(np.concatenate([train, database]))
    rows = (train, query, database)
    check_counts(ours, [len(r) for r in rows], len(ours.class_names))
    return assemble(
        ours,
        [images[r] for r in rows],
        [one_hot(labels[r], len(ours.class_names)) for r in rows],
        [ids[r].tolist() for r in rows],
        ours.class_names,
    )


def _fetched(ours: Protocol, cache: Path) -> Path:
    return cache / "downloads" / ours.source
