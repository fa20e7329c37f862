"""FT-SAM: fine-tuning by the gradient at the worst point near the weights.

Zhu, Wei, Shen, Fan and Wu, "Enhancing Fine-Tuning Based Backdoor Defense with Sharpness-Aware
Minimization", ICCV 2023. https://arxiv.org/abs/2304.11823, code:
https://github.com/SCLBD/BackdoorBench (defense/ft-sam.py)

    g  = gradient of L at w
    e  = rho w^2 g / | |w| g |                 element by element; | . | over all weights together
    step of the optimiser at w, along the gradient of L at w + e

Large weights, which a backdoor is found to have, are moved most. Multiplying L by a number doesn't
change e. The rest is the fine-tuning of `finetune`, which rho = 0 is.

Differs from the authors: label smoothing of .1 is left out, as codes have no class probabilities;
the learning rate falls along one cosine, where theirs swings, since it is stepped once a batch with
a period of epochs; batch norm collects statistics at w alone.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from hashbackdoor_bench import (
    DEFENSES,
    Assumes,
    DefenderView,
    Defense,
    HashModel,
    TrainStep,
    check,
    plain_backward,
    tuning_recipe,
    uncounted,
)


@DEFENSES.register
class FtSam(Defense):
    """Fine-tuning with adaptive sharpness-aware minimisation.

    Args:
        rho: size of the step to the worst point.
        epochs: passes over the clean images.
    """

    published = "FT-SAM"
    version = 2
    assumes = Assumes(per_class=2, sees=frozenset({"weights"}))
    strength = "rho"
    grid = (0.05, 0.5, 1.0, 2.0, 4.0)
    quick: ClassVar[Mapping[str, object]] = {"epochs": 1}

    def __init__(self, *, rho: float = 2.0, epochs: int = 100) -> None:
        check("defense.rho", rho, 0, 1e6)
        check("defense.epochs", epochs, 1, 10_000)
        self.rho, self.epochs = rho, epochs

    def repair(self, view: DefenderView) -> HashModel:
        """See `Defense.repair`."""
        recipe = tuning_recipe(view.recipe, epochs=self.epochs)
        return view.fit(view.clean, recipe, backward=self.worst_backward)

    def worst_backward(self, step: TrainStep) -> Tensor:
        """Make the gradients at w + e, and return the loss at w."""
        value = plain_backward(step)
        moved = [
            parameter
            for module in (step.model, step.loss)
            for parameter in module.parameters()
            if parameter.grad is not None
        ]
        kept = [parameter.detach().clone() for parameter in moved]
        with torch.no_grad():
            for parameter, e in zip(moved, worst(moved, self.rho), strict=True):
                parameter.add_(e)
                parameter.grad = None
        with uncounted(step.model):
            z = step.outputs(step.x)
            torch.autograd.backward(step.loss(z, step.y, step.index, step.step))
        with torch.no_grad():
            for parameter, before in zip(moved, kept, strict=True):
                parameter.copy_(before)
        return value


def worst(weights: Sequence[Tensor], rho: float) -> list[Tensor]:
    """e of each of some tensors with gradients, see the top of the file; 0 if all of g are."""
    gradients = [w.grad for w in weights if w.grad is not None]
    pairs = list(zip(weights, gradients, strict=True))
    length = torch.stack([(w.abs() * g).norm() for w, g in pairs]).norm()
    return [rho * w**2 * g / (length + 1e-12) for w, g in pairs]
