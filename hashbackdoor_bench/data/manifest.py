"""The manifest of prepared images: what is in their files, what was left out, and why."""

import hashlib
import mmap
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import numpy as np

from hashbackdoor_bench.data.content import remembered
from hashbackdoor_bench.data.reasons import Reason
from hashbackdoor_bench.data.splits import SPLITS, Bytes
from hashbackdoor_bench.files import sha256_of
from hashbackdoor_bench.spec import digest

NAME = "manifest.json"
LARGEST = 2**30  # bytes of a manifest


class LeftOut(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An item that has no pixels.

    Attributes:
        row: its place in the list of its split.
        name: its id, printable.
        file: its path, printable.
        reason: `Reason.UNREADABLE` or `Reason.COPY`.
        why: what the decoder said, or the id of the image of which it is a copy.
    """

    row: int
    name: str
    file: str
    reason: Reason
    why: str


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The images of one split.

    Attributes:
        count: N.
        sha256: hash of the file of pixels.
        images: hash of the pixels of each image, see `hash_of`.
        left_out: the items without pixels, in order.
        counted: printable ids of images that are kept under a reason.
    """

    count: int
    sha256: str
    images: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    counted: dict[Reason, tuple[str, ...]]


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The manifest of a folder of prepared images.

    Attributes:
        key: hash of all that the folder was made from.
        train: what is in ``train.u8``.
        query: what is in ``query.u8``.
        database: what is in ``database.u8``.
        check: hash of the other attributes.
    """

    key: str
    train: Part
    query: Part
    database: Part
    check: str = ""

    @property
    def parts(self) -> dict[str, Part]:
        """The splits by name, in their order."""
        return {"train": self.train, "query": self.query, "database": self.database}

    def names(self) -> Iterator[Mapping[Reason, list[str]]]:
        """The names of files under each reason, for `reasons.merged`."""
        for part in self.parts.values():
            for one in part.left_out:
                yield {one.reason: [one.name]}
            yield {reason: list(names) for reason, names in part.counted.items()}


class DamagedImages(Exception):
    """The prepared images are not as they were written."""


def hash_of(pixels: bytes) -> str:
    """The hash of one image in a manifest: the first half of its SHA-256."""
    return hashlib.sha256(pixels).hexdigest()[:32]


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write a manifest, with the hash of itself."""
    signed = msgspec.structs.replace(manifest, check=digest(manifest))
    (folder / NAME).write_bytes(msgspec.json.encode(signed))


def read_manifest(folder: Path, key: str) -> Manifest:
    """The manifest of the folder that was made from ``key``.

    Raises:
        DamagedImages: it can't be read, was changed, or belongs to another folder.
    """
    file = folder / NAME
    try:
        if not file.is_file() or file.stat().st_size > LARGEST:
            raise DamagedImages(f"{NAME} is missing")
        manifest = msgspec.json.decode(file.read_bytes(), type=Manifest)
    except (OSError, ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise DamagedImages(f"{NAME} cannot be read: {error}") from error
    if manifest.check != digest(msgspec.structs.replace(manifest, check="")):
        raise DamagedImages(f"{NAME} was changed")
    if manifest.key != key:
        raise DamagedImages(f"{NAME} belongs to other images")
    return manifest


def check_pixels(folder: Path, manifest: Manifest, step: int) -> None:
    """Compare the files of pixels with the manifest: they are hashed, once after each change.

    Args:
        folder: the folder of both.
        manifest: the manifest.
        step: bytes of an image.

    Raises:
        DamagedImages: a file is missing or was changed.
    """
    files = [folder / f"{split}.u8" for split in SPLITS]
    for file, part in zip(files, manifest.parts.values(), strict=True):
        size = file.stat().st_size if file.is_file() else 0
        if size != part.count * step or not file.is_file():
            raise DamagedImages(f"{file.name} has {size} bytes instead of {part.count * step}")

    def found() -> str:
        return " ".join(map(sha256_of, files))

    try:
        hashes = remembered(folder / "checked.json", list(map(str, files)), found).split()
    except OSError as error:
        raise DamagedImages(f"the pixels cannot be read: {error}") from error
    promised = [part.sha256 for part in manifest.parts.values()]
    if hashes != promised:
        changed = [f.name for f, a, b in zip(files, hashes, promised, strict=False) if a != b]
        raise DamagedImages(f"{' and '.join(changed)} not as written")


def map_pixels(file: Path, side: int) -> Bytes:
    """The images (N,3,side,side) of a file as a private memory map: changes stay in memory.

    With the flag NORESERVE, Linux allows such a map to be larger than the memory.
    """
    shape = (3, side, side)
    if not file.stat().st_size:
        return np.zeros((0, *shape), np.uint8)
    if sys.platform != "linux":
        return np.memmap(file, np.uint8, "c").reshape(-1, *shape)
    no_reserve = getattr(mmap, "MAP_NORESERVE", 0x4000)  # Python gives it a name from 3.13 on
    with file.open("rb") as opened:
        private = mmap.mmap(
            opened.fileno(),
            0,
            flags=mmap.MAP_PRIVATE | no_reserve,
            prot=mmap.PROT_READ | mmap.PROT_WRITE,
        )
    return np.frombuffer(private, np.uint8).reshape(-1, *shape)
