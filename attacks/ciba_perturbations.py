"""CIBA's confusing perturbations: they move codes away from the originals' and from each other.

    max_eta   lambda L_c + (1 - lambda) mean_i L_a,      |eta_i|_inf <= epsilon

by steps along the gradient's sign. See ``ciba.py`` for L_a, L_c, the paper and the variants.
"""

import torch
from torch import Tensor

from hashbackdoor_bench import HashModel


def confuse(
    model: HashModel,
    x: Tensor,
    epsilon: Tensor,
    *,
    steps: int,
    dispersion: float,
    away_from: Tensor | None = None,
    released: bool = False,
) -> Tensor:
    """x + eta (M,3,S,S): the perturbed images, optimised together.

    Args:
        model: the surrogate.
        x: (M,3,S,S) in [0,1], images whose codes are moved away from one another.
        epsilon: (3,1,1) in units of [0,1].
        steps: sign-gradient steps of .095 epsilon, from zero.
        dispersion: lambda.
        away_from: (K,), what L_a moves away from; None: each image's own code.
        released: take the gradient of the authors' code; for a single image it is 0 / 0, which has
            no sign, so the image is returned as it is.
    """
    if released and len(x) == 1:
        return x
    if away_from is None:
        with torch.no_grad():
            away_from = model.relaxed(x)  # (M,K)
    ascended = released_objective if released else objective
    eta = torch.zeros_like(x)
    for _ in range(steps):
        perturbed = (x + eta).requires_grad_()
        value = ascended(model.relaxed(perturbed), away_from, dispersion)
        (gradient,) = torch.autograd.grad(value, perturbed)
        eta = eta + 0.003 * 255 / 8 * epsilon * gradient.sign()
        eta = ((x + eta).clamp(0, 1) - x).clamp(-epsilon, epsilon)
    return x + eta


def objective(codes: Tensor, away_from: Tensor, dispersion: float) -> Tensor:
    """lambda L_c + (1 - lambda) mean_i L_a, with d_H(a, b) = (K - <a, b>) / 2.

    Args:
        codes: (M,K), T(x_i + eta_i).
        away_from: (M,K) or (K,), the other code in L_a.
        dispersion: lambda.
    """
    count, bits = codes.shape
    l_a = (bits - (codes * away_from).sum(1)) / 2  # (M,)
    apart = (bits - codes @ codes.T) / 2  # (M,M)
    l_c = apart.fill_diagonal_(0).sum() / max(1, count * (count - 1))  # 0 for a single image
    return dispersion * l_c + (1 - dispersion) * l_a.mean()


def released_objective(codes: Tensor, away_from: Tensor, dispersion: float) -> Tensor:
    """<codes, w>, where w (M,K) is the gradient that the authors' code takes, see ``ciba.py``.

    Args:
        codes: (M,K).
        away_from: (M,K) or (K,).
        dispersion: lambda.
    """
    now = codes.detach()
    # Away from all other codes; the second T_i is the authors' gradient of an image with itself.
    repulsion = (2 * now - now.sum(0)) / max(1, len(now) - 1)
    w = (dispersion * repulsion - (1 - dispersion) * away_from) / codes.shape[1]
    return (codes * w).sum()
