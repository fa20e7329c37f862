"""HashNet: balanced likelihood of pairs, with tanh sharpened step by step into sign.

Cao, Long, Wang and Yu, "HashNet: Deep Learning to Hash by Continuation", ICCV 2017.
https://arxiv.org/abs/1702.00758, code: https://github.com/thuml/HashNet (authors),
https://github.com/swuxyj/DeepHash-pytorch (deephash), https://github.com/CGCL-codes/BadHash (bank)

    L   = mean_ij w_ij [log(1 + exp(a_ij)) - s_ij a_ij]  w = |S| / |S_1| if s = 1, else |S| / |S_0|
    h_i = tanh(beta z_i)  a_ij = alpha <h_i, v_j>  s_ij = 1 if i and j share a label, else 0

    variant    v_j                              alpha   beta
    deephash   h_j of the batch                 .1      sqrt(epoch // 20 + 1)
    bank       latest h_j of all T items        .1      sqrt(epoch // 20 + 1)
    paper      h_j of the batch                 10/K    sqrt(1 + gamma step), held for 200 steps
    authors    first half against second half   10/K    sqrt(1 + gamma step), held for 200 steps

Pairs of an image with itself count: they are 61 % of the similar pairs of 64 images in 100 classes.
In `bank` no gradient flows through v, and an item not yet seen is a dissimilar pair with a_ij = 0.
In `authors` w is a constant for similar pairs and 1 for others, and L is divided by the mean of w.

Differs from the authors: the paper's c_ij (Jaccard index of the label sets) is one, as in their
code; they update beta one step earlier; they pair two batches of 36, so `authors` needs batches of
72; their tenfold learning rate of the hash layer belongs to the recipe here; the hash layer starts
from PyTorch's weights, uniform within 1 / sqrt(F), and theirs from N(0, .01) without biases.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from hashbackdoor_bench import VICTIMS, HashLoss, check


@VICTIMS.register
class HashNet(HashLoss):
    """Weighted maximum likelihood over pairs.

    Args:
        variant: which published form of the loss, see the top of the file.
        alpha: slope of the pairwise sigmoid; None is the variant's.
        gamma: growth of beta squared per step, in `paper` and `authors`.
        positive_weight: w of similar pairs, in `authors`.
        exclude_self: leave out pairs of an item with itself.
    """

    published = "HashNet"
    beta: Tensor
    bank: Tensor
    bank_labels: Tensor

    def __init__(
        self,
        bits: int,
        classes: int,
        train_size: int,
        *,
        variant: Literal["deephash", "bank", "paper", "authors"] = "deephash",
        alpha: float | None = None,
        gamma: float = 0.005,
        positive_weight: float = 1.0,
        exclude_self: bool = False,
    ) -> None:
        super().__init__(bits, classes, train_size)
        self.variant, self.gamma = variant, gamma
        self.by_step = variant in ("paper", "authors")
        self.alpha = (10 / bits if self.by_step else 0.1) if alpha is None else alpha
        self.positive_weight, self.exclude_self = positive_weight, exclude_self
        check("victim.alpha", self.alpha, 0)
        check("victim.gamma", gamma, 0)
        check("victim.positive_weight", positive_weight, 1)
        self.register_buffer("beta", torch.ones(()))
        if variant == "bank":
            self.register_bank("bank", bits)
            self.register_bank("bank_labels", classes)

    def remember(self, z: Tensor, y: Tensor, index: Tensor, step: int) -> None:
        """Raise beta in the variants that do so by steps, and store codes if there is a bank."""
        if self.by_step:
            self.beta.fill_((1 + self.gamma * (step - step % 200)) ** 0.5)
        if self.variant == "bank":
            self.bank[index] = self.relax(z)
            self.bank_labels[index] = y

    def forward(self, z: Tensor, y: Tensor, index: Tensor, step: int) -> Tensor:
        """See `HashLoss.forward`; beta was set by `remember` or `on_epoch`."""
        return self.pairs(z, y, index).sum()

    def items(self, z: Tensor, y: Tensor, index: Tensor, step: int) -> Tensor:
        """See `HashLoss.items`; in `authors` each item of a pair gets half of the pair's loss."""
        pairs = len(z) * self.pairs(z, y, index)
        if self.variant == "authors":
            return torch.cat([pairs.sum(1), pairs.sum(0)]) / 2
        return pairs.sum(1)

    def pairs(self, z: Tensor, y: Tensor, index: Tensor) -> Tensor:
        """Weighted losses of pairs, whose sum is L: (N,N), with a bank (N,T), in halves (N/2,N/2).

        Args:
            z: (N,K).
            y: (N,C).
            index: (N,).
        """
        h = self.relax(z)
        v, v_labels, slots = h, y, index
        if self.variant == "bank":
            v, v_labels = self.bank, self.bank_labels
            slots = torch.arange(len(v), device=index.device)
        elif self.variant == "authors":
            (h, v), (y, v_labels), (index, slots) = (t.tensor_split(2) for t in (h, y, index))
        similar = y @ v_labels.T > 0
        theta = self.alpha * h @ v.T
        loss = F.binary_cross_entropy_with_logits(theta, similar.to(z.dtype), reduction="none")
        counted = index[:, None] != slots if self.exclude_self else torch.ones_like(similar)
        positive, negative = ((kind & counted).sum(dtype=z.dtype) for kind in (similar, ~similar))
        high, low = 1 / positive, 1 / negative  # infinite, and not used, where there are none
        if self.variant == "authors":
            low = 1 / (self.positive_weight * positive + negative)
            high = self.positive_weight * low
        return torch.where(counted, torch.where(similar, high, low), 0) * loss

    def on_epoch(self, epoch: int) -> None:
        """Raise beta in the variants that do so by epochs."""
        if not self.by_step:
            self.beta = torch.full_like(self.beta, (epoch // 20 + 1) ** 0.5)

    def relax(self, z: Tensor) -> Tensor:
        """tanh(beta z) with the beta of the latest step: (N,K) -> (N,K)."""
        return torch.tanh(self.beta * z)
