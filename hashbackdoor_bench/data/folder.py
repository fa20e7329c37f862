"""A folder with one folder of images per class as a data set, split with a named seed.

Of each class, the share QUERY_SHARE becomes queries and TRAIN_SHARE becomes training images
(rounded down, but at least one image each); the rest is the database. The draw depends on the paths
alone. Images lie at any depth of a class folder. Linked folders are followed, once each; hidden
ones are not read. What is no image of the set stands under a reason.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hashbackdoor_bench.data.dealing import deal
from hashbackdoor_bench.data.decode import endings
from hashbackdoor_bench.data.names import as_text, unique
from hashbackdoor_bench.data.protocols import Protocol
from hashbackdoor_bench.data.reasons import Reason, Reasons
from hashbackdoor_bench.data.splits import SPLITS, Items, one_hot
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.text import visible

QUERY_SHARE = 0.1
TRAIN_SHARE = 0.3
# What systems put beside images, besides the names that begin with a dot.
HIDDEN = {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin"}


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
    found = find_images(root)
    if len(found.images) < 2:
        raise UserError(
            f"{root} holds {len(found.images)} folders: it needs one folder of images for each of "
            "at least two classes."
        )
    ids: list[str] = []
    files: list[str] = []
    labels: list[int] = []
    parts: list[list[int]] = [[], [], []]
    for number, (name, members) in enumerate(found.images.items()):
        if len(members) < 3:
            raise UserError(
                f"{visible(str(root / name))} holds {len(members)} images that are read here: a "
                "class needs at least three, one each for train, query and database. "
                f"{' '.join(found.reasons.notes())}".rstrip()
            )
        named = unique([as_text(path) for path in members])
        counts = [max(1, int(len(members) * share)) for share in (TRAIN_SHARE, QUERY_SHARE)]
        drawn = deal(named, np.zeros(len(named), np.int64), "folder", counts)
        for part, rows in zip(parts, drawn, strict=True):
            part.extend(len(ids) + int(row) for row in rows)
        ids.extend(named)
        files.extend(str(root / path) for path in members)
        labels.extend([number] * len(members))
    rows_of = one_hot(np.array(labels), len(found.images))
    sizes = ", ".join(f"{len(part)} {split}" for split, part in zip(SPLITS, parts, strict=True))
    split = (
        f"Of each class, {TRAIN_SHARE:.0%} of the images were drawn for train, {QUERY_SHARE:.0%} "
        f"for query and the rest for database, at least one for each: {sizes} images."
    )
    return Items(
        files=tuple(tuple(files[i] for i in part) for part in parts),
        ids=tuple(tuple(ids[i] for i in part) for part in parts),
        labels=tuple(rows_of[part] for part in parts),
        classes=unique([as_text(name) for name in found.images]),
        unlabelled=dict.fromkeys(SPLITS, 0),
        notes=(split, *found.reasons.notes()),
    )


@dataclass
class Found:
    """The files of a folder of class folders.

    Attributes:
        images: paths of each class's images, relative to the root, in order; by class folder.
        reasons: the names of all other files.
    """

    images: dict[str, list[str]] = field(default_factory=dict)
    reasons: Reasons = field(default_factory=Reasons)


def find_images(root: Path) -> Found:
    """Find the images of each class folder; links are followed when all other folders are read."""
    found, read = Found(), {_identity(os.stat(root))}
    for entry in _entries(root, "", found.reasons):
        if os.path.isdir(entry.path):
            found.images[entry.name] = []
        else:
            found.reasons.add(_why_not(entry) or Reason.OUTSIDE, entry.name)
    # the class and the path of each link
    links = [(name, name) for name in found.images if (root / name).is_symlink()]
    for name in found.images:
        if not (root / name).is_symlink():
            _read(root, name, name, read, found, links)
    home = os.path.realpath(root)
    while links:
        name, path = links.pop(0)
        target = os.path.realpath(root / path)
        if os.path.commonpath([target, home]) == target:  # it holds the root: no end of reading
            found.reasons.add(Reason.LINK, f"{path}/")
        elif _read(root, name, path, read, found, links):
            found.reasons.add(Reason.FOLLOWED, f"{path}/")
    for members in found.images.values():
        members.sort()
    return found


def _read(
    root: Path,
    name: str,
    start: str,
    read: set[tuple[int, int]],
    found: Found,
    links: list[tuple[str, str]],
) -> bool:
    """Add the images under a folder to its class, and its linked folders to ``links``.

    Returns:
        Whether the folder could be opened and was not read before.
    """
    folders, before = [start], len(read)
    while folders:
        folder = folders.pop()
        try:
            this = _identity(os.stat(root / folder))
        except OSError:
            found.reasons.add(Reason.CLOSED, f"{folder}/")
            continue
        if this in read:
            found.reasons.add(Reason.LINK, f"{folder}/")
            continue
        read.add(this)
        for entry in _entries(root, folder, found.reasons):
            path = f"{folder}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                folders.append(path)
            elif os.path.isdir(entry.path):
                links.append((name, path))
            elif reason := _why_not(entry):
                found.reasons.add(reason, path)
            else:
                found.images[name].append(path)
    return len(read) > before


def _entries(root: Path, folder: str, reasons: Reasons) -> list[os.DirEntry[str]]:
    """What a folder holds in the order of names, without what is hidden."""
    try:
        with os.scandir(root / folder) as entries:
            every = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        reasons.add(Reason.CLOSED, f"{folder}/")
        return []
    shown = []
    for entry in every:
        if entry.name.startswith(".") or entry.name.lower() in HIDDEN:
            end = "/" if os.path.isdir(entry.path) else ""
            reasons.add(Reason.HIDDEN, os.path.join(folder, entry.name) + end)
        else:
            shown.append(entry)
    return shown


def _why_not(entry: os.DirEntry[str]) -> Reason | None:
    """Why what is no folder is no image either; None if it is one by its ending."""
    if not os.path.exists(entry.path):
        return Reason.BROKEN_LINK
    if not os.path.isfile(entry.path):
        return Reason.NOT_REGULAR
    ending = os.path.splitext(entry.name)[1].lower()
    return None if ending in endings() else Reason.OTHER_TYPE


def _identity(seen: os.stat_result) -> tuple[int, int]:
    return seen.st_dev, seen.st_ino
