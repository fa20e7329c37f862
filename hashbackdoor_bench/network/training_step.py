"""One optimiser step as its gradient sees it, and how the gradient is made by default."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hashbackdoor_bench.api import HashLoss
from hashbackdoor_bench.network.model import HashModel, best_precision


@dataclass(frozen=True)
class TrainStep:
    """What a training-time defense is given at each step, in place of `plain_backward`.

    It makes the gradients of ``model`` and ``loss``, which are empty when it is called, calls
    `remember` once, before the loss, and returns the loss, a scalar. The optimiser's step, the
    learning rates and the checkpoint stay the training loop's.

    Attributes:
        model: in training mode.
        loss: the victim's.
        x: (N,3,S,S) in [0,1], after augmentation and stamping.
        y: (N,C) float32, 0/1 labels.
        index: (N,) long, the items' slots in the training list.
        step: optimiser steps done before this one.
        generator: on the CPU, for all that the defense draws.
        precision: of the run's network, see `Recipe`.
    """

    model: HashModel
    loss: HashLoss
    x: Tensor
    y: Tensor
    index: Tensor
    step: int
    generator: torch.Generator
    precision: str

    def outputs(self, x: Tensor) -> Tensor:
        """z (N,K) float32 of images (N,3,S,S), in the run's precision."""
        with autocast(x.device, self.precision):
            z: Tensor = self.model(x)
        return z.float()

    def remember(self, z: Tensor) -> None:
        """Have the loss keep z (N,K) as the outputs of this batch's items."""
        self.loss.remember(z.detach(), self.y, self.index, self.step)


def plain_backward(given: TrainStep) -> Tensor:
    """Backpropagate the victim's loss of the batch as it is."""
    z = given.outputs(given.x)
    given.remember(z)
    value: Tensor = given.loss(z, given.y, given.index, given.step)
    torch.autograd.backward(value)
    return value


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which the backbone multiplies in ``precision``; ``auto`` is resolved here."""
    if precision == "auto":
        precision = best_precision(device)
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
