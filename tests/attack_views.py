"""What tests of attacks share: an attacker's view of random images, and a linear surrogate."""

from typing import Any

import torch
from torch import Tensor, nn

from hashbackdoor_bench import ATTACKS, AttackerView, Backdoor, HashLoss, HashModel, sign
from hashbackdoor_bench.poisoning import planted

CLASSES = 3


class Linear(nn.Module):
    """A surrogate with z = W x without a bias, whose relaxed code is z itself.

    Args:
        bits: K.
        size: S.
    """

    def __init__(self, bits: int = 5, size: int = 8) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(11)
        self.weight = nn.Parameter(torch.randn(bits, 3 * size * size, generator=draw))
        self.requires_grad_(False)

    def relaxed(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T

    def code(self, x: Tensor) -> Tensor:
        return sign(self.relaxed(x)).to(torch.int8)


def network(bits: int = 8) -> HashModel:
    """An untrained network whose codes depend on the image."""
    torch.manual_seed(3)
    made = HashModel("cnn32", bits, HashLoss).eval().requires_grad_(False)
    made.head.bias.zero_()  # type: ignore[union-attr,operator]
    made.head.weight.mul_(20)  # type: ignore[union-attr,operator]
    return made


def seen(
    poisoned: int = 5,
    covers: int = 0,
    *,
    count: int = 60,
    size: int = 32,
    label: str = "clean",
    surrogate: Any = None,
    seed: int = 0,
    levels: tuple[int, int] = (0, 256),
) -> AttackerView:
    """A view of ``count`` random images of three classes; the target is the class 0."""
    draw = torch.Generator().manual_seed(1)
    images = torch.randint(*levels, (count, 3, size, size), generator=draw, dtype=torch.uint8)
    labels = torch.eye(CLASSES, dtype=torch.uint8)[torch.arange(count) % CLASSES]
    others = (labels[:, 0] == 0).nonzero().squeeze(1)
    pool = (labels[:, 0] == 1).nonzero().squeeze(1) if label == "clean" else others[covers:]
    return AttackerView(
        images, labels, labels[0].clone(), pool[:poisoned], surrogate, seed, covers=others[:covers]
    )


def craft(name: str, view: AttackerView, **settings: Any) -> Any:
    """The backdoor of an attack, restored from its state as the framework does."""
    attack = ATTACKS[name](**settings)
    return attack.restore(attack.craft(view).state_dict())  # type: ignore[attr-defined]


def change(backdoor: Backdoor) -> Tensor:
    """By how many grey levels each planted image differs from its carrier: (P,3,S,S)."""
    return planted(backdoor, torch.device("cpu")).int() - backdoor.carrier.int()
