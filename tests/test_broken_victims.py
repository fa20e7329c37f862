"""Broken victims that only a careful check finds: `bench check` tells of each."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hashbackdoor_bench import (
    HashLoss,
)
from hashbackdoor_bench.checks import check_victim
from hashbackdoor_bench.registry import Method


def told(cls: type) -> str:
    cls.__doc__ = "Broken."
    found = check_victim(Method("victim", "broken", cls))
    return " | ".join(f"{one.rule}: {one.text}" for one in found)


class Pairs(HashLoss):
    """Pairwise likelihood, in one of several wrong ways."""

    how = ""

    def __init__(self, bits, classes, train_size):
        super().__init__(bits, classes, train_size)
        if self.how == "centres of NumPy":
            self.register_buffer(
                "centres", torch.from_numpy(np.random.randn(classes, bits)).float()
            )
        self.register_buffer("scale", torch.ones(()))

    def on_epoch(self, epoch):
        if self.how == "late epochs":
            self.scale.fill_(float("inf") if epoch > 700 else 1.0)
        if self.how == "seeds torch":
            torch.manual_seed(0)

    def forward(self, z, y, index, step):
        similar = (y @ y.T > 0).float()
        theta = 0.3 * z @ z.T
        loss = F.binary_cross_entropy_with_logits(theta, similar, reduction="none")
        if self.how == "number":
            return loss.mean().item()
        if self.how == "order" and len(z) > 1:
            weight = torch.linspace(1, 2, len(z))
            return (loss * weight[:, None]).mean()
        if self.how == "one class" and (y == y[:1]).all() and len(y) > 1:
            return loss.mean() * float("nan")
        if self.how == "late steps":
            return loss.mean() * torch.tensor(1.001, dtype=torch.float32) ** step
        if self.how == "draws numpy":
            return loss.mean() * (1 + np.random.rand())
        if self.how == "draws python":
            return loss.mean() * (1 + random.random())
        if self.how == "late epochs":
            return loss.mean() * self.scale
        if self.how == "centres of NumPy":
            return loss.mean() + (torch.tanh(z) - y @ self.centres).square().mean()
        return loss.mean()

    def items(self, z, y, index, step):
        if self.how != "items in order":
            return None
        similar = (y @ y.T > 0).float()
        loss = F.binary_cross_entropy_with_logits(0.3 * z @ z.T, similar, reduction="none")
        return loss.mean(1).sort().values

    def relax(self, z):
        if self.how == "relax of the batch" and len(z):
            return torch.tanh(z / z.abs().max())
        if self.how == "relax draws":
            return torch.tanh(z * (0.5 + torch.rand(())))
        return torch.tanh(z)


def victim(how: str) -> str:
    return told(type("Bad", (Pairs,), {"how": how}))


def test_the_sound_one_has_no_finding():
    assert victim("") == ""


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("number", "forward returns float: it must return Tensor"),
        ("order", "order of the batch"),
        ("one class", "on a batch of one class"),
        ("late steps", "step"),
        ("late epochs", "epoch"),
        ("draws numpy", "NumPy's global random numbers"),
        ("draws python", "Python's global random numbers"),
        ("centres of NumPy", "NumPy's global random numbers"),
        ("items in order", "order of the batch"),
        ("relax of the batch", "relax(z) depends on the batch"),
        ("relax draws", "relax(z)"),
        ("seeds torch", "it seeds torch's global random numbers"),
    ],
)
def test_a_loss_that_breaks_a_promise_is_told(how, words):
    found = victim(how)
    assert words in found, found
