"""CSQ: every bit is a classifier that draws an image to the hash centre of its class.

Yuan, Wang, Zhang, Tay, Jie, Liu and Feng, "Central Similarity Quantization for Efficient Image and
Video Retrieval", CVPR 2020. https://arxiv.org/abs/1908.00347,
code: https://github.com/yuanli2333/Hadamard-Matrix-for-hashing, and the form followed here:
https://github.com/swuxyj/DeepHash-pytorch (CSQ.py)

    L   = mean_ik log(1 + exp(-2 c_ik z_ik)) + lambda mean_ik (|tanh z_ik| - 1)^2
    c_i = sign of the sum of the centres of i's labels, and r_k in bits where that sum is 0

The first term is BCE((tanh z + 1) / 2, (c + 1) / 2), since (tanh z + 1) / 2 = sigmoid(2 z). r is
one random vector of ±1: the sum of two Hadamard rows is 0 in half of the bits, so half of the
centre of every image with two labels is r, whatever its labels.

Differs from both codes: random signed rows of a Hadamard matrix of any order as centres
(`centres = signed`), since the first rows of Sylvester's, which `released` takes, make 16 distinct
bits of 64 at 10 classes, and exist for powers of two only; labels vote wherever an image has
several (DeepHash takes the first on some data sets); an image without labels has no centre and is
left out of the first term. Differs from the authors' code: that adds .2 times a pairwise likelihood
of the batch's halves, has a lambda of .05 and a hash layer of three layers.
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
        centre_seed: of the centres and of r. The same for surrogates, victims and all seeds of a
            run, as published centres are: an attacker who has the method has its centres.
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
        bits = F.softplus(-2 * self.centre(y) * z).mean(1)  # (N,)
        labelled = y.sum(1) > 0
        central = torch.where(labelled, bits, 0).sum() / labelled.sum().clamp(min=1)
        return central + self.quantisation * (torch.tanh(z).abs() - 1).square().mean()

    def centre(self, y: Tensor) -> Tensor:
        """The centre of each image by the vote of its labels: (N,C) -> (N,K) of ±1."""
        votes = y @ self.centres
        return torch.where(votes == 0, self.tie, votes.sign())
