"""``bench search``: the codes of finished runs, searched through the indexes that services use."""

import json
import shlex
from pathlib import Path
from typing import Any

import click

from hashbackdoor_bench.cli.options import FILE, bench, mode_of, places, talk, threads_option
from hashbackdoor_bench.cli.terminal import print_whole, say
from hashbackdoor_bench.errors import UserError


@bench.command("search")
@click.argument("records", metavar="RECORD...", nargs=-1, required=True, type=FILE)
@click.option(
    "--index",
    "texts",
    multiple=True,
    default=("flat", "ivf", "hnsw", "mih"),
    show_default=True,
    metavar="INDEX[:NAME=VALUE,...]",
    help="An index and its settings, see above; may be repeated.",
)
@click.option("--k", type=int, help="Items that a query asks for; R of the data set if not given.")
@click.option(
    "--items",
    type=int,
    help="Enlarge the database to so many items by copies of its codes with flipped bits.",
)
@click.option(
    "--flip",
    type=float,
    default=0.03,
    show_default=True,
    help="Mean share of the bits of a copy that are flipped.",
)
@click.option("--out", type=FILE, help="Write NAME.json, a page of it and a figure of it.")
@threads_option(1)
@places
@talk
def search_command(
    records: tuple[Path, ...],
    texts: tuple[str, ...],
    k: int | None,
    items: int | None,
    flip: float,
    out: Path | None,
    threads: int,
    cache_dir: Path,
    quiet: bool,
    as_json: bool,
    **where: Any,
) -> None:
    """Search the codes of finished runs through indexes, and score what they return.

    \b
    flat                              exact: compares with every code
    ivf:nlist=1000,nprobe=8           inverted file of k-means lists
    hnsw:m=16,build_ef=40,ef=1000     graph of neighbours
    mih:tables=3,part=16,flips=1      multi-index hashing
    hash:first=20,flips=1             one hash table

    Settings that are not given follow from the database. The codes are those of the cache, found by
    the record. Needs FAISS: pip install "hashbackdoor-bench[search]".
    """  # noqa: D301 (\b keeps click from filling the lines)
    if out is not None and out.suffix != ".json":
        raise UserError(f"--out {out}: give a name that ends in .json.")
    from hashbackdoor_bench.cli.console import shown
    from hashbackdoor_bench.files import writable
    from hashbackdoor_bench.records import read_record
    from hashbackdoor_bench.search import ROUNDS, faiss_library, index_of, report, search
    from hashbackdoor_bench.stages import open_cache

    indexes = [index_of(text) for text in texts]
    faiss_library()
    stored = [read_record(path) for path in records]
    if out is not None:
        writable(out.parent, "--out")
    cache = open_cache(cache_dir)
    asked: dict[str, Any] = {"k": k, "items": items, "flip": flip, "threads": threads}
    with shown(mode_of(quiet, as_json)) as progress:
        runs = [
            search(one, indexes, cache=cache, progress=progress, **asked, **where) for one in stored
        ]
    words = ["bench", "search", *map(str, records)]
    words += [word for text in texts for word in ("--index", text)]
    if items is None:
        del asked["flip"]
    given = ((f"--{name}", str(value)) for name, value in asked.items() if value is not None)
    words += [word for pair in given for word in pair]
    found = report(runs, threads=threads, rounds=ROUNDS, command=shlex.join(words))
    if as_json:
        say(json.dumps({"event": "result", **found}))
    else:
        _show(found)
    if out is not None:
        for path in _write(found, out):
            say(f"wrote {path}", err=as_json)


def _show(found: dict[str, Any]) -> None:
    """Print a table for each run of a report."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from hashbackdoor_bench.report import for_rich
    from hashbackdoor_bench.search import HEAD, NOTE, facts_of, rows_of, title_of

    for run in found["runs"]:
        table = Table(title=for_rich(title_of(run)), title_justify="left", box=SIMPLE_HEAD)
        for number, head in enumerate(HEAD):
            table.add_column(head, justify="right" if number else "left")
        for row in rows_of(run):
            table.add_row(*map(for_rich, row))
        print_whole(table)
        say(facts_of(run), "")
    say(NOTE)


def _write(found: dict[str, Any], out: Path) -> list[Path]:
    """Write a report as JSON, as a page and as a figure; returns their paths."""
    from hashbackdoor_bench.files import whole
    from hashbackdoor_bench.report.figures import trade_off
    from hashbackdoor_bench.search import frame_of, markdown

    pages = {out: json.dumps(found, indent=1) + "\n", out.with_suffix(".md"): markdown(found)}
    for path, text in pages.items():
        with whole(path) as fresh:
            fresh.write_text(text, encoding="utf-8")
    return [*pages, *trade_off(frame_of(found), out.stem).write(out.parent, ("png",))]
