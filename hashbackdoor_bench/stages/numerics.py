"""The numerics of this process, which enter the key of every stage, and its threads."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hashbackdoor_bench.records import Numerics


def numerics_of(device: torch.device, precision: str, threads: int | None = None) -> Numerics:
    """The numerics of a process.

    Args:
        device: where it computes.
        precision: precision of its networks.
        threads: number of its threads; None: that of this process.
    """
    version = str(torch.__version__)
    if device.type == "cuda":
        name = str(torch.cuda.get_device_name(device))
        return Numerics(name, None, precision, bool(torch.backends.cudnn.allow_tf32), version)
    kind = f"cpu {torch.backends.cpu.get_cpu_capability()}"
    return Numerics(kind, threads or torch.get_num_threads(), precision, None, version)


@contextmanager
def threads_set(count: int | None) -> Iterator[None]:
    """Inside, torch and the ranking kernels use ``count`` threads; None: as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
