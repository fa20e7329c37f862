"""The paths of a place that may be records."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.records import OWN, PUBLISHED
from hashbackdoor_bench.text import visible

# folders of a place with measurements, which are no records: of benchmarks, and of bench search
MEASUREMENTS = ("speed", "search", "taking")
MOST = 10_000  # files in a folder; their records take about a gigabyte of memory


@dataclass(frozen=True)
class Scan:
    """The files of one place.

    Attributes:
        paths: what may be a record, in the order of folders and names; also what is no file.
        named: whether the place is one file, which the user named.
        left_out: a sentence for every folder that can't be searched.
    """

    paths: tuple[Path, ...]
    named: bool = False
    left_out: tuple[str, ...] = ()


def scan_records(place: Path) -> Scan:
    """Find what may be records in a place. Links are named but not followed: they lead anywhere.

    Args:
        place: a file, a folder, which is searched to the bottom, or the name of a suite, which is
            its folder in ``OWN`` or else in ``PUBLISHED``, whatever else here has that name.

    Raises:
        UserError: there is no such place, or it holds more than ``MOST`` files.
    """
    left_out: list[str] = []
    suites = files("hashbackdoor_bench.benchmarks")
    shipped = len(place.parts) == 1 and (suites / f"{place}.toml").is_file()
    if shipped or (not place.exists() and len(place.parts) == 1):
        own, *others = [f / place for f in (OWN, PUBLISHED) if (f / place).is_dir()] or [place]
        left_out += [
            f"{other} is left out, since {place} is {own} here: give its path to read it."
            for other in others
        ]
        place = own
    if not place.exists():
        name = str(place)
        hint = (
            f"make its records with `bench suite run {name}`, or give the folder they are in"
            if shipped
            else "give records, a folder of them, or the name of a suite"
        )
        raise UserError(
            f"{name}: there is no such file, and no folder {OWN / name} or {PUBLISHED / name}; "
            f"{hint}."
        )
    if not place.is_dir():
        return Scan((place,), named=True)
    entries: list[tuple[Path, str, Path]] = []
    for entry in _entries(place, left_out):
        entries.append(entry)
        if len(entries) + len(left_out) > MOST:
            raise UserError(
                f"{place} holds more than {MOST} files that may be records: give a folder with "
                "fewer of them."
            )
    entries.sort()  # a run before another of its name
    return Scan(tuple(path for _, _, path in entries), left_out=tuple(sorted(left_out)))


def _entries(place: Path, left_out: list[str]) -> Iterator[tuple[Path, str, Path]]:
    """Folder, stem and path of what is called ``*.json``, whatever it is, and links to folders."""

    def unreadable(error: OSError) -> None:
        name = visible(str(error.filename))
        left_out.append(f"{name} is left out: it can't be read ({error.strerror}).")

    for at, folders, names in os.walk(place, onerror=unreadable):
        folder = Path(at)
        if folder == place:
            folders[:] = [name for name in folders if name not in MEASUREMENTS]
        for name in sorted(names + folders):
            if name.startswith("."):  # `records.whole` writes to .NAME
                continue
            path = folder / name
            if name.endswith(".json") or (name in folders and path.is_symlink()):
                yield folder, path.stem, path
