"""``python -m benchmarks.scale``: measure, plan, print both, write them."""

import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import torch

from hashbackdoor_bench.errors import UserError, unknown

from ..speed.clock import Row, Setting
from ..speed.table import file_name, numbers, report, write
from . import cluster, scoring, simulation
from .imagenet import Line, plan, read_report, spelt

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
    help="Folder of the report; results/speed if not given. With --quick, no file is written "
    "unless this is given.",
)
def scale(parts: tuple[str, ...], quick: bool, output: Path | None) -> None:
    """Simulate a suite of 100 000 stages, and compute a plan for ImageNet-1k.

    The report is written after every part. Rows of a report that is there already are kept, except
    those of the parts that are measured now.
    """
    for name in parts:
        if name not in PARTS:
            raise unknown("--part", name, PARTS)
    folder = output or (None if quick else RESULTS)
    cpu = torch.device("cpu")
    torch.set_num_threads(1)
    known = _known(folder, cpu)
    for name in parts or PARTS:
        with tempfile.TemporaryDirectory(prefix="scale-") as work:
            rows = list(PARTS[name](Setting(quick, 1, cpu, Path(work))))
        about = report(rows, cpu, quick=quick, repeat=1, parts=[name], command=COMMAND)
        known[name] = {key: about[key] for key in ("command", "date", "commit", "load_average")}
        known[name]["rows"] = about["rows"]
        text, lines = _written(known, folder, cpu, quick)
    click.echo(text)
    if folder == RESULTS and lines:
        PAGE.write_text(page_with(PAGE.read_text(encoding="utf-8"), spelt(lines)), encoding="utf-8")


def _known(folder: Path | None, device: torch.device) -> dict[str, Any]:
    """The parts of the report that is in a folder already."""
    path = (
        folder and folder / f"{file_name(report([], device, quick=False, repeat=1), PREFIX)}.json"
    )
    if path is None or not path.is_file():
        return {}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["measured"]
    return found


def _written(
    known: Mapping[str, Any], folder: Path | None, device: torch.device, quick: bool
) -> tuple[str, list[Line]]:
    """Write the report of all known parts to a folder, if any; its page, and the plan's lines."""
    parts = [name for name in PARTS if name in known]
    rows = [Row.from_json(row) for name in parts for row in known[name]["rows"]]
    lines = plan(read_report(), rows) if known.keys() >= NEEDED else []
    body = report(rows, device, quick=quick, repeat=1, command=COMMAND)
    body |= {"measured": known, "plan": [asdict(line) for line in lines]}
    more = numbers(rows, {}) + (f"\n## The plan\n\n{spelt(lines)}" if lines else "")
    if folder is None:
        return more, lines
    path = write(body, rows, folder, PREFIX).with_suffix(".md")
    with path.open("a", encoding="utf-8") as file:
        file.write(more)
    return path.read_text(encoding="utf-8"), lines


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
