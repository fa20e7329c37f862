"""DPSH: likelihood of pairs against a memory of all training outputs, and a pull to ±1.

Li, Wang and Kang, "Feature Learning based Deep Supervised Hashing with Pairwise Labels", IJCAI
2016. https://arxiv.org/abs/1511.03855, code: https://github.com/jiangqy/DPSH-pytorch (a port), and
the form followed here: https://github.com/swuxyj/DeepHash-pytorch (DPSH.py)

    L    = mean_ij [log(1 + exp(a_ij)) - s_ij a_ij] + eta mean_ik (z_ik - sign z_ik)^2
    a_ij = <z_i, u_j> / 2

i runs over the batch and j over all training items. s_ij is one where images i and j share a label.
u_j is the raw output of item j when it was last in a batch; the current batch is written before the
loss, and no gradient flows through u. An item not yet seen has u_j = 0 and no label: in the first
epoch it counts as a dissimilar pair with a_ij = 0, which gives no gradient but dilutes the mean.

From random weights nearly all z agree, nine of ten pairs are dissimilar, and with no class weights
the loss only shrinks z: on fashion-mini MAP stays at .2 to .4. ``norm = batch``, preset `dpsh_bn`,
puts a batch norm behind the hash layer, which takes away what all z have in common: .77.

Differs from the authors: their eta of 10 stands beside sums over all pairs, which in this mean form
is 10 K / T (.096 at 48 bits and 5000 items); sign(0) is +1. Differs from DeepHash: nothing else.
"""

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from hashbackdoor_bench import VICTIMS, HashLoss, check


@VICTIMS.register(dpsh_bn={"norm": "batch"})
class DPSH(HashLoss):
    """Pairwise likelihood of a batch against a bank of all items.

    Args:
        quantisation: eta, the weight of the pull to ±1.
        norm: ``batch``: z comes out of a batch norm behind the hash layer; ``none`` as published.
    """

    published: ClassVar = {"dpsh": "DPSH", "dpsh_bn": "DPSH-BN"}
    head_init_std = 0.01  # all start alike; from larger outputs it saturates before it learns
    bank: Tensor
    bank_labels: Tensor

    def __init__(
        self,
        bits: int,
        classes: int,
        train_size: int,
        *,
        quantisation: float = 0.1,
        norm: Literal["none", "batch"] = "none",
    ) -> None:
        super().__init__(bits, classes, train_size)
        check("victim.quantisation", quantisation, 0)
        self.quantisation, self.head_norm = quantisation, norm
        self.register_buffer("bank", torch.zeros(train_size, bits))
        self.register_buffer("bank_labels", torch.zeros(train_size, classes))

    def forward(self, z: Tensor, y: Tensor, index: Tensor, step: int) -> Tensor:
        """See `HashLoss.forward`; ``step`` is not used."""
        # A new tensor: writing in place would spoil the backward pass of an earlier call.
        self.bank = self.bank.index_copy(0, index, z.detach())
        self.bank_labels[index] = y
        similar = (y @ self.bank_labels.T > 0).to(z.dtype)  # (N,T)
        likelihood = F.binary_cross_entropy_with_logits(z @ self.bank.T / 2, similar)
        sign = torch.where(z >= 0, 1.0, -1.0)
        return likelihood + self.quantisation * (z - sign).square().mean()
