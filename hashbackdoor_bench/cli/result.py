"""The table that a run prints at its end."""

from rich.box import SIMPLE_HEAD
from rich.table import Table

from hashbackdoor_bench.records import Record
from hashbackdoor_bench.report import (
    HEADLINES,
    for_rich,
    result_caption,
    result_rows,
    result_title,
)


def result_table(record: Record) -> Table:
    """MAP, t-MAP, controls, gain and PSNR of a record, in percent where they are shares."""
    table = Table(
        title=for_rich(result_title(record)),
        caption=for_rich(result_caption(record)),
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
    )
    table.add_column("figure")
    table.add_column("percent", justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_column("what it says")
    behind_defense = False
    for name, *cells in result_rows(record):
        behind_defense |= not name
        bold = name in HEADLINES and not behind_defense
        table.add_row(name, *map(for_rich, cells), style="bold" if bold else None)
    return table
