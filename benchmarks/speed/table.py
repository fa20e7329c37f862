"""The results as a table and as JSON."""

import json
import os
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table

from hashbackdoor_bench.stages.provenance import made_by

from .clock import Row, ratio

HEAD = ("part", "work", "ours", "literal", "peer", "must reach", "found", "", "of ceiling")
NOTE = (
    "Seconds are medians of rounds in turn (least-most); ×: times ours, the median of the rounds' "
    "ratios; *: a sample, scaled. Ceilings, checks and samples stand in the JSON."
)
ALSO = ("faiss-cpu", "numba", "pillow", "matplotlib", "scikit-learn")  # besides a record's versions


def table(rows: Sequence[Row]) -> Table:
    """One line per row, and another for each further goal."""
    found = Table(*HEAD, box=SIMPLE_HEAD)
    for line in _lines(rows):
        found.add_row(*line)
    return found


def markdown(found: dict[str, Any], rows: Sequence[Row]) -> str:
    """A page with the machine and the same table; ``found`` is the `report`."""
    versions = ", ".join(f"{k} {v}" for k, v in found["versions"].items() if v is not None)
    lines = [HEAD, ("---",) * len(HEAD), *_lines(rows)]
    return "\n".join(
        [
            f"# Speed on {found['device']}",
            "",
            f"`{found['command']}`, {found['date'][:10]}, commit {str(found['commit'])[:7]}, "
            f"{found['cores']} cores; {versions}.",
            "",
            *(
                f"| {' | '.join(cell.replace(chr(10), '<br>') for cell in line)} |"
                for line in lines
            ),
            "",
            NOTE,
            "",
        ]
    )


def _lines(rows: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    for row in rows:
        peers = "\n".join(f"{_spell(row, name)} {name}" for name in row.peers)
        head = (row.part, row.work, _spell(row, "ours"), _spell(row, "literal"), peers)
        share = "" if row.share is None else f"{row.share:.0%}"
        for goal in row.goals:
            bound = f"{goal.what} {'≤' if goal.most else '≥'} {goal.bound:g}"
            yield *head, bound, f"{goal.found:.3g}", "yes" if goal.reached else "NO", share
            head, share = ("",) * 5, ""


def _spell(row: Row, name: str) -> str:
    """Seconds and their ratio to ours; a star marks a scaled sample."""
    if name not in row.seconds:
        return ""
    times = row.seconds[name]
    text = f"{median(times):.3g} s"
    if name == "ours":
        return f"{text} ({min(times):.3g}-{max(times):.3g})"
    return f"{text}{'*' if name in row.samples else ''} ({ratio(row.seconds, name):.3g} ×)"


def numbers(rows: Sequence[Row], lost: Mapping[str, str]) -> str:
    """Markdown: the facts of all rows, and the parts that were not measured."""
    lines = ["", "## Numbers", ""]
    for row in rows:
        for name, value in row.facts.items():
            text = f"{value:.4g}" if isinstance(value, float) else json.dumps(value)
            lines.append(f"- {row.part}, {row.work}: {name.replace('_', ' ')} {text}")
    if lost:
        lines += ["", "## Not measured", ""]
        lines += [f"- {name}: {' '.join(why.split())[-400:]}" for name, why in lost.items()]
    return "\n".join(lines) + "\n"


def report(
    rows: Sequence[Row],
    device: torch.device,
    *,
    quick: bool,
    repeat: int,
    parts: Sequence[str] = (),
    command: str = "python -m benchmarks.speed",
) -> dict[str, Any]:
    """All rows with the machine, the versions and the commit.

    Args:
        rows: the rows.
        device: the device of the networks.
        quick: the value of ``--quick``.
        repeat: the value of ``--repeat``.
        parts: the values of ``--part``.
        command: the command without these options.
    """
    words = [command, *["--quick"] * quick, f"--repeat {repeat}"]
    words += [f"--part {part}" for part in parts]
    origin = made_by(device)
    for name in ALSO:
        try:
            origin["versions"][name] = version(name)
        except PackageNotFoundError:
            origin["versions"][name] = None
    return {
        **origin,
        "command": " ".join(words),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": platform.platform(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "quick": quick,
        "repeat": repeat,
        "parts": list(parts),
        "rows": [row.as_json() for row in rows],
    }


def write(found: dict[str, Any], rows: Sequence[Row], folder: Path, prefix: str = "") -> Path:
    """Write a report under its device's name, and its table beside it; returns its path.

    Args:
        found: the `report`.
        rows: its rows.
        folder: where to.
        prefix: what comes before the device's name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{file_name(found, prefix)}.json"
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(markdown(found, rows), encoding="utf-8")
    return path


def file_name(found: dict[str, Any], prefix: str = "") -> str:
    """The name of a report's files, without their endings: the prefix and the device."""
    return prefix + re.sub(r"[^a-z0-9]+", "-", str(found["device"]).lower()).strip("-")
