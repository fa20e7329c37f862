"""Gradient shaping: each image's gradient is clipped, and noise is added to their mean (DP-SGD).

Abadi et al., "Deep Learning with Differential Privacy", CCS 2016. https://arxiv.org/abs/1607.00133,
code: https://github.com/pytorch/opacus
Hong, Chandrasekaran, Kaya, Dumitraş and Papernot, "On the Effectiveness of Mitigating Data
Poisoning Attacks with Gradient Shaping", 2020, use it against poison, also where it gives no
meaningful privacy. https://arxiv.org/abs/2002.11497

    g = 1/N [ sum_i g_i min(1, c / |g_i|) + noise ]     noise ~ N(0, sigma^2 c^2) in each parameter

g_i is the gradient of the loss of image i in all parameters of network and loss. It takes a victim
whose loss is a mean over images; in a loss of pairs, one image moves the terms of all others.

    c       |g_i| of the median image of each batch, if none is given; so half are clipped
    sigma   .01

Clipped gradients are those of sum_i w_i L_i with constant weights w_i = min(1, c / |g_i|), so two
passes need no memory for N gradients: one finds norms, few images at a time, the other w and L.

Differs from the authors: batches are those of the recipe, not Poisson samples, c follows the batch
and statistics of batch norm aren't private, so there is no epsilon to print. Batch norm would
couple the images: gradients are made with fixed statistics, and without dropout. The statistics are
``running``, updated by each batch before its gradient is made, since a network that starts from
random weights has none yet; or ``frozen``, as a pretrained network had them. Opacus wants group
norm instead, which discards pretrained statistics. All is in float32.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from hashbackdoor_bench import DEFENSES, Assumes, Defense, TrainStep, check

TOGETHER = 16  # images whose gradients are in memory at once


@DEFENSES.register
class DPSGD(Defense):
    """Clipped and noised gradients of images.

    Args:
        clip: c; 0: the median norm in each batch.
        sigma: standard deviation of the noise, in units of c.
        statistics: of batch norm, see the top of the file.
    """

    published = "DP-SGD"
    assumes = Assumes(sees=frozenset({"train"}), needs=frozenset({"item_gradient"}))

    def __init__(
        self,
        *,
        clip: float = 0.0,
        sigma: float = 0.01,
        statistics: Literal["running", "frozen"] = "running",
    ) -> None:
        check("defense.clip", clip, 0)
        check("defense.sigma", sigma, 0)
        self.clip, self.sigma, self.statistics = clip, sigma, statistics

    def backward(self, step: TrainStep) -> Tensor:
        """See `Defense.backward`."""
        if self.statistics == "running":
            with torch.no_grad():
                step.model(step.x)
        step.model.eval()
        z = step.model(step.x)
        step.remember(z)
        losses = torch.stack([_loss(step, z, row) for row in range(len(z))])
        norms = item_norms(step)
        bound = norms.median() if self.clip == 0 else norms.new_tensor(self.clip)
        weight = (bound / norms.clamp(min=1e-12)).clamp(max=1)
        torch.autograd.backward((weight * losses).mean())
        for parameter in (*step.model.parameters(), *step.loss.parameters()):
            if parameter.grad is not None:
                noise = torch.randn(parameter.shape, generator=step.generator).to(parameter)
                parameter.grad += self.sigma * bound * noise / len(z)
        step.model.train()
        return losses.mean()


def _loss(step: TrainStep, z: Tensor, row: int) -> Tensor:
    """The loss of one image of the batch by itself."""
    one = slice(row, row + 1)
    value: Tensor = step.loss(z[one], step.y[one], step.index[one], step.step)
    return value


def item_norms(step: TrainStep) -> Tensor:
    """(N,) the norm of the gradient of each image's loss, in all parameters that are trained."""
    trained = [
        {name: value.detach() for name, value in module.named_parameters() if value.requires_grad}
        for module in (step.model, step.loss)
    ]

    def loss(trained: list[dict[str, Tensor]], x: Tensor, y: Tensor, index: Tensor) -> Tensor:
        z = functional_call(step.model, trained[0], (x[None],))
        arguments = (z, y[None], index[None], step.step)
        value: Tensor = functional_call(step.loss, trained[1], arguments)
        return value

    of_each = vmap(grad(loss), in_dims=(None, 0, 0, 0), randomness="different")
    norms = []
    parts = (torch.split(rows, TOGETHER) for rows in (step.x, step.y, step.index))
    for x, y, index in zip(*parts, strict=True):
        made = [value for module in of_each(trained, x, y, index) for value in module.values()]
        norms.append(sum(value.flatten(1).square().sum(1) for value in made).sqrt())
    return torch.cat(norms)
