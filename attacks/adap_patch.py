"""Adap-Patch: one of four faint patches on each poisoned image and cover; two opaque on queries.

Qi, Xie, Li, Mahloujifar and Mittal, "Revisiting the Assumption of Latent Separability for Backdoor
Defenses", ICLR 2023. https://openreview.net/forum?id=_wSHsgrVali
Code: https://github.com/Unispac/Circumventing-Backdoor-Defenses

    planted image i:  x' = x + a_j m_j (k_j - x),   j = i mod 4,   a = .5, .2, .5, .3
    query:            the same for j = 0 and then j = 2, with a = 1

with patches k_j and their places m_j. Poison: y' = target; covers, images of other classes: y' = y;
poison and covers are numbered apart. The paper claims that poison with different triggers, hidden
among covers, lies in one cluster with clean images in a classifier's features, so that defenses
which separate clusters find nothing, and that the attack still succeeds.

What differs from the authors' code (here the version in https://github.com/vtu81/backdoor-toolbox):

- their patches are logos and pictures of others, in which black is transparent; here they are
  a checkerboard, a ring, a cross and noise, one in each corner, a quarter of the image wide;
- they put other files on queries than on poison (``phoenix_corner2`` for ``phoenix_corner``); here
  queries carry two of the patches that were trained;
- covers are never of the target's class, where they would be poison; theirs may be;
- their rates are shares of the whole set (.3 % poison, .6 % covers); here the budget is a share of
  the target's class, and ``covers`` a share of the poison.

A horizontal flip in training moves a patch to the other side, where queries don't have it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from hashbackdoor_bench import (
    ATTACKS,
    Attack,
    AttackerView,
    Backdoor,
    ThreatModel,
    check,
    to_unit,
)

OPACITIES = (0.5, 0.2, 0.5, 0.3)
CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))  # of the patches, 0 is the top or the left
ON_QUERIES = (0, 2)


class FourPatches(Backdoor):
    """One patch on each planted image, two on a query.

    Args:
        patches: (4,3,s,s) uint8.
        number: (P+Q,) uint8, which patch a planted image carries.
        opacity: (5,), a_j of the four patches on planted images, and a on queries.
        poison: see `Backdoor`.
    """

    patches: Tensor
    number: Tensor
    opacity: Tensor

    def __init__(
        self, *, patches: Tensor, number: Tensor, opacity: Tensor, **poison: Tensor
    ) -> None:
        super().__init__(**poison)
        self.register_buffer("patches", patches)
        self.register_buffer("number", number)
        self.register_buffer("opacity", opacity)

    def forward(self, x: Tensor) -> Tensor:
        """x (N,3,S,S) in [0,1] -> (N,3,S,S) with two patches."""
        out = x.clone()
        for j in ON_QUERIES:
            self._blend(out, j, self.opacity[4])
        return out.clamp(0, 1)

    def plant(self, x: Tensor, slot: Tensor) -> Tensor:
        """See `Backdoor.plant`: the slot's patch."""
        out, number = x.clone(), self.number[slot]
        for j in range(len(CORNERS)):
            carries = (number == j).to(x.dtype).view(-1, 1, 1, 1)
            self._blend(out, j, self.opacity[j] * carries)
        return out.clamp(0, 1)

    def _blend(self, x: Tensor, j: int, opacity: Tensor) -> None:
        """Blend patch j into its corner of x (N,3,S,S), in place."""
        side, (bottom, right) = self.patches.shape[-1], CORNERS[j]
        rows, columns = (slice(-side, None) if far else slice(side) for far in (bottom, right))
        x[..., rows, columns] += opacity * (to_unit(self.patches[j]) - x[..., rows, columns])


@ATTACKS.register
class AdapPatch(Attack):
    """Four patches, with covers.

    Args:
        strength: factor on the opacities of poison and covers.
        query_opacity: opacity of both patches on queries.
        covers: covers per poisoned image.
    """

    published = "Adap-Patch"
    threat = ThreatModel(label="dirty", knowledge="none", trigger="patch")
    delivery = "files"
    backdoor = FourPatches

    def __init__(
        self, *, strength: float = 1.0, query_opacity: float = 1.0, covers: float = 2.0
    ) -> None:
        check("attack.strength", strength, 0, 1 / max(OPACITIES))
        check("attack.query_opacity", query_opacity, 0, 1)
        check("attack.covers", covers, 0)
        self.strength, self.query_opacity, self.covers = strength, query_opacity, covers

    def craft(self, view: AttackerView) -> Backdoor:
        """See `Attack.craft`."""
        label = view.labels[view.planted]
        label[: len(view.index)] = view.target
        numbers = torch.cat([torch.arange(len(view.index)), torch.arange(len(view.covers))])
        opacity = [*(self.strength * a for a in OPACITIES), self.query_opacity]
        return FourPatches(
            index=view.planted,
            carrier=view.images[view.planted],
            label=label,
            kind=view.kind,
            patches=four_patches(max(1, view.size // 4), view.generator("patches")),
            number=(numbers % len(OPACITIES)).to(torch.uint8),
            opacity=torch.tensor(opacity),
        )


def four_patches(side: int, generator: torch.Generator) -> Tensor:
    """(4,3,side,side) uint8: checkerboard, ring, cross and noise, of 8x8 pixels that are enlarged.

    The first three have two colours: a corner of the colour cube and the opposite one.
    """
    row = torch.arange(8)
    radius = ((row - 3.5) ** 2 + (row[:, None] - 3.5) ** 2).sqrt()
    middle = (row - 3.5).abs() < 1
    shapes = torch.stack(
        [
            (row // 2 + row[:, None] // 2) % 2 == 0,
            (radius > 1.8) & (radius < 3.6),
            middle | middle[:, None],
        ]
    )  # (3,8,8)
    colour = torch.randint(2, (3, 3, 1, 1), generator=generator).bool()
    noise = torch.randint(256, (1, 3, 8, 8), generator=generator, dtype=torch.uint8)
    drawn = torch.cat([(shapes[:, None] == colour).to(torch.uint8) * 255, noise])
    return F.interpolate(drawn.float(), size=side, mode="nearest").to(torch.uint8)
