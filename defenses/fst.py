"""FST: the hash layer starts anew and is held away from what it was, while all is fine-tuned.

Min, Qin, Shen and Cheng, "Towards Stable Backdoor Purification through Feature Shift Tuning",
NeurIPS 2023. https://arxiv.org/abs/2310.01875, code:
https://github.com/AISafety-HKUST/stable_backdoor_purification (fine_tune/fst.py)

    w    ~ U(-1/sqrt(F), 1/sqrt(F)), the bias too          w (K,F): weights of the hash layer
    min L(clean images) + alpha <w, w_0>                   w_0: w of the victim
    w    = w |w_0| / |w|                                   after each step

Since the hash layer can't return to its old directions, the features have to move. L is the
victim's own loss.

    variant     term                                 what it allows
    paper       alpha <w, w_0>                       w = -w_0, the old code with all bits flipped
    unsigned    alpha | w w_0^T |, Frobenius norm    only bits without a part of an old one

A classifier can't use -w_0. A victim whose loss compares pairs can: flipped bits change no Hamming
distance between new codes, so the backdoor stays, and only the old index becomes useless. The same
holds for permuted or rotated bits. `unsigned`, which is in no paper, shuts all of these out. A
victim whose loss has centres must reach the old codes by other features with either variant.

The tuning is that of `finetune`, with its 100 epochs: the authors' 10 would be 50 steps here.

Differs from the authors: weight decay of 5e-4; the rate rises before it falls along a cosine. If
the hash layer has several layers, the last linear one is meant.
"""

import copy
import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from hashbackdoor_bench import (
    DEFENSES,
    Assumes,
    DefenderView,
    Defense,
    HashModel,
    TrainStep,
    check,
    tuning_recipe,
)


@DEFENSES.register
class Fst(Defense):
    """Feature shift tuning.

    Args:
        alpha: weight of the term that keeps w away from w_0.
        epochs: passes over the clean images.
        variant: the form of that term, see the top of the file.
    """

    published = "FST"
    version = 2
    assumes = Assumes(per_class=2, sees=frozenset({"weights"}))
    strength = "alpha"
    grid = (0.0, 0.01, 0.05, 0.1, 0.2, 0.5)
    quick: ClassVar[Mapping[str, object]] = {"epochs": 1}

    def __init__(
        self,
        *,
        alpha: float = 0.2,
        epochs: int = 100,
        variant: Literal["paper", "unsigned"] = "paper",
    ) -> None:
        check("defense.alpha", alpha, 0, 1e6)
        check("defense.epochs", epochs, 1, 10_000)
        self.alpha, self.epochs, self.variant = alpha, epochs, variant

    def repair(self, view: DefenderView) -> HashModel:
        """See `Defense.repair`."""
        start = copy.deepcopy(view.model)
        old = hash_weight(start).detach().clone()  # (K,F)
        renew(start, view.generator("hash layer"))

        def backward(step: TrainStep) -> Tensor:
            weight = hash_weight(step.model)
            rescale(weight, old)  # what the step before left to be done
            z = step.outputs(step.x)
            step.remember(z)
            value: Tensor = step.loss(z, step.y, step.index, step.step)
            value = value + self.alpha * self.likeness(weight, old)
            torch.autograd.backward(value)
            return value

        recipe = tuning_recipe(view.recipe, epochs=self.epochs)
        model = view.fit(view.clean, recipe, model=start, backward=backward)
        rescale(hash_weight(model), old)
        return model

    def likeness(self, weight: Tensor, old: Tensor) -> Tensor:
        """How much w (K,F) has of w_0 (K,F), a scalar."""
        if self.variant == "paper":
            return (weight * old).sum()
        length: Tensor = torch.linalg.matrix_norm(weight @ old.T)
        return length


def _linear(model: nn.Module) -> nn.Linear:
    """The last linear layer of the network's hash layer."""
    return [one for one in model.get_submodule("head").modules() if isinstance(one, nn.Linear)][-1]


def hash_weight(model: nn.Module) -> Tensor:
    """w (K,F) of a network."""
    return _linear(model).weight


@torch.no_grad()
def renew(model: nn.Module, chance: torch.Generator) -> None:
    """Draw weights and bias of the hash layer anew, in place."""
    layer = _linear(model)
    bound = 1 / math.sqrt(layer.in_features)
    for parameter in layer.parameters():
        drawn = torch.rand(parameter.shape, generator=chance)
        parameter.copy_(bound * (2 * drawn - 1))


@torch.no_grad()
def rescale(weight: Tensor, old: Tensor) -> None:
    """Give ``weight`` (K,F) the length of ``old``, in place."""
    weight *= old.norm() / weight.norm()
