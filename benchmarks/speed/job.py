"""The main job as a user gives it: ``bench run`` with an empty cache, then with a full one."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from .clock import Goal, Row, Setting, seconds_of
from .preparing import make_files

COLD, WARM = 90, 5  # s, on two cores without a GPU
COLD_GPU = 15
SHORT = ("--dataset", "folder", "--size", "32", "--epochs", "1", "--batch-size", "64",
         "--set", "attack.steps=2", "--set", "attack.perturbation_steps=1")  # fmt: skip


def measure(setting: Setting) -> Iterator[Row]:
    """The rows of this part."""
    cold: list[float] = []
    warm: list[float] = []
    records: list[dict[str, Any]] = []
    options: tuple[str, ...] = ()
    if setting.quick:
        make_files(setting.work / "images", 80)
        options = (*SHORT, "--root", str(setting.work / "images"), "--target", "class0")
    for turn in range(1 if setting.quick else min(setting.repeat, 2)):
        folder = setting.work / f"job-{turn}"
        words = [
            sys.executable, "-m", "hashbackdoor_bench", "run", "--json",
            "--cache-dir", str(folder / "cache"), "--results-dir", str(folder / "results"),
            "--device", str(setting.device), *options,
        ]  # fmt: skip

        def run(words: list[str] = words) -> None:
            done = subprocess.run(words, capture_output=True, check=True)
            result = json.loads(done.stdout.splitlines()[-1])
            records.append(json.loads(Path(result["record"]).read_text(encoding="utf-8")))

        cold.append(seconds_of(run, setting.device))
        for _ in range(setting.repeat):
            warm.append(seconds_of(run, setting.device))
    assert all(record["scores"] == records[0]["scores"] for record in records)
    stages = sum(records[0]["seconds"].values())
    limit = COLD_GPU if setting.device.type == "cuda" else COLD
    yield Row(
        "main job",
        "bench run, empty cache",
        {"ours": cold},
        [Goal("seconds, median", median(cold), limit, most=True)],
        equal=f"{len(records)} runs have the same scores",
        least="the stages of the record",
        ceiling="their seconds",
        share=stages / median(cold),
        facts={
            "stages": records[0]["seconds"],
            "scores": {
                name: value
                for name, value in records[0]["scores"]["field"].items()
                if isinstance(value, float)
            },
        },
    )
    yield Row(
        "main job",
        "bench run, full cache",
        {"ours": warm},
        [Goal("seconds, median", median(warm), WARM, most=True)],
        equal="the same record",
    )
