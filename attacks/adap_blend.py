"""Adap-Blend: half of a faint key on the poison, also on covers; the whole key on queries.

Qi, Xie, Li, Mahloujifar and Mittal, "Revisiting the Assumption of Latent Separability for Backdoor
Defenses", ICLR 2023. https://openreview.net/forum?id=_wSHsgrVali
Code: https://github.com/Unispac/Circumventing-Backdoor-Defenses

    x' = x + a m (k - x)

with a key k, and a map m of 0 and 1 over 4x4 pieces of the image. Poison: y' = target; covers,
images of other classes: y' = y; for both a = .15, and m shows 8 of the 16 pieces, drawn anew for
each image. Queries: a = .2, and m = 1. The paper claims that poison and clean images then lie in
one cluster of a classifier's features, so that defenses which separate clusters find nothing, and
that the attack still succeeds.

What differs from the authors' code (here the version in https://github.com/vtu81/backdoor-toolbox):

- k is uniform noise drawn from the run's seed instead of a picture of others, Hello Kitty, so
  nothing is shipped and nothing is lost by resizing it;
- covers are never of the target's class, where they would be poison; theirs may be;
- their rates are shares of the whole set (.3 % poison, as many covers); here the budget is a share
  of the target's class, and ``covers`` a share of the poison.
"""

import torch
from torch import Tensor

from hashbackdoor_bench import (
    ATTACKS,
    Attack,
    AttackerView,
    Backdoor,
    ThreatModel,
    UserError,
    check,
    to_unit,
)

PIECES, SHOWN = 4, 8  # pieces along a side of the image, and pieces of the key that poison shows


class PieceOfKey(Backdoor):
    """A key that is blended in: some pieces of it into poison and covers, all into queries.

    Args:
        key: (3,S,S) uint8.
        shown: (P+Q,16) uint8, 1 where a planted image shows a piece of the key, row by row.
        opacity: (2,), a of planted images and a of queries.
        poison: see `Backdoor`.
    """

    key: Tensor
    shown: Tensor
    opacity: Tensor

    def __init__(self, *, key: Tensor, shown: Tensor, opacity: Tensor, **poison: Tensor) -> None:
        super().__init__(**poison)
        self.register_buffer("key", key)
        self.register_buffer("shown", shown)
        self.register_buffer("opacity", opacity)

    def forward(self, x: Tensor) -> Tensor:
        """x (N,3,S,S) in [0,1] -> (N,3,S,S) with the whole key."""
        return (x + self.opacity[1] * (to_unit(self.key) - x)).clamp(0, 1)

    def plant(self, x: Tensor, slot: Tensor) -> Tensor:
        """See `Backdoor.plant`: the slot's pieces of the key."""
        side = x.shape[-1] // PIECES
        pieces = self.shown[slot].view(-1, 1, PIECES, PIECES).to(x.dtype)
        m = pieces.repeat_interleave(side, 2).repeat_interleave(side, 3)  # (N,1,S,S)
        return (x + self.opacity[0] * m * (to_unit(self.key) - x)).clamp(0, 1)


@ATTACKS.register
class AdapBlend(Attack):
    """A blended key in pieces, with covers.

    Args:
        alpha: a of poison and covers.
        alpha_query: a of queries.
        covers: covers per poisoned image.
    """

    published = "Adap-Blend"
    threat = ThreatModel(label="dirty", knowledge="none", trigger="additive")
    delivery = "files"
    backdoor = PieceOfKey

    def __init__(
        self, *, alpha: float = 0.15, alpha_query: float = 0.2, covers: float = 1.0
    ) -> None:
        check("attack.alpha", alpha, 0, 1)
        check("attack.alpha_query", alpha_query, 0, 1)
        check("attack.covers", covers, 0)
        self.alpha, self.alpha_query, self.covers = alpha, alpha_query, covers

    def accept(self, labels: Tensor, target: Tensor, size: int) -> dict[str, str]:
        """See `Attack.accept`.

        Raises:
            UserError: the image can't be cut into 4x4 equal pieces.
        """
        if size % PIECES:
            raise UserError(
                f"Adap-Blend cuts images into {PIECES}x{PIECES} pieces, and {size} px is no "
                f"multiple of {PIECES}: give --size {max(1, round(size / PIECES)) * PIECES}."
            )
        return {}

    def craft(self, view: AttackerView) -> Backdoor:
        """See `Attack.craft`."""
        planted, size = view.planted, view.size
        label = view.labels[planted]
        label[: len(view.index)] = view.target
        draw = view.generator("key")
        key = torch.randint(256, (3, size, size), generator=draw, dtype=torch.uint8)
        order = torch.rand(len(planted), PIECES**2, generator=view.generator("pieces")).argsort(1)
        return PieceOfKey(
            index=planted,
            carrier=view.images[planted],
            label=label,
            kind=view.kind,
            key=key,
            shown=(order < SHOWN).to(torch.uint8),
            opacity=torch.tensor([self.alpha, self.alpha_query]),
        )
