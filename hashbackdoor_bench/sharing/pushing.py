"""Pushing records, and the artifacts that they rest on, into a folder or a repository to share.

A folder has the layout of `listing`; any web server can serve it, and its ``artifacts`` is a cache
that others can read, see `stages.cache`. Records come in by `merge`, so nothing that stands there
is overwritten. The listing is written last.
"""

import os
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from hashbackdoor_bench import report
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.files import room, writable
from hashbackdoor_bench.progress import Progress, silent
from hashbackdoor_bench.records import read_record
from hashbackdoor_bench.sharing.hub import Repository
from hashbackdoor_bench.sharing.listing import (
    ARTIFACTS,
    LARGEST_LISTING,
    LISTING,
    NAME,
    RESULTS,
    Listing,
    list_folder,
    listing_of,
    read_listing,
    write_listing,
)
from hashbackdoor_bench.sharing.merging import Merged, merge
from hashbackdoor_bench.stages import (
    CONTROL,
    FILES,
    STAGES,
    VICTIM,
    Cache,
    Damaged,
    code_stages,
    content_hash,
    read_artifact,
)
from hashbackdoor_bench.text import visible

KINDS = {row.name: row.kind for row in STAGES}  # kind of artifact by the name of its stage
# What can be pushed beside records, by the word for it: stages of a run.
PARTS: dict[str, frozenset[str]] = {
    "clean-victims": frozenset({CONTROL}),
    "poison": frozenset({"backdoor"}),
    "victims": frozenset({VICTIM, "tamper"}),
    "codes": frozenset(
        name for victim in (CONTROL, VICTIM) for name in code_stages(victim).values()
    ),
    "all": frozenset(KINDS),
}


@dataclass
class Pushed:
    """What was pushed.

    Attributes:
        artifacts: number of artifacts that were copied.
        known: number of those that were there already.
        missing: number of those that are in no cache here.
        left: a sentence for each artifact that was not copied, and why.
        merged: what became of the records.
        files: number of files that are shared now.
        size: their bytes.
        sha256: of the listing, which stands for all of them.
    """

    merged: Merged = field(default_factory=Merged)
    artifacts: int = 0
    known: int = 0
    missing: int = 0
    left: list[str] = field(default_factory=list)
    files: int = 0
    size: int = 0
    sha256: str = ""


def push(
    folders: Sequence[Path],
    to: Path,
    cache: Cache,
    parts: Collection[str],
    progress: Progress = silent,
) -> Pushed:
    """Add folders of results, and artifacts of their records, to a shared folder.

    Args:
        folders: folders of results; each keeps its name.
        to: the shared folder; made if it doesn't exist.
        cache: where the artifacts are.
        parts: which artifacts, of ``PARTS``.
        progress: see `Progress`.

    Raises:
        UserError: a folder is missing or can't be shared under its name, or ``to`` can't be
            written, or has something else in it.
    """
    there = [path for path in to.iterdir() if path.name[0] != "."] if to.is_dir() else []
    if there and not (to / LISTING).is_file():
        raise UserError(
            f"--to {to} holds other files and no {LISTING}: give a new folder, or one that "
            "`bench push` has written."
        )
    writable(to, "--to")
    pushed = Pushed()
    _add(folders, to, cache, parts, Listing({}), pushed, progress)
    listing = list_folder(to)
    with room(to):
        write_listing(to, listing)
    return _counted(pushed, listing)


def push_to_hub(
    folders: Sequence[Path],
    to: Repository,
    cache: Cache,
    parts: Collection[str],
    progress: Progress = silent,
) -> Pushed:
    """The same for a repository of the hub, in one commit.

    Args:
        folders: see `push`.
        to: the repository, which must exist.
        cache: see `push`.
        parts: see `push`.
        progress: see `Progress`.

    Raises:
        UserError: see `push`; or the hub doesn't answer, or doesn't take it.
    """
    there = Listing({})
    if to.has(LISTING):
        name = f"the {LISTING} of {to.name}"
        there = read_listing(to.read(LISTING, LARGEST_LISTING), name)
    pushed = Pushed()
    with TemporaryDirectory() as work:
        fresh = Path(work)
        for one in there.results:  # without pictures: to be compared with the new ones, and joined
            if not one.path.endswith(".png"):
                (fresh / one.path).parent.mkdir(parents=True, exist_ok=True)
                to.fetch(one.path, fresh / one.path, one.size, lambda count: None)
        _add(folders, fresh, cache, parts, there, pushed, progress)
        here = list_folder(fresh).files
        listing = listing_of({**there.files, **here}.values())
        write_listing(fresh, listing)
        changed = {path: fresh / path for path in here if there.files.get(path) != here[path]}
        if changed:
            to.push({**changed, LISTING: fresh / LISTING}, f"bench push: {len(changed)} files")
    return _counted(pushed, listing)


def _counted(pushed: Pushed, listing: Listing) -> Pushed:
    pushed.files, pushed.sha256 = len(listing.files), listing.sha256
    pushed.size = sum(one.size for one in listing.files.values())
    return pushed


def _add(
    folders: Sequence[Path],
    to: Path,
    cache: Cache,
    parts: Collection[str],
    there: Listing,
    pushed: Pushed,
    progress: Progress,
) -> None:
    """Merge the results into ``to``, and copy the artifacts that neither it nor ``there`` has."""
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder: give folders of results.")
        if not NAME.fullmatch(folder.resolve().name):
            raise UserError(
                f"{folder} can't be shared under its name: rename it to one of the letters a to z, "
                "digits, '-', '_' and '.'."
            )
    wanted: dict[tuple[str, str], None] = {}  # in order
    names = frozenset().union(*(PARTS[part] for part in parts))
    for folder in folders:
        place = to / RESULTS / folder.resolve().name
        merged = merge([folder], place, progress)
        _join(pushed.merged, merged)
        for path in report.scan_records(place.absolute()).paths:
            record = read_record(path, links=False)
            if record.key not in merged.apart:  # else the artifacts here are not those of it
                for name in names & record.artifacts.keys():
                    wanted[KINDS[name], record.artifacts[name]] = None
    for done, (kind, key) in enumerate(sorted(wanted)):
        progress("copy artifacts", done, len(wanted))
        files = there.artifacts.get((kind, key))
        _copy(kind, key, to / ARTIFACTS, cache, files[1].sha256 if files else None, pushed)
    progress("copy artifacts", len(wanted), max(len(wanted), 1))


def _join(whole: Merged, more: Merged) -> None:
    whole.copied += more.copied
    whole.known += more.known
    for name in ("conflicts", "refused", "left", "unread", "apart"):
        getattr(whole, name).extend(getattr(more, name))


def _copy(kind: str, key: str, to: Path, cache: Cache, known: str | None, pushed: Pushed) -> None:
    """Copy an artifact, unless it is there.

    Args:
        kind: kind of artifact.
        key: its key.
        to: the folder of artifacts.
        cache: where it is.
        known: the hash of its tensors in the repository; None if it isn't there.
        pushed: counts what was done.
    """
    folder, place = cache.folder(kind, key), to / kind / key
    known = known or (content_hash(place) if place.is_dir() else None)
    if known is not None:
        pushed.known += 1
        if folder is not None and content_hash(folder) != known:
            pushed.left.append(f"{kind} {key[:12]} is there with other content: it stays.")
        return
    if folder is None:
        pushed.missing += 1
        return
    fresh = place.with_name(f".{key}.{os.getpid()}")
    try:
        with room(to):
            fresh.mkdir(parents=True)
            for name in FILES:
                shutil.copyfile(folder / name, fresh / name)
        read_artifact(fresh, kind, key)
        with room(to):
            os.replace(fresh, place)
        pushed.artifacts += 1
    except Damaged as error:
        pushed.left.append(
            visible(f"{kind} {key[:12]} in {folder.parent.parent} is damaged: {error}")
        )
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
