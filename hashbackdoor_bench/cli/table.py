"""``bench table``: the tables of a paper, from records."""

from pathlib import Path

import click

from hashbackdoor_bench.cli.options import FILE, bench, records_options, records_read
from hashbackdoor_bench.cli.terminal import print_whole, say

LAYOUTS = ("ciba", "pairs", "victims", "transfer", "ledger", "leaderboard", "defense")
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
def table_command(
    places: tuple[Path, ...],
    layout: str,
    kind: str,
    convention: str,
    conditions: tuple[str, ...],
    with_published: bool,
) -> None:
    """Print a table of records: means over targets and seeds, with their spread.

    Takes records, folders of them, and names of suites, whose records are in runs/SUITE, or else in
    results/SUITE.
    """
    from hashbackdoor_bench.report.tables import WRITERS, published_numbers, rich_table, tables

    numbers = published_numbers() if with_published else ()
    read = records_read(places, conditions, defended=layout == "defense")
    made = tables(read.frame, layout, convention, numbers, read.refused)
    if kind != "text":
        say(*WRITERS[kind](made).removesuffix("\n").split("\n"))
        return
    for table in map(rich_table, made):
        print_whole(table)
