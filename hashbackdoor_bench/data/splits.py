"""A loaded data set: three splits of images, labels and ids, and their hashes."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hashbackdoor_bench.data.names import folded
from hashbackdoor_bench.data.protocols import Protocol
from hashbackdoor_bench.errors import UserError, unknown
from hashbackdoor_bench.spec import SEVERAL

if TYPE_CHECKING:
    from torch import Tensor

Bytes = NDArray[np.uint8]
SPLITS = ("train", "query", "database")  # the order of every triple in this package


@dataclass(frozen=True, eq=False)
class Split:
    """The images of one split, in the order of its list.

    Attributes:
        images: (N,3,H,W) uint8, RGB; in memory, or a private memory map of a prepared file, which
            is read when it is indexed, and never written.
        labels: (N,C) uint8, 0 or 1; a row has a one for each tag of the image.
        ids: N item ids, unique within the split. An id names the same item in every split.
    """

    images: "Tensor"
    labels: "Tensor"
    ids: tuple[str, ...]

    def __post_init__(self) -> None:
        assert self.images.ndim == 4, self.images.shape
        assert self.images.shape[1] == 3, self.images.shape
        assert len(self.images) == len(self.labels) == len(self.ids) == len(set(self.ids))

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class Splits:
    """A protocol with its images: all the data of a run.

    Attributes:
        name: the protocol's name.
        train: what the victim is trained on.
        query: the queries; every one has a tag.
        database: what is ranked.
        classes: C class names in the order of the label columns.
        top_k: R of MAP@R, at most the size of the database.
        size: side in px of the network's input; images are stored this large or larger.
        sha256: hash of the item lists (ids, labels, order, of all splits) and of R.
        pixels: hash of the pixels of all splits.
        recipe: name of the default recipe.
        backbone: name of the default backbone.
        unlabelled: number of items without a tag by split (those of ``query`` were left out).
        notes: sentences that the user should read about this data.
    """

    name: str
    train: Split
    query: Split
    database: Split
    classes: tuple[str, ...]
    top_k: int
    size: int
    sha256: str
    pixels: str
    recipe: str
    backbone: str
    unlabelled: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @cached_property
    def multilabel(self) -> bool:
        """Whether any image has two tags or more."""
        return any(
            bool((split.labels.sum(1) > 1).any())
            for split in (self.train, self.query, self.database)
        )

    @cached_property
    def untrained(self) -> NDArray[np.bool_]:
        """Which images (D,) of the database are no training images."""
        trained = set(self.train.ids)
        return np.array([name not in trained for name in self.database.ids], dtype=bool)

    def label_set(self, which: str | int) -> tuple[int, ...]:
        """The columns of a target, in ascending order: a class, or several with `` + `` between.

        Raises:
            UserError: see `class_index`; or the name of one of several classes has `` + `` in it.
        """
        if which in self.classes or SEVERAL not in str(which):
            return (self.class_index(which),)
        columns = sorted({self.class_index(part.strip()) for part in str(which).split(SEVERAL)})
        for column in columns:
            if SEVERAL in self.classes[column]:
                raise UserError(
                    f"target {which!r}: the name of class {self.classes[column]!r} has ' + ' in "
                    "it, which stands between the classes of a set: rename the class."
                )
        return tuple(columns)

    def target_name(self, which: str | int) -> str:
        """A target as records write it, see `label_set`."""
        return SEVERAL.join(self.classes[column] for column in self.label_set(which))

    def class_index(self, which: str | int) -> int:
        """The column of a class given by its name or by its number.

        A text that is the name of a class is that class, even if it looks like a number. Upper or
        lower case and Unicode's normal form don't matter where one class alone is meant.

        Raises:
            UserError: there is no such class, or several differ only in case or normal form; the
                message suggests similar names, the range, or lists those classes.
        """
        if which in self.classes:
            return self.classes.index(str(which))
        names = [folded(name) for name in self.classes]
        alike = [i for i, name in enumerate(names) if name == folded(str(which))]
        if isinstance(which, str) and len(alike) == 1:
            return alike[0]
        if isinstance(which, str) and alike:
            listed = " or ".join(f"{self.classes[i]!a} (number {i})" for i in alike)
            raise UserError(
                f"class {which!r} is not unique in {self.name}, where names differ only in upper "
                f"and lower case or in their Unicode form: give {listed} exactly, or its number."
            )
        digits = str(which).removeprefix("-")
        if not digits.isdecimal():
            if all(name.isdecimal() for name in names):
                raise UserError(
                    f"{which!r} is not a class: those of {self.name} have no names here, so give a "
                    f"number from 0 to {len(names) - 1}, or their names in classes.txt."
                )
            parts = [part.strip() for part in str(which).split(SEVERAL.strip())]
            if len(parts) > 1 and all(folded(part) in names for part in parts):
                raise UserError(
                    f"{which!r} is not a class of {self.name}: write a set of classes with spaces, "
                    f"as {SEVERAL.join(parts)!r}."
                )
            raise unknown(f"class of {self.name}", str(which), self.classes)
        if not 0 <= int(which) < len(names):
            raise UserError(
                f"class {which} does not exist: {self.name} has the classes 0 to {len(names) - 1}."
            )
        return int(which)


@dataclass(frozen=True)
class Items:
    """The items of lists or folders before images are read: of train, query and database.

    Attributes:
        files: paths of the images.
        ids: item ids, unique within a split.
        labels: (N,C) uint8 0/1.
        classes: C class names.
        unlabelled: see `Splits`.
        notes: see `Splits`.
    """

    files: tuple[tuple[str, ...], ...]
    ids: tuple[tuple[str, ...], ...]
    labels: tuple[Bytes, ...]
    classes: tuple[str, ...]
    unlabelled: Mapping[str, int]
    notes: tuple[str, ...]


def assemble(
    protocol: Protocol,
    images: Sequence[Bytes],
    labels: Sequence[Bytes],
    ids: Sequence[Sequence[str]],
    classes: Sequence[str],
    *,
    pixels: str = "",
    unlabelled: Mapping[str, int] | None = None,
    notes: Sequence[str] = (),
) -> Splits:
    """Turn arrays into `Splits`, with tensors and hashes.

    Args:
        protocol: its name, R, sizes and defaults.
        images: (N,3,H,W) uint8 of train, query and database.
        labels: (N,C) uint8 0/1 of train, query and database.
        ids: item ids of train, query and database.
        classes: C class names.
        pixels: hash of the pixels, where it is known already.
        unlabelled: see `Splits`.
        notes: see `Splits`.

    Raises:
        UserError: the protocol has a known hash, and that of the files differs.
    """
    from torch import from_numpy  # late: the table is listed and files are checked without torch

    top_k = min(protocol.top_k or len(ids[2]), len(ids[2]))
    if protocol.top_k and top_k < protocol.top_k:
        cut = f"R is cut from {protocol.top_k} to {top_k}, the number of database images."
        notes = (*notes, cut)
    sha256 = hash_lists(ids, labels, top_k)
    pixels = pixels or hash_pixels(images)
    for what, promised, found in (
        ("lists", protocol.sha256, sha256),
        ("pixels", protocol.pixels, pixels),
    ):
        if promised and found != promised:
            raise UserError(
                f"the {what} of {protocol.name} have SHA-256 {found[:12]} instead of "
                f"{promised[:12]}: use its original files."
            )
    train, query, database = (
        Split(from_numpy(x), from_numpy(np.ascontiguousarray(y)), tuple(names))
        for x, y, names in zip(images, labels, ids, strict=True)
    )
    return Splits(
        name=protocol.name,
        train=train,
        query=query,
        database=database,
        classes=tuple(classes),
        top_k=top_k,
        size=protocol.size,
        sha256=sha256,
        pixels=pixels,
        recipe=protocol.recipe,
        backbone=protocol.backbone,
        unlabelled=dict(unlabelled or {"train": 0, "query": 0, "database": 0}),
        notes=tuple(notes),
    )


def check_counts(ours: Protocol, found: Sequence[int], classes: int) -> None:
    """Check the sizes of lists against a protocol.

    Args:
        ours: the protocol; if its count is None, any number is right.
        found: number of items of the train, query and database list.
        classes: number of label columns.

    Raises:
        UserError: a number differs; the message has both.
    """
    promised = (ours.train, ours.query, ours.database, ours.classes)
    kinds = ("train images", "query images", "database images", "classes")
    for kind, count, number in zip(kinds, promised, (*found, classes), strict=True):
        if count is not None and count != number:
            hint = " (or --dataset lists for lists of your own)" if ours.source == "lists" else ""
            raise UserError(
                f"{ours.name} has {count} {kind}, but here are {number}: use this protocol's "
                f"own files{hint}."
            )


def hash_lists(ids: Sequence[Sequence[str]], labels: Sequence[Bytes], top_k: int) -> str:
    """SHA-256 over R and, for each split, its size, its ids (one per line) and its labels' bytes.

    Args:
        ids: item ids of train, query and database.
        labels: (N,C) uint8 of train, query and database.
        top_k: R.
    """
    digest = hashlib.sha256(f"R {top_k}\n".encode())
    for split, names, rows in zip(SPLITS, ids, labels, strict=True):
        digest.update(f"{split} {rows.shape[0]} {rows.shape[1]}\n".encode())
        digest.update("\n".join(names).encode())
        digest.update(np.ascontiguousarray(rows).data)
    return digest.hexdigest()


def hash_pixels(images: Sequence[Bytes]) -> str:
    """SHA-256 over the SHA-256 of each split's pixel bytes, for train, query and database.

    Args:
        images: (N,3,H,W) uint8, contiguous, of train, query and database.
    """
    return join_hashes([hashlib.sha256(x.data).hexdigest() for x in images])


def join_hashes(each: Sequence[str]) -> str:
    """One hash of the pixel hashes of train, query and database."""
    return hashlib.sha256("\n".join(each).encode()).hexdigest()


def one_hot(classes: NDArray[np.integer], count: int) -> Bytes:
    """Class numbers (N,) to rows (N, count) with a single one."""
    rows: Bytes = np.eye(count, dtype=np.uint8)[classes]
    return rows
