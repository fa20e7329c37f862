"""Pulling records and artifacts from a shared folder into the results and the cache of a machine.

A file gets its name here when all of it is here and its hash is that of the listing. An artifact is
read back as the cache does it: its facts must give its key, and its tensors their hash. A record
must be one, agree with itself, and stand in its own place. What is here already stays as it is.

None of this says whether an artifact was computed as it claims: only making it again can tell.
"""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.files import room, sha256_of
from hashbackdoor_bench.locks import locked
from hashbackdoor_bench.progress import Progress, silent
from hashbackdoor_bench.sharing.listing import (
    LARGEST_LISTING,
    LISTING,
    RESULTS,
    Listing,
    SharedFile,
    read_listing,
)
from hashbackdoor_bench.sharing.merging import Merged, merge
from hashbackdoor_bench.sharing.sources import Source
from hashbackdoor_bench.stages import FILES, Cache, Damaged, content_hash
from hashbackdoor_bench.text import visible

SPARE = 100_000_000  # bytes of a disk that stay free


@dataclass
class Pulled:
    """What was pulled.

    Attributes:
        artifacts: number of artifacts that came.
        known: number of those that were here already.
        other: a sentence for each artifact that is here with other content, and stays.
        merged: what became of the records; None if there are none, or none was asked for.
    """

    artifacts: int = 0
    known: int = 0
    other: list[str] = field(default_factory=list)
    merged: Merged | None = None


def listing_from(source: Source, sha256: str | None = None) -> Listing:
    """The listing of a source.

    Args:
        source: the source.
        sha256: what `bench push` has printed of it, if that is known; it stands for all files.

    Raises:
        UserError: it can't be had, is no listing, or another than that.
    """
    data = source.read(LISTING, LARGEST_LISTING)
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256.lower():
        raise UserError(
            f"the {LISTING} of {source.name} has SHA-256 {found} and not {sha256}: ask its owner "
            "for the present one, or leave --sha256 out to take what is there."
        )
    return read_listing(data, f"the {LISTING} of {source.name}")


def pull(
    source: Source,
    listing: Listing,
    cache: Cache,
    *,
    artifacts: bool = True,
    results: Path | None = None,
    progress: Progress = silent,
) -> Pulled:
    """Bring what is not here; the same call again goes on where it stopped.

    Args:
        source: the source.
        listing: its listing.
        cache: where artifacts go, and unfinished files.
        artifacts: whether artifacts are brought.
        results: where records go, by `merge`; None: none are brought.
        progress: called with the number of MB.

    Raises:
        UserError: the source can't be read, a file is not what it should be, or doesn't fit on the
            disk.
    """
    found = Pulled()
    shared = listing.artifacts if artifacts else {}
    records = listing.results if results is not None else []
    needed = [one for name, files in shared.items() if not cache.has(*name) for one in files]
    size = sum(one.size for one in (*needed, *records))
    for place in (cache.root, results or cache.root):
        _check_room(place, size, source)
    tell = _counter(f"pull {source.name}", size, progress)
    for (kind, key), files in shared.items():
        folder = cache.folder(kind, key)
        if folder is None:
            _pull_artifact(source, cache, kind, key, files, tell)
            found.artifacts += 1
            continue
        found.known += 1
        if content_hash(folder) != files[1].sha256:
            found.other.append(
                visible(
                    f"{kind} {key[:12]} is in {folder.parent.parent} already with other content, "
                    "as another machine computes it: it stays."
                )
            )
    if results is not None and records:
        found.merged = _pull_records(source, records, cache.root, results, tell)
    return found


def _counter(title: str, size: int, progress: Progress) -> Callable[[int], None]:
    """A function that adds bytes to those that are shown, in MB."""
    total, came, told = max(1, size // 10**6), 0, -1

    def tell(count: int) -> None:
        nonlocal came, told
        came += count
        done = total if came >= size else min(came // 10**6, total - 1)
        if done != told:
            told = done
            progress(title, done, total)

    tell(0)
    return tell


def _check_room(place: Path, size: int, source: Source) -> None:
    """Refuse to begin what doesn't fit.

    Raises:
        UserError: the disk has too little room.
    """
    there = next(path for path in (place.absolute(), *place.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(there).free
    if size + SPARE > free:
        raise UserError(
            f"{source.name} has {size / 1e6:.0f} MB that are not here, and {place} has room for "
            f"{free / 1e6:.0f} MB: free some space, or give another folder."
        )


def _pull_artifact(
    source: Source,
    cache: Cache,
    kind: str,
    key: str,
    files: tuple[SharedFile, ...],
    tell: Callable[[int], None],
) -> None:
    """Bring one artifact.

    Raises:
        UserError: it can't be had, or is not what its key says.
    """

    def bring(folder: Path) -> None:
        for file, name in zip(files, FILES, strict=True):
            _bring(source, file, folder / name, tell)

    try:
        cache.receive(kind, key, bring)
    except Damaged as error:
        raise UserError(
            f"{kind} {key[:12]} of {source.name} is refused ({error}): its files are as the "
            "listing says, but they are not the artifact of that key, so nothing of it was kept; "
            "tell the owner of the folder."
        ) from error


def _bring(source: Source, file: SharedFile, to: Path, tell: Callable[[int], None]) -> None:
    """Bring one file, unless it is there, and compare its hash.

    Raises:
        UserError: it can't be had, or is not what the listing says.
    """
    begun = to.is_file()
    if begun and to.stat().st_size == file.size and sha256_of(to) == file.sha256:
        tell(file.size)
        return
    for again in (begun, False):  # what an earlier attempt left may be of another file
        source.fetch(file.path, to, file.size, tell)
        if sha256_of(to) == file.sha256:
            return
        to.unlink()
        if not again:
            break
    raise UserError(
        f"{file.path} of {source.name} is refused: its SHA-256 is not the one in {LISTING}, so it "
        "was damaged or changed; nothing of it was kept: ask the owner of the folder to push again."
    )


def _pull_records(
    source: Source, files: list[SharedFile], root: Path, results: Path, tell: Callable[[int], None]
) -> Merged:
    """Bring records with their pictures and indexes, and merge them into the results."""
    name = hashlib.sha256("".join(one.sha256 for one in files).encode()).hexdigest()
    work = root / "work" / f"pull-{name}"  # `bench cache prune` knows what is in work
    with room(root):
        (root / "locks").mkdir(exist_ok=True)
    with locked(root / "locks" / f"pull-{name}.lock", f"pulling {source.name}"):
        for one in files:
            to = work / one.path
            here = results / one.path.removeprefix(f"{RESULTS}/")
            with room(root):
                to.parent.mkdir(parents=True, exist_ok=True)
                if here.is_file() and here.stat().st_size == one.size and not to.exists():
                    shutil.copyfile(here, to)
            _bring(source, one, to, tell)
        merged = merge([work / RESULTS], results)
        shutil.rmtree(work, ignore_errors=True)
    for told in (merged.conflicts, merged.refused, merged.left):
        told[:] = [text.replace(str((work / RESULTS).absolute()), source.name) for text in told]
    return merged
