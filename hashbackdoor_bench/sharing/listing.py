"""The listing of a shared folder: every file with its size and SHA-256.

    sharing.json                                    the listing
    results/NAME/…                                  records, index.csv, refused.csv, pictures
    artifacts/KIND/KEY/facts.json                   an artifact of the cache, see `stages.artifact`
    artifacts/KIND/KEY/tensors.safetensors

A listing may come from a stranger. A path in it becomes a path on this machine, so only the paths
above are taken, of letters, digits and a few signs; each size is bounded before anything is read.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated

import msgspec

from hashbackdoor_bench.errors import UserError, misfit
from hashbackdoor_bench.files import sha256_of, whole
from hashbackdoor_bench.records import INDEX, LARGEST, REFUSED
from hashbackdoor_bench.sharing.merging import LARGEST_PICTURE
from hashbackdoor_bench.stages import DISPERSION, FILES, LARGEST_FACTS, STAGES, content_hash
from hashbackdoor_bench.text import quoted

LISTING, RESULTS, ARTIFACTS = "sharing.json", "results", "artifacts"
FORMAT = "hashbackdoor_bench sharing 1"
LARGEST_LISTING = 100_000_000  # bytes; a file takes about 200
MOST = 300_000  # files
LARGEST_TENSORS = 50_000_000_000  # bytes; features of a million images have 8 000 000 000
LARGEST_TABLE = 10_000_000  # bytes of an index
LONGEST = 240  # characters of a path
KINDS = frozenset({row.kind for row in STAGES} | {"shared", DISPERSION.kind})

_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9_.@+=,~-]*[A-Za-z0-9_])?"
NAME = re.compile(_NAME)
_ARTIFACT = re.compile(
    rf"{ARTIFACTS}/([a-z]+)/([0-9a-f]{{64}})/({'|'.join(map(re.escape, FILES))})"
)
_RESULT = re.compile(rf"{RESULTS}/(?:{_NAME}/){{1,8}}{_NAME}")


class SharedFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of a shared folder.

    Attributes:
        path: below the folder.
        size: in bytes.
        sha256: of its bytes, in hex.
    """

    path: str
    size: Annotated[int, msgspec.Meta(ge=0, le=LARGEST_TENSORS)]
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: str
    files: list[SharedFile]


@dataclass(frozen=True)
class Listing:
    """The files of a shared folder.

    Attributes:
        files: by path.
    """

    files: Mapping[str, SharedFile]

    @property
    def artifacts(self) -> dict[tuple[str, str], tuple[SharedFile, ...]]:
        """The two files of each artifact, by its kind and key."""
        found: dict[tuple[str, str], tuple[SharedFile, ...]] = {}
        for path in self.files:
            if parts := _ARTIFACT.fullmatch(path):
                kind, key, _ = parts.groups()
                names = (f"{ARTIFACTS}/{kind}/{key}/{name}" for name in FILES)
                found[kind, key] = tuple(self.files[name] for name in names)
        return found

    @property
    def results(self) -> list[SharedFile]:
        """The files that are of no artifact."""
        return [one for path, one in self.files.items() if not _ARTIFACT.fullmatch(path)]

    def to_json(self) -> bytes:
        """The bytes of the file, the same for the same files."""
        files = [msgspec.to_builtins(self.files[path]) for path in sorted(self.files)]
        return (json.dumps({"format": FORMAT, "files": files}, indent=1) + "\n").encode()

    @property
    def sha256(self) -> str:
        """SHA-256 of the file, which stands for all files that it lists."""
        return hashlib.sha256(self.to_json()).hexdigest()


def read_listing(data: bytes, name: str) -> Listing:
    """A listing from its bytes, which need not be trusted.

    Args:
        data: the bytes.
        name: where they are from, for messages.

    Raises:
        UserError: they are no listing, or it names what is not shared, or too much of it.
    """
    try:
        if len(data) > LARGEST_LISTING:
            raise ValueError(f"it has more than {LARGEST_LISTING / 1e6:g} MB")
        body = msgspec.json.decode(data, type=_Body)
        if body.format != FORMAT:
            raise ValueError(f"its format is {quoted(body.format)} and not {FORMAT!r}")
        if len(body.files) > MOST:
            raise ValueError(f"it has more than {MOST} files")
        return listing_of(body.files)
    except msgspec.ValidationError as error:
        why = misfit(error)
    except (ValueError, RecursionError) as error:  # also what is not UTF-8, or not JSON
        why = str(error).rstrip(".") or "it is nested too deeply"
    raise UserError(
        f"{name} is no listing of a shared folder ({why}): give a folder, an address or a "
        "repository that `bench push` has written."
    )


def listing_of(files: Iterable[SharedFile]) -> Listing:
    """The listing of some files.

    Raises:
        ValueError: a path, a size or a combination of them is not allowed; the clause says which.
    """
    found: dict[str, SharedFile] = {}
    folded: dict[str, str] = {}  # names that a disk may not tell apart
    for one in files:
        check_path(one.path)
        if one.size > _largest(one.path):
            raise ValueError(
                f"{one.path} has {one.size} bytes, and {_largest(one.path)} are allowed"
            )
        for part in (one.path, *map(str, PurePosixPath(one.path).parents)):
            known = folded.setdefault(part.casefold(), part)
            if known != part:
                raise ValueError(f"{part} and {known} differ in nothing but small and capitals")
        if one.path in found:
            raise ValueError(f"{one.path} is there twice")
        found[one.path] = one
    for path in found:
        if above := next((str(p) for p in PurePosixPath(path).parents if str(p) in found), None):
            raise ValueError(f"{above} is a file and a folder")
        if parts := _ARTIFACT.fullmatch(path):
            for name in FILES:
                other = f"{ARTIFACTS}/{parts[1]}/{parts[2]}/{name}"
                if other not in found:
                    raise ValueError(f"there is {path} without {other}")
    return Listing(found)


def check_path(path: str) -> None:
    """Refuse a path that is not of a shared folder.

    Raises:
        ValueError: see above.
    """
    artifact = _ARTIFACT.fullmatch(path)
    known = artifact[1] in KINDS if artifact else _RESULT.fullmatch(path) and _largest(path)
    if not known or len(path) > LONGEST:
        raise ValueError(f"it names {quoted(path)}, which is no path of a shared folder")


def _largest(path: str) -> int:
    """The bytes that a file may have; 0 for one that is not shared."""
    if path.startswith(f"{ARTIFACTS}/"):
        return LARGEST_FACTS if path.endswith(FILES[0]) else LARGEST_TENSORS
    name = PurePosixPath(path).name
    if name in (INDEX, REFUSED):
        return LARGEST_TABLE
    return {".json": LARGEST, ".png": LARGEST_PICTURE}.get(PurePosixPath(path).suffix, 0)


def list_folder(folder: Path) -> Listing:
    """The listing of a folder on this machine.

    Of tensors, the hash is the one that their artifact's facts say, since they are large and were
    checked when they were copied.

    Raises:
        UserError: a name in it can't be shared.
    """
    try:
        return listing_of(_found(folder))
    except ValueError as error:
        raise UserError(f"{folder} can't be shared ({error}): rename or remove that.") from error


def _found(folder: Path) -> Iterator[SharedFile]:
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in place.parts)
        if hidden or len(place.parts) == 1 or path.is_symlink() or not path.is_file():
            continue
        tensors = place.parts[0] == ARTIFACTS and path.name == FILES[1]
        known = content_hash(path.parent) if tensors else None
        yield SharedFile(place.as_posix(), path.stat().st_size, known or sha256_of(path))


def write_listing(folder: Path, listing: Listing) -> None:
    """Write a listing into its folder completely or not at all."""
    with whole(folder / LISTING) as fresh:
        fresh.write_bytes(listing.to_json())
