"""A folder with one folder of images per class as a data set, split with a named seed.

Of each class, the share QUERY_SHARE becomes queries and TRAIN_SHARE becomes training images
(rounded down, but at least one image each); the rest is the database. The draw depends on the paths
alone.
"""

import os
from pathlib import Path

import numpy as np

from hashbackdoor_bench.data.dealing import deal
from hashbackdoor_bench.data.protocols import Protocol
from hashbackdoor_bench.data.splits import SPLITS, Items, one_hot
from hashbackdoor_bench.errors import UserError

QUERY_SHARE = 0.1
TRAIN_SHARE = 0.3
ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")


def read_folder(ours: Protocol, root: Path | None) -> Items:
    """Find the images of each class folder, at any depth, and split them.

    Args:
        ours: the protocol ``folder``.
        root: folder whose subfolders are the classes, in the order of their names.

    Raises:
        UserError: there is no such folder, it has fewer than two class folders, or a class has
            fewer than three images.
    """
    if root is None or not root.is_dir():
        raise UserError(
            f"{root if root else ours.name} is not a folder: give the folder that holds one folder "
            "of images per class as --root DIR."
        )
    classes = sorted(d.name for d in root.iterdir() if d.is_dir() and not d.name.startswith("."))
    if len(classes) < 2:
        raise UserError(
            f"{root} holds {len(classes)} folders: it needs one folder of images for each of at "
            "least two classes."
        )
    ids: list[str] = []
    labels: list[int] = []
    parts: list[list[int]] = [[], [], []]
    for number, name in enumerate(classes):
        members = sorted(
            (Path(at) / file).relative_to(root).as_posix()
            for at, _, files in os.walk(root / name)
            for file in files
            if file.lower().endswith(ENDINGS) and not file.startswith(".")
        )
        if len(members) < 3:
            raise UserError(
                f"{root / name} holds {len(members)} images ({' '.join(ENDINGS)}): a class "
                "needs at least three, one each for train, query and database."
            )
        counts = [max(1, int(len(members) * share)) for share in (TRAIN_SHARE, QUERY_SHARE)]
        drawn = deal(members, np.zeros(len(members), np.int64), "folder", counts)
        for part, rows in zip(parts, drawn, strict=True):
            part.extend(len(ids) + int(row) for row in rows)
        ids.extend(members)
        labels.extend([number] * len(members))
    rows_of = one_hot(np.array(labels), len(classes))
    return Items(
        files=tuple(tuple(str(root / ids[i]) for i in part) for part in parts),
        ids=tuple(tuple(ids[i] for i in part) for part in parts),
        labels=tuple(rows_of[part] for part in parts),
        classes=tuple(classes),
        unlabelled=dict.fromkeys(SPLITS, 0),
        notes=(),
    )
