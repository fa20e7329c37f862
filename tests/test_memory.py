import subprocess
import sys

import pytest

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
