"""DTSH: an image is nearer to the images of its class than to all others, by a margin.

Wang, Shi and Kitani, "Deep Supervised Hashing with Triplet Labels", ACCV 2016.
https://arxiv.org/abs/1612.03900, code: https://github.com/Minione/DTSH (authors), and the form
followed here: https://github.com/swuxyj/DeepHash-pytorch (DTSH.py)

    L = mean_q mean_pn log(1 + exp(-(a_qp - a_qn - m))) + lambda mean_ik (z_ik - sign z_ik)^2

q, p and n run over the batch; p shares a label with q and n shares none. Images q without such p or
n are left out of the first mean.

    variant    a_qp             m      lambda    p = q
    deephash   <z_q, z_p>       5      1         counts
    authors    <z_q, z_p> / 2   K/2    K/225     doesn't count

Differs from the authors: they draw 50 images of q's class and 50 of each other class from a memory
of all outputs, and pair each p with each n; here all triplets of the batch count. Their weight of
the second term, 100, belongs to sums over 22 500 triplets and K bits; in these means that is K/225,
.21 at 48 bits.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from hashbackdoor_bench import VICTIMS, HashLoss, check, sign


@VICTIMS.register
class DTSH(HashLoss):
    """Likelihood of triplets of a batch.

    Args:
        margin: m; None is the variant's.
        quantisation: lambda, the weight of the pull to ±1; None is the variant's.
        variant: the constants of DeepHash or of the authors, see the table at the top of the file.
    """

    published = "DTSH"

    def __init__(
        self,
        bits: int,
        classes: int,
        train_size: int,
        *,
        margin: float | None = None,
        quantisation: float | None = None,
        variant: Literal["deephash", "authors"] = "deephash",
    ) -> None:
        super().__init__(bits, classes, train_size)
        self.authors = variant == "authors"
        usual, weight = (bits / 2, bits / 225) if self.authors else (5.0, 1.0)
        self.margin = usual if margin is None else margin
        self.quantisation = weight if quantisation is None else quantisation
        check("victim.margin", self.margin, 0)
        check("victim.quantisation", self.quantisation, 0)

    def forward(self, z: Tensor, y: Tensor, index: Tensor, step: int) -> Tensor:
        """See `HashLoss.forward`; ``index`` and ``step`` are not used."""
        return self.items(z, y, index, step).mean()

    def items(self, z: Tensor, y: Tensor, index: Tensor, step: int) -> Tensor:
        """See `HashLoss.items`; an image without triplets has the second term only."""
        a = z @ z.T / (2 if self.authors else 1)
        similar = y @ y.T > 0
        near, far = similar.clone(), ~similar
        if self.authors:
            near.fill_diagonal_(False)
        counted = near[:, :, None] & far[:, None]  # (N,N,N)
        each = F.softplus(self.margin - a[:, :, None] + a[:, None])
        number = counted.sum((1, 2))
        loss = torch.where(counted, each, 0).sum((1, 2)) / number.clamp(min=1)
        share = len(z) / (number > 0).sum().clamp(min=1)
        return share * loss + self.quantisation * (z - sign(z)).square().mean(1)
