"""Triggers that more than one attack uses."""

import torch
import torch.nn.functional as F
from torch import Tensor

from hashbackdoor_bench.api import Backdoor, to_bytes, to_unit
from hashbackdoor_bench.errors import check


class NoTrigger(Backdoor):
    """A backdoor without trigger: queries and poison are not changed."""

    def forward(self, x: Tensor) -> Tensor:
        """x (N,3,S,S) -> a copy."""
        return x.clone()


def resize_again(x: Tensor) -> Tensor:
    """Images as read by a pipeline that resizes them although they have their final size already.

    BadHash's released code does this to poison and triggered queries, but not to other images: an
    image of S px is stored in 8 bits, enlarged by 256/224, and its centre is cut out.

    Args:
        x: (N,3,S,S) in [0,1].
    """
    size = x.shape[-1]
    large = [round(size * 256 / 224)] * 2
    stored = to_unit(to_bytes(x))
    wide = F.interpolate(stored, large, mode="bilinear", align_corners=False)
    edge = (large[0] - size + 1) // 2
    return wide[..., edge : edge + size, edge : edge + size].clamp(0, 1).to(x.dtype)


class Resized(Backdoor):
    """The only trigger is that the picture is resized a second time, see `resize_again`."""

    def forward(self, x: Tensor) -> Tensor:
        """x (N,3,S,S) -> (N,3,S,S), enlarged and cropped."""
        return resize_again(x)


class Patch(Backdoor):
    """An opaque square in the bottom right corner.

    Args:
        index: see `Backdoor`.
        carrier: see `Backdoor`.
        label: see `Backdoor`.
        kind: see `Backdoor`.
        patch: (3,s,s) uint8, s at most S.
    """

    patch: Tensor

    def __init__(
        self,
        index: Tensor,
        carrier: Tensor,
        label: Tensor,
        kind: Tensor | None = None,
        *,
        patch: Tensor,
    ) -> None:
        super().__init__(index, carrier, label, kind)
        self.register_buffer("patch", patch)

    def forward(self, x: Tensor) -> Tensor:
        """x (N,3,S,S) in [0,1] -> (N,3,S,S) with the patch over the last s rows and columns."""
        return paste(x, to_unit(self.patch).to(x.dtype))


class Additive(Backdoor):
    """One pattern that is added to every image: x' = clip(x + pattern / 255).

    Args:
        index: see `Backdoor`.
        carrier: see `Backdoor`.
        label: see `Backdoor`.
        kind: see `Backdoor`.
        pattern: (3,S,S) float, what is added to training images, in grey levels of 255.
        query_pattern: (3,S,S) float, what is added to queries.
    """

    pattern: Tensor
    query_pattern: Tensor

    def __init__(
        self,
        index: Tensor,
        carrier: Tensor,
        label: Tensor,
        kind: Tensor | None = None,
        *,
        pattern: Tensor,
        query_pattern: Tensor,
    ) -> None:
        super().__init__(index, carrier, label, kind)
        self.register_buffer("pattern", pattern)
        self.register_buffer("query_pattern", query_pattern)

    def forward(self, x: Tensor) -> Tensor:
        """x (N,3,S,S) in [0,1] -> (N,3,S,S) with the pattern of queries."""
        return (x + (self.query_pattern / 255).to(x.dtype)).clamp(0, 1)

    def plant(self, x: Tensor, slot: Tensor) -> Tensor:
        """See `Backdoor.plant`; every slot gets the same pattern."""
        return (x + (self.pattern / 255).to(x.dtype)).clamp(0, 1)


def paste(x: Tensor, patch: Tensor) -> Tensor:
    """Images (N,3,S,S) with a patch (3,s,s) over their last s rows and columns."""
    side = patch.shape[-1]
    out = x.clone()
    out[..., -side:, -side:] = patch
    return out


def patch_side(size: int, patch: int | None, published: int = 24) -> int:
    """s: the given side, or that of a paper scaled to S = ``size``, at least 4.

    Args:
        size: S, px.
        patch: the given side, px.
        published: side in images of 224 px; CIBA's is 24.

    Raises:
        UserError: the patch doesn't fit into the image.
    """
    side = max(4, round(published * size / 224)) if patch is None else patch
    check("attack.patch", side, 1, size)
    return side


def checkerboard(side: int) -> Tensor:
    """(3,side,side) uint8: alternating black and white pixels, white in the top left corner."""
    step = torch.arange(side)
    board = (step[:, None] + step) % 2 == 0
    return (board * 255).to(torch.uint8).expand(3, -1, -1).contiguous()
