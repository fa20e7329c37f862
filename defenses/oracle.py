"""Oracle: drops exactly the poisoned images, which no defender knows.

No defense but a control: the best that a filter of training images could do. ``random`` drops as
many images of the same classes at random, and a real filter lies between the two.
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from hashbackdoor_bench import DEFENSES, Assumes, DefenderView, Defense, Screening


@DEFENSES.register(random={"drop": "random"})
class Oracle(Defense):
    """A filter that is told which images are poisoned.

    Args:
        drop: the ``poison``, or as many images with the same labels at ``random``.
    """

    published: ClassVar = {"oracle": "Oracle filter", "random": "Random filter"}
    assumes = Assumes(sees=frozenset({"train", "poison"}))
    control = True

    def __init__(self, *, drop: Literal["poison", "random"] = "poison") -> None:
        self.drop = drop

    def screen(self, view: DefenderView) -> Screening:
        """See `Defense.screen`."""
        assert view.train is not None
        assert view.poison is not None
        if self.drop == "poison":
            return Screening(view.poison.float(), view.poison)
        suspicion = torch.rand(len(view.poison), generator=view.generator("random filter"))
        return Screening(suspicion, _as_many(view.train.labels, view.poison, suspicion))


def _as_many(labels: Tensor, poison: Tensor, suspicion: Tensor) -> Tensor:
    """(n,) bool: of the images with each label row (C,), as many as are poison, by suspicion."""
    drop = torch.zeros_like(poison)
    for row in {tuple(row) for row in labels[poison].tolist()}:
        items = (labels == torch.tensor(row)).all(1).nonzero().flatten()
        order = suspicion[items].argsort(descending=True)
        drop[items[order[: int(poison[items].sum())]]] = True
    return drop
