"""OrthoHash: cross-entropy of the cosines between outputs and one centre per class, with a margin.

Hoe, Ng, Zhang, Chan, Song and Xiang, "One Loss for All: Deep Hashing with a Single Cosine
Similarity based Learning Objective", NeurIPS 2021. https://arxiv.org/abs/2109.14449,
code: https://github.com/kamwoh/orthohash

    L    = -mean_i sum_c p_ic log softmax_c(l_ic)          p_ic = y_ic / sum_c y_ic
    l_ic = s (cos(z_i, o_c) - m y_ic)                      z = BN(W f), without a bias

o_c is the centre of class c, fixed before training; f are the features of the backbone. The code is
the sign after the batch norm, which centres every bit on the training images; so poison moves it
too. The cosine has no scale: z and 5 z have the same loss.

Differs from the authors: the centres are random signed rows of a Hadamard matrix (`centres =
signed`), which are orthogonal as the paper asks; theirs are coin tosses (`released`), by which the
two nearest of 100 classes are 1 or 2 bits apart at 16 bits. The weights of the hash layer start as
in PyTorch and not from N(0, .01): the batch norm takes their scale away. An image without labels is
left out. Their recipe is Adam, 1e-4 for the hash layer and 1e-5 for the backbone, 100 epochs of
batch 256.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from hashbackdoor_bench import VICTIMS, HashLoss, check, hash_centres


@VICTIMS.register
class OrthoHash(HashLoss):
    """Cosine softmax against class centres.

    Args:
        scale: s, the inverse temperature.
        margin: m, by how much the cosine of an image's own class has to exceed the others.
        centres: random signed Hadamard rows, or coin tosses as released.
        centre_seed: seed of the centres, which surrogates, victims and all seeds of a run share.
    """

    published = "OrthoHash"
    head_bias = False
    head_norm = "batch"
    drop_last = True  # as the authors; a small batch would have a noisy norm
    centres: Tensor

    def __init__(
        self,
        bits: int,
        classes: int,
        train_size: int,
        *,
        scale: float = 8.0,
        margin: float = 0.2,
        centres: Literal["signed", "released"] = "signed",
        centre_seed: int = 0,
    ) -> None:
        super().__init__(bits, classes, train_size)
        check("victim.scale", scale, 0)
        check("victim.margin", margin, 0, 2)
        self.scale, self.margin = scale, margin
        rows: Literal["coins", "random"] = "coins" if centres == "released" else "random"
        self.register_buffer("centres", hash_centres(classes, bits, rows=rows, seed=centre_seed))

    def forward(self, z: Tensor, y: Tensor, index: Tensor, step: int) -> Tensor:
        """See `HashLoss.forward`; ``index`` and ``step`` are not used."""
        return self.items(z, y, index, step).mean()

    def items(self, z: Tensor, y: Tensor, index: Tensor, step: int) -> Tensor:
        """See `HashLoss.items`; an image without labels has no loss, the others have more."""
        cosine = F.normalize(z) @ F.normalize(self.centres.to(z.dtype)).T  # (N,C)
        tags = y.sum(1)
        share = y / tags.clamp(min=1)[:, None]
        loss = F.cross_entropy(self.scale * (cosine - self.margin * y), share, reduction="none")
        return loss * (len(z) / (tags > 0).sum().clamp(min=1))
