"""DSDH: DPSH with a pull to discrete codes that are solved so as to predict the labels linearly.

Li, Sun, He and Tan, "Deep Supervised Discrete Hashing", NeurIPS 2017.
https://arxiv.org/abs/1705.10999, code: https://github.com/liqi-casia/DSDH-HashingCode (authors),
and the form followed here: https://github.com/TreezzZ/DSDH_PyTorch

    L     = mean_ij [log(1 + exp(a_ij)) - s_ij a_ij] + eta mean_ik (z_ik - b_ik)^2
    a_ij  = <z_i, u_j> / 2          s_ij, u_j and items not yet seen as in DPSH
    W, B  = argmin mu |Y - B W|^2 + nu |W|^2 + eta |B - U|^2        B (T,K) of ±1, W (K,C)

W is solved by ridge regression, B bit by bit by discrete cyclic coordinate descent:

    b_k   = sign((Y W' + eta/mu U)_k - sum over l != k of b_l <w_l, w_k>)

`variant = epoch` solves both before each epoch, from the bank of all outputs. Before an item has a
code it has no second term. `variant = authors` solves them in each step from the batch alone,
starting at B = sign(z), without the eta term and with nu/mu = .1, as the authors' code does.

Where eta >= mu, as in the defaults, which are TreezzZ's, B is sign(U) in 99.5 % of the bits, so the
labels hardly matter for it; with `eta = .0001` B differs from sign(U) in 13 %. The DSDH of
DeepHash-pytorch leaves out the second term of L: nothing reads its B, and its gradient is that of
DPSH.

Differs from TreezzZ: B starts as sign(U) after the first epoch and not at random; sign(0) is +1.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from hashbackdoor_bench import VICTIMS, HashLoss, check, sign

SWEEPS = 10  # over all bits, also if a sweep changes none: a GPU would wait for the comparison


@VICTIMS.register
class DSDH(HashLoss):
    """Pairwise likelihood against a bank, and a pull to solved codes.

    Args:
        eta: weight of the pull between outputs and codes, in L and in solving for B.
        mu: weight of the regression of the labels on the codes.
        nu: weight of |W|^2, the ridge of that regression.
        variant: B is solved before each epoch for all items, or in each step for the batch as in
            the authors' code, where mu and nu are not used.
    """

    published = "DSDH"
    head_init_std = 0.01  # as in DPSH
    bank: Tensor
    bank_labels: Tensor
    codes: Tensor

    def __init__(
        self,
        bits: int,
        classes: int,
        train_size: int,
        *,
        eta: float = 0.01,
        mu: float = 0.01,
        nu: float = 1.0,
        variant: Literal["epoch", "authors"] = "epoch",
    ) -> None:
        super().__init__(bits, classes, train_size)
        check("victim.eta", eta, 0)
        check("victim.mu", mu, 1e-12)
        check("victim.nu", nu, 1e-12)
        self.eta, self.mu, self.nu, self.variant = eta, mu, nu, variant
        self.recipes = {"scratch32": "scratch32_rmsprop"}  # as DPSH
        self.register_bank("bank", bits)
        self.register_bank("bank_labels", classes)
        self.register_bank("codes", bits)  # B; a row of zeros has no code yet

    def remember(self, z: Tensor, y: Tensor, index: Tensor, step: int) -> None:
        """Store the outputs and labels of the batch; in `authors`, solve its codes."""
        self.bank[index] = z
        self.bank_labels[index] = y
        if self.variant == "authors":
            self.codes[index] = solved(z, y, sign(z), 0.0, 0.1)

    def on_epoch(self, epoch: int) -> None:
        """Solve the codes of all items that were seen, in `epoch`."""
        seen = self.bank.any(1)
        if self.variant == "epoch" and seen.any():
            u, y, b = self.bank[seen], self.bank_labels[seen], self.codes[seen]
            b = torch.where(b == 0, sign(u), b)
            self.codes[seen] = solved(u, y, b, self.eta / self.mu, self.nu / self.mu)

    def forward(self, z: Tensor, y: Tensor, index: Tensor, step: int) -> Tensor:
        """See `HashLoss.forward`; ``step`` is not used."""
        return self.items(z, y, index, step).mean()

    def items(self, z: Tensor, y: Tensor, index: Tensor, step: int) -> Tensor:
        """See `HashLoss.items`; the loss of item i is the mean over row i of the pairs."""
        similar = (y @ self.bank_labels.T > 0).to(z.dtype)
        pairs = F.binary_cross_entropy_with_logits(z @ self.bank.T / 2, similar, reduction="none")
        b = self.codes[index]
        pull = torch.where(b == 0, 0, (z - b).square())
        return pairs.mean(1) + self.eta * pull.mean(1)


def solved(u: Tensor, y: Tensor, b: Tensor, pull: float, ridge: float) -> Tensor:
    """Codes (T,K) of ±1 that are near u and from which labels can be regressed.

    The objective, which no step raises, is |Y - B W|^2 + ridge |W|^2 + pull |B - U|^2.

    Args:
        u: (T,K), outputs.
        y: (T,C), labels.
        b: (T,K) of ±1, codes from which the search starts.
        pull: eta / mu.
        ridge: nu / mu.
    """
    b = b.clone()
    unit = torch.eye(b.shape[1], dtype=b.dtype, device=b.device)
    w = torch.linalg.solve(b.T @ b + ridge * unit, b.T @ y)  # (K,C)
    towards, among = y @ w.T + pull * u, w @ w.T  # (T,K), (K,K)
    for _ in range(SWEEPS):
        for k in range(b.shape[1]):
            others = b @ among[k] - b[:, k] * among[k, k]
            b[:, k] = sign(towards[:, k] - others)
    return b
