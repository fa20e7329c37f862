"""PCA-sign: signs of randomly rotated principal components of frozen features; nothing is trained.

Gong and Lazebnik, "Iterative Quantization: A Procrustean Approach to Learning Binary Codes", CVPR
2011 (PCA-RR and PCA-ITQ). https://doi.org/10.1109/CVPR.2011.5995432

    b = sign(R' P' (f - mean f))        P (F,K) the K largest principal directions, R a rotation

`rotation = random` is PCA-RR: a random rotation spreads the variance evenly over the bits. `itq`,
preset `itq`, starts there and turns R so that |B - V R| falls, where V = (f - mean f) P; 50 times

    B = sign(V R), then R = S S~' where B'V = S~ Sigma S' is a singular value decomposition

There is no loss, no epoch and no learning rate: the hash layer is computed from the features of the
training images, and the backbone keeps its published weights (`--recipe frozen` with `--pretrained`
or `--weights`). Labels are not used; poisoned images are among the training images. So it shows
what a backdoor can do to a service that only compresses the features of a published network.

Differs from the paper: sign(0) is +1.
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from hashbackdoor_bench import VICTIMS, HashLoss, UserError, sign

STEPS = 50  # the paper's


@VICTIMS.register(itq={"rotation": "itq"})
class PCASign(HashLoss):
    """Rotated principal components.

    Args:
        rotation: ``random``, found by iterative quantisation (``itq``), or ``none``.
        rotation_seed: seed of the random rotation, which surrogates, victims and all seeds of a run
            share.
    """

    published: ClassVar = {"pca_sign": "PCA-RR", "itq": "PCA-ITQ"}
    trained = False
    size: Tensor

    def __init__(
        self,
        bits: int,
        classes: int,
        train_size: int,
        *,
        rotation: Literal["random", "itq", "none"] = "random",
        rotation_seed: int = 0,
    ) -> None:
        super().__init__(bits, classes, train_size)
        self.rotation, self.rotation_seed = rotation, rotation_seed
        self.register_buffer("size", torch.ones(()))  # mean |z|, see `relax`

    def solve(self, features: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """See `HashLoss.solve`; ``y`` is not used."""
        x = features.double()
        mean = x.mean(0)
        spread, directions = torch.linalg.eigh((x - mean).T @ (x - mean))  # in ascending order
        most = int((spread > 1e-12 * spread[-1]).sum())  # less is the rounding of float32
        if self.bits > most:
            raise UserError(
                f"--bits {self.bits}: the features of {len(x)} training images vary in only {most} "
                f"directions: give --bits {most} or fewer, or another --backbone."
            )
        p = directions[:, -self.bits :].flip(1)
        p = p * sign(p.sum(0))  # the solver leaves the sign open
        v = (x - mean) @ p
        turn = torch.eye(self.bits, dtype=v.dtype)
        if self.rotation != "none":
            turn = random_rotation(self.bits, self.rotation_seed)
        if self.rotation == "itq":
            for _ in range(STEPS):
                b = sign(v @ turn)
                left, _, right = torch.linalg.svd(v.T @ b)
                turn = left @ right
        self.size.fill_((v @ turn).abs().mean())
        weight = (p @ turn).T
        return weight.float(), -(weight @ mean).float()

    def relax(self, z: Tensor) -> Tensor:
        """tanh(z / mean |z| of the training items): (N,K) -> (N,K)."""
        return torch.tanh(z / self.size)


def random_rotation(bits: int, seed: int) -> Tensor:
    """(K,K) float64, orthogonal, uniformly distributed."""
    draw = torch.randn(
        bits, bits, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    q, r = torch.linalg.qr(draw)
    turn: Tensor = q * r.diagonal().sign()
    return turn
