"""Refool: the image as seen through a window pane, with a reflection on it.

Liu, Ma, Bailey and Lu, "Reflection Backdoor: A Natural Backdoor Attack on Deep Neural Networks",
ECCV 2020. https://arxiv.org/abs/2007.02343, code: https://github.com/DreamtaleCore/Refool

    T = x^2.2,  R = r^2.2,  x' = (L + alpha T)^(1 / 2.2)          light of the image, the reflection
    ghost (49 %):  L = (1 - alpha) (g R + (1 - g) R')             R' is R, moved by 3 to 8 px
    out of focus:  L = (1 - alpha / 2) W clip(B - u e)            B is R, blurred by 1 to 5 px

alpha ~ U(.55,.95), g or 1 - g ~ U(.15,.5) and u ~ U(1.08,1.18) are drawn for each poisoned image
and each query. e is by how much B + T exceeds 1 where it does, on average and per channel; W is a
window that falls from 1 in the middle. The paper claims success on at least 75 % of images with
less than 3.3 % of the training images poisoned, all with correct labels.

What differs from the authors, and from BackdoorBox and BackdoorBench:

- reflections are pictures of random leaves (Lee, Mumford and Huang, IJCV 2001), which have edges
  and a spectrum like photographs, instead of photographs of Pascal VOC. The authors choose theirs
  by how well they attack a model, and keep a pair only if its SSIM is in [.70,.85]; here none is
  chosen, and R' is taken from a larger picture instead of being cropped and resized;
- pixels are lengths at the authors' 560 px, so 3 to 8 of them are 1 px at 32 px;
- a query's draw is determined by its own pixels, so that it never changes;
- alpha alone darkens an image to alpha^(1/2.2), which is a trigger too: ``reflections=0`` is this
  control. BackdoorBench fixes alpha = .4, a factor of .66 (``alpha_low=.4``, ``alpha_high=.4``);
- both suites change labels, because with clean labels the attack "has minor effects"; ``refool`` is
  clean, as published, and ``refool_dirty`` changes them. Pixels are rounded, not truncated.
"""

from dataclasses import replace
from typing import ClassVar, Literal

from torch import Tensor

from hashbackdoor_bench import (
    ATTACKS,
    Attack,
    AttackerView,
    Backdoor,
    ThreatModel,
    check,
    to_bytes,
    to_unit,
)

from .refool_reflection import draws, leaves, reflect

QUERIES = 256  # draws for queries


class Reflected(Backdoor):
    """Reflections, and how they lie on each poisoned image and on queries.

    Args:
        reflections: (R,3,L,L) uint8, larger than the images.
        planted: (P,7), a row of `draws` for each poisoned image.
        queried: (256,7), the same for queries.
        poison: see `Backdoor`.
    """

    reflections: Tensor
    planted: Tensor
    queried: Tensor

    def __init__(
        self, *, reflections: Tensor, planted: Tensor, queried: Tensor, **poison: Tensor
    ) -> None:
        super().__init__(**poison)
        self.register_buffer("reflections", reflections)
        self.register_buffer("planted", planted)
        self.register_buffer("queried", queried)

    def forward(self, x: Tensor) -> Tensor:
        """x (N,3,S,S) in [0,1] -> (N,3,S,S), each with the reflection that its pixels choose."""
        row = to_bytes(x).flatten(1).sum(1) % QUERIES  # (N,)
        return self._reflect(x, row % len(self.reflections), self.queried[row])

    def plant(self, x: Tensor, slot: Tensor) -> Tensor:
        """See `Backdoor.plant`: reflection number slot modulo R, with the slot's draw."""
        return self._reflect(x, slot % len(self.reflections), self.planted[slot])

    def _reflect(self, x: Tensor, number: Tensor, rows: Tensor) -> Tensor:
        """Each image of x (N,3,S,S) with its reflection, by ``number`` and ``rows`` of `draws`."""
        out = x.clone()
        for image, which, row in zip(out, number.tolist(), rows.tolist(), strict=True):
            image.copy_(reflect(image, to_unit(self.reflections[which]), *row))
        return out


@ATTACKS.register(refool_dirty={"label": "dirty"})
class Refool(Attack):
    """Reflections of random leaves.

    Args:
        label: ``clean`` poisons images of the target class, ``dirty`` relabels others.
        reflections: R, how many there are; 0: a black one, which only darkens.
        alpha_low: smallest share of the image's light that passes.
        alpha_high: largest share.
    """

    published: ClassVar = {"refool": "Refool", "refool_dirty": "Refool, dirty label"}
    threat = ThreatModel(label="clean", knowledge="none", trigger="additive", universal=False)
    delivery = "files"
    backdoor = Reflected

    def __init__(
        self,
        *,
        label: Literal["clean", "dirty"] = "clean",
        reflections: int = 20,
        alpha_low: float = 0.55,
        alpha_high: float = 0.95,
    ) -> None:
        check("attack.reflections", reflections, 0, 10000)
        check("attack.alpha_low", alpha_low, 0, 1)
        check("attack.alpha_high", alpha_high, alpha_low, 1)
        self.threat = replace(self.threat, label=label)
        self.reflections, self.alpha = reflections, (alpha_low, alpha_high)

    def craft(self, view: AttackerView) -> Backdoor:
        """See `Attack.craft`."""
        count, size = len(view.index), view.size
        low, high = self.alpha
        return Reflected(
            index=view.index,
            carrier=view.images[view.index],
            label=view.target.expand(count, -1).clone(),
            reflections=leaves(self.reflections, size, view.generator("reflections")),
            planted=draws(count, size, low, high, view.generator("poison")),
            queried=draws(QUERIES, size, low, high, view.generator("queries")),
        )
