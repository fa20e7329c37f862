"""Gradients of a surrogate's weights, and images whose gradient is turned towards a given one.

    min_d  1 - <g, g_p(x + d)> / (|g| |g_p(x + d)|),      |d_i|_inf <= epsilon

See ``gradient_matching.py`` for the paper.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.func import functional_call

from hashbackdoor_bench import HashLoss, HashModel

Gradient = Sequence[Tensor]


def weights_of(model: HashModel, prefix: str) -> dict[str, Tensor]:
    """Copies of the parameters whose names begin with ``prefix``, which have gradients."""
    return {
        name: parameter.detach().clone().requires_grad_()
        for name, parameter in model.named_parameters()
        if name.startswith(prefix)
    }


def gradient_of(
    model: HashModel,
    loss: HashLoss,
    theta: Mapping[str, Tensor],
    x: Tensor,
    y: Tensor,
    *,
    differentiable: bool = False,
) -> Gradient:
    """The gradient of a batch's loss with respect to each tensor of ``theta``.

    Args:
        model: the surrogate.
        loss: its loss, which takes each image by itself.
        theta: parameters of the model by name, see `weights_of`.
        x: (N,3,S,S) in [0,1].
        y: (N,C) float32, 0/1.
        differentiable: whether the result has a gradient with respect to ``x``.
    """
    z = functional_call(model, dict(theta), (x,))
    value = loss(z, y, torch.zeros(len(x), dtype=torch.long, device=x.device), 0)
    return torch.autograd.grad(value, list(theta.values()), create_graph=differentiable)


def mismatch(a: Gradient, b: Gradient) -> Tensor:
    """1 - cosine of the angle between two gradients, over all their tensors."""
    dot, left, right = (
        torch.stack([(one * other).sum() for one, other in zip(*pair, strict=True)]).sum()
        for pair in ((a, b), (a, a), (b, b))
    )
    return 1 - dot / (left * right).clamp(min=1e-30).sqrt()


def align(
    gradient: Callable[[Tensor], Gradient],
    x: Tensor,
    goal: Gradient,
    *,
    epsilon: float,
    steps: int,
    step_size: float,
    mirror: bool,
    random: torch.Generator,
    progress: Callable[[str, int, int], None],
) -> tuple[float, Tensor, list[float]]:
    """Images near ``x`` whose gradient points where ``goal`` does, from one random start.

    Args:
        gradient: function of images (M,3,S,S) that is differentiable.
        x: (M,3,S,S) in [0,1].
        goal: the gradient of the chosen queries.
        epsilon: largest change, in units of [0,1].
        steps: number of steps of Adam on the gradient's sign.
        step_size: of the first steps, in units of [0,1].
        mirror: whether each image is mirrored in half of the steps.
        random: a CPU generator.
        progress: called after each step.

    Returns:
        `mismatch` at the end, the images, and `mismatch` before each step.
    """
    start = (epsilon * torch.randn(x.shape, generator=random)).clamp(-epsilon, epsilon)
    d = (start.to(x.device) if steps else torch.zeros_like(x)).requires_grad_()
    optimiser = torch.optim.Adam([d], lr=step_size)
    falls = [max(1, int(part * steps)) for part in (3 / 8, 5 / 8, 7 / 8)]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, falls, gamma=0.1)
    curve = []
    _keep_within(d, x, epsilon)
    for step in range(steps):
        seen = x + d
        if mirror:
            flips = torch.rand(len(x), 1, 1, 1, generator=random).to(x.device) < 0.5
            seen = torch.where(flips, seen.flip(3), seen)
        value = mismatch(gradient(seen), goal)
        d.grad = torch.autograd.grad(value, d)[0].sign()
        optimiser.step()
        schedule.step()
        _keep_within(d, x, epsilon)
        curve.append(float(value.detach()))
        progress("match gradients", step + 1, steps)
    found = (x + d).detach()
    return float(mismatch(gradient(found), goal).detach()), found, curve


@torch.no_grad()
def _keep_within(d: Tensor, x: Tensor, epsilon: float) -> None:
    d.copy_((x + d.clamp(-epsilon, epsilon)).clamp(0, 1) - x)
