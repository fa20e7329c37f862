"""Decoding the images of a data set into files of pixels, and counting what is special in them."""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hashbackdoor_bench.data.decode import Decoded, decode
from hashbackdoor_bench.data.manifest import LeftOut, Part, hash_of, map_pixels
from hashbackdoor_bench.data.protocols import Protocol
from hashbackdoor_bench.data.reasons import NAMED_UNREADABLE, Reason, Reasons, first_of
from hashbackdoor_bench.data.splits import SPLITS, Bytes, Items
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.progress import Progress
from hashbackdoor_bench.text import visible

CHUNK = 64  # images per update of the progress bar


def write_images(
    folder: Path,
    ours: Protocol,
    items: Items,
    tolerance: float,
    progress: Progress,
    pool: ThreadPoolExecutor,
) -> dict[str, Part]:
    """Write the pixels of each split into a folder; returns what the manifest says of them.

    Where the split was drawn here (``folder``), no query equals an image that is trained on or
    ranked: an image with the pixels of one of another split is left out. Queries are the fewest and
    are kept, then train images. Lists keep their images, and queries of that kind are counted.

    Args:
        folder: an empty folder.
        ours: the protocol.
        items: its image files.
        tolerance: share of a split's images that may be unreadable.
        progress: called with the number of decoded images.
        pool: where images are decoded.

    Raises:
        UserError: more images of a split are unreadable than tolerated, or a split has no image.
    """
    total, done, stage = sum(map(len, items.files)), 0, f"prepare {ours.name}"
    progress(stage, 0, total)
    earlier: dict[str, Bytes] = {}  # pixels of files that are in a split written before
    shown: dict[str, str] = {}  # hash -> id of the images of the splits written before
    splits: dict[str, _Split] = {}
    listed = dict(zip(SPLITS, zip(items.files, items.ids, strict=True), strict=True))
    for split in ("query", "train", "database"):
        files, ids = listed[split]
        splits[split] = now = _Split({} if ours.source == "lists" else shown)
        decoded = _decoded(files, ours.side, earlier, pool)
        with (folder / f"{split}.u8").open("wb") as out:
            for row, found in enumerate(decoded):
                out.write(now.take(row, ids[row], files[row], found))
                done += 1
                if done % CHUNK == 0 or done == total:
                    progress(stage, done, total)
        unreadable = [one for one in now.left_out if one.reason is Reason.UNREADABLE]
        tolerate(unreadable, split, len(files), tolerance)
        if files and not now.images:
            raise UserError(
                f"no {split} image of {ours.name} is left ({' '.join(now.notes())}): bring more "
                "images, or take the copies away."
            )
        pixels = map_pixels(folder / f"{split}.u8", ours.side)
        earlier.update(zip(now.files, pixels, strict=True))
        shown |= {one: name for name, one in now.images.items() if one not in shown}
    if ours.source == "lists":
        splits["query"].count_copies(splits["train"], splits["database"])
    return {split: entry.part() for split, entry in splits.items()}


class _Split:
    """What is known of a split while its images are written.

    Args:
        taken: id by hash of the images that may not be in this split.
    """

    def __init__(self, taken: Mapping[str, str]) -> None:
        self.taken = taken
        self.left_out: list[LeftOut] = []
        self.counted = Reasons()
        self.images: dict[str, str] = {}  # id -> hash
        self.hashes: set[str] = set()
        self.files: list[str] = []
        self.digest = hashlib.sha256()

    def take(self, row: int, name: str, file: str, found: Decoded | str) -> bytes:
        """The pixels to write for an item; none if it is left out."""
        named = row, visible(name), visible(file)
        if isinstance(found, str):
            self.left_out.append(LeftOut(*named, Reason.UNREADABLE, visible(found)))
            return b""
        pixels = found.pixels.tobytes()
        one = hash_of(pixels)
        if one in self.taken:
            self.left_out.append(LeftOut(*named, Reason.COPY, visible(self.taken[one])))
            return b""
        for reason in (*found.reasons, *([Reason.COPY_BESIDE] if one in self.hashes else ())):
            self.counted.add(reason, visible(name))
        self.images[name] = one
        self.hashes.add(one)
        self.files.append(file)
        self.digest.update(pixels)
        return pixels

    def count_copies(self, *others: "_Split") -> None:
        """Count the images whose pixels stand in other splits under another id."""
        names: dict[str, set[str]] = {}
        for other in others:
            for name, one in other.images.items():
                names.setdefault(one, set()).add(name)
        for name, one in self.images.items():
            if names.get(one, set()) - {name}:
                self.counted.add(Reason.COPY_LISTED, visible(name))

    def notes(self) -> tuple[str, ...]:
        """Why items were left out."""
        reasons = Reasons()
        for one in self.left_out:
            reasons.add(one.reason, one.name)
        return reasons.notes()

    def part(self) -> Part:
        """The split's entry in the manifest."""
        counted = {reason: tuple(names) for reason, names in self.counted.names.items()}
        sha256 = self.digest.hexdigest()
        hashes = tuple(self.images.values())
        return Part(len(hashes), sha256, hashes, tuple(self.left_out), counted)


def tolerate(unreadable: Sequence[LeftOut], split: str, count: int, tolerance: float) -> None:
    """Refuse more unreadable images than are tolerated.

    Args:
        unreadable: the images of a split that can't be read.
        split: its name.
        count: its number of images, those included.
        tolerance: share of them that may be unreadable.

    Raises:
        UserError: there are more; the message names the first, and the tolerance that would do.
    """
    if len(unreadable) <= tolerance * count:
        return
    named = first_of([f"{one.file} ({one.why})" for one in unreadable], NAMED_UNREADABLE)
    enough = math.ceil(1000 * len(unreadable) / count) / 1000
    raise UserError(
        f"{len(unreadable)} of the {count} {split} images cannot be read, and at most "
        f"{100 * tolerance:.3g}% may be left out: {named}; bring these files, or another --root, "
        f"or leave them out by --tolerance {enough:g}."
    )


def _decoded(
    files: Sequence[str], side: int, earlier: Mapping[str, Bytes], pool: ThreadPoolExecutor
) -> Iterator[Decoded | str]:
    """Pixels or errors in the order of the files; at most two chunks are in memory."""

    def pixels(file: str) -> Decoded | str:
        return Decoded(earlier[file], ()) if file in earlier else decode(file, side)

    chunk = pool.map(pixels, files[:CHUNK])
    for start in range(CHUNK, len(files) + CHUNK, CHUNK):
        following = pool.map(pixels, files[start : start + CHUNK])  # decoded while this is written
        yield from chunk
        chunk = following
