"""Activation clustering: drops the smaller of two clusters of a class, if it is small enough.

Chen, Carvalho, Baracaldo, Ludwig, Edwards, Lee, Molloy and Srivastava, "Detecting Backdoor Attacks
on Deep Neural Networks by Activation Clustering", 2018. https://arxiv.org/abs/1811.03728,
code: https://github.com/Trusted-AI/adversarial-robustness-toolbox (activation_defence.py)

    each class: features -> 10 principal components -> k-means with two clusters
    dropped:    the smaller cluster, if its share of the class is below .35
    suspicion   = (|x - mean of the larger| - |x - mean of the smaller|) silhouette
    silhouette  = mean_i (b_i - a_i) / max(a_i, b_i)        a_i: mean distance to i's own cluster,
                                                            b_i: to the other

The filter supposes that poison is a minority of its class. At 60 % the smaller cluster is the clean
one; its share is above .35, so nothing is dropped, and suspicion ranks clean images first.

Differs from the authors: components are principal (the toolbox's default too), where their paper
has independent ones, whose whitening removes the scale by which clusters differ; k-means has ten
seeded starts. The toolbox may ask for a silhouette of .1 besides, the limit ``silhouette`` here,
which is off. A suspicion of single images is ours.
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
    two_means,
)


@DEFENSES.register
class ActivationClustering(Defense):
    """The smaller cluster of the features of a class.

    Args:
        components: number of principal components.
        share: of its class, below which a cluster is dropped.
        silhouette: which the split must have at least, -1 to 1.
    """

    published = "Activation clustering"
    assumes = Assumes(group=22, sees=frozenset({"train", "weights"}))

    def __init__(
        self, *, components: int = 10, share: float = 0.35, silhouette: float = -1.0
    ) -> None:
        check("defense.components", components, 1, 100_000)
        check("defense.share", share, 0, 0.5)
        check("defense.silhouette", silhouette, -1, 1)
        self.components, self.share, self.silhouette = components, share, silhouette

    def screen(self, view: DefenderView) -> Screening:
        """See `Defense.screen`."""
        assert view.train is not None
        features, random = view.features(view.train.images).double(), view.generator("starts")
        drop = torch.zeros(len(features), dtype=torch.bool)

        def score(items: Tensor) -> Tensor:
            suspicion, flagged = self.clusters(features[items], random)
            drop[items[flagged]] = True
            return suspicion

        return view.guarded(Screening(view.screened(score, 0).suspicion, drop))

    def clusters(self, features: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Suspicion (n,) and whether each image is dropped (n,), from features (n,F) of a class."""
        centred = features - features.mean(0)
        _, _, axes = torch.linalg.svd(centred, full_matrices=False)
        points = centred @ axes[: self.components].T
        group, means = two_means(points, random)
        small = int((group == 1).sum() <= (group == 0).sum())
        fit = silhouette(points, group)
        share = (group == small).double().mean()
        away = torch.cdist(points, means)
        flag = 0 < share < self.share and fit >= self.silhouette
        return (away[:, 1 - small] - away[:, small]) * fit, (group == small) & flag


def silhouette(points: Tensor, group: Tensor) -> Tensor:
    """The mean silhouette of points (n,d) in two groups; one that is alone in its group has 0."""
    distance = torch.cdist(points, points)
    member = torch.stack([group == 0, group == 1], 1).double()  # (n,2)
    count, total = member.sum(0), distance @ member
    own = (total * member).sum(1) / (count[group] - 1).clamp(min=1)
    other = (total * (1 - member)).sum(1) / count[1 - group].clamp(min=1)
    value = (other - own) / torch.maximum(own, other).clamp(min=1e-12)
    return torch.where((count[group] > 1) & (count[1 - group] > 0), value, 0).mean()
