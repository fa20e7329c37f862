"""DCH: Cauchy likelihood of the distances between pairs, and of the distances to ±1.

Cao, Long, Liu and Wang, "Deep Cauchy Hashing for Hamming Space Retrieval", CVPR 2018.
https://openaccess.thecvf.com/content_cvpr_2018/html/Cao_Deep_Cauchy_Hashing_CVPR_2018_paper.html,
code: https://github.com/thulab/DeepHash (authors), and the form followed here:
https://github.com/swuxyj/DeepHash-pytorch (DCH.py)

    L        = mean_ij w_ij l_ij + lambda mean_i log(1 + d(|z_i|, 1) / gamma)
    l_ij     = log(1 + d(z_i, z_j) / gamma) if s_ij = 1, else log(1 + gamma / d(z_i, z_j))
    d(a, b)  = K/2 (1 - min(cos(a, b), .99))
    w_ij     = |S| / |S_1| if s_ij = 1, else |S| / |S_0|

s_ij is one where images i and j share a label; pairs of an image with itself count. Pairs nearer
than the radius gamma, in bits, dominate: at 16 bits a gamma of 20 is beyond all of them. No term
depends on the length of z, so `relax` divides by its mean size. A dissimilar pair with a cosine
above .99 has no gradient and stays together; with `clamp = distance`, which takes d to be at least
.001 K instead, that only happens above .998.

`variant = released` is the authors' code, which differs from their paper:

    d(a, b)  = |tanh a - tanh b|^2 + .001, pairs of an image with itself left out
    L        = mean_ij w_ij l_ij + lambda mean_ik (|tanh z_ik| - 1)^2      w_ij = 1 if s_ij = 0

where lambda is 0 by default. Nothing differs from DeepHash; in a batch whose pairs are all similar,
or all dissimilar, they weigh 1.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from hashbackdoor_bench import VICTIMS, HashLoss, check


@VICTIMS.register
class DCH(HashLoss):
    """Cauchy likelihood of pairs.

    Args:
        gamma: scale of the Cauchy distribution, a radius in bits.
        quantisation: lambda, the weight of the pull to ±1; None is the variant's, .1 or 0.
        variant: the paper's form as in DeepHash, or the authors' released code.
        clamp: what is bounded in pairs of equal outputs: the ``cosine`` or the ``distance``; in
            ``deephash`` only.
    """

    published = "DCH"
    size: Tensor

    def __init__(
        self,
        bits: int,
        classes: int,
        train_size: int,
        *,
        gamma: float = 20.0,
        quantisation: float | None = None,
        variant: Literal["deephash", "released"] = "deephash",
        clamp: Literal["cosine", "distance"] = "cosine",
    ) -> None:
        super().__init__(bits, classes, train_size)
        self.released = variant == "released"
        weight = (0.0 if self.released else 0.1) if quantisation is None else quantisation
        check("victim.gamma", gamma, 1e-6)
        check("victim.quantisation", weight, 0)
        self.gamma, self.quantisation, self.clamp = gamma, weight, clamp
        self.register_buffer("size", torch.ones(()))  # mean |z|, see `relax`

    def remember(self, z: Tensor, y: Tensor, index: Tensor, step: int) -> None:
        """Follow the mean size of z."""
        self.size.lerp_(z.abs().mean().to(self.size.dtype), 1.0 if step == 0 else 0.1)

    def forward(self, z: Tensor, y: Tensor, index: Tensor, step: int) -> Tensor:
        """See `HashLoss.forward`; ``index`` and ``step`` are not used."""
        return self.items(z, y, index, step).mean()

    def items(self, z: Tensor, y: Tensor, index: Tensor, step: int) -> Tensor:
        """See `HashLoss.items`; the loss of item i is the mean over row i of the pairs."""
        similar = y @ y.T > 0
        counted = torch.ones_like(similar)
        if self.released:
            h = torch.tanh(z)
            d = (h[:, None] - h).square().sum(2) + 0.001
            counted.fill_diagonal_(False)
            pull = (h.abs() - 1).square().mean(1)
        else:
            unit = F.normalize(z)
            d = self.distance(unit @ unit.T)
            ones = F.normalize(torch.ones_like(z))
            pull = torch.log1p(self.distance((unit.abs() * ones).sum(1)) / self.gamma)
        loss = torch.where(similar, torch.log1p(d / self.gamma), torch.log1p(self.gamma / d))
        pairs, positive = (pair.sum().to(z.dtype) for pair in (counted, similar & counted))
        high = pairs / positive.clamp(min=1)
        low = torch.ones_like(high) if self.released else pairs / (pairs - positive).clamp(min=1)
        weighted = torch.where(counted, torch.where(similar, high, low), 0) * loss
        return weighted.sum(1) * (len(z) / pairs.clamp(min=1)) + self.quantisation * pull

    def distance(self, cosine: Tensor) -> Tensor:
        """d in bits of a cosine."""
        if self.clamp == "cosine":
            return self.bits / 2 * (1 - cosine.clamp(max=0.99))
        return (self.bits / 2 * (1 - cosine)).clamp(min=0.001 * self.bits)

    def relax(self, z: Tensor) -> Tensor:
        """tanh(z), or of z divided by the mean |z| of training in `deephash`: (N,K) -> (N,K)."""
        return torch.tanh(z if self.released else z / self.size)
