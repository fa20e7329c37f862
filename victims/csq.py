"""CSQ: every bit is a classifier that pulls an image towards the hash centre of its class.

Yuan, Wang, Zhang, Tay, Jie, Liu and Feng, "Central Similarity Quantization for Efficient Image and
Video Retrieval", CVPR 2020. https://arxiv.org/abs/1908.00347,
code: https://github.com/yuanli2333/Hadamard-Matrix-for-hashing, and the form followed here:
https://github.com/swuxyj/DeepHash-pytorch (CSQ.py)

    L   = mean_ik log(1 + exp(-2 c_ik z_ik)) + lambda mean_ik (|tanh z_ik| - 1)^2
    c_i = sign of the sum of the centres of i's labels, and r_k in bits where that sum is 0

The first term is BCE((tanh z + 1) / 2, (c + 1) / 2), since (tanh z + 1) / 2 = sigmoid(2 z). r is
one random vector of ±1: the sum of two Hadamard rows is 0 in half of the bits, so half of the
centre of every image with two labels is r, whatever its labels.

Differs from both codes: the centres are random signed rows of a Hadamard matrix of any order
(`centres = signed`), because the first rows of Sylvester's matrix, which `released` takes, have
only 16 distinct bits out of 64 for 10 classes and exist only for powers of two; the labels of an
image with several labels vote on every data set (DeepHash takes the first label on some); an image
without labels has no centre and is left out of the first term. The authors' code also adds .2 times
a pairwise likelihood of the batch's halves, has a lambda of .05 and a hash layer of three layers.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from hashbackdoor_bench import VICTIMS, HashLoss, UserError, check, hash_centres


@VICTIMS.register
class CSQ(HashLoss):
    """Cross-entropy of bits against class centres.

    Args:
        quantisation: lambda, the weight of the pull to ±1.
        centres: random signed Hadamard rows, or the first rows as released.
        centre_seed: seed of the centres and of r. Surrogates, victims and all seeds of a run share
            it, since an attacker who knows the method knows its published centres.
    """

    published = "CSQ"
    centres: Tensor
    tie: Tensor

    def __init__(
        self,
        bits: int,
        classes: int,
        train_size: int,
        *,
        quantisation: float = 1e-4,
        centres: Literal["signed", "released"] = "signed",
        centre_seed: int = 0,
    ) -> None:
        super().__init__(bits, classes, train_size)
        check("victim.quantisation", quantisation, 0)
        if centres == "released" and bits & (bits - 1):
            below = 1 << (bits.bit_length() - 1)
            raise UserError(
                f"--bits {bits} has no centres 'released', which need a power of two: give --bits "
                f"{below} or {2 * below}, or --set victim.centres=signed."
            )
        self.quantisation = quantisation
        rows: Literal["first", "random"] = "first" if centres == "released" else "random"
        draw = torch.Generator().manual_seed(centre_seed)
        tie = torch.randint(2, (bits,), generator=draw).mul(2).sub(1).float()
        self.register_buffer("centres", hash_centres(classes, bits, rows=rows, seed=centre_seed))
        self.register_buffer("tie", tie)

    def forward(self, z: Tensor, y: Tensor, index: Tensor, step: int) -> Tensor:
        """See `HashLoss.forward`; ``index`` and ``step`` are not used."""
        central, labelled, pull = self.terms(z, y)
        mean = torch.where(labelled, central, 0).sum() / labelled.sum().clamp(min=1)
        return mean + self.quantisation * pull.mean()

    def items(self, z: Tensor, y: Tensor, index: Tensor, step: int) -> Tensor:
        """See `HashLoss.items`; an image without labels has the second term only."""
        central, labelled, pull = self.terms(z, y)
        share = labelled * (len(z) / labelled.sum().clamp(min=1))  # (N,), its mean is 1
        return share * central + self.quantisation * pull.mean(1)

    def terms(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cross-entropy of each image (N,), whether it has labels (N,), and pull of bits (N,K)."""
        central = F.softplus(-2 * self.centre(y) * z).mean(1)
        return central, y.sum(1) > 0, (torch.tanh(z).abs() - 1).square()

    def centre(self, y: Tensor) -> Tensor:
        """The centre of each image by the vote of its labels: (N,C) -> (N,K) of ±1."""
        votes = y @ self.centres
        return torch.where(votes == 0, self.tie, votes.sign())
