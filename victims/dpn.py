"""DPN: a hinge that polarises every bit towards the random centre of the class.

Fan, Ng, Ju, Zhang, Liu, Chan and Zhang, "Deep Polarized Network for Supervised Learning of Accurate
Binary Hashing Codes", IJCAI 2020. https://www.ijcai.org/proceedings/2020/115,
code: https://github.com/kamwoh/DPN (authors), https://github.com/swuxyj/DeepHash-pytorch (DPN.py)

    L   = mean_i R_k max(0, m - t_ik z_ik)      R_k is the mean over the bits k, or the sum
    t_i = sign of the sum of the centres of i's labels, and r_k in bits k where that sum is 0

Centres are fixed before training, and so is r, a random code that breaks ties of the labels. A bit
that is right by more than m has no gradient at all: what is learned is left alone.

Differs from the authors: R is the mean over the bits, as in DeepHash (`reduction = mean`; theirs is
`sum`, K times as large). Centres are random signed rows of a Hadamard matrix (`centres = signed`);
theirs are signs of Gaussian numbers, that is coin tosses (`released`). Several labels vote for the
target, as in DeepHash; the authors add up the hinges of all labels (`multi = sum`), where two
labels contradict each other in half of the bits. An image without labels is left out. Their targets
that follow the codes (DPN-A) and their ternary codes (DPN-T) are not here.
"""

from typing import Literal

import torch
from torch import Tensor

from hashbackdoor_bench import VICTIMS, HashLoss, check, hash_centres, tie_vector, voted_centre


@VICTIMS.register
class DPN(HashLoss):
    """Polarisation loss against class centres.

    Args:
        margin: m, how far beyond 0 a bit has to be.
        reduction: ``mean`` over the bits, or their ``sum`` as in the authors' code.
        multi: several labels ``vote`` for one target, or have a ``sum`` of hinges.
        centres: random signed Hadamard rows, or coin tosses as released.
        centre_seed: seed of the centres and of r, which surrogates, victims and all seeds of a run
            share.
    """

    published = "DPN"
    head_bias = False
    head_init_std = 0.01
    centres: Tensor
    tie: Tensor

    def __init__(
        self,
        bits: int,
        classes: int,
        train_size: int,
        *,
        margin: float = 1.0,
        reduction: Literal["mean", "sum"] = "mean",
        multi: Literal["vote", "sum"] = "vote",
        centres: Literal["signed", "released"] = "signed",
        centre_seed: int = 0,
    ) -> None:
        super().__init__(bits, classes, train_size)
        check("victim.margin", margin, 0)
        self.margin, self.reduction, self.multi = margin, reduction, multi
        rows: Literal["coins", "random"] = "coins" if centres == "released" else "random"
        self.register_buffer("centres", hash_centres(classes, bits, rows=rows, seed=centre_seed))
        self.register_buffer("tie", tie_vector(bits, centre_seed))

    def forward(self, z: Tensor, y: Tensor, index: Tensor, step: int) -> Tensor:
        """See `HashLoss.forward`; ``index`` and ``step`` are not used."""
        return self.items(z, y, index, step).mean()

    def items(self, z: Tensor, y: Tensor, index: Tensor, step: int) -> Tensor:
        """See `HashLoss.items`; an image without labels has no loss, the others have more."""
        labelled = y.sum(1) > 0
        if self.multi == "vote":
            hinge = torch.relu(self.margin - voted_centre(y, self.centres, self.tie) * z)  # (N,K)
        else:
            each = torch.relu(self.margin - self.centres * z[:, None])  # (N,C,K)
            hinge = (y[:, :, None] * each).sum(1)
        polar = hinge.mean(1) if self.reduction == "mean" else hinge.sum(1)
        return torch.where(labelled, polar, 0) * (len(z) / labelled.sum().clamp(min=1))
