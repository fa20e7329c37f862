"""What the rounding of a computation depends on; it enters the key of every stage."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Numerics:
    """What changes the last bits of a result, beside the inputs of a stage.

    Two networks of one seed that are trained under different numerics differ about as much as those
    of two seeds. So an attack would seem to change the victim that it leaves alone.

    Attributes:
        device: name of the GPU, or ``cpu`` with its instruction set, such as ``cpu AVX512``.
        threads: torch's threads; None on a GPU.
        precision: ``float32`` or ``bfloat16``, see `Recipe`.
        tf32: on a GPU, whether convolutions in float32 are rounded to TF32; else None.
        torch: version of torch.
    """

    device: str
    threads: int | None
    precision: str
    tf32: bool | None
    torch: str


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
