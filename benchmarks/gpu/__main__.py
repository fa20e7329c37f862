"""``python -m benchmarks.gpu``: measure part by part, write the report after each."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import torch

from hashbackdoor_bench.errors import UserError, unknown
from hashbackdoor_bench.stages.provenance import device_of

from ..speed import job, several
from ..speed.clock import Row, Setting
from ..speed.table import numbers, report, write
from . import crafting, equality, large, machine, poster

RESULTS = Path("results/speed")


@dataclass(frozen=True)
class Part:
    """A part: its rows, the most seconds that it may take, and the rounds of its contestants."""

    rows: Callable[[Setting], Iterator[Row]]
    limit: float
    repeat: int = 3


PARTS = {
    "machine": Part(machine.measure, 60),
    "tests": Part(equality.measure, 130, 1),
    "job": Part(job.measure, 150, 1),
    "training": Part(large.measure_training, 100),
    "crafting": Part(crafting.measure, 70),
    "encoding": Part(large.measure_encoding, 50),
    "sharing": Part(several.measure, 120, 1),
}
POSTER = "poster"
LEAST = 30.0  # s, of the table


@click.command()
@click.option("--minutes", type=click.FloatRange(0.1), default=8.0, show_default=True,
              help="Time for everything.")  # fmt: skip
@click.option("--part", "parts", multiple=True, help=f"Only these: {', '.join([*PARTS, POSTER])}.")
@click.option("--quick", is_flag=True, help="Tiny sizes, to test that everything runs.")
@click.option("--device", default="cuda", show_default=True, help="cuda, or cpu for a test.")
@click.option("--root", type=click.Path(path_type=Path), help="Folder of Fashion-MNIST's files.")
@click.option("--records", type=click.Path(path_type=Path), help="Folder for the table's records.")
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), default=RESULTS,
              show_default=True, help="Folder of the report.")  # fmt: skip
@click.option("--commit", help="Commit of the code, if this copy of it has no history.")
@click.option("--workers", type=click.IntRange(1), help="Workers of the table; by default the "
              "number at which most trainings were done in an hour.")  # fmt: skip
@click.option("--child", hidden=True, type=click.Path(path_type=Path), help="File for the rows.")
def gpu(
    minutes: float,
    parts: tuple[str, ...],
    quick: bool,
    device: str,
    root: Path | None,
    records: Path | None,
    output: Path,
    commit: str | None,
    workers: int | None,
    child: Path | None,
) -> None:
    """Measure all that a GPU can tell, in one command."""
    for name in parts:
        if name not in (*PARTS, POSTER):
            raise unknown("--part", name, [*PARTS, POSTER])
    place = device_of(device)
    if child is not None:
        _measure(parts[0], quick, place, minutes * 60, workers or 8, root, records, child)
        return
    end, rows, lost = time.monotonic() + 60 * minutes, list[Row](), dict[str, str]()
    for name in parts or (*PARTS, POSTER):
        left = end - time.monotonic()
        if left < (LEAST if name == POSTER else 10):
            lost[name] = "there was no time left"
            continue
        limit = left if name == POSTER else min(left, PARTS[name].limit)
        start = time.monotonic()
        more = ["--device", device, *["--quick"] * quick]
        more += ["--workers", str(workers or best_sharing(rows))]
        more += ["--root", str(root)] if root else []
        more += ["--records", str(records)] if records else []
        found, error = _in_process(name, limit, more)
        rows += found
        if error:
            lost[name] = error
        took = time.monotonic() - start
        click.echo(f"{name}: {took:.1f} s, {len(found)} rows{f'; {error}' if error else ''}")
        body = report(rows, place, quick=quick, repeat=3, parts=parts, command=COMMAND)
        body["not_measured"] = lost
        if commit is not None:
            body |= {"commit": commit, "dirty": None}
        path = write(body, rows, output)
        with path.with_suffix(".md").open("a", encoding="utf-8") as file:
            file.write(numbers(rows, lost))
    click.echo(path.with_suffix(".md").read_text(encoding="utf-8"))


COMMAND = "python -m benchmarks.gpu"


def best_sharing(rows: list[Row]) -> int:
    """The number of processes that did the most trainings in an hour; 8 if none were measured."""
    counts = [row.facts["trainings_per_hour"] for row in rows if row.part == "several trainings"]
    return int(max(counts[0], key=counts[0].__getitem__).split()[0]) if counts else 8


def _in_process(name: str, limit: float, more: list[str]) -> tuple[list[Row], str]:
    """The rows of a part that runs in a process of its own, and what went wrong."""
    with tempfile.TemporaryDirectory(prefix="gpu-") as folder:
        file = Path(folder) / "rows.jsonl"
        words = [sys.executable, "-m", f"{__package__}", "--part", name, "--child", str(file)]
        words += ["--minutes", f"{max(limit - 12, 6) / 60}", *more]
        error = ""
        try:
            done = subprocess.run(
                words, timeout=limit, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                check=False,
            )  # fmt: skip
            if done.returncode:
                error = f"ended with code {done.returncode}: {done.stderr[-3000:]}"
        except subprocess.TimeoutExpired:
            error = f"stopped after its {limit:.0f} s"
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        return [Row.from_json(json.loads(line)) for line in lines], error


def _measure(
    name: str,
    quick: bool,
    device: torch.device,
    seconds: float,
    workers: int,
    root: Path | None,
    records: Path | None,
    file: Path,
) -> None:
    """Measure one part in this process, and write its rows one by one."""
    with tempfile.TemporaryDirectory(prefix="gpu-") as work:
        if name == POSTER:
            setting = Setting(quick, 1, device, Path(work))
            rows = poster.measure(setting, seconds, workers, root, records)
        else:
            part = PARTS[name]
            rows = part.rows(Setting(quick, 1 if quick else part.repeat, device, Path(work)))
        for row in rows:
            with file.open("a", encoding="utf-8") as out:
                out.write(json.dumps(row.as_json()) + "\n")


def main() -> int:
    """Run the command; returns the exit code, which is 2 for a user's mistake."""
    try:
        gpu.main(prog_name=COMMAND, standalone_mode=False)
    except (UserError, click.ClickException) as error:
        text = error.format_message() if isinstance(error, click.ClickException) else str(error)
        click.echo(f"gpu: {text}", err=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
