"""Random outputs on which losses are tried, for the rules of `check_victim`."""

from collections.abc import Mapping

import torch
from torch import Tensor

from hashbackdoor_bench.api import HashLoss
from hashbackdoor_bench.checks.finding import returned, seed_torch
from hashbackdoor_bench.registry import Method

BITS, CLASSES, ITEMS, BATCH = 8, 6, 12, 6


class Trial:
    """A loss on random outputs.

    Args:
        method: the victim.
        given: hyper-parameters other than the defaults.
    """

    def __init__(self, method: Method[HashLoss], given: Mapping[str, object]) -> None:
        self.method, self.given = method, given
        self.sizes = BITS, CLASSES, ITEMS

    def loss(self, bits: int = BITS, classes: int = CLASSES, items: int = ITEMS) -> HashLoss:
        """A new loss, with the same values at every call."""
        with torch.random.fork_rng(devices=[]):
            seed_torch(0)
            return self.method(bits, classes, items, **self.given)

    def batch(self, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """z (N,K) with a gradient, y (N,C) with one or two tags, index (N,) of the items."""
        draw = torch.Generator().manual_seed(seed)
        z = torch.randn(BATCH, BITS, generator=draw).requires_grad_()
        y = torch.eye(CLASSES)[torch.arange(BATCH) % 3]
        y[0, 1] = 1
        return z, y, torch.randperm(ITEMS, generator=draw)[:BATCH]

    def steps(self, loss: HashLoss, first: int, last: int) -> list[float]:
        """Losses of steps first..last-1, called as in training; a step is 15 epochs long."""
        values = []
        for step in range(first, last):
            loss.on_epoch(15 * step)
            seed_torch(step)
            values.append(value(loss, *self.batch(step), 150 * step).item())
        return values

    def odd(self) -> dict[str, Tensor]:
        """Labels (n,C), n <= N, of unusual batches that may break a formula, by description."""
        usual = self.batch()[1]
        return {
            "a usual batch": usual,
            "a batch of one class": torch.eye(CLASSES)[[2] * BATCH],
            "a batch without two images of a class": torch.eye(CLASSES)[:BATCH],
            "a batch of one image": usual[:1],
            "a batch without labels": torch.zeros(BATCH, CLASSES),
            "a batch with one image without labels": usual * (torch.arange(BATCH) > 0)[:, None],
        }


def value(loss: HashLoss, z: Tensor, y: Tensor, index: Tensor, step: int) -> Tensor:
    """The loss of a batch as the training loop computes it."""
    loss.remember(z.detach(), y, index, step)
    return returned(loss(z, y, index, step), Tensor, "forward")


def saved(loss: HashLoss) -> dict[str, Tensor]:
    """A copy of a loss's state."""
    return {name: tensor.clone() for name, tensor in loss.state_dict().items()}


def changed(loss: HashLoss, before: Mapping[str, Tensor]) -> list[str]:
    """The names of the tensors that differ from the copy that `saved` made."""
    return [name for name, now in loss.state_dict().items() if not torch.equal(now, before[name])]
