"""A GPU for machines without one: tensors on the CPU that say ``cuda`` and don't mix with others.

Most mistakes that only a GPU shows are of one kind: a tensor was left behind, or came back too
early. Here a tensor that was made or moved with a CUDA device is a `OnGpu`; an operation on one of
those and on a tensor of the CPU raises as CUDA would, and so does NumPy. Gradients are computed by
the plain CPU formulas, so the numbers are those of the CPU.
"""

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

OURS = ("hashbackdoor_bench", "attacks", "victims", "defenses")
GPU = torch.device("cuda", 0)
READS = ("__get__", "__set__", "__len__", "dim", "size", "numel", "is_floating_point", "stride",
         "_has_compatible_shallow_copy_type")  # fmt: skip
MOVES = ("to", "cpu", "cuda", "copy_", "type", "load_state_dict", "__repr__", "__deepcopy__")
NUMPY = ("numpy", "__array__")
WAITS = ("item", "tolist", "__bool__", "__float__", "__int__", "__index__", "nonzero", "unique",
         "equal", "allclose", "masked_select", "bincount", "cpu")  # fmt: skip
waits = Counter[str]()  # lines of the package at which the CPU waits for the GPU, and how often


def waited(name: str, args: Any, target: torch.device | None) -> None:
    """Count a call that makes the CPU wait: it reads a value, or takes a shape from values."""
    mask = name in ("__getitem__", "__setitem__") and any(
        isinstance(x, OnGpu) and x.dtype == torch.bool
        for x in (args[1] if isinstance(args[1], tuple) else (args[1],))
    )
    if mask or name in WAITS or (name == "to" and target is not None and target.type == "cpu"):
        count(name)


def count(name: str) -> None:
    """Add to `waits` at the innermost line of the package."""
    frame = sys._getframe(1)
    for _ in range(20):
        if frame is None:
            return
        folder, file = os.path.split(frame.f_code.co_filename)
        if os.path.basename(folder) in OURS:
            waits[f"{file}:{frame.f_lineno} {frame.f_code.co_name}: {name}"] += 1
            return
        frame = frame.f_back


class WrongDevice(RuntimeError):
    """What CUDA would refuse."""


class OnGpu(Tensor):
    """A tensor that says it is on the GPU."""

    device = property(lambda self: GPU)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            with torch._C.DisableTorchFunctionSubclass():
                made = self.detach().clone().as_subclass(OnGpu).requires_grad_(self.requires_grad)
            made.__dict__.update(self.__dict__)  # whether it is a parameter
            memo[id(self)] = made
        return memo[id(self)]  # type: ignore[no-any-return]

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.__name__
        if name in NUMPY:
            raise WrongDevice(f"{name}() of a tensor on the GPU: .cpu() is missing")
        target = wanted(name, args, kwargs)
        waited(name, args, target)
        if name not in READS and name not in MOVES:
            refuse_mixture(name, args, kwargs)
        with torch._C.DisableTorchFunctionSubclass():
            if target is not None:
                args, kwargs = on_cpu(args), on_cpu(kwargs)
            out = func(*args, **kwargs)
        if name == "copy_":
            return args[0]
        if target is not None and target.type == "cpu":
            return tree_map(lambda x: x.as_subclass(Tensor) if is_tensor(x) else x, out)
        return tree_map(put, out)


def is_tensor(x: Any) -> bool:
    """Whether it is a tensor of any kind."""
    return isinstance(x, Tensor)


def tensors(values: Any) -> Iterator[Tensor]:
    """All tensors in nested lists, tuples and dictionaries of arguments."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors(value)
        elif isinstance(value, dict):
            yield from tensors(value.values())


def put(x: Any) -> Any:
    """A tensor as one on the GPU, with its history; anything else as it is."""
    if not is_tensor(x) or isinstance(x, OnGpu):
        return x
    with torch._C.DisableTorchFunctionSubclass():
        return x.as_subclass(OnGpu)


def wanted(name: str, args: Any, kwargs: Any) -> torch.device | None:
    """The device that a call asks for; None if it asks for none."""
    if name in ("cpu", "cuda"):
        return torch.device("cpu") if name == "cpu" else GPU
    given = [kwargs.get("device"), *(args[1:] if name == "to" else ())]
    for value in given:
        if isinstance(value, str | torch.device):
            return torch.device(value)
        if is_tensor(value):
            return value.device
    return None


def on_cpu(values: Any) -> Any:
    """The same arguments with every CUDA device replaced."""

    def change(value: Any) -> Any:
        if isinstance(value, torch.device) and value.type == "cuda":
            return torch.device("cpu")
        return "cpu" if isinstance(value, str) and value.startswith("cuda") else value

    return tree_map(change, values)


def refuse_mixture(name: str, args: Any, kwargs: Any) -> None:
    """Raise where tensors of both places meet; a number in a CPU tensor may meet any."""
    if name == "__getitem__" and isinstance(args[0], OnGpu):
        return  # an index may come from the CPU
    values = list(args)
    if name == "__setitem__" and isinstance(args[0], OnGpu):
        values = [args[0], args[2]]
    found = list(tensors((values, kwargs)))
    gpu = [x for x in found if isinstance(x, OnGpu)]
    cpu = [x for x in found if not isinstance(x, OnGpu) and x.dim() > 0]
    if gpu and cpu:
        shapes = [tuple(x.shape) for x in cpu]
        raise WrongDevice(f"{name}: tensors {shapes} are on the CPU, others on the GPU")
    generator = kwargs.get("generator")
    if gpu and isinstance(generator, torch.Generator) and generator.device.type == "cpu":
        raise WrongDevice(f"{name}: a CPU generator draws for a tensor on the GPU")


class _Mode(TorchFunctionMode):
    """Calls without a tensor on the GPU: those that put one there, and indices from there."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if any(isinstance(x, OnGpu) for x in tensors((args, kwargs))):
            return func(*args, **kwargs)
        target = wanted(name, args, kwargs)
        if target is None or target.type != "cuda":
            return func(*args, **kwargs)
        if isinstance(kwargs.get("generator"), torch.Generator):
            raise WrongDevice(f"{name}: a CPU generator draws for a tensor on the GPU")
        if name in ("tensor", "as_tensor") or (name == "to" and not kwargs.get("non_blocking")):
            count(f"{name} the GPU")
        return tree_map(put, func(*on_cpu(args), **on_cpu(kwargs)))


class _Event:
    """A CUDA event: the time at which it was recorded."""

    def __init__(self, **settings: Any) -> None:
        self.at = 0.0

    def record(self) -> None:
        """Now."""
        self.at = time.perf_counter()

    def elapsed_time(self, other: "_Event") -> float:
        """Milliseconds to another."""
        return 1000 * (other.at - self.at)


class _Recorded(TorchDispatchMode):
    """Notes all operations, with their tensors, and takes back what they wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[Any, Any, Any, list[Tensor]]] = []
        self.before: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        norm = "batch_norm" in func.__name__  # its schema doesn't say that it writes its statistics
        for given, value in zip(func._schema.arguments, args, strict=False):
            if is_tensor(value) and (given.is_write or (norm and given.name.startswith("running"))):
                self.before.append((value, value.clone()))
        out = func(*args, **(kwargs or {}))
        self.done.append((func, args, kwargs or {}, tree_flatten(out)[0]))
        return out


class _CUDAGraph:
    """A CUDA graph: the operations of a part of the program, which run only when replayed."""

    recorded: _Recorded

    def pool(self) -> None:
        """It has none."""

    def replay(self) -> None:
        """Do all operations again, into the same tensors."""
        with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
            for func, args, kwargs, outs in self.recorded.done:
                for old, new in zip(outs, tree_flatten(func(*args, **kwargs))[0], strict=True):
                    if is_tensor(old) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)


@contextmanager
def _graph(graph: _CUDAGraph, **settings: Any) -> Iterator[None]:
    graph.recorded = _Recorded()
    with graph.recorded:
        yield
    with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
        for tensor, value in reversed(graph.recorded.before):
            with torch.autograd._unsafe_preserve_version_counter(tensor):
                tensor.copy_(value)


@contextmanager
def pretend_gpu() -> Iterator[None]:
    """Inside, ``cuda`` is there, as far as this package asks."""
    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    with pytest.MonkeyPatch.context() as patch, _Mode():
        for name, value in {
            "is_available": True,
            "is_bf16_supported": True,
            "mem_get_info": (2**40, 2**40),
            "max_memory_allocated": 2**30,
            "get_device_name": "a GPU that isn't there",
            "get_rng_state": torch.zeros(1, dtype=torch.uint8),
        }.items():
            patch.setattr(torch.cuda, name, lambda *args, _v=value, **more: _v)
        for name in ("set_rng_state", "synchronize", "empty_cache", "reset_peak_memory_stats"):
            patch.setattr(torch.cuda, name, lambda *args, **more: None)
        patch.setattr(torch.cuda, "Event", _Event)
        patch.setattr(torch.cuda, "CUDAGraph", _CUDAGraph)
        patch.setattr(torch.cuda, "graph", _graph)
        for name in ("_accelerator", "_cuda"):  # of this torch, and of one before
            check = f"{name}_graph_capture_health_check"
            patch.setattr(torch.optim.Optimizer, check, lambda self: None, raising=False)
        try:
            yield
        finally:
            torch.__future__.set_overwrite_module_params_on_conversion(overwrite)
