"""Two groups of points by k-means, for defenses that look for two kinds of images in a class."""

import torch
from torch import Tensor

STARTS, ROUNDS = 10, 300


def two_means(points: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Split points into two groups with a small sum of squared distances to their means.

    It is the smallest of ten runs of Lloyd's algorithm from k-means++ starts.

    Args:
        points: (n,d) float64.
        random: generator of the starts.

    Returns:
        The group of each point (n,) long, 0 or 1, and the means (2,d). If all points are equal, the
        second group is empty and has the mean of the first.
    """
    best, means, least = torch.zeros(len(points), dtype=torch.long), points[:1].expand(2, -1), None
    if not (points != points[:1]).any():
        return best, means
    for _ in range(STARTS):
        first = points[torch.randint(len(points), (), generator=random)]
        chance = (points - first).square().sum(1)
        centres = torch.stack([first, points[torch.multinomial(chance, 1, generator=random)[0]]])
        group = torch.full_like(best, -1)
        for _ in range(ROUNDS):
            old, group = group, torch.cdist(points, centres).argmin(1)
            if torch.equal(old, group):
                break
            centres = torch.stack([points[group == g].mean(0) for g in (0, 1)])
        spread = (points - centres[group]).square().sum()
        if least is None or spread < least:
            best, means, least = group, centres, spread
    return best, means
