"""The gradient of one training step, which a defense can replace."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hashbackdoor_bench.api import HashLoss
from hashbackdoor_bench.network.model import FrozenHead, HashModel, best_precision


@dataclass(frozen=True)
class TrainStep:
    """The argument of the function that makes the gradients of a step, such as `plain_backward`.

    Such a function (a training-time defense, for example) computes the gradients of ``model`` and
    ``loss``, which are empty when it is called. It calls `remember` once, before the loss, and
    returns the loss, a scalar. Optimiser, learning rates and checkpoints remain with `fit`.

    Attributes:
        model: the network, in training mode; in a frozen recipe its hash layer alone.
        loss: the victim's loss.
        x: (N,3,S,S) in [0,1], after augmentation and stamping; or (N,F), the features of them.
        y: (N,C) float32, 0/1 labels.
        index: (N,) long, the items' slots in the training list.
        step: optimiser steps done before this one.
        generator: generator on the CPU for all random numbers of the function.
        precision: precision of the network, see `Recipe`.
    """

    model: HashModel | FrozenHead
    loss: HashLoss
    x: Tensor
    y: Tensor
    index: Tensor
    step: int
    generator: torch.Generator
    precision: str

    def outputs(self, x: Tensor) -> Tensor:
        """z (N,K) float32 of ``x`` or others like it, in the run's precision."""
        with autocast(x.device, self.precision):
            z: Tensor = self.model(x)
        return z.float()

    def remember(self, z: Tensor) -> None:
        """Let the loss update its state with the outputs z (N,K) of this batch."""
        self.loss.remember(z.detach(), self.y, self.index, self.step)


def plain_backward(given: TrainStep) -> Tensor:
    """Backpropagate the victim's loss of the batch."""
    z = given.outputs(given.x)
    given.remember(z)
    value: Tensor = given.loss(z, given.y, given.index, given.step)
    torch.autograd.backward(value)
    return value


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The autocast context for a backbone in ``precision``; ``auto`` is `best_precision`."""
    if precision == "auto":
        precision = best_precision(device)
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
