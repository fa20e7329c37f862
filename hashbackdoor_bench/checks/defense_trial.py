"""A tiny task on which defenses are tried: random images of 32 px and an untrained network."""

import copy
from dataclasses import replace

import torch
from torch import Tensor

from hashbackdoor_bench.api import Defense
from hashbackdoor_bench.checks.attack_trial import CLASSES, CPU, SIZE, TowardsCorners, untrained
from hashbackdoor_bench.defender import DefenderView
from hashbackdoor_bench.network import Blueprint, Images, TrainStep
from hashbackdoor_bench.registry import Method
from hashbackdoor_bench.spec import RECIPES

TRAINED, CLEAN, DATABASE, WINDOW = 90, 60, 90, 200  # images, codes
BITS = 8


class DefenseTrial:
    """A defense on a tiny task.

    Args:
        method: the defense.
    """

    def __init__(self, method: Method[Defense]) -> None:
        self.method = method

    def defense(self) -> Defense:
        """A new instance with quick settings."""
        return self.method(**self.method.cls.quick)

    def has(self, hook: str) -> bool:
        """Whether the class has a hook."""
        return hook in self.method.cls.hooks()

    def view(self) -> DefenderView:
        """The defender's view: the same values at every call, in new tensors."""
        random = torch.Generator().manual_seed(0)
        sees = self.method.cls.assumes.sees
        train, clean = (_images(count, random) for count in (TRAINED, CLEAN))
        codes = torch.randint(2, (DATABASE, BITS), generator=random) * 2 - 1
        poison = torch.arange(TRAINED) < TRAINED // 6
        _, recipe = RECIPES["scratch32"]
        assumes = self.method.cls.assumes
        if not (assumes.clean or assumes.per_class):  # a run gives none either
            clean = clean[:0]
        return DefenderView(
            model=copy.deepcopy(untrained()),
            loss=TowardsCorners(BITS, CLASSES, CLEAN),
            clean=clean,
            blueprint=Blueprint(
                method="",
                settings={},
                bits=BITS,
                classes=CLASSES,
                size=SIZE,
                backbone="cnn32",
                pretrained=False,
                weights=None,
                recipe=replace(recipe, epochs=1, precision="float32"),
                seed="0",
            ),
            train=train if {"train", "poison"} & sees else None,
            database=codes.to(torch.int8) if "database" in sees else None,
            poison=poison if "poison" in sees else None,
            device=CPU,
        )

    def step(self) -> TrainStep:
        """A training step on 12 images, the same at every call."""
        random = torch.Generator().manual_seed(1)
        given = _images(12, random)
        return TrainStep(
            model=copy.deepcopy(untrained()).train().requires_grad_(True),
            loss=_Counting(BITS, CLASSES, TRAINED),
            x=given.images.float() / 255,
            y=given.labels.float(),
            index=torch.arange(12),
            step=3,
            generator=torch.Generator().manual_seed(2),
            precision="float32",
        )

    def queries(self) -> tuple[Tensor, Tensor]:
        """x (6,3,S,S) in [0,1] of 8-bit levels, and their numbers (6,)."""
        given = _images(6, torch.Generator().manual_seed(3))
        return given.images.float() / 255, given.item

    def window(self) -> Tensor:
        """(W,K) int8, codes of queries."""
        random = torch.Generator().manual_seed(4)
        return (torch.randint(2, (WINDOW, BITS), generator=random) * 2 - 1).to(torch.int8)


class _Counting(TowardsCorners):
    """A loss that counts how often it is told to remember a batch."""

    remembered = 0

    def remember(self, z: Tensor, y: Tensor, index: Tensor, step: int) -> None:
        """See `HashLoss.remember`."""
        self.remembered += 1


def _images(count: int, random: torch.Generator) -> Images:
    labels = torch.eye(CLASSES, dtype=torch.uint8)[torch.arange(count) % CLASSES]
    shape = (count, 3, SIZE, SIZE)
    images = torch.randint(0, 256, shape, generator=random, dtype=torch.uint8)
    return Images(images, labels, torch.randint(2**62, (count,), generator=random))
