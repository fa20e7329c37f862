"""Images decoded once into files of raw pixels that a run maps into memory, with a manifest.

    <cache>/data/<protocol>-<key>/{train,query,database}.u8      (N,3,side,side) uint8, RGB
    <cache>/data/<protocol>-<key>/manifest.json                  sizes, hashes, what was left out

The key is a hash of the ids and the bytes of all image files. The pixels are hashed when they are
opened (see `content`), and are decoded again if they aren't as they were written. The folder gets
its name when it is complete, so a killed process leaves no incomplete folder; a file lock lets two
processes share it.
"""

import hashlib
import os
import shutil
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hashbackdoor_bench.data.content import content_of
from hashbackdoor_bench.data.decode import RULE, refused
from hashbackdoor_bench.data.manifest import (
    DamagedImages,
    LeftOut,
    Manifest,
    check_pixels,
    hash_of,
    map_pixels,
    read_manifest,
    write_manifest,
)
from hashbackdoor_bench.data.protocols import Protocol
from hashbackdoor_bench.data.reasons import NAMED, Reason, first_of, merged
from hashbackdoor_bench.data.splits import SPLITS, Items, Splits, assemble, join_hashes
from hashbackdoor_bench.data.writing import CHUNK, tolerate, write_images
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.files import room
from hashbackdoor_bench.locks import locked
from hashbackdoor_bench.progress import Progress
from hashbackdoor_bench.text import visible


class Prepared(NamedTuple):
    """A folder of prepared images, and its manifest."""

    folder: Path
    manifest: Manifest

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on the images that were left out or changed."""
        return merged(self.manifest.names()).notes()


def prepare_items(
    ours: Protocol,
    items: Items,
    cache: Path,
    *,
    tolerance: float,
    progress: Progress,
    threads: int | None = None,
) -> Prepared:
    """Decode all images of a protocol, unless it was done before and nothing has changed.

    Args:
        ours: the protocol.
        items: its image files.
        cache: folder of the cache; the images go into its folder ``data``.
        tolerance: share of a split's images that may be unreadable.
        progress: called with the number of decoded images.
        threads: number of decoding threads, by default one per core; Pillow releases the GIL.

    Raises:
        UserError: more images of a split are unreadable than tolerated, a split has no image, or
            the disk is too small.
    """
    for split, files in zip(SPLITS, items.files, strict=True):  # reading them may take hours
        missing = [
            LeftOut(row, file, file, Reason.UNREADABLE, why)
            for row, file in enumerate(files)
            if (why := refused(file))
        ]
        tolerate(missing, split, len(files), tolerance)
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        key = _key(ours, items, cache, pool, progress)
        folder = _folder(ours, key, cache)
        folder.parent.mkdir(parents=True, exist_ok=True)
        found = None if _damage(ours, folder, key) else Prepared(folder, read_manifest(folder, key))
        if found is None:
            with locked(Path(f"{folder}.lock"), f"preparing {ours.name}", progress):
                found = _prepare(ours, items, folder, key, tolerance, progress, pool)
    for split, part in found.manifest.parts.items():
        unreadable = [one for one in part.left_out if one.reason is Reason.UNREADABLE]
        tolerate(unreadable, split, part.count + len(part.left_out), tolerance)
    return found


def open_prepared(ours: Protocol, items: Items, prepared: Prepared) -> Splits:
    """Map prepared images into memory."""
    images, labels, ids, notes = [], [], [], [*items.notes, *prepared.notes]
    for split, names, rows in zip(SPLITS, items.ids, items.labels, strict=True):
        part = prepared.manifest.parts[split]
        left_out = {one.row for one in part.left_out}
        keep = [row for row in range(len(names)) if row not in left_out]
        images.append(map_pixels(prepared.folder / f"{split}.u8", ours.side))
        labels.append(rows[keep])
        empty = [items.classes[i] for i in np.flatnonzero(rows[keep].sum(0) == 0)]
        if empty and ours.source == "folder":
            named = first_of(empty, NAMED)
            notes.append(f"No {split} image is left of {len(empty)} classes ({named}).")
        ids.append([names[row] for row in keep])
    return assemble(
        ours,
        images,
        labels,
        ids,
        items.classes,
        pixels=join_hashes([part.sha256 for part in prepared.manifest.parts.values()]),
        unlabelled=items.unlabelled,
        notes=notes,
    )


def verify_prepared(ours: Protocol, items: Items, cache: Path, progress: Progress) -> list[str]:
    """Hash the prepared files again; returns a sentence for each that has changed.

    Raises:
        UserError: the data set was not prepared, or the manifest is damaged.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        key = _key(ours, items, cache, pool, progress)
    folder = _folder(ours, key, cache)
    if not folder.is_dir():
        raise UserError(
            f"{ours.name} is not prepared from these files: type bench data prepare {ours.name} "
            "with the same options first."
        )
    try:
        manifest = read_manifest(folder, key)
    except DamagedImages as error:
        raise UserError(
            f"the prepared images in {folder} are damaged ({error}): type bench data prepare "
            f"{ours.name} with the same options, which makes them again."
        ) from error
    step, stage = 3 * ours.side**2, f"verify {ours.name}"
    total, done = sum(part.count for part in manifest.parts.values()), 0
    differences = []
    progress(stage, 0, total)
    for (split, part), names in zip(manifest.parts.items(), items.ids, strict=True):
        file = folder / f"{split}.u8"
        left_out = {one.row for one in part.left_out}
        keep = [name for row, name in enumerate(names) if row not in left_out]
        digest, first = hashlib.sha256(), ""
        for name, expected, pixels in zip(keep, part.images, _images(file, step), strict=False):
            digest.update(pixels)
            if not first and hash_of(pixels) != expected:
                first = name
            done += 1
            if done % CHUNK == 0 or done == total:
                progress(stage, done, total)
        size = file.stat().st_size if file.is_file() else 0
        if size != part.count * step:
            differences.append(f"{file} has {size} bytes instead of {part.count * step}.")
        elif digest.hexdigest() != part.sha256:
            where = f", first at the image {visible(first)}" if first else ""
            differences.append(f"{file} is not as it was written{where}.")
    return differences


def _key(
    ours: Protocol, items: Items, cache: Path, pool: ThreadPoolExecutor, progress: Progress
) -> str:
    stage = f"read {ours.name}"
    content = content_of(items, cache / "data" / ours.name, pool, progress, stage)
    return hashlib.sha256(f"{RULE} {ours.source} {ours.side} {content}".encode()).hexdigest()


def _folder(ours: Protocol, key: str, cache: Path) -> Path:
    return cache / "data" / f"{ours.name}-{key[:16]}"


def _damage(ours: Protocol, folder: Path, key: str) -> str:
    """Why a folder of prepared images can't be used; empty if it can."""
    try:
        check_pixels(folder, read_manifest(folder, key), 3 * ours.side**2)
    except DamagedImages as error:
        return str(error)
    return ""


def _prepare(
    ours: Protocol,
    items: Items,
    folder: Path,
    key: str,
    tolerance: float,
    progress: Progress,
    pool: ThreadPoolExecutor,
) -> Prepared:
    """Fill a folder, unless another process has done so by now; a damaged one is replaced."""
    if os.path.lexists(folder):
        damage = _damage(ours, folder, key)
        if not damage:
            return Prepared(folder, read_manifest(folder, key))
        warnings.warn(f"the prepared images in {folder} are damaged ({damage}): made again.")
        _remove(folder)
    need = sum(map(len, items.files)) * 3 * ours.side**2
    free = shutil.disk_usage(folder.parent).free
    if need > free:
        raise UserError(
            f"{ours.name} takes {need / 1e9:.1f} GB and {folder.parent} has {free / 1e9:.1f} GB "
            "free: name a folder on a larger disk as --cache-dir."
        )
    part = folder.with_name(f"{folder.name}.part")
    _remove(part)  # left by a killed process
    part.mkdir()
    try:
        with room(folder.parent):
            parts = write_images(part, ours, items, tolerance, progress, pool)
            manifest = Manifest(key, parts["train"], parts["query"], parts["database"])
            write_manifest(part, manifest)
            os.replace(part, folder)
    finally:
        _remove(part)
    return Prepared(folder, manifest)


def _remove(path: Path) -> None:
    """Remove a folder, or whatever stands in its place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _images(file: Path, step: int) -> Iterator[bytes]:
    """The bytes of each image; the last may be incomplete, and a missing file has no images."""
    if file.is_file():
        with file.open("rb") as opened:
            yield from iter(lambda: opened.read(step), b"")
