"""``bench table``: the tables of a paper, from records."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from hashbackdoor_bench.cli.options import FILE, bench, records_options, records_read
from hashbackdoor_bench.cli.terminal import print_whole, say
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.text import counted

if TYPE_CHECKING:
    from hashbackdoor_bench.report import Collection

LAYOUTS = ("ciba", "pairs", "victims", "transfer", "ledger", "leaderboard", "defense")
OF_TABLES = {"--layout": "layout", "--format": "kind", "--with-published": "with_published"}
FORMATS = ("text", "md", "latex", "csv", "html")


@bench.command("table")
@click.argument("places", metavar="SUITE|RECORDS...", nargs=-1, required=True, type=FILE)
@click.option(
    "--layout",
    type=click.Choice(LAYOUTS),
    default="pairs",
    show_default=True,
    help="Methods x bits; attacks x victims; victims x attacks; surrogates x victims; what each "
    "deviation of a released code changes; what bench leaderboard says; defenses x attacks.",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(FORMATS),
    default="text",
    show_default=True,
    help="Format of the output.",
)
@records_options
@click.option(
    "--with-published", is_flag=True, help="Print the paper's numbers below, marked as published."
)
@click.option(
    "--caption",
    "captions",
    multiple=True,
    metavar="LATEX",
    help="With --format latex: the caption, instead of title and spread. Once for each table.",
)
@click.option(
    "--label",
    "labels",
    multiple=True,
    help="With --format latex: the label for \\ref, as in tab:attacks. Once for each table.",
)
@click.option(
    "--per-run",
    type=FILE,
    help="Write one row per run to this file instead of printing a table: CSV or, with pyarrow, "
    "Parquet, as its name ends.",
)
def table_command(
    places: tuple[Path, ...],
    layout: str,
    kind: str,
    convention: str,
    conditions: tuple[str, ...],
    with_published: bool,
    captions: tuple[str, ...],
    labels: tuple[str, ...],
    per_run: Path | None,
) -> None:
    """Print a table of records: means over targets and seeds, with their spread.

    Takes records, folders of them, and names of suites, whose records are in runs/SUITE, or else in
    results/SUITE.
    """
    from hashbackdoor_bench.report.tables import (
        WRITERS,
        latex,
        published_numbers,
        refuse_other_file,
        rich_table,
        tables,
    )

    if (captions or labels) and kind != "latex":
        raise UserError(f"--caption and --label are of --format latex, not of --format {kind}.")
    if per_run:
        refuse_other_file(per_run)
        source = click.get_current_context().get_parameter_source
        for option, name in OF_TABLES.items():
            if source(name) is not ParameterSource.DEFAULT:
                raise UserError(
                    f"{option} is of a table, and --per-run writes runs: leave one of the two out."
                )
        _write_per_run(per_run, records_read(places, conditions), convention)
        return
    numbers = published_numbers() if with_published else ()
    read = records_read(places, conditions, defended=layout == "defense")
    made = tables(read.frame, layout, convention, numbers, read.refused)
    if kind != "text":
        text = latex(made, captions, labels) if kind == "latex" else WRITERS[kind](made)
        say(*text.removesuffix("\n").split("\n"))
        return
    for table in map(rich_table, made):
        print_whole(table)


def _write_per_run(path: Path, read: "Collection", convention: str) -> None:
    from hashbackdoor_bench.report.tables import per_run, write_runs

    try:
        write_runs(per_run(read.frame, convention), path)
    except OSError as error:
        raise UserError(
            f"--per-run {path}: {error.strerror}; give a file in a folder to write."
        ) from error
    say(f"{path}: {counted(len(read.frame), 'run')}")
