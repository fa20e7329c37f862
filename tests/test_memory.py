import subprocess
import sys

import pytest

WORK = """
import resource
import torch
from hashbackdoor_bench.memory import keep_freed_memory

if {keep}:
    assert keep_freed_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def step():
    blocks = [torch.ones(2**20) for _ in range(8)]  # 4 MB each
    return sum(float(block[-1]) for block in blocks)

for _ in range(3):
    step()
before = faults()
for _ in range(20):
    step()
print(faults() - before)
"""


def faults(keep: bool) -> int:
    """Page faults of twenty steps, each of which takes and frees 32 MB."""
    words = [sys.executable, "-c", WORK.format(keep=keep)]
    return int(subprocess.run(words, capture_output=True, check=True, text=True).stdout)


@pytest.mark.skipif("linux" not in sys.platform, reason="mallopt is glibc's")
def test_freed_memory_is_used_again_without_new_pages() -> None:
    pages = 20 * 8 * 2**22 // 4096
    assert faults(keep=False) > pages / 10
    assert faults(keep=True) < pages / 100
