"""``bench cache``: list the artifacts in the cache, and remove some."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hashbackdoor_bench.cli.options import FOLDER, bench, cache_option
from hashbackdoor_bench.cli.terminal import say
from hashbackdoor_bench.errors import UserError

if TYPE_CHECKING:
    from hashbackdoor_bench.stages import Entry

SPANS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
SIZES = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@bench.group("cache")
def cache_group() -> None:
    """List and prune the artifacts of the stages."""


@cache_group.command("list")
@cache_option
def cache_list(cache_dir: Path) -> None:
    """List the artifacts by kind: number, size and time since the last use.

    Those of other caches, which $HASHBACKDOOR_CACHE_READ names, are listed below; they are only
    read.
    """
    from hashbackdoor_bench.stages import entries, entries_elsewhere, open_cache

    cache = open_cache(cache_dir)
    _list(entries(cache), f"in {cache_dir}")
    for other, found in entries_elsewhere(cache).items():
        say("")
        _list(found, f"in {other}, which is only read")


def _list(found: Sequence["Entry"], where: str) -> None:
    """A line for each kind of artifact, and one for all."""
    say(f"{'kind':<14}{'count':>8}{'size':>12}  last used")
    for kind in sorted({entry.kind for entry in found}):
        these = [entry for entry in found if entry.kind == kind]
        size = spell_size(sum(entry.size for entry in these))
        when = " to ".join(dict.fromkeys([_span(these[-1].age), _span(these[0].age)]))
        say(f"{kind:<14}{len(these):>8}{size:>12}  {when} ago")
    total = spell_size(sum(entry.size for entry in found))
    say(f"{'all':<14}{len(found):>8}{total:>12}  {where}")


@cache_group.command("prune")
@cache_option
@click.option(
    "--older-than", metavar="30d", help="Only what was not used for this time (s, m, h, d, w)."
)
@click.option(
    "--keep", metavar="10GB", help="Remove the longest unused first, until the rest has this size."
)
@click.option(
    "--unreferenced",
    type=FOLDER,
    metavar="RESULTS",
    help="Only what no record in this folder refers to.",
)
@click.option("--dry-run", is_flag=True, help="Remove nothing; show what would be removed.")
def cache_prune(
    cache_dir: Path,
    older_than: str | None,
    keep: str | None,
    unreferenced: Path | None,
    dry_run: bool,
) -> None:
    """Remove artifacts and checkpoints that meet all given conditions.

    Artifacts that a running process uses, prepared data and downloads are never removed.
    """
    if older_than is None and keep is None and unreferenced is None:
        raise UserError(
            "no condition says what to remove: give --older-than 30d, --keep 10GB or "
            "--unreferenced RESULTS."
        )
    age = None if older_than is None else _read("--older-than", older_than, SPANS, "30d or 12h")
    size = None if keep is None else int(_read("--keep", keep, SIZES, "10GB or 500MB"))
    from hashbackdoor_bench.stages import Cache, prune

    gone = prune(
        Cache(cache_dir),
        older_than=age,
        keep=size,
        unreferenced=unreferenced,
        dry_run=dry_run,
    )
    for kind in sorted({entry.kind for entry in gone}):
        these = [entry for entry in gone if entry.kind == kind]
        say(f"{kind:<14}{len(these):>8}{spell_size(sum(e.size for e in these)):>12}")
    word = "would go" if dry_run else "gone"
    say(f"{word:<14}{len(gone):>8}{spell_size(sum(e.size for e in gone)):>12}")


def _read(flag: str, text: str, units: dict[str, int], example: str) -> float:
    """The value of a number with a unit.

    Raises:
        UserError: the text is not a number with a unit.
    """
    found = re.fullmatch(r"([0-9]+\.?[0-9]*)\s*([A-Za-z]*)", text)
    names = {name.lower(): factor for name, factor in units.items()}
    if not found or found[2].lower() not in names:
        raise UserError(f"{flag} {text}: write a number and a unit, like {example}.")
    return float(found[1]) * names[found[2].lower()]


def spell_size(size: int) -> str:
    """A size in a readable unit: ``12 MB``."""
    unit = max(
        (name for name in SIZES if name and SIZES[name] <= max(size, 1)), key=SIZES.__getitem__
    )
    return f"{size / SIZES[unit]:.3g} {unit}"


def _span(seconds: float) -> str:
    unit = max((name for name in SPANS if SPANS[name] <= max(seconds, 1)), key=SPANS.__getitem__)
    return f"{seconds / SPANS[unit]:.0f} {unit}"
