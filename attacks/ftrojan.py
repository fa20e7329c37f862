"""FTrojan: two frequencies in the colour of every window of the image, none in its brightness.

Wang, Yao, Xu, An, Tong and Wang, "An Invisible Black-Box Backdoor Attack Through Frequency Domain",
ECCV 2022. Preprint: https://arxiv.org/abs/2111.10991,
code: https://github.com/SoftWiser-group/FTrojan

    DCT(C')[u, u] = DCT(C)[u, u] + m        per window of w x w px; u = w/2 - 1 and w - 1

with the orthonormal DCT-II, for C = Cr and Cb; the brightness Y stays, the result is clipped, and
y' = target. All of this is linear but for the clipping, so the trigger is one pattern for all
images:

    d(i, j) = m (2 / w) sum_u cos(pi (2i + 1) u / 2w) cos(pi (2j + 1) u / 2w)
    x'      = clip(x + (1.402, -1.058, 1.772) d)                    R, G, B of YCbCr (BT.601)

The paper claims a high success on classifiers with a trigger that neither people nor defences of
its time see. Poison is drawn from images that share no tag with the target; ``ftrojan_clean`` takes
images of the target class and changes no label. m is 30 as in BackdoorBench (the authors: 20 on
CIFAR-10).

Differs from both public implementations:

- they cast Y, Cr and Cb to 8 bits before and after, which truncates, lets values wrap around and
  changes the brightness too; here nothing is rounded but the result;
- the authors' clean-label mode also moves images along a model's gradient first; here it doesn't,
  so that the attack needs no surrogate.

The highest frequency does not survive resizing, so an augmentation that resizes weakens the attack.
"""

import math
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from hashbackdoor_bench import (
    ATTACKS,
    Additive,
    Attack,
    AttackerView,
    Backdoor,
    ThreatModel,
    UserError,
    check,
)

# d Cr = d Cb = 1 in red, green and blue; the luma of this, (.299, .587, .114) times it, is 0
CHROMA = (1.402, -(0.299 * 1.402 + 0.114 * 1.772) / 0.587, 1.772)


@ATTACKS.register(ftrojan_clean={"label": "clean"})
class FTrojan(Attack):
    """Two frequencies of the chroma planes.

    Args:
        label: ``dirty`` relabels images of other classes, ``clean`` takes images of the target's.
        magnitude: m, in grey levels of 255.
        window: w, side of a window in px; an even number that divides the image's side.
    """

    published: ClassVar = {"ftrojan": "FTrojan", "ftrojan_clean": "FTrojan, clean label"}
    threat = ThreatModel(label="dirty", knowledge="none", trigger="frequency")
    delivery = "files"
    backdoor = Additive

    def __init__(
        self,
        *,
        label: Literal["dirty", "clean"] = "dirty",
        magnitude: float = 30.0,
        window: int = 32,
    ) -> None:
        check("attack.magnitude", magnitude, 0, 10_000)
        if window < 4 or window % 2:
            raise UserError(f"attack.window is {window}: it must be even and at least 4.")
        self.threat = replace(self.threat, label=label)
        self.magnitude, self.window = magnitude, window

    def accept(self, labels: Tensor, target: Tensor, size: int) -> dict[str, str]:
        """See `Attack.accept`."""
        if size % self.window:
            fits = next((side for side in range(32, 3, -2) if size % side == 0), None)
            another = f"--set attack.window={fits}" if fits else "another --size, such as 32 or 224"
            raise UserError(
                f"windows of {self.window} px don't tile an image of {size} px: give {another}."
            )
        return {}

    def craft(self, view: AttackerView) -> Backdoor:
        """See `Attack.craft`."""
        w, windows = self.window, view.size // self.window
        one = sum(cosine(w, u)[:, None] * cosine(w, u) for u in (w // 2 - 1, w - 1))
        plane = self.magnitude * torch.as_tensor(one).repeat(windows, windows)  # d (S,S)
        pattern = (torch.tensor(CHROMA, dtype=torch.float64)[:, None, None] * plane).float()
        return Additive(
            **view.poison,
            pattern=pattern,
            query_pattern=pattern.clone(),
        )


def cosine(side: int, frequency: int) -> Tensor:
    """(side,) float64: a basis vector of the orthonormal DCT-II, of a frequency above 0."""
    place = torch.arange(side, dtype=torch.float64)
    return math.sqrt(2 / side) * torch.cos(math.pi * (2 * place + 1) * frequency / (2 * side))
