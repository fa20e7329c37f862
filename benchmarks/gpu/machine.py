"""The machine: its ceilings, with the rate of the matrix units in each precision."""

import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial

import torch

from ..speed.ceilings import best, bytes_a_second, multiply_adds_a_second
from ..speed.clock import Row, Setting


def measure(setting: Setting) -> Iterator[Row]:
    """The row of this part."""
    device = setting.device
    rates = {"bfloat16": multiply_adds_a_second(setting, torch.bfloat16)}
    for name, tf32 in (("float32", False), ("TF32", True)):
        with matrix_units(tf32):
            rates[name] = multiply_adds_a_second(setting, torch.float32)
    count = 2**16 if setting.quick else 2**28
    memory = torch.zeros(count, dtype=torch.uint8, device=device)
    facts = {
        **{f"{name}_tera_flops": 2 * rate / 1e12 for name, rate in rates.items()},
        "sum_gigabytes_per_second": bytes_a_second(setting) / 1e9,
        "copy_gigabytes_per_second": 2 * count / best(memory.clone, device) / 1e9,
    }
    for name, pinned in (("pageable", False), ("pinned", True)):
        host = torch.zeros(count, dtype=torch.uint8)
        host = host.pin_memory() if pinned and not setting.quick else host
        copied = partial(memory.copy_, host, non_blocking=True)
        facts[f"{name}_to_gpu_gigabytes_per_second"] = count / best(copied, device) / 1e9
    small = torch.zeros(8, device=device)
    calls = 1000

    def launches() -> None:
        for _ in range(calls):
            small.add_(1)

    launch = best(launches, device)
    if not setting.quick:
        facts |= {
            "seconds_to_import_torch": started("import torch"),
            "seconds_to_use_the_gpu": started(
                f"import torch; torch.zeros(1, device='{device}').item()"
            ),
            "seconds_to_import_the_pipeline": started(
                "import hashbackdoor_bench.stages.pipeline as p; p.Run"
            ),
        }
    yield Row(
        "machine",
        "ceilings, best of several",
        {"ours": [launch]},
        facts={
            **facts,
            "microseconds_per_small_operation": launch / calls * 1e6,
            "cudnn_allow_tf32": torch.backends.cudnn.allow_tf32,
            "smi": smi(),
        },
    )


class matrix_units:
    """Inside, products of float32 matrices may or may not be rounded to TF32."""

    def __init__(self, allowed: bool) -> None:
        self.allowed = allowed

    def __enter__(self) -> None:
        self.before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = self.allowed

    def __exit__(self, *error: object) -> None:
        torch.backends.cuda.matmul.allow_tf32 = self.before


def started(code: str) -> float:
    """Seconds of a new Python process that runs ``code``; the second of two."""
    for _ in range(2):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


def smi() -> str:
    """The driver's description of the GPU; empty if it has none."""
    query = "--query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit"
    try:
        done = subprocess.run(
            ["nvidia-smi", query, "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
