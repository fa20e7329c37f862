"""Images decoded once into files of raw pixels that a run maps into memory, with a manifest.

    <cache>/data/<protocol>-<key>/{train,query,database}.u8      (N,3,side,side) uint8, RGB
    <cache>/data/<protocol>-<key>/manifest.json                  sizes, hashes, unreadable images

The key is a hash of the ids, sizes and times of the image files, so changed images are decoded
again. The folder gets its name when it is complete, so a killed process leaves no incomplete
folder; a file lock lets two processes share it. Unreadable images are listed in the manifest and
left out.
"""

import hashlib
import json
import mmap
import os
import shutil
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from hashbackdoor_bench.data.decode import RULE, decode
from hashbackdoor_bench.data.protocols import Protocol
from hashbackdoor_bench.data.splits import SPLITS, Bytes, Items, Splits, assemble, join_hashes
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.progress import Progress

CHUNK = 64  # images per update of the progress bar
NAMED = 5  # at most so many unreadable images are named in an error


def folder_of(ours: Protocol, items: Items, cache: Path) -> Path:
    """The folder of the prepared images, which may not exist yet."""
    digest = hashlib.sha256(f"{RULE} {ours.side}\n".encode())
    for files, ids in zip(items.files, items.ids, strict=True):
        for file, name in zip(files, ids, strict=True):
            digest.update(f"{name} {_stamp(file)}\n".encode())
        digest.update(b"\n")
    return cache / "data" / f"{ours.name}-{digest.hexdigest()[:16]}"


def prepare_items(
    ours: Protocol,
    items: Items,
    cache: Path,
    *,
    tolerance: float,
    progress: Progress,
    threads: int | None = None,
) -> Path:
    """Decode all images of a protocol, unless it was done before; returns their folder.

    Args:
        ours: the protocol.
        items: its image files.
        cache: folder of the cache; the images go into its folder ``data``.
        tolerance: share of a split's images that may be unreadable.
        progress: called with the number of decoded images.
        threads: number of decoding threads, by default one per core; Pillow releases the GIL.

    Raises:
        UserError: more images of a split are unreadable than tolerated, or the disk is too small.
    """
    folder = folder_of(ours, items, cache)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"), ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        if folder.is_dir():
            return folder
        need = sum(map(len, items.files)) * 3 * ours.side**2
        free = shutil.disk_usage(folder.parent).free
        if need > free:
            raise UserError(
                f"{ours.name} takes {need / 1e9:.1f} GB and {cache} has {free / 1e9:.1f} GB free: "
                "name a folder on a larger disk as --cache-dir."
            )
        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)  # left by a killed process
        part.mkdir()
        try:
            _write(part, ours, items, tolerance, progress, pool)
            os.replace(part, folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return folder


def open_prepared(ours: Protocol, items: Items, folder: Path) -> Splits:
    """Map a prepared folder into memory.

    Raises:
        UserError: a file of the folder is missing, truncated or doesn't fit the lists.
    """
    manifest = _manifest(folder)
    images, labels, ids, notes = [], [], [], list(items.notes)
    for split, names, rows in zip(SPLITS, items.ids, items.labels, strict=True):
        entry = manifest[split]
        left_out = {one["row"] for one in entry["left_out"]}
        keep = [row for row in range(len(names)) if row not in left_out]
        shape = (len(keep), 3, ours.side, ours.side)
        file = folder / f"{split}.u8"
        size = file.stat().st_size if file.is_file() else 0
        if size != np.prod(shape) or entry["count"] != len(keep):
            raise _damaged(folder, f"{file.name} has {size} bytes instead of {np.prod(shape)}")
        images.append(_map(file).reshape(shape))
        labels.append(rows[keep])
        ids.append([names[row] for row in keep])
        if left_out:
            notes.append(
                f"{len(left_out)} {split} images cannot be read and are left out, "
                f"{entry['left_out'][0]['file']} first; {folder / 'manifest.json'} names them."
            )
    return assemble(
        ours,
        images,
        labels,
        ids,
        items.classes,
        pixels=join_hashes([manifest[split]["sha256"] for split in SPLITS]),
        unlabelled=items.unlabelled,
        notes=notes,
    )


def verify_prepared(ours: Protocol, items: Items, folder: Path, progress: Progress) -> list[str]:
    """Hash the prepared files again; returns a sentence for each that has changed.

    Raises:
        UserError: the data set was not prepared, or the manifest is damaged.
    """
    if not folder.is_dir():
        raise UserError(
            f"{ours.name} is not prepared from these files: type bench data prepare {ours.name} "
            "with the same options first."
        )
    manifest = _manifest(folder)
    step, stage = 3 * ours.side**2, f"verify {ours.name}"
    total, done, differences = sum(manifest[split]["count"] for split in SPLITS), 0, []
    progress(stage, 0, total)
    for split, names in zip(SPLITS, items.ids, strict=True):
        entry, file = manifest[split], folder / f"{split}.u8"
        left_out = {one["row"] for one in entry["left_out"]}
        keep = [name for row, name in enumerate(names) if row not in left_out]
        digest, first = hashlib.sha256(), ""
        for name, crc, pixels in zip(keep, entry["crc32"], _images(file, step), strict=False):
            digest.update(pixels)
            if not first and zlib.crc32(pixels) != crc:
                first = name
            done += 1
            if done % CHUNK == 0 or done == total:
                progress(stage, done, total)
        size = file.stat().st_size if file.is_file() else 0
        if size != entry["count"] * step:
            differences.append(f"{file} has {size} bytes instead of {entry['count'] * step}.")
        elif digest.hexdigest() != entry["sha256"]:
            differences.append(f"{file} is not as it was written, first at the image {first}.")
    return differences


def _write(
    part: Path,
    ours: Protocol,
    items: Items,
    tolerance: float,
    progress: Progress,
    pool: ThreadPoolExecutor,
) -> None:
    """Fill a new folder: the pixels of each split, then the manifest."""
    for split, files in zip(SPLITS, items.files, strict=True):  # decoding may take hours
        missing = [(file, "no such file") for file in files if not _stamp(file)]
        _tolerate(missing, split, len(files), tolerance)
    total, done, stage = sum(map(len, items.files)), 0, f"prepare {ours.name}"
    progress(stage, 0, total)
    earlier: dict[str, Bytes] = {}  # pixels of files that are in an earlier split too
    manifest: dict[str, Any] = {}
    for split, files in zip(SPLITS, items.files, strict=True):
        left_out: list[tuple[str, str]] = []
        rows, kept, crc32, digest = [], [], [], hashlib.sha256()
        with (part / f"{split}.u8").open("wb") as out:
            for row, found in enumerate(_decoded(files, ours.side, earlier, pool)):
                if isinstance(found, str):
                    rows.append(row)
                    left_out.append((files[row], found))
                    _tolerate(left_out, split, len(files), tolerance)
                else:
                    pixels = found.tobytes()
                    out.write(pixels)
                    digest.update(pixels)
                    crc32.append(zlib.crc32(pixels))
                    kept.append(files[row])
                done += 1
                if done % CHUNK == 0 or done == total:
                    progress(stage, done, total)
        manifest[split] = {
            "count": len(kept),
            "sha256": digest.hexdigest(),
            "left_out": [
                {"row": row, "file": file, "reason": reason}
                for row, (file, reason) in zip(rows, left_out, strict=True)
            ],
            "crc32": crc32,  # of each image, to name the first that differs
        }
        pixels_of = _map(part / f"{split}.u8").reshape(-1, 3, ours.side, ours.side)
        earlier.update(zip(kept, pixels_of, strict=True))
    (part / "manifest.json").write_text(json.dumps(manifest), "utf-8")


def _decoded(
    files: Sequence[str], side: int, earlier: Mapping[str, Bytes], pool: ThreadPoolExecutor
) -> Iterator[Bytes | str]:
    """Pixels or errors in the order of the files; at most two chunks are in memory."""

    def pixels(file: str) -> Bytes | str:
        return earlier[file] if file in earlier else decode(file, side)

    chunk = pool.map(pixels, files[:CHUNK])
    for start in range(CHUNK, len(files) + CHUNK, CHUNK):
        following = pool.map(pixels, files[start : start + CHUNK])  # decoded while this is written
        yield from chunk
        chunk = following


def _tolerate(
    left_out: Sequence[tuple[str, str]], split: str, count: int, tolerance: float
) -> None:
    if len(left_out) <= tolerance * count:
        return
    named = ", ".join(f"{file} ({reason})" for file, reason in left_out[:NAMED])
    more = f", and {len(left_out) - NAMED} more" if len(left_out) > NAMED else ""
    raise UserError(
        f"at least {len(left_out)} of the {count} {split} images cannot be read, and at most "
        f"{tolerance:.0%} may be left out: {named}{more}; bring these files, or another --root."
    )


def _stamp(file: str) -> str:
    """Size and time of a file; empty if it is missing."""
    try:
        found = os.stat(file)
    except OSError:
        return ""
    return f"{found.st_size} {found.st_mtime_ns}"


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text("utf-8"))
        for split in SPLITS:
            entry = manifest[split]
            whole = entry["count"] == len(entry["crc32"]) and len(entry["sha256"]) == 64
            if not whole or not all(isinstance(one["row"], int) for one in entry["left_out"]):
                raise ValueError(f"the entry of {split} contradicts itself")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, f"manifest.json cannot be read: {error}") from error
    return manifest


def _damaged(folder: Path, why: str) -> UserError:
    return UserError(
        f"the prepared images in {folder} are damaged ({why}): delete this folder and type the "
        "command again."
    )


def _map(file: Path) -> Bytes:
    """A private memory map of a file: read when it is indexed; changes stay in memory.

    With the flag NORESERVE, Linux allows such a map to be larger than the memory.
    """
    if not file.stat().st_size:
        return np.zeros(0, np.uint8)
    if sys.platform != "linux":
        return np.memmap(file, np.uint8, "c")
    no_reserve = getattr(mmap, "MAP_NORESERVE", 0x4000)  # Python gives it a name from 3.13 on
    with file.open("rb") as opened:
        private = mmap.mmap(
            opened.fileno(),
            0,
            flags=mmap.MAP_PRIVATE | no_reserve,
            prot=mmap.PROT_READ | mmap.PROT_WRITE,
        )
    return np.frombuffer(private, np.uint8)


def _images(file: Path, step: int) -> Iterator[bytes]:
    """The bytes of each image; the last may be incomplete, and a missing file has no images."""
    if file.is_file():
        with file.open("rb") as opened:
            yield from iter(lambda: opened.read(step), b"")
