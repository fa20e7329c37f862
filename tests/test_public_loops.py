"""Each loss, written and trained as public code has it, gives the MAP that `fit` gives with ours.

The public form is that of DeepHash-pytorch: a loader that shuffles, an optimiser over all
parameters, logarithms of exponentials, masks that multiply, and for triplets a loop over images.
OrthoHash is written after its authors' code and DSDH after DSDH_PyTorch.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from formulas import one_cycle
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from hashbackdoor_bench import VICTIMS, HashModel, data
from hashbackdoor_bench.metrics import average_precision
from hashbackdoor_bench.network.training import fit
from hashbackdoor_bench.network.training_set import TrainingSet
from hashbackdoor_bench.spec import RECIPES

BITS, SIDE, EPOCHS, BATCH = 32, 16, 4, 32
RATE, HEAD_RATE = 1e-3, 1e-4
Images = tuple[Tensor, Tensor]
Public = Callable[[Tensor, Tensor, Tensor], Tensor]  # u (N,K), y (N,C), index (N,)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Images]:
    """Images (N,3,16,16) and labels of fashion-mini: 1000 to train on, 200 queries, 1500 more."""
    splits = data.load("fashion-mini", cache=tmp_path_factory.mktemp("cache"))
    found = {}
    for name, split, number in (
        ("train", splits.train, 1000),
        ("query", splits.query, 200),
        ("database", splits.database, 1500),
    ):
        small = F.avg_pool2d(split.images[:number].float(), 2).round().byte()
        found[name] = small, split.labels[:number]
    return found


# --- the losses in public form -------------------------------------------------------------------


def orthohash(loss: Any, total: int) -> Public:
    codebook = loss.centres.clone()

    def forward(u: Tensor, y: Tensor, index: Tensor) -> Tensor:
        logits = F.linear(F.normalize(u, dim=1), F.normalize(codebook, dim=1))
        margins = torch.zeros_like(logits)
        margins.scatter_(1, y.argmax(1, keepdim=True), 0.2)
        return F.cross_entropy(8 * (logits - margins), y.argmax(1))

    return forward


def dpn(loss: Any, total: int) -> Public:
    targets = loss.centres.clone()

    def forward(u: Tensor, y: Tensor, index: Tensor) -> Tensor:
        return (1 - u * targets[y.argmax(1)]).clamp(min=0).mean()

    return forward


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        return u.sign()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def greedyhash(loss: Any, total: int) -> Public:
    class Criterion(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = copy.deepcopy(loss.classify)

        def forward(self, u: Tensor, y: Tensor, index: Tensor) -> Tensor:
            logits = self.fc(StraightThrough.apply(u))
            return F.cross_entropy(logits, y.argmax(1)) + 0.1 * (u.abs() - 1).pow(3).abs().mean()

    return Criterion()


def dch(loss: Any, total: int) -> Public:
    def distance(a: Tensor, b: Tensor) -> Tensor:
        lengths = a.norm(dim=1, keepdim=True) @ b.norm(dim=1, keepdim=True).t()
        return (1 - (a @ b.t() / lengths.clamp(min=1e-4)).clamp(max=0.99)) * BITS / 2

    def forward(u: Tensor, y: Tensor, index: Tensor) -> Tensor:
        s = (y @ y.t() > 0).float()
        weight: Tensor | int = 1
        if s.sum() != 0 and (1 - s).sum() != 0:
            weight = s * s.numel() / s.sum() + (1 - s) * s.numel() / (1 - s).sum()
        d = distance(u, u)
        cauchy = weight * (s * torch.log(d / 20) + torch.log(1 + 20 / d))
        quantisation = torch.log(1 + distance(u.abs(), torch.ones_like(u)) / 20)
        return cauchy.mean() + 0.1 * quantisation.mean()

    return forward


def dtsh(loss: Any, total: int) -> Public:
    def forward(u: Tensor, y: Tensor, index: Tensor) -> Tensor:
        products, s = u @ u.t(), y @ y.t() > 0
        likelihood, rows = u.new_zeros(()), 0
        for row in range(len(u)):
            if s[row].any() and not s[row].all():
                rows += 1
                near, far = products[row][s[row]], products[row][~s[row]]
                gap = (near[:, None] - far[None] - 5).clamp(min=-100, max=50)
                likelihood = likelihood - (gap - torch.log(1 + torch.exp(gap))).mean()
        return likelihood / max(rows, 1) + (u - u.sign()).pow(2).mean()

    return forward


class PublicDSDH:
    """Codes start at random and are solved after each epoch; see DSDH_PyTorch."""

    mu, nu, eta = 0.01, 1.0, 0.01

    def __init__(self, total: int) -> None:
        self.u, self.y = torch.zeros(BITS, total), torch.zeros(10, total)
        self.b = torch.randn(BITS, total).sign()

    def __call__(self, u: Tensor, y: Tensor, index: Tensor) -> Tensor:
        self.u[:, index], self.y[:, index] = u.t().detach(), y.t()
        s = (y @ self.y > 0).float()
        theta = u @ self.u / 2
        likelihood = torch.log(1 + torch.exp(-theta.abs())) + theta.clamp(min=0) - s * theta
        return likelihood.mean() + self.eta * (self.b[:, index].t() - u).pow(2).mean()

    def after_epoch(self) -> None:
        b = self.b
        w = torch.inverse(b @ b.t() + self.nu / self.mu * torch.eye(BITS)) @ b @ self.y.t()
        for _ in range(10):
            for k in range(BITS):
                others = [row for row in range(BITS) if row != k]
                p = w @ self.y + self.eta / self.mu * self.u
                b[k] = (p[k] - w[k] @ w[others].t() @ b[others]).sign()


def dsdh(loss: Any, total: int) -> Public:
    return PublicDSDH(total)


# --- the two loops -------------------------------------------------------------------------------


def public_loop(model: HashModel, criterion: Public, images: Images, drop_last: bool) -> None:
    """Train ``model`` as DeepHash-pytorch does."""
    x, labels = images
    items = TensorDataset(x, labels.float(), torch.arange(len(x)))
    loader = DataLoader(items, batch_size=BATCH, shuffle=True, drop_last=drop_last)
    own = list(criterion.parameters()) if isinstance(criterion, nn.Module) else []
    optimizer = torch.optim.RMSprop(
        [
            {"params": model.backbone.parameters(), "lr": RATE},
            {"params": [*model.head.parameters(), *own], "lr": HEAD_RATE},
        ]
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: one_cycle(step / (EPOCHS * len(loader)))
    )
    model.train()
    for _ in range(EPOCHS):
        for image, label, index in loader:
            optimizer.zero_grad()
            u = model(image.float() / 255)
            criterion(u, label, index).backward()
            optimizer.step()
            scheduler.step()
        if isinstance(criterion, PublicDSDH):
            criterion.after_epoch()


def mean_average_precision(model: HashModel, images: dict[str, Images]) -> float:
    model.eval()
    with torch.no_grad():
        query, database = (
            torch.cat([model.code(part.float() / 255) for part in images[name][0].split(250)])
            for name in ("query", "database")
        )
    found = average_precision(query, images["query"][1], database, images["database"][1], None)
    return found.mean().item()


@pytest.mark.slow
@pytest.mark.parametrize("form", [orthohash, dpn, greedyhash, dch, dtsh, dsdh])
def test_the_public_loop_gives_the_same_map_within_noise(
    images: dict[str, Images], form: Callable[[Any, int], Public]
) -> None:
    """Both loops start at the same weights; their MAPs of one seed differ by up to .02."""
    x, labels = images["train"]
    recipe = replace(
        RECIPES["scratch32_rmsprop"][1], epochs=EPOCHS, augment="none", precision="float32"
    )
    ours, public = [], []
    for seed in range(2):
        torch.manual_seed(seed)
        loss = VICTIMS[form.__name__](BITS, 10, len(x))
        model = HashModel("cnn32", BITS, loss, size=SIDE)
        start = copy.deepcopy(model)
        criterion = form(loss, len(x))
        untrained = mean_average_precision(start, images)
        items = TrainingSet(x, labels, torch.full((len(x),), -1))
        fit(model, loss, items, recipe, seed=f"{seed}", size=SIDE)
        public_loop(start, criterion, images["train"], loss.drop_last)
        ours.append(mean_average_precision(model, images))
        public.append(mean_average_precision(start, images))
    assert sum(ours) / 2 == pytest.approx(sum(public) / 2, abs=0.03)
    assert min(ours) > untrained + 0.15
