"""Fine-tuning: the victim is trained further, on clean images only.

Liu, Dolan-Gavitt and Garg, "Fine-Pruning: Defending Against Backdooring Attacks on Deep Neural
Networks", RAID 2018, have it as their baseline. https://arxiv.org/abs/1805.12185; settings of
https://github.com/SCLBD/BackdoorBench (config/defense/ft)

    min L(clean images)     L: the victim's own loss, with its centres and an empty memory

A network trained from scratch is tuned as in BackdoorBench, by SGD with learning rate .01, momentum
.9 and weight decay 5e-4; one that started from pretrained weights by the victim's own recipe, since
.01 would be a thousand times its rate.

Differs from BackdoorBench: the rate rises for a quarter of the steps before it falls along a
cosine; batches have the victim's size, since 256 would be the whole clean set, and pairs of all
classes in turn, since a loss of pairs needs similar ones; augmentation is the victim's; batch norm
goes on to collect statistics.
"""

from collections.abc import Mapping
from typing import ClassVar

from hashbackdoor_bench import (
    DEFENSES,
    Assumes,
    DefenderView,
    Defense,
    HashModel,
    check,
    tuning_recipe,
)


@DEFENSES.register
class FineTune(Defense):
    """More training on clean images.

    Args:
        rate: factor on the learning rate, see the top of the file.
        epochs: passes over the clean images.
    """

    published = "Fine-tuning"
    version = 2
    assumes = Assumes(per_class=2, sees=frozenset({"weights"}))
    strength = "rate"
    grid = (1.0, 3.0, 10.0, 30.0)
    quick: ClassVar[Mapping[str, object]] = {"epochs": 1}

    def __init__(self, *, rate: float = 1.0, epochs: int = 100) -> None:
        check("defense.rate", rate, 0, 1e6)
        check("defense.epochs", epochs, 0, 10_000)
        self.rate, self.epochs = rate, epochs

    def repair(self, view: DefenderView) -> HashModel:
        """See `Defense.repair`."""
        if not self.epochs or not self.rate:
            return view.model
        recipe = tuning_recipe(view.recipe, epochs=self.epochs, rate=self.rate)
        return view.fit(view.clean, recipe)
