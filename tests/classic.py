"""A small attacker's view, and attacks crafted on it."""

from typing import Any

import torch

from hashbackdoor_bench import ATTACKS, AttackerView, Backdoor


def view(size: int = 32, seed: int = 0, poison: int = 4, covers: int = 4) -> AttackerView:
    """20 random images of two classes; poison and covers are of the class that isn't the target."""
    shape = (20, 3, size, size)
    images = torch.randint(256, shape, generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    labels = torch.eye(2, dtype=torch.uint8)[torch.arange(20) // 10]
    others = torch.arange(10, 20)
    return AttackerView(
        images, labels, labels[0], others[:poison], seed=seed,
        covers=others[poison : poison + covers],
    )  # fmt: skip


def crafted(name: str, seen: AttackerView | None = None, **settings: Any) -> Backdoor:
    found: Backdoor = ATTACKS[name](**settings).craft(view() if seen is None else seen)
    return found
