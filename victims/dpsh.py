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
a large step only shrinks z: with Adam 5e-3, the other victims' recipe on small images, MAP stays at
.15 to .3 on fashion-mini, in trials of which no record is kept. So the hash layer needs a small
learning rate: with the recipe `scratch32_rmsprop`, which is taken where none is named, MAP is .75
(suite `victims`). ``norm = batch``, preset
`dpsh_bn`, puts a batch norm behind the hash layer instead, which removes what all z have in common.

Differs from the authors: their eta of 10 belongs to sums over all pairs, which corresponds to 10 K
/ T in these means (.096 at 48 bits and 5000 items); sign(0) is +1. Nothing else differs from
DeepHash.
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
        norm: ``batch`` puts a batch norm behind the hash layer; ``none`` is the published method.
    """

    published: ClassVar = {"dpsh": "DPSH", "dpsh_bn": "DPSH-BN"}
    head_init_std = 0.01  # small initial outputs: from larger ones the loss saturates early
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
        if norm == "none":
            self.recipes = {"scratch32": "scratch32_rmsprop"}
        self.register_bank("bank", bits)
        self.register_bank("bank_labels", classes)

    def remember(self, z: Tensor, y: Tensor, index: Tensor, step: int) -> None:
        """See `HashLoss.remember`."""
        self.bank[index] = z
        self.bank_labels[index] = y

    def forward(self, z: Tensor, y: Tensor, index: Tensor, step: int) -> Tensor:
        """See `HashLoss.forward`; ``index`` and ``step`` are not used."""
        a, similar, pull = self.terms(z, y)
        likelihood = F.binary_cross_entropy_with_logits(a, similar)
        return likelihood + self.quantisation * pull.mean()

    def items(self, z: Tensor, y: Tensor, index: Tensor, step: int) -> Tensor:
        """See `HashLoss.items`; the loss of item i is the mean over row i of the pairs."""
        a, similar, pull = self.terms(z, y)
        likelihood = F.binary_cross_entropy_with_logits(a, similar, reduction="none")
        return likelihood.mean(1) + self.quantisation * pull.mean(1)

    def terms(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """a (N,T) and s (N,T) of pairs with the bank, and pull of bits (N,K)."""
        similar = (y @ self.bank_labels.T > 0).to(z.dtype)
        sign = torch.where(z >= 0, 1.0, -1.0)
        return z @ self.bank.T / 2, similar, (z - sign).square()
