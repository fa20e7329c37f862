"""Memory: what it costs in time, and the errors of an allocation that finds too little of it.

Freed blocks stay with the process, and no garbage is looked for in vain.

glibc returns large blocks to the kernel as soon as they are freed. A training step frees its
activations and asks for the same number of bytes a moment later, so the kernel clears thousands of
pages in each step: 2 000 to 5 000 page faults and 6 to 20 % of a step of ``cnn32`` on the CPU.
"""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager

# Parameters of glibc's mallopt(3).
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
LARGEST = 32 * 2**20  # bytes; glibc allows no larger M_MMAP_THRESHOLD


def keep_freed_memory() -> bool:
    """Let this process keep freed blocks of up to 32 MB; results don't depend on it.

    It changes the whole process, so the entry points of processes call it, not the library.

    Returns:
        Whether the C library is glibc and does so; others are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # not glibc
        return False
    wanted = {M_MMAP_THRESHOLD: LARGEST, M_TRIM_THRESHOLD: -1, M_TOP_PAD: 2 * LARGEST}
    done = [mallopt(name, value) == 1 for name, value in wanted.items()]
    return all(done)


def scarce(error: BaseException) -> str | None:
    """The memory that was too small for an allocation, ``GPU's`` or ``machine's``.

    None: the error is another one. On the CPU torch raises a `RuntimeError`, which has many causes
    and is told by its text alone.
    """
    if type(error).__name__ == "OutOfMemoryError":  # torch's; this file is read before torch is
        return "GPU's"
    cpu = isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate" in str(error)
    return "machine's" if cpu or isinstance(error, MemoryError) else None


@contextmanager
def no_collection() -> Iterator[None]:
    """Keep Python from looking for garbage among a million new objects, none of which is any.

    Importing torch takes 10 to 15 % less time so, and planning a large suite too.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
