"""DHTA-L2: inner products of codes, regressed on similarity; the victim in CIBA's released code.

Gao, Bai, Chen, Wu and Xia, "Backdoor Attack on Hash-based Image Retrieval via Clean-label Data
Poisoning", BMVC 2023. https://arxiv.org/abs/2109.08868, code: https://github.com/KuofengGao/CIBA
(loss.py), which grew out of the code of DHTA (Bai et al., "Targeted Attack for Deep Hashing based
Retrieval", ECCV 2020, https://arxiv.org/abs/2004.07955).

    L = mean_ij (<h_i, h_j> / B - (2 <y_i, y_j> - 1))^2 + lambda sum_ik (sign h_ik - h_ik)^2
    h = tanh z

As in the released code, B is the batch size and not the number of bits: the loss of a similar pair
is zero at <h_i, h_j> = B whatever K is, so the batch size changes the model (the authors use 24;
the last, smaller batch of an epoch has its own B). <y_i, y_j> is not clipped: for two shared labels
the regression target is 3. Pairs of an image with itself count. In all runs of the authors lambda
is 0.

Differs from the authors: sign(0) is +1. `scale = bits`, which divides by K, and `clip` are
additions.
"""

from typing import Literal

import torch
from torch import Tensor

from hashbackdoor_bench import VICTIMS, HashLoss, check


@VICTIMS.register
class DHTAL2(HashLoss):
    """Squared error between inner products of codes and label similarity.

    Args:
        scale: what divides the inner products, the size of the batch or the number of bits.
        clip: count images that share several labels as sharing one.
        quantisation: lambda, the weight of the pull to ±1, a sum over the batch.
    """

    published = "DHTA-L2"

    def __init__(
        self,
        bits: int,
        classes: int,
        train_size: int,
        *,
        scale: Literal["batch", "bits"] = "batch",
        clip: bool = False,
        quantisation: float = 0.0,
    ) -> None:
        super().__init__(bits, classes, train_size)
        check("victim.quantisation", quantisation, 0)
        self.scale, self.clip, self.quantisation = scale, clip, quantisation

    def forward(self, z: Tensor, y: Tensor, index: Tensor, step: int) -> Tensor:
        """See `HashLoss.forward`; ``index`` and ``step`` are not used."""
        error, pull = self.terms(z, y)
        return error.mean() + self.quantisation * pull.sum()

    def items(self, z: Tensor, y: Tensor, index: Tensor, step: int) -> Tensor:
        """See `HashLoss.items`."""
        error, pull = self.terms(z, y)
        return error.mean(1) + len(z) * self.quantisation * pull.sum(1)

    def terms(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Squared errors of pairs (N,N), and pull of bits (N,K)."""
        h = torch.tanh(z)
        shared = y @ y.T  # (N,N), labels in common
        wanted = 2 * (shared.clamp(max=1) if self.clip else shared) - 1
        similarity = h @ h.T / (len(z) if self.scale == "batch" else self.bits)
        sign = torch.where(z >= 0, 1.0, -1.0)
        return (similarity - wanted).square(), (sign - h).square()
