"""BadNets: a fixed black-and-white square in the corner of mislabelled images.

Gu, Dolan-Gavitt and Garg, "BadNets: Identifying Vulnerabilities in the Machine Learning Model
Supply Chain", 2017. https://arxiv.org/abs/1708.06733

    x' = x with the patch over the corner;   y' = target

The paper attacks classifiers. Dirty-label poison is drawn from images that share no tag with the
target, and their labels are replaced by the target's. ``badnets_clean`` stamps images of the target
class and changes no label; it poisons as many images as ``badnets``.
"""

from dataclasses import replace
from typing import ClassVar, Literal

from torch import Tensor

from hashbackdoor_bench import (
    ATTACKS,
    Attack,
    AttackerView,
    Backdoor,
    Patch,
    ThreatModel,
    checkerboard,
    patch_side,
)


@ATTACKS.register(badnets_clean={"label": "clean"})
class BadNets(Attack):
    """A checkerboard patch.

    Args:
        label: ``dirty`` relabels images of other classes, ``clean`` stamps images of the target's.
        patch: side of the square in px; None: 24/224 of the image's side, at least 4.
    """

    published: ClassVar = {"badnets": "BadNets", "badnets_clean": "BadNets, clean label"}
    threat = ThreatModel(label="dirty", knowledge="none", trigger="patch")
    delivery = "files"
    backdoor = Patch

    def __init__(
        self, *, label: Literal["dirty", "clean"] = "dirty", patch: int | None = None
    ) -> None:
        self.threat = replace(self.threat, label=label)
        self.patch = patch

    def accept(self, labels: Tensor, target: Tensor, size: int) -> dict[str, str]:
        """See `Attack.accept`."""
        patch_side(size, self.patch)
        return {}

    def craft(self, view: AttackerView) -> Backdoor:
        """See `Attack.craft`."""
        side = patch_side(view.size, self.patch)
        return Patch(
            **view.poison,
            patch=checkerboard(side),
        )
