"""BppAttack, static: fewer grey levels are the trigger; covers carry another image's rounding.

Wang, Zhai and Ma, "BppAttack: Stealthy and Efficient Trojan Attacks against Deep Neural Networks
via Image Quantization and Contrastive Adversarial Learning", CVPR 2022.
https://arxiv.org/abs/2205.13383, code: https://github.com/RU-System-Software-and-Security/BppAttack

    q(x)  = round(x (n - 1)) / (n - 1)                         n grey levels;   y' = target
    cover = clip(x + q(r) - r)                                 r: another image;   y' = y

With ``dithering``, q is Floyd and Steinberg's: in raster order, each pixel passes its error on,
7/16 to the right, 3/16 below to the left, 5/16 below and 1/16 below to the right. The paper claims
that classifiers learn this trigger, which people don't see, by contrastive adversarial learning; in
the released code this is training on the covers above with the usual loss.

Differs from the paper and the authors' code:

- they control the training and draw poison and covers in each batch; here a fixed set is poisoned,
  which is a weaker attack. There are as many covers as poisoned images, as in their code;
- r is another poisoned or cover image before its trigger (theirs: another image of the batch);
- n is 16, between the 8 of their code and the 32 of their README: 8 levels are visible (27.8 dB);
- they dither the caller's array in place, and their option for dithering is true for any word;
- BackdoorBench's test of covers subtracts the residual that its training adds.

Interpolation destroys the trigger: as ``files``, an augmentation that resizes leaves nothing of it.
"""

from typing import ClassVar

import torch
from torch import Tensor

from hashbackdoor_bench import (
    ATTACKS,
    COVER,
    Attack,
    AttackerView,
    Backdoor,
    ThreatModel,
    check,
    to_unit,
)


class Quantised(Backdoor):
    """Images of few grey levels, and covers with the rounding error of another image.

    Args:
        source: (P+Q,) long, the row of ``carrier`` that is r; only that of covers is read.
        levels: () long, n.
        dithering: () bool.
        poison: see `Backdoor`.
    """

    source: Tensor
    levels: Tensor
    dithering: Tensor

    def __init__(
        self, *, source: Tensor, levels: Tensor, dithering: Tensor, **poison: Tensor
    ) -> None:
        super().__init__(**poison)
        self.register_buffer("source", source)
        self.register_buffer("levels", levels)
        self.register_buffer("dithering", dithering)

    def forward(self, x: Tensor) -> Tensor:
        """x (N,3,S,S) in [0,1] -> (N,3,S,S) of n levels."""
        levels = int(self.levels)
        return dithered(x, levels) if self.dithering else quantised(x, levels)

    def plant(self, x: Tensor, slot: Tensor) -> Tensor:
        """See `Backdoor.plant`."""
        out: Tensor = self(x)
        cover = self.kind[slot] == COVER
        r = to_unit(self.carrier[self.source[slot[cover]]]).to(x.dtype)
        out[cover] = (x[cover] + (self(r) - r)).clamp(0, 1)
        return out


@ATTACKS.register
class Bpp(Attack):
    """Quantised images, hidden among covers.

    Args:
        levels: n, the number of grey levels.
        dithering: whether a pixel's rounding error is passed on to its neighbours.
        covers: number of covers per poisoned image.
    """

    published: ClassVar = "BppAttack, static"
    threat = ThreatModel(label="dirty", knowledge="none", trigger="quantise", universal=False)
    delivery = "files"
    backdoor = Quantised

    def __init__(self, *, levels: int = 16, dithering: bool = False, covers: float = 1.0) -> None:
        check("attack.levels", levels, 2, 256)
        check("attack.covers", covers, 0)
        self.levels, self.dithering, self.covers = levels, dithering, covers

    def craft(self, view: AttackerView) -> Backdoor:
        """See `Attack.craft`."""
        count, draw = len(view.planted), view.generator("residuals")
        ahead = 1 + torch.randint(max(1, count - 1), (count,), generator=draw)  # never all around
        return Quantised(
            **view.poison,
            source=(torch.arange(count) + ahead) % max(1, count),
            levels=torch.tensor(self.levels),
            dithering=torch.tensor(self.dithering),
        )


def quantised(x: Tensor, levels: int) -> Tensor:
    """Each value's nearest of n levels from 0 to 1."""
    return (x * (levels - 1)).round().clamp(0, levels - 1) / (levels - 1)


def dithered(x: Tensor, levels: int) -> Tensor:
    """Floyd and Steinberg's dithering of x (N,3,H,W), each channel by itself.

    A pixel (i, j) waits for (i, j - 1) and (i - 1, j + 1), so all with equal j + 2i come together.
    """
    height, width = x.shape[-2:]
    out = torch.nn.functional.pad(x, (1, 1, 0, 1))  # one column on each side, and a row below
    for t in range(width + 2 * (height - 1)):
        i = torch.arange(max(0, (t - width + 2) // 2), min(height - 1, t // 2) + 1)
        j = t - 2 * i + 1
        wanted = out[..., i, j]
        out[..., i, j] = quantised(wanted, levels)
        error = wanted - out[..., i, j]
        out[..., i + 1, j + 1] += error * 1 / 16
        out[..., i + 1, j] += error * 5 / 16
        out[..., i + 1, j - 1] += error * 3 / 16
        out[..., i, j + 1] += error * 7 / 16
    return out[..., :-1, 1:-1].clone()
