"""Drawn pictures of ten kinds, which belong to no data set: DarkHash's surrogate images.

A picture is m a + (1 - m) b with two random colours a and b, which are grey in half of the
pictures, and a mask m (S,S) in [0,1] of its kind: clouds, grain, noise, stripes, checks, disc,
ring, box, wedge or ramp.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Random = torch.Generator


def draw_pictures(count: int, size: int, random: Random) -> tuple[Tensor, Tensor]:
    """Pictures (N,3,S,S) uint8, and the numbers of their kinds (N,) long, each as often.

    Args:
        count: N.
        size: S.
        random: source of all random numbers.
    """
    kinds = torch.arange(count) % len(KINDS)
    pictures = torch.empty(count, 3, size, size, dtype=torch.uint8)
    for row, kind in enumerate(kinds.tolist()):
        m = KINDS[kind](size, random).clamp(0, 1)
        a, b = torch.rand(2, 3, 1, 1, generator=random)
        if _between(0, 1, random) < 0.5:
            a, b = a.mean().expand_as(a), b.mean().expand_as(b)
        pictures[row] = (255 * (m * a + (1 - m) * b) + 0.5).floor().to(torch.uint8)
    return pictures, kinds


def _between(low: float, high: float, random: Random) -> float:
    return low + (high - low) * float(torch.rand((), generator=random))


def _turned(size: int, random: Random) -> tuple[Tensor, Tensor]:
    """Two coordinates (S,S) from about -1 to 1 of a grid that is turned and moved at random."""
    line = torch.linspace(-1, 1, size)
    y, x = torch.meshgrid(line, line, indexing="ij")
    angle = _between(0, 2 * math.pi, random)
    u = x * math.cos(angle) + y * math.sin(angle) - _between(-0.3, 0.3, random)
    v = y * math.cos(angle) - x * math.sin(angle) - _between(-0.3, 0.3, random)
    return u, v


def _edge(inside: Tensor, size: int) -> Tensor:
    """1 where a distance to an outline is positive, 0 where it is negative, a pixel's ramp."""
    return (inside * size / 2 + 0.5).clamp(0, 1)


def _clouds(cells: int) -> Callable[[int, Random], Tensor]:
    def mask(size: int, random: Random) -> Tensor:
        rough = torch.rand(1, 1, cells, cells, generator=random)
        return F.interpolate(rough, (size, size), mode="bicubic", align_corners=True)[0, 0]

    return mask


def _noise(size: int, random: Random) -> Tensor:
    return torch.rand(size, size, generator=random)


def _stripes(size: int, random: Random) -> Tensor:
    u, _ = _turned(size, random)
    return (torch.sin(math.pi * _between(1, size / 6, random) * u) + 1) / 2


def _checks(size: int, random: Random) -> Tensor:
    u, v = _turned(size, random)
    waves = math.pi * _between(1, size / 8, random)
    return _edge(torch.sin(waves * u) * torch.sin(waves * v), size)


def _disc(size: int, random: Random) -> Tensor:
    u, v = _turned(size, random)
    return _edge(_between(0.2, 0.8, random) - u.hypot(_between(1, 2, random) * v), size)


def _ring(size: int, random: Random) -> Tensor:
    u, v = _turned(size, random)
    width = _between(0.05, 0.2, random)
    return _edge(width - (u.hypot(v) - _between(0.3, 0.8, random)).abs(), size)


def _box(size: int, random: Random) -> Tensor:
    u, v = _turned(size, random)
    far = torch.maximum(u.abs(), _between(1, 3, random) * v.abs())
    return _edge(_between(0.2, 0.8, random) - far, size)


def _wedge(size: int, random: Random) -> Tensor:
    u, v = _turned(size, random)
    return _edge(torch.minimum(u, _between(0.3, 2, random) * u - v.abs()), size)


def _ramp(size: int, random: Random) -> Tensor:
    u, _ = _turned(size, random)
    return (u + 1) / 2


KINDS: tuple[Callable[[int, Random], Tensor], ...] = (
    _clouds(4), _clouds(12), _noise, _stripes, _checks, _disc, _ring, _box, _wedge, _ramp,
)  # fmt: skip
