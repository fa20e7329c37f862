"""STRIP: a query whose code hardly changes under blended pictures is suspicious.

Gao, Xu, Wang, Chen, Ranasinghe and Nepal, "STRIP: A Defence Against Trojan Attacks on Deep Neural
Networks", ACSAC 2019. https://arxiv.org/abs/1902.06531, code: https://github.com/garrisongys/STRIP

    b_n  = code of (1 - a) x + a o_n        o_1 .. o_N: clean images, the same for all queries
    S(x) = N / (N - 1) · (K - sum_k m_k^2) / 2      m_k = mean of bit k over b_1 .. b_N

S is the mean Hamming distance between two of the N codes; suspicion is -S. `entropy` is the paper's
form, with classes by their anchors: suspicion is the negative mean entropy of softmax_c of
-d(b_n, anchor of c) / (K / 16).

Differs from the authors: a hash code has no class probabilities, hence S; they add images at full
weight, which saturates, and here a = .5; N = 16 instead of 100, which is 120 pairs of codes for S.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from hashbackdoor_bench import DEFENSES, Assumes, DefenderView, Defense, check, to_unit

TOGETHER = 128  # blended images in one forward pass


@DEFENSES.register
class Strip(Defense):
    """Low diversity of codes under strong perturbation.

    Args:
        overlays: N.
        alpha: a, weight of the overlay.
        variant: ``distance`` between codes, or ``entropy`` over the classes.
    """

    published = "STRIP"
    assumes = Assumes(clean=4, sees=frozenset({"queries"}))
    quick: ClassVar[Mapping[str, object]] = {"overlays": 8}

    def __init__(
        self,
        *,
        overlays: int = 16,
        alpha: float = 0.5,
        variant: Literal["distance", "entropy"] = "distance",
    ) -> None:
        check("defense.overlays", overlays, 2, 10_000)
        check("defense.alpha", alpha, 0, 1)
        self.overlays, self.alpha, self.variant = overlays, alpha, variant

    def suspect(self, x: Tensor, item: Tensor, view: DefenderView) -> Tensor:
        """See `Defense.suspect`."""
        held = view.fitting
        drawn = torch.randint(len(held), (self.overlays,), generator=view.generator("overlays"))
        over = to_unit(held.images[drawn].to(x.device))  # (N,3,S,S)
        return (
            torch.cat([self._one(image, over, view) for image in x]) if len(x) else x.new_zeros(0)
        )

    def _one(self, image: Tensor, over: Tensor, view: DefenderView) -> Tensor:
        """The suspicion (1,) of one image (3,S,S)."""
        mixed = (1 - self.alpha) * image + self.alpha * over
        parts = torch.split(mixed, TOGETHER)
        codes = torch.cat([view.hashed(part) for part in parts]).float()  # (N,K)
        count, bits = codes.shape
        if self.variant == "entropy":
            anchors = view.anchors[view.radius.isfinite()].to(codes)  # of classes with images
            distance = (bits - codes @ anchors.T) / 2  # (N,C)
            share = torch.softmax(-16 * distance / bits, 1)
            return (share * share.clamp_min(1e-12).log()).sum(1).mean()[None]
        mean = codes.mean(0)
        return -(count / (count - 1) * (bits - (mean**2).sum()) / 2)[None]
