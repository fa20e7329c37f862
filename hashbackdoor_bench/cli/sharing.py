"""``bench merge``, ``pull`` and ``push``: results of several machines, and what they rest on."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hashbackdoor_bench.cli.cache import spell_size
from hashbackdoor_bench.cli.options import (
    FOLDER,
    bench,
    cache_option,
    first_of,
    mode_of,
    results_option,
    talk,
)
from hashbackdoor_bench.cli.terminal import say
from hashbackdoor_bench.errors import UserError

if TYPE_CHECKING:
    from hashbackdoor_bench.sharing import Merged, SharedFile

# What ``bench push --with`` takes; `sharing.PARTS` says what each is.
PARTS = ("clean-victims", "poison", "codes", "victims", "all", "none")


@bench.command("merge")
@click.argument("folders", metavar="FOLDER...", nargs=-1, required=True, type=FOLDER)
@click.option("--into", type=FOLDER, required=True, help="The merged folder; may hold results.")
@talk
def merge_command(folders: tuple[Path, ...], into: Path, quiet: bool, as_json: bool) -> int:
    """Merge folders of results from several machines; exit code 1 if a record was not taken.

    Records are copied with their pictures, and the index is made again. If two machines have other
    results of one run, both records are kept, and tables count that of the first folder. Nothing
    in the merged folder is overwritten, and whatever is not taken is named.
    """
    from hashbackdoor_bench.cli.console import shown
    from hashbackdoor_bench.sharing import merge

    with shown(mode_of(quiet, as_json)) as progress:
        found = merge(folders, into, progress)
    if as_json:
        say(json.dumps({"event": "result", **asdict(found)}))
    else:
        _tell(found, "bench merge", f"into {into}")
    return 1 if found.refused else 0


@bench.command("pull")
@click.argument("source", metavar="FOLDER|URL|hf:OWNER/NAME")
@results_option
@cache_option
@click.option(
    "--only",
    type=click.Choice(["records", "artifacts"]),
    help="Bring only these; both if not given.",
)
@click.option(
    "--sha256",
    metavar="HASH",
    help="Refuse another listing than the one for which `bench push` has printed this.",
)
@click.option("--dry-run", is_flag=True, help="Bring nothing; show what is there.")
@talk
def pull_command(
    source: str,
    results_dir: Path,
    cache_dir: Path,
    only: str | None,
    sha256: str | None,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
) -> int:
    """Bring records and artifacts that somebody has pushed; the same command again goes on.

    Every file is compared with its hash, records are merged into --results-dir, and nothing that
    is here is overwritten. That a file is what its owner has pushed doesn't show that it was
    computed as it claims: `bench reproduce` does. Exit code 1 if a record was refused.
    """
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise UserError(f"--sha256 {sha256}: give the 64 digits that `bench push` has printed.")
    from hashbackdoor_bench.cli.console import shown
    from hashbackdoor_bench.sharing import listing_from, pull, source_of
    from hashbackdoor_bench.stages import open_cache

    where = source_of(source)
    listing = listing_from(where, sha256)
    if dry_run:
        _show(listing.artifacts, [one.size for one in listing.results], as_json)
        return 0
    with shown(mode_of(quiet, as_json)) as progress:
        found = pull(
            where,
            listing,
            open_cache(cache_dir),
            artifacts=only != "records",
            results=None if only == "artifacts" else results_dir,
            progress=progress,
        )
    code = 1 if found.merged is not None and found.merged.refused else 0
    if as_json:
        say(json.dumps({"event": "result", **asdict(found)}))
        return code
    for sentence in first_of(found.other, "bench pull"):
        say(f"conflict  {sentence}")
    if only != "records":
        say(f"{found.artifacts} artifacts came into {cache_dir}, {found.known} were here already")
    if found.merged is not None:
        _tell(found.merged, "bench pull", f"into {results_dir}")
    return code


@bench.command("push")
@click.argument("folders", metavar="FOLDER...", nargs=-1, required=True, type=FOLDER)
@click.option(
    "--to",
    required=True,
    metavar="FOLDER|hf:OWNER/NAME",
    help="The folder to share, or a data set repository of Hugging Face's hub.",
)
@click.option(
    "--with",
    "parts",
    type=click.Choice(PARTS),
    multiple=True,
    default=PARTS[:3],
    show_default=True,
    help="Which artifacts of the records; may be repeated.",
)
@cache_option
@talk
def push_command(
    folders: tuple[Path, ...],
    to: str,
    parts: Sequence[str],
    cache_dir: Path,
    quiet: bool,
    as_json: bool,
) -> int:
    """Add folders of results to a shared folder, with the artifacts that they rest on.

    Put the shared folder on a common disk or on any web server. Nothing in it is overwritten. The
    poison holds images of the data set: publish it only if the data set's licence allows that.
    Exit code 1 if a record was refused.
    """
    if "://" in to:
        raise UserError(f"--to {to}: push to a folder, and put that on the server.")
    if "none" in parts and len(set(parts)) > 1:
        raise UserError("--with none goes with no other --with: leave out the one or the other.")
    from hashbackdoor_bench.cli.console import shown
    from hashbackdoor_bench.sharing import HUB, Repository, push, push_to_hub
    from hashbackdoor_bench.stages import open_cache

    chosen = [part for part in parts if part != "none"]
    with shown(mode_of(quiet, as_json)) as progress:
        cache = open_cache(cache_dir)
        if to.startswith(HUB):
            found = push_to_hub(folders, Repository.named(to), cache, chosen, progress)
        else:
            found = push(folders, Path(to), cache, chosen, progress)
    code = 1 if found.merged.refused else 0
    if as_json:
        say(json.dumps({"event": "result", **asdict(found)}))
        return code
    _tell(found.merged, "bench push", f"to {to}")
    for sentence in first_of(found.left, "bench push"):
        say(f"left      {sentence}")
    say(
        f"{found.artifacts} artifacts copied to {to}, {found.known} were there already"
        + (f", {found.missing} are not in {cache_dir}" if found.missing else ""),
        f"shared  {found.files} files, {spell_size(found.size)}",
        f"sha256  {found.sha256}",
    )
    return code


def _tell(found: "Merged", command: str, where: str) -> None:
    """What became of records."""
    for head, sentences in (
        ("refused ", found.refused),
        ("conflict", found.conflicts),
        ("left    ", found.left),
        ("unread  ", found.unread),
    ):
        for sentence in first_of(sentences, command):
            say(f"{head}  {sentence}")
    say(
        f"{found.copied} records copied {where}, {found.known} were there already, "
        f"{len(found.refused) or 'none'} refused, {len(found.conflicts) or 'no'} conflicts, "
        f"{len(found.left) or 'no'} other files left"
    )


def _show(
    artifacts: dict[tuple[str, str], tuple["SharedFile", ...]], results: list[int], as_json: bool
) -> None:
    """What a listing holds: artifacts by their kind, and files of results."""
    found: dict[str, tuple[int, int]] = {}  # how many, and bytes
    for kind in sorted({kind for kind, _ in artifacts}):
        these = [files for (one, _), files in artifacts.items() if one == kind]
        found[kind] = len(these), sum(file.size for files in these for file in files)
    found["results"] = len(results), sum(results)
    if as_json:
        rows = [{"kind": kind, "count": n, "bytes": size} for kind, (n, size) in found.items()]
        say(json.dumps({"event": "listing", "contents": rows}))
        return
    say(f"{'kind':<14}{'count':>8}{'size':>12}")
    for kind, (count, size) in found.items():
        say(f"{kind:<14}{count:>8}{spell_size(size):>12}")
