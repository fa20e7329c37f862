"""What tests of BadHash share: small settings, an attacker's view and a stand-in surrogate."""

from typing import Any

import torch
from torch import Tensor, nn

from hashbackdoor_bench import AttackerView, HashLoss, HashModel

TINY: dict[str, Any] = {"width": 8, "epochs": 2, "batch": 8, "label_steps": 4}


def view(size: int = 32, tags: bool = False, **more: Any) -> AttackerView:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (16, 3, size, size), generator=random, dtype=torch.uint8)
    labels = torch.eye(3, dtype=torch.uint8)[torch.arange(16) % 3]
    if tags:
        labels[::4] |= torch.tensor([0, 1, 0], dtype=torch.uint8)
        labels[5] = 0
    torch.manual_seed(0)
    surrogate = HashModel("cnn32", 8, HashLoss, size=size).eval().requires_grad_(False)
    target = torch.tensor([0, 0, 1], dtype=torch.uint8)
    index = (labels == target).all(1).nonzero().squeeze(1)[:4]
    return AttackerView(images, labels, target, index, surrogate, **more)


class Mean(nn.Module):
    """A stand-in for a surrogate: eight bits of the mean colour."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) @ torch.linspace(-2, 2, 24).view(3, 8)

    def relaxed(self, x: Tensor) -> Tensor:
        return torch.tanh(self(x))
