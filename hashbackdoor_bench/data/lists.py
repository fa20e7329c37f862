"""Data sets in the field's usual format: three text files with a path and 0/1 columns per line.

    n01440764/n01440764_10026.JPEG 0 0 1 0

Columns are read from the right, so a path may contain spaces, but not end in a space and a 0 or 1.
The number of columns is that of the first line. Blank lines are skipped, text is UTF-8.

Paths may have Windows' backslashes, where no image is found under the path as written.

Published lists contain the folders of their authors
(/home/caozhangjie/run-czj/dataset/coco/val2014, ./data/nuswide_81/images). Paths are relative to
the root folder. If no image is found there, leading folders are dropped from the paths until one
is, the same number for the whole list. The id of an item is its path as written, so the hash of a
list doesn't depend on where its images are.
"""

import os.path
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hashbackdoor_bench.data.names import unique
from hashbackdoor_bench.data.protocols import Protocol
from hashbackdoor_bench.data.splits import SPLITS, Bytes, Items, check_counts
from hashbackdoor_bench.errors import UserError

FILES = {"train": ("train.txt",), "query": ("test.txt", "query.txt"), "database": ("database.txt",)}
LARGEST = 2**30  # bytes of a list
PROBED = 50  # how many first images of a list are looked for under the root


def read_lists(ours: Protocol, folder: Path | None, root: Path | None) -> Items:
    """Read the three lists of a protocol and find its images.

    Queries without any tag are counted and left out, because no item is relevant to them.

    Args:
        ours: the protocol; the lists must have its numbers of images, unlabelled ones included.
        folder: folder with train.txt, database.txt and test.txt or query.txt, and with classes.txt
            (one name per line) if the classes have names.
        root: folder of the images.

    Raises:
        UserError: a list is missing, empty, malformed or of another size than the protocol's, or
            none of its images is under the root.
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
    ids = [unique(names) for names in paths]
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
    """Read one list: N paths as written, and their labels (N,C).

    Raises:
        UserError: the file can't be read or is empty, or a line is not a path and C columns.
    """
    rows = enumerate(_text(file).split("\n"), 1)
    numbered = [(n, line.strip()) for n, line in rows if line.strip()]
    if not numbered:
        raise UserError(
            f"{file} is empty: a list needs one line per image, with its path and 0/1 columns."
        )
    columns = _trailing(numbered[0][1].split())
    if columns < 2:
        raise UserError(
            f"{file}, line {numbered[0][0]}: {numbered[0][1][-60:]!r} does not end in 0/1 columns: "
            "a line is an image path and then one 0 or 1 for each of at least two classes."
        )
    # Lines with single spaces between the columns are parsed together, the others one by one.
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
        if file.stat().st_size > LARGEST:
            raise UserError(f"{file} has more than {LARGEST} bytes, and is no list of images.")
        return file.read_text("utf-8-sig")  # without a byte-order mark
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
    """The number of tokens at the end that are 0 or 1; the first token, a path, never counts."""
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


def _under(root: Path, names: Sequence[str], file: Path) -> tuple[str, ...]:
    """The paths of a list's images under the root; see the top of this file."""
    for windows in (False, True):
        paths = [name.replace("\\", "/") for name in names] if windows else names
        for name in paths[:PROBED]:
            for drop in (None, *range(name.count("/") + 1)):
                if os.path.isfile(_place(root, name, drop)):
                    return tuple(_place(root, other, drop) for other in paths)
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
            f"{file} has {len(set(names))} different names, but the lists have {columns} label "
            "columns: it needs one name per line, in the order of the columns."
        )
    return names
