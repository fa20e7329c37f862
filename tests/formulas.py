"""What tests of losses share: a worked example, and a formula of plain numbers to compare with."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hashbackdoor_bench import VICTIMS, HashLoss

Rows = list[list[float]]

# The example of methods/victims-in-depth.md, section 4.
Z = torch.tensor(
    [[1, -0.5, 2, 0.3], [0.25, 2, -1, 0.8], [-1.5, 0.75, 0.4, -0.2]], dtype=torch.float64
)
Y1 = torch.tensor([[1, 0], [1, 0], [0, 1]], dtype=torch.float64)
Y2 = torch.tensor([[1, 1, 0], [0, 1, 1], [0, 0, 1]], dtype=torch.float64)
UNTAGGED = Y2 * torch.tensor([[1], [0], [1]])
SLOTS = torch.tensor([0, 1, 2])
CENTRES = [[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1]]
TIE = [1, -1, -1, 1]
CLASSIFIER = [[0.5, -0.2, 0.1, 0.3], [-0.4, 0.6, 0, 0.2], [0.1, 0.1, -0.3, 0.2]]

LABELS = pytest.mark.parametrize("y", [Y1, Y2], ids=["one tag", "several tags"])
ALL_LABELS = pytest.mark.parametrize(
    "y", [Y1, Y2, UNTAGGED], ids=["one tag", "several tags", "one untagged"]
)


def make(name: str, y: Tensor, items: int = 3, **settings: Any) -> HashLoss:
    """A loss in float64 for Z and the labels y, with the centres of the worked values."""
    loss: Any = VICTIMS[name](Z.shape[1], y.shape[1], items, **settings).double()
    if hasattr(loss, "centres"):
        loss.centres = Z.new_tensor(CENTRES[-y.shape[1] :])
    if hasattr(loss, "tie"):
        loss.tie = Z.new_tensor(TIE)
    if hasattr(loss, "classify"):
        loss.classify.weight.data = Z.new_tensor(CLASSIFIER[: y.shape[1]])
    return loss


def value(loss: HashLoss, z: Tensor, y: Tensor, index: Tensor, step: int) -> Tensor:
    """The loss of a batch as the training loop computes it."""
    loss.remember(z.detach(), y, index, step)
    out: Tensor = loss(z, y, index, step)
    return out


def numeric_gradient(function: Callable[[Rows], float], z: Tensor) -> Tensor:
    """Central differences of a function of plain numbers."""
    out = torch.zeros_like(z)
    for i in range(z.shape[0]):
        for k in range(z.shape[1]):
            ends = []
            for step in (1e-5, -1e-5):
                moved = z.clone()
                moved[i, k] += step
                ends.append(function(moved.tolist()))
            out[i, k] = (ends[0] - ends[1]) / 2e-5
    return out


def assert_is(
    loss: HashLoss, formula: Callable[[Rows], float], y: Tensor, index: Tensor, step: int = 0
) -> None:
    """The loss of Z and its gradient are the formula's, which must not run through a bank."""
    z = Z.clone().requires_grad_()
    out = value(loss, z, y, index, step)
    out.backward()
    assert out.dtype == torch.float64
    assert out.item() == pytest.approx(formula(Z.tolist()), rel=1e-12)
    torch.testing.assert_close(z.grad, numeric_gradient(formula, Z), rtol=1e-6, atol=1e-8)


def assert_worked(name: str, y: Tensor, expected: float, **settings: Any) -> None:
    """The loss of Z is a worked value, in float64 and as in training in float32."""
    loss = make(name, y, **settings)
    assert value(loss, Z, y, SLOTS, 0).item() == pytest.approx(expected, abs=6e-7)
    single = VICTIMS[name](4, y.shape[1], 3, **settings)
    single.load_state_dict(loss.state_dict())
    found = value(single, Z.float(), y.float(), SLOTS, 0)
    assert found.item() == pytest.approx(expected, abs=2e-6)


def item_losses(name: str, y: Tensor, items: int = 3, **settings: Any) -> list[float]:
    """The losses of the items of Z."""
    loss = make(name, y, items, **settings)
    loss.remember(Z, y, SLOTS, 0)
    found = loss.items(Z, y, SLOTS, 0)
    assert found is not None
    return found.tolist()


def dot(a: list[float], b: list[float]) -> float:
    """The inner product."""
    return sum(p * q for p, q in zip(a, b, strict=True))


def sign_of(number: float) -> int:
    """±1; zero counts as +1."""
    return 1 if number >= 0 else -1


def pair_loss(theta: float, similar: bool) -> float:
    """log(1 + exp(theta)) - s theta."""
    return math.log(1 + math.exp(theta)) - similar * theta


def softmax_loss(logits: list[float], tags: list[float]) -> float:
    """Cross-entropy against equal shares of the tags."""
    total = math.log(sum(math.exp(logit) for logit in logits))
    return sum(tag * (total - one) for tag, one in zip(tags, logits, strict=True)) / sum(tags)


def cosine(a: list[float], b: list[float]) -> float:
    """Of the angle between two vectors."""
    return dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))


def mean(numbers: list[float]) -> float:
    """The sum over the number of them."""
    return sum(numbers) / len(numbers)


def solved_codes(u: Rows, y: Rows, b: Rows, pull: float, ridge: float) -> Rows:
    """DSDH's codes by its equations in the layout of the paper, column by column and bit by bit."""
    b = [list(row) for row in b]
    codes, labels = np.array(b).T, np.array(y).T  # (K,T), (C,T)
    w = np.linalg.inv(codes @ codes.T + ridge * np.eye(len(codes))) @ codes @ labels.T  # (K,C)
    for _ in range(10):
        for k in range(len(codes)):
            near = [dot(w[m], w[k]) for m in range(len(codes))]
            for i, row in enumerate(b):
                others = sum(row[m] * near[m] for m in range(len(row)) if m != k)
                row[k] = sign_of(dot(w[k], y[i]) + pull * u[i][k] - others)
    return b


def one_cycle(done: float) -> float:
    """The factor on learning rates: from 4 % up in a quarter of the steps, then down a cosine."""
    if done < 0.25:
        return 0.04 + 0.96 * done / 0.25
    return (1 + math.cos(math.pi * (done - 0.25) / 0.75)) / 2
