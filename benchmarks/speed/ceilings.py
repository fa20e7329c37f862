"""The ceilings of this machine: bytes, population counts and multiply-adds per second."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from hashbackdoor_bench.metrics.code_words import Ints, Words
from hashbackdoor_bench.metrics.kernels import BLOCK, compiled, distances, in_threads

from .clock import Setting, seconds_of


def best(run: Callable[[], object], device: torch.device, rounds: int = 3) -> float:
    """Least seconds of several calls, after a first one that doesn't count."""
    run()
    return min(seconds_of(run, device) for _ in range(rounds))


def bytes_a_second(setting: Setting) -> float:
    """Memory bandwidth, measured by a sum over more numbers than fit into any cache."""
    numbers = torch.ones(2**18 if setting.quick else 2**26)  # 256 MB
    numbers = numbers.to(setting.device)
    return numbers.nbytes / best(numbers.sum, setting.device)


def multiply_adds_a_second(setting: Setting, dtype: torch.dtype) -> float:
    """Rate of multiply-adds in a precision, measured by a product of square matrices."""
    side = 64 if setting.quick else 8192 if setting.device.type == "cuda" else 2048
    a = torch.randn(side, side, device=setting.device).to(dtype)  # zeros and ones are faster
    return side**3 / best(lambda: a @ a, setting.device, rounds=5)


def multiply_adds(network: nn.Module, size: int) -> int:
    """Multiply-adds for one image of size px, in convolutions and linear layers."""
    total = 0

    def count(layer: Any, given: Any, out: torch.Tensor) -> None:
        nonlocal total
        total += out.numel() * layer.weight[0].numel()

    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    parameter = next(network.parameters())
    training = network.training
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, size, size).to(parameter))
    network.train(training)
    for hook in hooks:
        hook.remove()
    return total


@compiled
def add_distances(first: int, last: int, codes: Words, words: Words, out: Ints) -> None:
    """Sums all distances: the unavoidable work of ranking codes."""
    distance = np.zeros(BLOCK, np.uint32)
    for begin in range(0, words.shape[1], BLOCK):
        end = min(begin + BLOCK, words.shape[1])
        for q in range(first, last):
            distances(codes[q], words, begin, end, distance)
            total = 0
            for d in distance[: end - begin]:
                total += d
            out[q] += total


@compiled
def count_distances(first: int, last: int, distance: Ints, blocks: int, out: Ints) -> None:
    """Counts items by distance, from distances that stay in the first-level cache."""
    for _ in range(blocks):
        for q in range(first, last):
            for d in distance:
                out[q, d] += 1


def counting_seconds(codes: Words, words: Words, setting: Setting) -> dict[str, float]:
    """Seconds of the two bare loops of ranking codes (Q,W) against words (W,D)."""
    sums = np.zeros(len(codes), np.int64)
    counts = np.zeros((len(codes), 64 * words.shape[0] + 1), np.int32)
    distance = np.zeros(BLOCK, np.uint32)
    distances(codes[0], words, 0, min(BLOCK, words.shape[1]), distance)
    blocks = -(-words.shape[1] // BLOCK)
    cpu = torch.device("cpu")
    return {
        "popcount": best(lambda: in_threads(add_distances, codes, words, sums), cpu),
        "count": best(lambda: in_threads(count_distances, distance, blocks, counts), cpu),
    }
