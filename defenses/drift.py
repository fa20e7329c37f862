"""Drift: a query that is robust against some corruptions and not against others is suspicious.

Liu, Li, Wang, Hu, Ye, Jin, Wu and Xiao, "Detecting Backdoors During the Inference Stage Based on
Corruption Robustness Consistency", CVPR 2023. https://arxiv.org/abs/2303.18191, code:
https://github.com/CGCL-codes/TeCo

    c(x, s) = x under corruption c of severity s = 1 .. 5              h: the code, K bits

    variant     suspicion
    drift       std over c of D_c          D_c = mean over s of d(h(x), h(c(x, s))) / K
    teco        std over c of L_c          L_c = smallest s with another nearest anchor, else 6
    jpeg        -D_c of JPEG alone

    noise       x + t n,  n ~ N(0, 1)      t = .08 .12 .18 .26 .38     one n for each image
    blur        Gaussian of t px at 224        1   2   3   4   6
    brightness  x + t                          .1  .2  .3  .4  .5
    contrast    m + t (x - m)                  .4  .3  .2  .1  .05     m: mean of each channel
    jpeg        quality t                      25  18  15  10  7

The severities are those of Hendrycks and Dietterich for 224 px, which the authors use at all sizes.
A network may know the trigger through noise and lose it in a blur, while a class is lost in both.

Differs from the authors: five corruptions instead of fifteen; `drift` needs no class, and `teco`
takes the nearest anchor for it; brightness is added to all channels, not to the value of HSV. In
BackdoorBench each corruption is put on top of those before it, which is not done here.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from hashbackdoor_bench import (
    DEFENSES,
    Assumes,
    DefenderView,
    Defense,
    gaussian_blur,
    jpeg,
    jpeg_versions,
    to_bytes,
    to_unit,
)

SEVERITIES: Mapping[str, tuple[float, ...]] = {  # t of each corruption
    "noise": (0.08, 0.12, 0.18, 0.26, 0.38),
    "blur": (1, 2, 3, 4, 6),
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
    "jpeg": (25, 18, 15, 10, 7),
}


@DEFENSES.register(teco={"variant": "teco"})
class Drift(Defense):
    """Unequal robustness of the code against corruptions.

    Args:
        variant: what is compared, see the top of the file.
    """

    published: ClassVar = {"drift": "Code drift", "teco": "TeCo"}
    assumes = Assumes(clean=4, sees=frozenset({"queries"}))

    def __init__(self, *, variant: Literal["drift", "teco", "jpeg"] = "drift") -> None:
        self.variant = variant

    def versions(self) -> dict[str, str]:
        """See `Defense.versions`."""
        return jpeg_versions()

    def suspect(self, x: Tensor, item: Tensor, view: DefenderView) -> Tensor:
        """See `Defense.suspect`."""
        if len(x) == 0:
            return x.new_zeros(0)
        own = view.model.code(x)  # (N,K)
        noise = noise_of(x, item)
        codes = torch.stack(
            [
                torch.stack([view.model.code(corrupt(x, kind, t, noise)) for t in values])
                for kind, values in SEVERITIES.items()
            ]
        )  # (c,s,N,K)
        if self.variant == "teco":
            anchors = view.anchors[view.radius.isfinite()].to(x.device)  # of classes with images
            changed = nearest(codes, anchors) != nearest(own, anchors)  # (c,s,N)
            return first(changed).std(0, correction=0)
        moved = (codes != own).float().mean((1, 3))  # D (c,N)
        if self.variant == "jpeg":
            return -moved[list(SEVERITIES).index("jpeg")]
        return moved.std(0, correction=0)


def noise_of(x: Tensor, item: Tensor) -> Tensor:
    """n (N,3,S,S) of images x, each drawn from its number (N,)."""
    drawn = [
        torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(number))
        for number in item.tolist()
    ]
    return torch.stack(drawn).to(x)


def corrupt(x: Tensor, kind: str, t: float, noise: Tensor) -> Tensor:
    """x (N,3,S,S) in [0,1] under a corruption, in 8-bit levels; ``noise`` (N,3,S,S) is n."""
    match kind:
        case "noise":
            out = x + t * noise
        case "blur":
            out = gaussian_blur(x, t)
        case "brightness":
            out = x + t
        case "contrast":
            mean = x.mean((2, 3), keepdim=True)
            out = mean + t * (x - mean)
        case _:
            out = jpeg(x, int(t))
    return to_unit(to_bytes(out))


def nearest(codes: Tensor, anchors: Tensor) -> Tensor:
    """The number (...,) of the nearest of anchors (C,K) to codes (...,K), both of ±1."""
    return (codes.float() @ anchors.float().T).argmax(-1)


def first(changed: Tensor) -> Tensor:
    """L (c,N) float: the smallest severity of changed (c,s,N) bool, from 1; else one above all."""
    count = changed.shape[1]
    severity = torch.arange(1, count + 1, device=changed.device)[:, None]
    return torch.where(changed, severity, count + 1).amin(1).float()
