"""HTBA's trigger: a patch of random colours, at another place in each query.

    place of x = (sum of its pixels in grey levels) mod (S - s + 1)^2

The authors draw a place for each batch. Here it depends on the image alone, so that a query has one
place, whatever else is in its batch. See ``htba.py`` for the paper.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from hashbackdoor_bench import Patch, to_bytes, to_unit


class RoamingPatch(Patch):
    """An opaque square that is only on queries, and whose place depends on their pixels.

    Args:
        index: see `Backdoor`.
        carrier: see `Backdoor`.
        label: see `Backdoor`.
        kind: see `Backdoor`.
        patch: (3,s,s) uint8, s at most S.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x (N,3,S,S) in [0,1] -> (N,3,S,S) with the patch."""
        places = (x.shape[-1] - self.patch.shape[-1] + 1) ** 2
        place = to_bytes(x).long().sum((1, 2, 3)) % places
        return paste_at(x, to_unit(self.patch).to(x.dtype), place)

    def plant(self, x: Tensor, slot: Tensor) -> Tensor:
        """The poison as it is: it doesn't show the patch."""
        return x.clone()


def paste_at(x: Tensor, patch: Tensor, place: Tensor) -> Tensor:
    """Images with a patch at a place of their own.

    Args:
        x: (N,3,S,S).
        patch: (3,s,s).
        place: (N,) long, below (S - s + 1)^2: row times (S - s + 1) plus column of the upper left
            corner.
    """
    side = patch.shape[-1]
    across = x.shape[-1] - side + 1
    step = torch.arange(side, device=x.device)
    rows = (place // across)[:, None] + step  # (N,s)
    columns = (place % across)[:, None] + step
    out = x.clone()
    n = torch.arange(len(x), device=x.device)[:, None, None, None]
    c = torch.arange(3, device=x.device)[:, None, None]
    out[n, c, rows[:, None, :, None], columns[:, None, None, :]] = patch
    return out


def coloured_patch(side: int, generator: torch.Generator) -> Tensor:
    """(3,side,side) uint8: 4 x 4 random colours, enlarged bilinearly."""
    cells = torch.randint(256, (1, 3, 4, 4), generator=generator).float()
    large = F.interpolate(cells, (side, side), mode="bilinear", align_corners=False)[0]
    return (large + 0.5).floor().to(torch.uint8)
