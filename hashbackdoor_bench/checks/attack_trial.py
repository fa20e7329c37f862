"""A tiny task on which attacks are tried: 30 random images of 32 px and an untrained network."""

from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hashbackdoor_bench import poisoning
from hashbackdoor_bench.api import (
    AnyAttack,
    Attack,
    AttackerView,
    Backdoor,
    HashLoss,
    ModelAttack,
    generator,
)
from hashbackdoor_bench.checks.finding import (
    WrongType,
    advanced,
    global_states,
    returned,
    seeded,
)
from hashbackdoor_bench.network import HashModel
from hashbackdoor_bench.registry import Method

CPU = torch.device("cpu")
SIZE, ITEMS, CLASSES = 32, 30, 3
POISONED = 5  # half of the target's ten


class Trial:
    """An attack on a tiny task.

    Args:
        method: the attack.
    """

    def __init__(self, method: Method[AnyAttack]) -> None:
        self.method = method

    def attack(self) -> AnyAttack:
        """A new instance with quick settings."""
        return self.method(**self.method.cls.quick)

    def view(self, poisoned: int = POISONED) -> AttackerView:
        """The attacker's view: the same values at every call, in new tensors."""
        random = torch.Generator().manual_seed(0)
        shape = (ITEMS, 3, SIZE, SIZE)
        images = torch.randint(0, 256, shape, generator=random, dtype=torch.uint8)
        labels = torch.eye(CLASSES, dtype=torch.uint8)[torch.arange(ITEMS) % CLASSES]
        target = torch.tensor([0, 1, 0], dtype=torch.uint8)
        attack, surrogate = self.attack(), None
        count = poisoned if attack.poisons else 0
        index = poisoning.choose(labels, target, attack.threat, 0, count, generator(0, "poison"))
        more: dict[str, Any] = {
            "chosen": images.flip(0)[: attack.threat.chosen],
            "references": images.flip(0)[: attack.threat.references],
            "source": None if attack.threat.source == "all" else labels[0],
        }
        if isinstance(attack, ModelAttack):
            return AttackerView(images[:0], labels[:0], target, index, **more)
        if attack.threat.knowledge == "surrogate":
            surrogate = untrained()
            more["surrogate_loss"] = TowardsCorners(8, CLASSES, ITEMS)
        share = attack.covers if isinstance(attack, Attack) else 0.0
        covers = poisoning.choose_covers(labels, target, index, share, generator(0, "covers"))
        return AttackerView(images, labels, target, index, surrogate, covers=covers, **more)

    def craft(self, seen: AttackerView) -> Backdoor:
        """Craft as the framework does: `accept`, then `craft` or `tamper`."""
        attack = self.attack()
        attack.accept(seen.labels, seen.target, seen.size)
        if isinstance(attack, ModelAttack):
            return self.attack_on_model(seen)[1]
        assert isinstance(attack, Attack)
        return attack.craft(seen)

    def attack_on_model(self, seen: AttackerView) -> tuple[HashModel, Backdoor]:
        """The result of a model attack on an untrained victim."""
        attack = self.attack()
        assert isinstance(attack, ModelAttack)
        made = returned(attack.tamper(untrained(), seen), tuple, "tamper")
        if len(made) != 2:
            raise WrongType(
                f"tamper returns {len(made)} values: return the model and the backdoor."
            )
        return returned(made[0], HashModel, "tamper"), returned(made[1], Backdoor, "tamper")

    @cached_property
    def crafted(self) -> Backdoor:
        """The backdoor as `craft` returns it."""
        return self._first[0]

    @property
    def drawn(self) -> list[str]:
        """The libraries from whose global random numbers the first crafting drew."""
        return self._first[1]

    @cached_property
    def _first(self) -> tuple[Backdoor, list[str]]:
        with seeded(1):
            before = global_states()
            return self.craft(self.view()), advanced(before)

    @cached_property
    def backdoor(self) -> Backdoor:
        """The backdoor as the framework uses it: restored, in eval mode, frozen."""
        found = self.attack().restore(self.crafted.state_dict())
        return found.eval().requires_grad_(False)

    @cached_property
    def x(self) -> Tensor:
        """(8,3,S,S): a black image, a white one, four of random pixels, a grey one and a ramp."""
        random = torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
        black = torch.zeros_like(random[:1])
        ramp = torch.linspace(0, 1, SIZE).expand_as(black)
        return torch.cat([black, black + 1, random, black + 0.5, ramp])


class TowardsCorners(HashLoss):
    """The loss of the surrogate, which takes each image by itself: bit k is for class k mod C."""

    def forward(self, z: Tensor, y: Tensor, index: Tensor, step: int) -> Tensor:
        """See `HashLoss.forward`."""
        return self.items(z, y, index, step).mean()

    def items(self, z: Tensor, y: Tensor, index: Tensor, step: int) -> Tensor:
        """See `HashLoss.items`."""
        bits = y[:, torch.arange(self.bits) % self.classes]  # (N,K)
        return F.binary_cross_entropy_with_logits(z, bits, reduction="none").mean(1)


def untrained() -> HashModel:
    """A surrogate or victim: the same random weights at every call, in eval mode, frozen."""
    with seeded(0):
        model = HashModel("cnn32", 8, HashLoss, size=SIZE)
    return model.eval().requires_grad_(False)
