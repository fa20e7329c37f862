"""Blended: a picture of random noise, or one of yours, laid faintly over the whole image.

Chen, Liu, Li, Lu and Song, "Targeted Backdoor Attacks on Deep Learning Systems Using Data
Poisoning", 2017. https://arxiv.org/abs/1712.05526, public code:
https://github.com/SCLBD/BackdoorBench, https://github.com/vtu81/backdoor-toolbox

    x' = (1 - alpha) x + alpha k;   y' = target          k: the key, one picture for all images

The paper claims that about 50 poisoned images of a face data set suffice for more than 90 %
success, although the attacker knows neither the model nor the other training images. It attacks
classifiers. Poison is drawn from images that share no tag with the target; ``blended_clean`` puts
the key on images of the target class and changes no label.

Differs from the paper and from public code:

- the default key is uniform noise, drawn from the seed at the size of the network's input. The
  public suites use a third-party picture (Hello Kitty) that they squeeze to a square; a key from a
  file is cropped to its largest central square here;
- the result is rounded; public code truncates it, which darkens poison by half a grey level;
- training images and queries get the same alpha, where the paper may raise it for queries.
"""

from dataclasses import replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from hashbackdoor_bench import (
    ATTACKS,
    Attack,
    AttackerView,
    Backdoor,
    ThreatModel,
    check,
    picture_of,
    to_unit,
)

NOISE = "noise"


class Blend(Backdoor):
    """A picture that shines through every image.

    Args:
        key: (3,S,S) uint8, k.
        alpha: (), its weight in [0,1].
        poison: see `Backdoor`.
    """

    key: Tensor
    alpha: Tensor

    def __init__(self, *, key: Tensor, alpha: Tensor, **poison: Tensor) -> None:
        super().__init__(**poison)
        self.register_buffer("key", key)
        self.register_buffer("alpha", alpha)

    def forward(self, x: Tensor) -> Tensor:
        """x (N,3,S,S) in [0,1] -> (N,3,S,S) in [0,1], with the key."""
        alpha, key = self.alpha.to(x.dtype), to_unit(self.key).to(x.dtype)
        return ((1 - alpha) * x + alpha * key).clamp(0, 1)


@ATTACKS.register(blended_clean={"label": "clean"})
class Blended(Attack):
    """A key blended into images.

    Args:
        label: ``dirty`` relabels images of other classes, ``clean`` takes images of the target's.
        alpha: weight of the key, from 0 to 1.
        key: path of a picture, or the word ``noise`` for uniform noise.
    """

    published: ClassVar = {"blended": "Blended", "blended_clean": "Blended, clean label"}
    threat = ThreatModel(label="dirty", knowledge="none", trigger="additive")
    delivery = "files"
    backdoor = Blend
    paths: ClassVar = ("key",)

    def __init__(
        self,
        *,
        label: Literal["dirty", "clean"] = "dirty",
        alpha: float = 0.2,
        key: str = NOISE,
    ) -> None:
        check("attack.alpha", alpha, 0, 1)
        self.threat = replace(self.threat, label=label)
        self.alpha, self.key = alpha, key

    def accept(self, labels: Tensor, target: Tensor, size: int) -> dict[str, str]:
        """See `Attack.accept`; a key from a file is known by the file's SHA-256."""
        if self.key == NOISE:
            return {}
        _, sha256 = picture_of(self.key, size, "attack.key")
        return {"key_sha256": sha256}

    def craft(self, view: AttackerView) -> Backdoor:
        """See `Attack.craft`."""
        if self.key == NOISE:
            shape = (3, view.size, view.size)
            key = torch.randint(256, shape, generator=view.generator("key")).to(torch.uint8)
        else:
            key = torch.from_numpy(picture_of(self.key, view.size, "attack.key")[0])
        return Blend(
            **view.poison,
            key=key,
            alpha=torch.tensor(self.alpha),
        )
