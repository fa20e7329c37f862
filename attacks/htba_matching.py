"""HTBA's perturbations: each image comes nearer to one of the patched sources.

    min_d  sum_i D(x_i + d_i, s_p(i)),      |d_i|_inf <= epsilon

p is the one-to-one pairing with the least sum of distances. See ``htba.py`` for D and the paper.
"""

from collections.abc import Callable
from typing import Literal

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from hashbackdoor_bench import HashModel

Match = Literal["features", "z", "code"]
POINTS = 50  # at most, of the curve of distances


def approach(
    model: HashModel,
    x: Tensor,
    wanted: Tensor,
    *,
    match: Match,
    epsilon: float,
    steps: int,
    released: bool,
    progress: Callable[[str, int, int], None],
) -> tuple[Tensor, list[float]]:
    """Images near ``x`` that have in common with ``wanted`` what ``match`` says.

    Args:
        model: the surrogate.
        x: (M,3,S,S) in [0,1], images of the target.
        wanted: (M,3,S,S) in [0,1], patched sources.
        match: see ``htba.py``.
        epsilon: largest change, in units of [0,1].
        steps: number of steps.
        released: step along the raw gradient.
        progress: called after each step.

    Returns:
        The changed images (M,3,S,S) in [0,1], and the mean distance at up to 50 steps.
    """
    with torch.no_grad():
        goal = seen(model, wanted, match)  # (M,F) or (M,K)
    size, curve, d = 0.01 if released else epsilon / 10, [], torch.zeros_like(x)
    for step in range(steps):
        changed = (x + d).requires_grad_()
        own = seen(model, changed, match)
        order = pairing(distances(own.detach(), goal, match))
        each = distances(own[:, None], goal[order][:, None], match)  # (M,1,1)
        (gradient,) = torch.autograd.grad(each.sum(), changed)
        now = size * 0.5 ** (5 * step // steps)
        d = d - now * (gradient if released else gradient.sign())
        d = ((x + d.clamp(-epsilon, epsilon)).clamp(0, 1) - x).detach()
        if step % -(-steps // POINTS) == 0:
            curve.append(float(each.detach().mean()))
        progress("perturb poison", step + 1, steps)
    return x + d, curve


def seen(model: HashModel, x: Tensor, match: Match) -> Tensor:
    """What is matched of images (M,3,S,S): (M,F) features, or (M,K) outputs or relaxed codes."""
    if match == "features":
        return model.features(x)
    return model(x) if match == "z" else model.relaxed(x)


def distances(a: Tensor, b: Tensor, match: Match) -> Tensor:
    """D of all rows of a (...,M,F) and b (...,N,F): (...,M,N)."""
    if match == "code":
        return -a @ b.mT / a.shape[-1]
    return a.square().sum(-1, keepdim=True) - 2 * a @ b.mT + b.square().sum(-1)[..., None, :]


def pairing(cost: Tensor) -> Tensor:
    """The one-to-one pairing of least cost (M,M): (M,) long, the column of each row."""
    _, columns = linear_sum_assignment(cost.double().cpu().numpy())
    return torch.from_numpy(columns).to(cost.device)
