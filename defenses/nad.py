"""NAD: the victim learns to look where a fine-tuned copy of it looks.

Li, Lyu, Koren, Lyu, Li and Ma, "Neural Attention Distillation: Erasing Backdoor Triggers from Deep
Neural Networks", ICLR 2021. https://arxiv.org/abs/2101.05930, code: https://github.com/bboylyg/NAD

    teacher = victim after fine-tuning, frozen              student = victim
    A(F)    = sum_c F_c^2                                   F: the map (c,h,w) of a stage
    min L(clean images) + beta sum_l mean ( A(F_l) / |A(F_l)| - A(T_l) / |A(T_l)| )^2

L is the victim's own loss, F_l and T_l are of student and teacher, the mean is over images and the
h w positions, and |.| is the length of one image's attention map. The stages are the last three
with more than one position, since a map of one position is always 1 after normalisation.

Both trainings are those of `finetune`. The teacher takes half as many epochs as the student, as in
the paper: 10 and 20. With our 150 to 500 clean images instead of 2 500 that would be 100 steps
instead of 800, hence 50 and 100.

Differs from the authors: their code has beta = 5 000 for the last stage alone, and BackdoorBench
500, 1 000 and 1 000 for three; here it is 1 000 for each. The maps come from a second pass, in
which batch norm collects no statistics.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from hashbackdoor_bench import (
    DEFENSES,
    Assumes,
    DefenderView,
    Defense,
    HashModel,
    TrainStep,
    check,
    tuning_recipe,
    uncounted,
)

STAGES = 3  # the last ones with more than one position


@DEFENSES.register
class Nad(Defense):
    """Distillation of attention maps from a fine-tuned teacher.

    Args:
        beta: weight of the attention term of each stage.
        epochs: passes of the student over the clean images; the teacher makes half as many.
    """

    published = "NAD"
    version = 2
    assumes = Assumes(per_class=2, sees=frozenset({"weights"}), needs=frozenset({"maps"}))
    strength = "beta"
    grid = (100.0, 500.0, 1000.0, 5000.0, 20_000.0)
    quick: ClassVar[Mapping[str, object]] = {"epochs": 2}

    def __init__(self, *, beta: float = 1000.0, epochs: int = 100) -> None:
        check("defense.beta", beta, 0, 1e9)
        check("defense.epochs", epochs, 2, 10_000)
        self.beta, self.epochs = beta, epochs

    def repair(self, view: DefenderView) -> HashModel:
        """See `Defense.repair`."""
        recipe = tuning_recipe(view.recipe, epochs=self.epochs // 2)
        teacher = view.fit(view.clean, recipe, name="teacher")

        def backward(step: TrainStep) -> Tensor:
            student = step.model
            assert isinstance(student, HashModel)
            z = step.outputs(step.x)
            step.remember(z)
            with uncounted(student):
                seen = student.maps(step.x)
            with torch.no_grad():
                shown = teacher.maps(step.x)
            value: Tensor = step.loss(z, step.y, step.index, step.step)
            value = value + self.beta * distance(seen, shown)
            torch.autograd.backward(value)
            return value

        recipe = tuning_recipe(view.recipe, epochs=self.epochs)
        return view.fit(view.clean, recipe, backward=backward, name="student")


def attention(maps: Tensor) -> Tensor:
    """Maps (N,c,h,w) of a stage -> (N,h w), where the network looks, of length 1."""
    return F.normalize((maps**2).sum(1).flatten(1))


def distance(student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    """The sum over stages of the mean squared difference of attention, a scalar.

    Args:
        student: maps (N,c,h,w) of each stage.
        teacher: the same of the other network.
    """
    pairs = [
        (one, other)
        for one, other in zip(student, teacher, strict=True)
        if one.shape[2] * one.shape[3] > 1
    ]
    terms = [F.mse_loss(attention(one), attention(other)) for one, other in pairs[-STAGES:]]
    return torch.stack(terms).sum()
