"""SCAn: drops the half of a class that lies apart from the defender's clean images.

Tang, Wang, Tang and Zhang, "Demon in the Variant: Statistical Analysis of DNNs for Robust Backdoor
Contamination Detection", USENIX Security 2021. https://arxiv.org/abs/1908.00686,
code: https://github.com/TDteach/Demon-in-the-Variant (authors),
https://github.com/SCLBD/BackdoorBench (detection_pretrain/scan.py)

    r = mu_y + e        mu ~ N(0, S_mu), e ~ N(0, S_e), by EM on clean features:
    mu_c   = S_mu (m_c S_mu + S_e)^-1 sum of the r_i of class c
    S_mu   = covariance of the mu_{y_i}             S_e = covariance of the r_i - mu_{y_i}
    J_c    = mean_i |r_i - mu_c|^2 - |r_i - u_{g(i)}|^2      of training and clean images of class c
    LLR_i  = |r_i - u_clean|^2 - |r_i - u_suspected|^2       norms are those of S_e^-1
    J*_c   = (J_c - median) / (1.4826 MAD)                   over classes
    suspicion = max(J*_c, 0) / (1 + exp(-LLR_i / 2))         drop: LLR_i > 0 where J*_c > e^2

g splits a class into two groups with means u_0 and u_1, which is k-means in the norm of S_e^-1; the
group with fewer clean images is suspected. So poison may be the majority of its class, and a small
share of it is found only if it lies far away. J* is coarse where there are few classes.

Differs from the authors: features are reduced to min(F, 64, m / 4) principal components of the
training images, and S_e is shrunk as Ledoit and Wolf do, since a defender has few clean images; the
split is the best of ten starts, and they take one. They flag |J*|, so also a class of unusually
little spread; they give no suspicion of an image. Public code has S_e (n S_mu + S_e)^-1 in mu_c of
J_c, without the factor S_mu S_e^-1 that the same code has in EM. e^2 is the paper's threshold.
"""

import torch
from torch import Tensor

from hashbackdoor_bench import (
    DEFENSES,
    Assumes,
    DefenderView,
    Defense,
    Screening,
    check,
    standardised,
    two_means,
)

ROUNDS, CLOSE = 100, 1e-5  # of EM; relative change at which it ends


@DEFENSES.register
class SCAn(Defense):
    """Classes of two groups, of which clean images know one.

    Args:
        threshold: of J*, from which on a class is flagged; the default is e^2.
        components: largest number of principal components.
    """

    published = "SCAn"
    assumes = Assumes(per_class=2, group=3, sees=frozenset({"train", "weights"}))

    def __init__(self, *, threshold: float = 7.3890560989306495, components: int = 64) -> None:
        check("defense.threshold", threshold, 0)
        check("defense.components", components, 1, 100_000)
        self.threshold, self.components = threshold, components

    def screen(self, view: DefenderView) -> Screening:
        """See `Defense.screen`."""
        assert view.train is not None
        train = view.features(view.train.images).double()
        clean = view.features(view.clean.images).double()
        size = max(1, min(train.shape[1], self.components, len(clean) // 4))
        _, _, axes = torch.linalg.svd(train - train.mean(0), full_matrices=False)
        train, clean = ((rows - clean.mean(0)) @ axes[:size].T for rows in (train, clean))
        groups = view.groups()
        own = [self.alike(view, items) for items in groups]
        between, within = untangled(clean, [rows for rows in own if len(rows)])
        random = view.generator("starts")
        found = [
            split(train[items], clean[rows], between, within, random)
            for items, rows in zip(groups, own, strict=True)
        ]
        index = standardised(torch.stack([excess for excess, _ in found]))
        suspicion = torch.zeros(len(train))
        drop = torch.zeros(len(train), dtype=torch.bool)
        for items, (_, ratio), flag in zip(groups, found, index, strict=True):
            own_suspicion = flag.clamp(min=0) * torch.sigmoid(ratio / 2)
            suspicion[items] = torch.maximum(suspicion[items], own_suspicion.float())
            drop[items] |= (ratio > 0) & (flag > self.threshold)
        return view.guarded(Screening(suspicion, drop))

    @staticmethod
    def alike(view: DefenderView, items: Tensor) -> Tensor:
        """The clean images (m_c,) that have all tags that a group of training images shares."""
        assert view.train is not None
        shared = view.train.labels[items].bool().all(0)
        return view.clean.labels[:, shared].bool().all(1).nonzero().flatten()


def untangled(features: Tensor, classes: list[Tensor]) -> tuple[Tensor, Tensor]:
    """S_mu and S_e (d,d) of centred features (m,d), whose rows in each class are listed."""
    rows = torch.cat(classes)
    owner = torch.repeat_interleave(torch.tensor([len(one) for one in classes]))
    held = features[rows]
    mean = torch.stack([features[one].mean(0) for one in classes])[owner]
    between, within = mean.T @ mean / len(held), shrunk(held - mean)
    for _ in range(ROUNDS):
        means = torch.stack([posterior(features[one], between, within) for one in classes])
        mean = means[owner]
        new = mean.T @ mean / len(held), shrunk(held - mean)
        change = (new[0] - between).norm() + (new[1] - within).norm()
        scale = between.norm() + within.norm()
        between, within = new
        if change < CLOSE * scale:
            break
    return between, within


def posterior(rows: Tensor, between: Tensor, within: Tensor) -> Tensor:
    """mu_c (d,) of the features (n,d) of a class."""
    mean: Tensor = between @ torch.linalg.solve(len(rows) * between + within, rows.sum(0))
    return mean


def shrunk(rows: Tensor) -> Tensor:
    """Ledoit and Wolf's covariance (d,d) of centred rows (n,d): partly the identity, scaled."""
    size = rows.shape[1]
    plain = rows.T @ rows / len(rows)
    target = plain.trace() / size * torch.eye(size, dtype=rows.dtype)
    away = (plain - target).square().sum()
    error = ((rows.square().sum(1) ** 2).mean() - plain.square().sum()) / len(rows)
    share = (error / away.clamp(min=1e-300)).clamp(0, 1)
    ridge = 1e-9 * target + 1e-12 * torch.eye(size, dtype=rows.dtype)  # if a feature never changes
    return share * target + (1 - share) * plain + ridge


def split(
    train: Tensor, clean: Tensor, between: Tensor, within: Tensor, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """J_c, a scalar, and LLR (n,) of the training images (n,d) of a class with clean ones."""
    rows = torch.cat([train, clean])
    lower = torch.linalg.cholesky(within)
    both = torch.cat([rows, posterior(rows, between, within)[None]])
    white = torch.linalg.solve_triangular(lower, both.T, upper=False).mT
    points, centre = white[:-1], white[-1]
    group, means = two_means(points, random)
    excess = (points - centre).square().sum(1) - (points - means[group]).square().sum(1)
    known = [(int((group[len(train) :] == g).sum()), -int((group == g).sum())) for g in (0, 1)]
    suspected = 0 if known[0] < known[1] else 1
    away = torch.cdist(points[: len(train)], means).square()
    return excess.mean(), away[:, 1 - suspected] - away[:, suspected]
