"""``python -m benchmarks.speed``: measure, print a table, write JSON."""

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from rich.console import Console

from hashbackdoor_bench.errors import UserError, unknown
from hashbackdoor_bench.memory import keep_freed_memory
from hashbackdoor_bench.stages.provenance import device_of

from . import crafting, encoding, job, preparing, scoring, several, stacked, startup, training
from .clock import Row, Setting
from .table import NOTE, report, table, write

PARTS: dict[str, Callable[[Setting], Iterator[Row]]] = {
    part.__name__.rpartition(".")[2]: part.measure
    for part in (scoring, crafting, training, several, stacked, encoding, preparing, startup, job)
}
RESULTS = Path("results/speed")
WIDE = 200  # characters of the table in a file


@click.command()
@click.option("--part", "parts", multiple=True, help=f"Only these: {', '.join(PARTS)}.")
@click.option(
    "--quick", is_flag=True, help="Tiny sizes, to test that everything runs; ignore the times."
)
@click.option("--repeat", type=click.IntRange(1), help="Rounds of all contestants; 5 if not given.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the JSON file; results/speed for all parts; with --part or --quick, no file is "
    "written unless this is given.",
)
def speed(
    parts: tuple[str, ...], quick: bool, repeat: int | None, device: str, output: Path | None
) -> None:
    """Time the performance-critical parts against plain procedures, peers and ceilings."""
    for name in parts:
        if name not in PARTS:
            raise unknown("--part", name, PARTS)
    keep_freed_memory()
    place, rounds = device_of(device), repeat or (1 if quick else 5)
    console, rows = Console(), list[Row]()
    if not console.is_terminal:
        console.width = WIDE
    for name in parts or PARTS:
        with tempfile.TemporaryDirectory(prefix="speed-") as work:
            for row in PARTS[name](Setting(quick, rounds, place, Path(work))):
                rows.append(row)
                console.print(f"{row.part}: {row.work}", style="dim", highlight=False)
    console.print(table(rows))
    console.print(NOTE, style="dim", highlight=False)
    whole = not parts and not quick
    if output or whole:
        found = report(rows, place, quick=quick, repeat=rounds, parts=parts)
        path = write(found, rows, output or RESULTS)
        console.print(f"written   {path}", highlight=False)


def main() -> int:
    """Run the command; returns the exit code, which is 2 for a user's mistake."""
    try:
        speed.main(prog_name="python -m benchmarks.speed", standalone_mode=False)
    except (UserError, click.ClickException) as error:
        text = error.format_message() if isinstance(error, click.ClickException) else str(error)
        click.echo(f"speed: {text}", err=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
