"""DAO: drops images whose features lie where density differs from that of their neighbours.

Huang et al., "Detecting Backdoor Samples in Contrastive Language Image Pretraining", ICLR 2025.
https://arxiv.org/abs/2502.01385,
code: https://github.com/HanxunH/Detect-CLIP-Backdoor-Samples

    d_k(i) = distance of image i to the k-th nearest other one          N_k(i): the k nearest

    score       s_i                                              larger: more suspicious
    kdistance   d_k(i)
    lid         -k / sum_{j in N_k(i)} log(d(i,j) / d_k(i))      local intrinsic dimension
    slof        mean_{j in N_k(i)} d_k(i) / d_k(j)
    dao         mean_{j in N_k(i)} lid(j) log(d_k(i) / d_k(j))

Drop the largest. No label, clean image or number of classes is used where neighbours are from
``all`` images; where they are from a ``class``, poison with the label of its class is compared with
that class alone. Poison that is as dense as clean images, or denser, is not found: 60 % of a class
that lie together are a cluster and no outliers.

Differs from the authors: neighbours are among all images (theirs: among a training batch), features
are those of the victim, and k is 16 as in their runs (32 in their constructor). Their code takes
neighbours' numbers after an image's own column was cut out and uses them on the whole matrix, so
those behind it are wrong by one; counts an image as its own first neighbour in d_k(j); and adds
1e-4 in the logarithm. Here a distance of 0 is left out of sums of logarithms and of ratios.
"""

from typing import Literal

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
)

TOGETHER = 256  # images whose distances to all others are in memory at once
NONE = 1e-12  # a sum of logarithms as small belongs to neighbours that are all equally far


@DEFENSES.register
class DAO(Defense):
    """Outliers of local density.

    Args:
        score: what is measured, see the top of the file.
        k: number of neighbours.
        within: whether neighbours are from ``all`` images or from the same ``class``.
        drop: share of the images, or of each class, that is dropped, up to half.
    """

    published = "DAO"
    assumes = Assumes(group=3, sees=frozenset({"train", "weights"}))

    def __init__(
        self,
        *,
        score: Literal["dao", "slof", "lid", "kdistance"] = "dao",
        k: int = 16,
        within: Literal["all", "class"] = "all",
        drop: float = 0.15,
    ) -> None:
        check("defense.k", k, 1, 100_000)
        check("defense.drop", drop, 0, 0.5)
        self.score, self.k, self.within, self.drop = score, k, within, drop

    def screen(self, view: DefenderView) -> Screening:
        """See `Defense.screen`."""
        assert view.train is not None
        features = view.features(view.train.images)
        if self.within == "class":
            return view.screened(lambda items: self.scores(features[items]), self.drop)
        suspicion = standardised(self.scores(features)).float()
        drop = torch.zeros(len(features), dtype=torch.bool)
        drop[suspicion.argsort(descending=True, stable=True)[: int(self.drop * len(drop))]] = True
        return view.guarded(Screening(suspicion, drop))

    def scores(self, features: Tensor) -> Tensor:
        """s (n,) float64 of features (n,F); of fewer than two images, zeros."""
        if len(features) < 2:
            return torch.zeros(len(features), dtype=torch.float64)
        near, away = neighbours(features.double(), min(self.k, len(features) - 1))
        reach = away[:, -1]  # d_k (n,)
        if self.score == "kdistance":
            return reach
        lid = dimension(away)
        if self.score == "lid":
            return lid
        own, theirs = reach[:, None].expand_as(away), reach[near]
        used = theirs > 0 if self.score == "slof" else (theirs > 0) & (own > 0)
        ratio = torch.where(used, own, 1) / torch.where(used, theirs, 1)
        value = ratio if self.score == "slof" else lid[near] * ratio.log()
        return (value * used).sum(1) / used.sum(1).clamp(min=1)


def neighbours(features: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest others of each row (n,F), the nearest first: numbers and distances (n,k)."""
    near, away = [], []
    for start in range(0, len(features), TOGETHER):
        rows = features[start : start + TOGETHER]
        distance = torch.cdist(rows, features)
        distance[torch.arange(len(rows)), torch.arange(len(rows)) + start] = torch.inf
        found = distance.topk(k, largest=False).indices
        exact = torch.stack([(rows - features[one]).norm(dim=1) for one in found.T], 1)
        exact, order = exact.sort(dim=1, stable=True)
        near.append(found.gather(1, order))
        away.append(exact)
    return torch.cat(near), torch.cat(away)


def dimension(away: Tensor) -> Tensor:
    """The local intrinsic dimension (n,) from the distances (n,k) to the nearest, by likelihood."""
    used = away > 0
    total = torch.where(used, away / away[:, -1:], 1).log().sum(1)
    return torch.where(used.any(1), -used.sum(1) / total.clamp(max=-NONE), 0)
