"""What tests of defenses in a run share: a tiny run, and its plan."""

from pathlib import Path
from typing import Any

import torch

from hashbackdoor_bench import RunSpec
from hashbackdoor_bench.stages import Cache, Plan
from hashbackdoor_bench.stages.idle import without_idle

CPU = torch.device("cpu")


def spec(tiny: Path, **changes: Any) -> RunSpec:
    base: dict[str, Any] = {
        "attack": "badnets", "victim": "csq", "dataset": "lists", "lists": str(tiny),
        "root": str(tiny), "size": 16, "top_k": 20, "bits": 12, "epochs": 1, "batch_size": 16,
        "clean_share": 0.5,
    }  # fmt: skip
    return RunSpec(**{**base, **changes})


def asked(tiny: Path, cache: Cache, **changes: Any) -> RunSpec:
    """`spec` without a share of clean images where the defense takes none, which is refused."""
    given = spec(tiny, **changes)
    return without_idle(given, Plan(given, cache=cache, device=CPU).spec)


def plan(tiny: Path, cache: Path, **changes: Any) -> Plan:
    return Plan(spec(tiny, **changes), cache=Cache(cache), device=CPU)
