"""ShrinkPad: each query is made smaller and put at a random place on a black ground.

Li, Zhai, Jiang, Li and Xia, "Backdoor Attack in the Physical World", ICLR 2021 workshop.
https://arxiv.org/abs/2104.02361, code: https://github.com/THUYimingLi/BackdoorBox
(core/defenses/ShrinkPad.py)

    p  = round(pad S)
    x' = zeros (S,S);   x'[a : a + S - p, b : b + S - p] = resize(x, S - p)     a, b ~ U{0, .., p}

A trigger that the network expects at one place and of one size has another place and size then.
The default, an eighth of the side, is the authors' 4 of 32 px.

Differs from the authors: their code draws one place for a whole batch, and here each image has its
own, drawn from its number; resizing is bilinear with antialiasing.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from hashbackdoor_bench import DEFENSES, Assumes, Defense, check


@DEFENSES.register
class ShrinkPad(Defense):
    """Smaller queries at random places.

    Args:
        pad: share of the side that becomes ground.
    """

    published = "ShrinkPad"
    assumes = Assumes(sees=frozenset({"queries"}))
    strength = "pad"
    grid = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2)

    def __init__(self, *, pad: float = 0.125) -> None:
        check("defense.pad", pad, 0, 0.9)
        self.pad = pad

    def purify(self, x: Tensor, item: Tensor) -> Tensor:
        """See `Defense.purify`."""
        side = x.shape[-1]
        ground = round(self.pad * side)
        if ground == 0 or len(x) == 0:
            return x.clone()
        inner = side - ground
        small = F.interpolate(x, (inner, inner), mode="bilinear", antialias=True).clamp(0, 1)
        out = []  # padded one by one, so that an attacker can take a gradient
        for image, number in zip(small, item.tolist(), strict=True):
            chance = torch.Generator().manual_seed(number)
            top, left = torch.randint(ground + 1, (2,), generator=chance).tolist()
            out.append(F.pad(image, (left, ground - left, top, ground - top)))
        return torch.stack(out)
