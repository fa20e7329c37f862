"""``python -m benchmarks.scale``: measure, plan, print both, write them."""

import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import click
import torch

from hashbackdoor_bench.errors import UserError, unknown

from ..speed.clock import Row, Setting
from ..speed.table import numbers, report, write
from . import cluster, scoring, simulation
from .imagenet import plan, read_report, spelt

COMMAND = "python -m benchmarks.scale"
PARTS: dict[str, Callable[[Setting], Iterator[Row]]] = {
    part.__name__.rpartition(".")[2]: part.measure for part in (simulation, cluster, scoring)
}
NEEDED = {"simulation", "scoring"}  # for the plan
RESULTS, PAGE = Path("results/speed"), Path("docs/scale.md")
PREFIX = "scale-"
BLOCK = re.compile(r"(?<=<!-- plan -->\n).*?(?=<!-- end of plan -->)", re.DOTALL)


@click.command()
@click.option("--part", "parts", multiple=True, help=f"Only these: {', '.join(PARTS)}.")
@click.option("--quick", is_flag=True, help="Tiny sizes, to test that everything runs.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the report; results/speed for all parts; with --part or --quick, no file is "
    "written unless this is given.",
)
def scale(parts: tuple[str, ...], quick: bool, output: Path | None) -> None:
    """Simulate a suite of 100 000 stages, and compute a plan for ImageNet-1k."""
    for name in parts:
        if name not in PARTS:
            raise unknown("--part", name, PARTS)
    cpu, rows = torch.device("cpu"), list[Row]()
    for name in parts or PARTS:
        with tempfile.TemporaryDirectory(prefix="scale-") as work:
            for row in PARTS[name](Setting(quick, 1, cpu, Path(work))):
                rows.append(row)
                click.echo(f"{row.part}: {row.work}")
    body = report(rows, cpu, quick=quick, repeat=1, parts=parts, command=COMMAND)
    lines = plan(read_report(), rows) if set(parts or PARTS) >= NEEDED else []
    body["plan"] = [asdict(line) for line in lines]
    more = numbers(rows, {}) + (f"\n## The plan\n\n{spelt(lines)}" if lines else "")
    whole = not parts and not quick
    if output or whole:
        path = write(body, rows, output or RESULTS, PREFIX).with_suffix(".md")
        with path.open("a", encoding="utf-8") as file:
            file.write(more)
        click.echo(path.read_text(encoding="utf-8"))
    else:
        click.echo(more)
    if whole:
        PAGE.write_text(page_with(PAGE.read_text(encoding="utf-8"), spelt(lines)), encoding="utf-8")


def page_with(page: str, table: str) -> str:
    """The text of ``docs/scale.md`` with another table of the plan."""
    return BLOCK.sub(lambda found: table, page)


def main() -> int:
    """Run the command; returns the exit code, which is 2 for a user's mistake."""
    try:
        scale.main(prog_name=COMMAND, standalone_mode=False)
    except (UserError, click.ClickException) as error:
        text = error.format_message() if isinstance(error, click.ClickException) else str(error)
        click.echo(f"scale: {text}", err=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
