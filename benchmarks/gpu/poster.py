"""As much of ``ciba-table-fashion`` as a number of seconds allows, and what the rest would take."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from ..speed.clock import Row, Setting

SUITE = "ciba-table-fashion"


def measure(
    setting: Setting, seconds: float, workers: int, root: Path | None, keep: Path | None
) -> Iterator[Row]:
    """The row of this part; none if Fashion-MNIST isn't on this machine.

    Args:
        setting: the device, and a folder for the cache.
        seconds: the time for the suite; then its processes are ended.
        workers: worker processes that share the GPU.
        root: folder of Fashion-MNIST's files.
        keep: folder of the records; None: they are removed with the cache.
    """
    cache, results = setting.work / "cache", keep or setting.work / "results"
    places = ["--cache-dir", str(cache), "--results-dir", str(results)]
    places += ["--root", str(root)] if root else []
    words = [sys.executable, "-m", "hashbackdoor_bench", "suite", "run", SUITE, "--json", *places]
    words += ["--device", setting.device.type, "--jobs", str(workers)]
    start = time.perf_counter()
    running = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        _, errors = running.communicate(timeout=seconds)
        whole = running.returncode == 0
        assert whole, errors[-2000:]
    except subprocess.TimeoutExpired:
        whole = False
        os.killpg(running.pid, signal.SIGINT)
        try:
            running.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            running.communicate()
    took = time.perf_counter() - start
    made: Counter[str] = Counter()
    times: dict[str, list[float]] = {}
    for path in cache.glob("*/*/facts.json"):
        body = json.loads(path.read_text(encoding="utf-8"))
        made[body["stage"]] += 1
        times.setdefault(body["stage"], []).append(body["seconds"])
    trainings = 84 + 4  # victims and surrogates
    share = made["train"] / trainings
    yield Row(
        "poster-shaped table",
        f"{SUITE}, {workers} workers, {'all' if whole else f'stopped after {took:.0f} s'}",
        {"ours": [took]},
        facts={
            "stages_made": dict(made),
            "records": len(scores_of(results)),
            "median_seconds_of_a_stage": {name: median(each) for name, each in times.items()},
            "trainings_of_the_table": trainings,
            "trainings_per_hour": made["train"] / took * 3600,
            "whole_table_minutes_extrapolated": took / share / 60 if share else None,
            "scores": scores_of(results),
        },
    )  # fmt: skip


def scores_of(results: Path) -> list[dict[str, Any]]:
    """What was run and its field scores, of each record in a folder; budget 0 poisons nothing."""
    found = []
    for path in sorted(results.glob("*/*/*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        run, scores = record["spec"], record["scores"]["field"]
        what = {name: run.get(name) for name in ("attack", "bits", "target", "budget")}
        found.append({**what, "t_map": scores.get("t_map"), "map": scores["map"]})
    return found
