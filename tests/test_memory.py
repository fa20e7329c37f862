import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from test_cli import run_arguments

from hashbackdoor_bench.cli import main
from hashbackdoor_bench.memory import scarce
from hashbackdoor_bench.stages import Cache

LARGEST = 10**15  # numbers; no machine has so much memory

WORK = """
import torch
from hashbackdoor_bench.memory import keep_freed_memory

if {keep}:
    assert keep_freed_memory()
blocks = [torch.ones(2**22) for _ in range(8)]  # 16 MB each
del blocks
for line in open("/proc/self/maps"):
    if "[heap]" in line:
        start, end = (int(address, 16) for address in line.split()[0].split("-"))
        print((end - start) // 2**20)
"""


def heap(keep: bool) -> int:
    """Megabytes of the heap after 128 MB were taken and freed."""
    words = [sys.executable, "-c", WORK.format(keep=keep)]
    return int(subprocess.run(words, capture_output=True, check=True, text=True).stdout)


@pytest.mark.skipif("linux" not in sys.platform, reason="mallopt is glibc's")
def test_freed_blocks_stay_in_the_heap_of_the_process() -> None:
    assert heap(keep=True) >= 128
    assert heap(keep=False) < 128


@pytest.mark.parametrize("allocate", [torch.empty, np.empty])
def test_a_stage_that_memory_is_too_small_for_is_named_with_what_to_lower(
    tiny: Path, tmp_path: Path, capsys, monkeypatch, allocate: Callable[[int], object]
) -> None:
    monkeypatch.setattr(Cache, "make", lambda *a: allocate(LARGEST))
    assert main([*run_arguments(tiny, tmp_path), "--quiet", "--batch-size", "8"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("bench: stage 'train surrogate' doesn't fit the machine's memory at ")
    assert "--batch-size 8: go on with --batch-size 4, or a smaller --backbone" in line


def test_memory_that_is_too_small_outside_of_a_stage_is_one_sentence(
    tiny: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.setattr("hashbackdoor_bench.stages.plan.load_data", lambda *a: np.empty(LARGEST))
    assert main(run_arguments(tiny, tmp_path)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("bench: the machine's memory is too small (MemoryError: Unable to")


def test_only_errors_of_allocations_are_of_memory() -> None:
    assert scarce(torch.OutOfMemoryError("CUDA out of memory")) == "GPU's"
    assert scarce(RuntimeError("shapes can't be multiplied")) is None
