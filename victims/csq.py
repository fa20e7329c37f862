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
(`centres = signed`), because the first rows of Sylvester's matrix, which DeepHash takes
(`released`), have only 16 distinct bits out of 64 for 10 classes and exist only for powers of two.
The authors load their centres from files: one of the nine holds the first rows, two hold other rows
of the matrix, and six no rows of it. The labels of an image with several labels vote on every data
set (DeepHash takes the first label on some); an image without labels has no centre and is left out
of the first term. The form above has a gradient of -2 c_ik / NK where a bit is far on the wrong
side; DeepHash's BCE of a rounded tanh has none from about |z| = 9.5 on. The authors' code also adds
.2 times a pairwise likelihood of the batch's halves, has a lambda of .05 and a hash layer of three
layers.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from hashbackdoor_bench import (
    VICTIMS,
    HashLoss,
    UserError,
    check,
    hash_centres,
    tie_vector,
    voted_centre,
)


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
        self.register_buffer("centres", hash_centres(classes, bits, rows=rows, seed=centre_seed))
        self.register_buffer("tie", tie_vector(bits, centre_seed))

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
        central = F.softplus(-2 * voted_centre(y, self.centres, self.tie) * z).mean(1)
        return central, y.sum(1) > 0, (torch.tanh(z).abs() - 1).square()
