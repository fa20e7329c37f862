"""The numerics of this process, which enter the key of every stage, and its threads."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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
def unchanged(numerics: Numerics) -> Iterator[None]:
    """Inside, torch computes as the numerics say; what a method changed is set back.

    Raises:
        RuntimeError: something that results depend on was changed before or inside.
    """
    expected = _modes() | {"torch's default dtype": torch.float32}
    if numerics.threads is not None:
        expected["torch's number of threads"] = numerics.threads
    _compare(expected)
    try:
        yield
        _compare(expected)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(expected["torch's number of threads"])
        torch.set_grad_enabled(expected["torch's grad mode"])
        torch.set_float32_matmul_precision(expected["torch's precision of matrix products"])
        os.chdir(expected["the working directory"])


def _modes() -> dict[str, Any]:
    """What any code can change for the whole process and results depend on."""
    return {
        "torch's default dtype": torch.get_default_dtype(),
        "torch's number of threads": torch.get_num_threads(),
        "torch's grad mode": torch.is_grad_enabled(),
        "torch's precision of matrix products": torch.get_float32_matmul_precision(),
        "the working directory": os.getcwd(),
    }


def _compare(expected: dict[str, Any]) -> None:
    for name, found in _modes().items():
        if found != expected[name]:
            raise RuntimeError(
                f"{name} was changed from {expected[name]} to {found}, and results "
                "depend on it: a method sets it back before it returns"
            )


@contextmanager
def threads_set(count: int | None) -> Iterator[None]:
    """Inside, torch and the ranking kernels use ``count`` threads; None: as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
