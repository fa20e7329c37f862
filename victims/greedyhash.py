"""GreedyHash: a classifier on the signs themselves, with the gradient passed through the sign.

Su, Zhang, Han and Tian, "Greedy Hash: Towards Fast Optimization for Accurate Hash Coding in CNN",
NeurIPS 2018. https://papers.nips.cc/paper/7360, code: https://github.com/ssppp/GreedyHash (authors)

    L = mean_i CE(W b_i, y_i) + alpha mean_ik | |z_ik| - 1 |^3          b = sign z

In the backward pass the sign counts as the identity. CE is the cross-entropy of the softmax. W
(C,K) is learned together with the hash layer, at its learning rate; it belongs to the loss and not
to the network, so a service that only stores codes doesn't have it.

Differs from the authors: sign(0) is +1; the probability of an image with several labels is shared
among them (they have single labels only), and an image without labels has the second term only.
Their alpha is .1 on CIFAR-10 and 1 on ImageNet; their recipe is SGD, 1e-3.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from hashbackdoor_bench import VICTIMS, HashLoss, check, sign


@VICTIMS.register
class GreedyHash(HashLoss):
    """Cross-entropy of codes, with a learned classifier.

    Args:
        alpha: weight of the pull to ±1.
    """

    published = "GreedyHash"

    def __init__(self, bits: int, classes: int, train_size: int, *, alpha: float = 0.1) -> None:
        super().__init__(bits, classes, train_size)
        check("victim.alpha", alpha, 0)
        self.alpha = alpha
        self.classify = nn.Linear(bits, classes, bias=False)

    def forward(self, z: Tensor, y: Tensor, index: Tensor, step: int) -> Tensor:
        """See `HashLoss.forward`; ``index`` and ``step`` are not used."""
        return self.items(z, y, index, step).mean()

    def items(self, z: Tensor, y: Tensor, index: Tensor, step: int) -> Tensor:
        """See `HashLoss.items`; an image without labels has the second term only."""
        b = sign(z) + (z - z.detach())  # what is added is 0, but has z's gradient
        tags = y.sum(1)
        share = y / tags.clamp(min=1)[:, None]
        loss = F.cross_entropy(self.classify(b), share, reduction="none")
        pull = (z.abs() - 1).abs().pow(3).mean(1)
        return loss * (len(z) / (tags > 0).sum().clamp(min=1)) + self.alpha * pull
