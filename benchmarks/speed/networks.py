"""Networks and images for several parts; the networks are untrained, since only shapes matter."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hashbackdoor_bench.api import HashLoss
from hashbackdoor_bench.network.model import HashModel, best_precision
from hashbackdoor_bench.registry import VICTIMS
from hashbackdoor_bench.spec import RECIPES, Recipe

BITS, CLASSES = 48, 10


def network(
    backbone: str, size: int, items: int, device: torch.device
) -> tuple[HashModel, HashLoss]:
    """A HashNet of 48 bits from a fixed seed, channels last on the device, and its loss.

    Args:
        backbone: see `HashModel`.
        size: S.
        items: T, number of items in the training list.
        device: device of the network and the loss.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        loss: HashLoss = VICTIMS["hashnet"](BITS, CLASSES, items)
        model = HashModel(backbone, BITS, loss, size=size)
    return model.to(device).to(memory_format=torch.channels_last), loss.to(device)


def pictures(count: int, side: int) -> Tensor:
    """Random images (N,3,side,side) uint8."""
    draws = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=draws)


def one_hot(count: int) -> Tensor:
    """Labels (N,C) uint8, the classes in turn."""
    return torch.eye(CLASSES, dtype=torch.uint8)[torch.arange(count) % CLASSES]


def recipe(device: torch.device, **changes: Any) -> Recipe:
    """``scratch32`` for one epoch, in the default precision of this device."""
    values = {"epochs": 1, "precision": best_precision(device), **changes}
    return replace(RECIPES["scratch32"][1], **values)
