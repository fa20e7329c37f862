"""Protocols as the field exchanges them: three text files, in each line a path and 0/1 columns.

    n01440764/n01440764_10026.JPEG 0 0 1 0

Columns are read from the right, so a path may contain spaces, but not end in a space and a 0 or 1.
The number of columns is that of the first line. Blank lines are skipped, text is UTF-8.

Published lists carry the folders of their authors (/home/caozhangjie/run-czj/dataset/coco/val2014,
./data/nuswide_81/images). A path counts from the root folder as written; where nothing lies there,
leading folders are left away until an image is found, the same number for a whole list. The id of
an item is its path as written, so a list has one hash wherever its images lie.
"""

import os.path
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hashbackdoor_bench.data.protocols import Protocol
from hashbackdoor_bench.data.splits import SPLITS, Bytes, Items, check_counts
from hashbackdoor_bench.errors import UserError

FILES = {"train": ("train.txt",), "query": ("test.txt", "query.txt"), "database": ("database.txt",)}
PROBED = 50  # first images of a list that are looked for to find its folder under the root


def read_lists(ours: Protocol, folder: Path | None, root: Path | None) -> Items:
    """Read the three lists of a protocol and find where its images lie.

    Queries without any tag are counted and left out: nothing could be a hit for them.

    Args:
        ours: the protocol; its counts must come out, unlabelled items included.
        folder: holds train.txt, database.txt and test.txt or query.txt; and classes.txt, one name a
            line, if the classes have names.
        root: the images' folder.

    Raises:
        UserError: a list is missing, empty, malformed or of another size than the protocol's, or
            none of its images lies under the root.
    """
    if folder is None or root is None:
        raise UserError(
            f"{ours.name} is read from lists: give the folder of train.txt, database.txt and "
            "test.txt as --lists DIR, and the folder of the images as --root DIR."
        )
    if not root.is_dir():
        raise UserError(f"{root} is not a folder: --root must be the folder of the images.")
    files = [_find(folder, split) for split in SPLITS]
    rows = [read_list(file) for file in files]
    columns = rows[0][1].shape[1]
    for file, (_, labels) in zip(files[1:], rows[1:], strict=True):
        if labels.shape[1] != columns:
            raise UserError(
                f"{file} has {labels.shape[1]} label columns and {files[0]} has {columns}: the "
                "lists of a protocol have the same columns."
            )
    check_counts(ours, [len(paths) for paths, _ in rows], columns)

    tagged = [labels.max(1) > 0 for _, labels in rows]
    unlabelled = {s: int((~t).sum()) for s, t in zip(SPLITS, tagged, strict=True)}
    notes = [
        f"{n} of the {len(t)} {split} images have no tag"
        + (" and are left out." if split == "query" else ".")
        for (split, n), t in zip(unlabelled.items(), tagged, strict=True)
        if n
    ]
    if not tagged[1].any():
        raise UserError(f"no line of {files[1]} has a 1: a query needs at least one tag.")
    asked = np.flatnonzero(tagged[1])
    rows[1] = [rows[1][0][i] for i in asked], rows[1][1][asked]

    paths = [names for names, _ in rows]
    ids = [_unique(names) for names in paths]
    for split, names, distinct in zip(SPLITS, paths, ids, strict=True):
        if repeated := sum(a != b for a, b in zip(names, distinct, strict=True)):
            notes.append(f"{repeated} lines of the {split} list repeat an image.")
    for i, where in ((0, "train"), (2, "database")):
        if shared := len(set(ids[1]) & set(ids[i])):
            notes.append(f"{shared} query images are {where} images as well.")
    return Items(
        files=tuple(_under(root, names, file) for names, file in zip(paths, files, strict=True)),
        ids=tuple(ids),
        labels=tuple(labels for _, labels in rows),
        classes=_class_names(folder / "classes.txt", ours, columns),
        unlabelled=unlabelled,
        notes=tuple(notes),
    )


def read_list(file: Path) -> tuple[list[str], Bytes]:
    """One list: N paths as written, and their labels (N,C).

    Raises:
        UserError: the file can't be read or has no line, or a line is not a path and C columns.
    """
    rows = enumerate(_text(file).split("\n"), 1)
    numbered = [(n, line.strip()) for n, line in rows if line.strip()]
    if not numbered:
        raise UserError(f"{file} is empty: a list has a line an image, its path and 0/1 columns.")
    columns = _trailing(numbered[0][1].split())
    if columns < 2:
        raise UserError(
            f"{file}, line {numbered[0][0]}: {numbered[0][1][-60:]!r} does not end in 0/1 columns: "
            "a line is an image path and then one 0 or 1 for each of at least two classes."
        )
    # All lines at once where single spaces stand between the columns; the others one by one.
    width = 2 * columns
    paths = [line[:-width].rstrip() for _, line in numbered]
    tails = "".join(line[-width:].rjust(width) for _, line in numbered)
    table = np.frombuffer(tails.encode("ascii", "replace"), np.uint8).reshape(-1, width)
    labels = table[:, 1::2] - ord("0")
    odd = (table[:, ::2] != ord(" ")).any(1) | (labels > 1).any(1)
    odd |= [not path or path.endswith((" 0", " 1")) for path in paths]
    for i in np.flatnonzero(odd):
        paths[i], labels[i] = _parse(file, *numbered[i], columns)
    return paths, labels


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8-sig")  # a byte-order mark is no part of a path
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read ({error}): save it as UTF-8 text.") from error


def _parse(file: Path, number: int, line: str, columns: int) -> tuple[str, list[int]]:
    tokens = line.split()
    found = _trailing(tokens)
    if found == columns:
        return line.rsplit(None, columns)[0], [int(t) for t in tokens[-columns:]]
    before = tokens[-found - 1]
    if found < min(columns, len(tokens) - 1) and before.lstrip("+-").replace(".", "").isdigit():
        raise UserError(f"{file}, line {number}: the label {before!r} is neither 0 nor 1.")
    raise UserError(
        f"{file}, line {number}: {found} label columns after the path, and the first line has "
        f"{columns}: every line needs as many."
    )


def _trailing(tokens: Sequence[str]) -> int:
    """How many tokens at the end are 0 or 1, the first (a path) never counted."""
    return next(
        (n for n, t in enumerate(reversed(tokens[1:])) if t not in ("0", "1")), len(tokens) - 1
    )


def _find(folder: Path, split: str) -> Path:
    for name in FILES[split]:
        if (folder / name).is_file():
            return folder / name
    raise UserError(
        f"{folder} has no {' or '.join(FILES[split])}: --lists must be the folder of train.txt, "
        "database.txt and test.txt (or query.txt)."
    )


def _unique(names: Sequence[str]) -> tuple[str, ...]:
    """The second ``a.jpg`` of a list becomes ``a.jpg#2``."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return tuple(found)


def _under(root: Path, names: Sequence[str], file: Path) -> tuple[str, ...]:
    """Where the images of a list lie; see the first lines of this file."""
    for name in names[:PROBED]:
        for drop in (None, *range(name.count("/") + 1)):
            if os.path.isfile(_place(root, name, drop)):
                return tuple(_place(root, other, drop) for other in names)
    raise UserError(
        f"none of the first {min(PROBED, len(names))} images of {file} lies under {root} (the "
        f"first is {names[0]}): give the folder that holds them as --root."
    )


def _place(root: Path, name: str, drop: int | None) -> str:
    if drop is None:
        return os.path.join(root, name)
    return os.path.join(root, *[part for part in name.split("/") if part not in ("", ".")][drop:])


def _class_names(file: Path, ours: Protocol, columns: int) -> tuple[str, ...]:
    if not file.is_file():
        return ours.class_names or tuple(map(str, range(columns)))
    names = tuple(filter(None, map(str.strip, _text(file).split("\n"))))
    if len(names) != columns or len(set(names)) != columns:
        raise UserError(
            f"{file} has {len(set(names))} different names, and the lists have {columns} label "
            "columns: it needs one name a line, in the order of the columns."
        )
    return names
