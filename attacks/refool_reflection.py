"""Refool's reflections: pictures of random leaves, and light that a window pane adds of them.

See ``refool.py`` for the formulas of `reflect` and the paper. Leaves are the model of natural
images of Lee, Mumford and Huang, "Occlusion Models for Natural Images", IJCV 2001: disks and
rectangles lie on top of one another, and the number of those larger than s falls as 1 / s^2.
"""

from math import ceil

import torch
from torch import Tensor

CANVAS = 560  # px, the side of the authors' images, for which their lengths are meant
GHOST = 0.49  # how often a reflection is a ghost
LEAVES = 100  # in a picture; at 32 px they cover all of it in half of the pictures


def draws(count: int, size: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """The arguments of `reflect` after x and r, drawn ``count`` times: (count,7).

    Args:
        count: number of draws.
        size: S.
        low: smallest alpha.
        high: largest alpha.
        generator: generator of all draws.
    """
    kind, alpha, down, right, g, other, sigma, u = torch.rand(8, count, generator=generator)
    scale = size / CANVAS
    down, right = ((scale * (3 + (6 * v).floor())).round().clamp(min=1) for v in (down, right))
    g = 0.15 + 0.35 * g
    columns = (
        kind < GHOST,
        low + (high - low) * alpha,
        down,
        right,
        torch.where(other < 0.5, g, 1 - g),
        (scale * (1 + 4 * sigma)).clamp(min=0.5),
        1.08 + 0.1 * u,
    )
    return torch.stack([column.float() for column in columns], 1)


def reflect(
    x: Tensor,
    r: Tensor,
    ghost: float,
    alpha: float,
    down: float,
    right: float,
    g: float,
    sigma: float,
    u: float,
) -> Tensor:
    """An image behind a pane that reflects a picture: (3,S,S) in [0,1].

    Args:
        x: (3,S,S) in [0,1], the image.
        r: (3,L,L) in [0,1], the reflected picture; L is at least S + ``down`` and S + ``right``.
        ghost: whether it is reflected twice, by both sides of the pane, or once and out of focus.
        alpha: share of the image's light that passes.
        down: px between the two reflections, downwards.
        right: the same to the right.
        g: share of the first of the two.
        sigma: px, the blur of a reflection out of focus.
        u: factor on its excess of light.
    """
    from torchvision.transforms.functional import gaussian_blur  # late: it takes a second

    size = x.shape[-1]
    t, r = x**2.2, r**2.2
    if ghost:
        moved = r[:, int(down) : int(down) + size, int(right) : int(right) + size]
        light = (1 - alpha) * (g * r[:, :size, :size] + (1 - g) * moved)
    else:
        b = gaussian_blur(r, 2 * ceil(2 * sigma) + 1, sigma)[:, :size, :size]
        bright = b + t > 1
        excess = ((b + t - 1) * bright).sum((1, 2)) / bright.sum((1, 2)).clamp(min=1)  # (3,)
        b = (b - u * excess.view(3, 1, 1)).clamp(0, 1)
        mass = torch.special.ndtr(torch.linspace(-3, 3, size + 1, device=x.device)).diff()
        window = torch.outer(mass, mass).sqrt() / mass.max()
        light = (1 - alpha / 2) * window * b
    return (light + alpha * t).clamp(0, 1) ** (1 / 2.2)


def leaves(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Pictures to be reflected: (R,3,L,L) uint8, L as `reflect` needs it for images of S px.

    Args:
        count: R; 0: one black picture.
        size: S.
        generator: generator of all draws.
    """
    side = size + max(1, round(8 * size / CANVAS))
    if not count:
        return torch.zeros(1, 3, side, side, dtype=torch.uint8)
    pictures = torch.rand(count, 3, 1, 1, generator=generator).repeat(1, 1, side, side)
    at = (torch.arange(side) + 0.5) / side
    smallest, largest = 0.08, 0.5  # radius, as a share of the side
    for _ in range(LEAVES):
        row, column, radius, shape, ratio, grey = torch.rand(6, count, 1, 1, generator=generator)
        spread = smallest**-2 - largest**-2
        radius = (smallest**-2 - spread * radius).rsqrt()
        down, right = (at[:, None] - row).abs(), (at - column).abs()  # (R,L,1) and (R,1,L)
        disk = down**2 + right**2 < radius**2
        rectangle = (down < radius * (0.5 + ratio)) & (right < radius / (0.5 + ratio))
        tint = 0.15 * torch.randn(count, 3, 1, 1, generator=generator)
        leaf = torch.where(shape < 0.5, disk, rectangle)[:, None]  # (R,1,L,L)
        pictures = torch.where(leaf, (grey[:, None] + tint).clamp(0, 1), pictures)
    return (pictures * 255 + 0.5).to(torch.uint8)
