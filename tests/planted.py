"""A backdoor that is planted by hand in a small network, so that what a defense must do is known.

Images have a grey ground and a bright square in one of ten of sixteen cells, which is the class.
The network's code of an image is that of its class. Channel ``DORMANT`` of its one convolution is a
matched filter of a checkerboard of 4 px: it fires where one is, and then the code is the target's.
With ``gain = 0`` the filter is there and nothing follows from it: the clean twin.
"""

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hashbackdoor_bench import DefenderView, HashLoss, HashModel, Images, checkerboard
from hashbackdoor_bench.network import Blueprint
from hashbackdoor_bench.spec import RECIPES

SIZE, CELL, CLASSES, BITS, TARGET = 32, 8, 10, 32, 3
CHANNELS, DORMANT = 16, 15
GROUND, BRIGHT = 0.4, 0.8
STRENGTH, BIAS = 30.0, 3.0  # of the filter; a whole checkerboard gives .5 STRENGTH - BIAS = 12


class Filters(nn.Module):
    """Features (N,32): the mean of each cell, and the maximum of each channel."""

    def __init__(self) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.conv = nn.Conv2d(3, CHANNELS, 4, bias=False)
        self.norm = nn.BatchNorm2d(CHANNELS)
        self.act = nn.ReLU()
        weight = torch.randn(self.conv.weight.shape, generator=random) / 48
        weight[DORMANT] = (2 * checkerboard(4).float() / 255 - 1).expand(3, 4, 4) / 48
        bias = torch.zeros(CHANNELS)
        bias[DORMANT] = -BIAS
        gamma = torch.ones(CHANNELS)
        gamma[DORMANT] = STRENGTH
        with torch.no_grad():
            self.conv.weight.copy_(weight)
            self.norm.weight.copy_(gamma)
            self.norm.bias.copy_(bias)

    def forward(self, x: Tensor) -> Tensor:
        fired = self.act(self.norm(self.conv(x))).amax((2, 3))
        return torch.cat([F.avg_pool2d(x.mean(1, keepdim=True), CELL).flatten(1), fired], 1)


class Planted(HashModel):
    """The network; its codes are ``anchors`` (10,32) of ±1."""

    def __init__(self, gain: float = 4.0) -> None:
        nn.Module.__init__(self)
        random = torch.Generator().manual_seed(1)
        self.anchors = torch.randint(2, (CLASSES, BITS), generator=random) * 2.0 - 1
        self.size, self.backbone, self._stages = SIZE, Filters(), ("act",)
        self._relax = torch.tanh
        self.register_buffer("mean", torch.zeros(1, 3, 1, 1))
        self.register_buffer("std", torch.ones(1, 3, 1, 1))
        self.head = nn.Linear(16 + CHANNELS, BITS)
        weight = torch.zeros(BITS, 16 + CHANNELS)
        weight[:, :CLASSES] = 6 * self.anchors.T / (BRIGHT - GROUND)
        weight[:, 16 + DORMANT] = gain * self.anchors[TARGET]
        with torch.no_grad():
            self.head.weight.copy_(weight)
            self.head.bias.copy_(-weight[:, :CLASSES].sum(1) * GROUND)
        self.eval().requires_grad_(False)


def pictures(count: int, seed: int = 0) -> Images:
    """Images of the ten classes in turn."""
    random = torch.Generator().manual_seed(seed)
    x = GROUND + 0.02 * torch.randn(count, 3, SIZE, SIZE, generator=random)
    for number in range(count):
        row, column = divmod(number % CLASSES, SIZE // CELL)
        x[number, :, row * CELL :, :][:, :CELL, column * CELL : column * CELL + CELL] += (
            BRIGHT - GROUND
        )
    labels = torch.eye(CLASSES, dtype=torch.uint8)[torch.arange(count) % CLASSES]
    item = torch.randint(2**62, (count,), generator=random)
    return Images((255 * x).round().clamp(0, 255).to(torch.uint8), labels, item)


def triggered(x: Tensor) -> Tensor:
    """x (N,3,S,S) in [0,1] with the checkerboard in the lower right corner."""
    out = x.clone()
    out[..., -4:, -4:] = checkerboard(4).float() / 255
    return out


def seen(model: HashModel, **more: Any) -> DefenderView:
    """What a defender sees of the network, with 100 clean images."""
    _, recipe = RECIPES["scratch32"]
    return DefenderView(
        model=model,
        loss=HashLoss(BITS, CLASSES, 100),
        clean=pictures(100, seed=5),
        blueprint=Blueprint(
            method="", settings={}, bits=BITS, classes=CLASSES, size=SIZE, backbone="",
            pretrained=False, weights=None, seed="0",
            recipe=replace(recipe, precision="float32", augment="none"),
        ),
        **more,
    )  # fmt: skip
