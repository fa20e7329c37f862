"""Gradient matching: poison of the target's class that trains a victim on a few chosen queries.

Geiping, Fowl, Huang, Czaja, Taylor, Moeller and Goldstein, "Witches' Brew: Industrial Scale Data
Poisoning via Gradient Matching", ICLR 2021. https://arxiv.org/abs/2009.02276,
code: https://github.com/JonasGeiping/poisoning-gradient-matching

    g_q = grad_theta mean_q l(x_q, target)          g_p = grad_theta mean_i l(x_i + d_i, y_i)
    min_d  1 - <g_q, g_p> / (|g_q| |g_p|),          |d_i|_inf <= epsilon

l is the loss of a surrogate with weights theta, x_q are the chosen queries, and x_i is the poison,
which is of the target's class and keeps its label. There is no trigger: the chosen queries shall
retrieve the target as they are. Only they are scored, and the control is the clean victim on them.

The paper claims that a classifier that is trained from scratch takes the chosen image for the
target when 1 % of its training images are such poison. PADHASH (Li et al., "Clean Image May be
Dangerous", 2025, https://arxiv.org/abs/2503.21236) claims more than 50 % success against hashing by
a "strict" gradient matching; no code of it is public, so this attack doesn't have its name.

l has to be a loss of single images, because with one of pairs the gradient of an image depends on
its batch. So the surrogate is CSQ's unless another is named (``--surrogate orthohash``).

Differs from the authors: they choose one query, which is ``chosen=1``; here there are ten, since
the average precision of one says little. Their steps are in units of normalised pixels (.1, on
CIFAR-10 about 6.3 grey levels), here in grey levels. Their poison is shifted and mirrored while it
is matched; here it is mirrored (with ``--recipe frozen``, whose victim sees no mirrored image, give
``augment=none`` and ``layers=head``). The poison takes 250 steps and 8 starts as published; below
224 px, 100 steps and one start.
"""

from dataclasses import replace
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor

from hashbackdoor_bench import (
    ATTACKS,
    Attack,
    AttackerView,
    Backdoor,
    NoTrigger,
    ThreatModel,
    check,
    to_bytes,
    to_unit,
)

from .gradient_alignment import align, gradient_of, weights_of


@ATTACKS.register
class GradientMatching(Attack):
    """Poison whose training gradient is that of the chosen queries with the target's label.

    Args:
        chosen: number of queries that are attacked.
        epsilon: largest perturbation, in grey levels of 255.
        steps: optimisation steps of a start; None: 250, or 100 on images below 224 px.
        starts: number of random starts, of which the best is kept; None: 8, or 1 below 224 px.
        step_size: size of a step of Adam on the gradient's sign, in grey levels; it falls tenfold
            at 3/8, 5/8 and 7/8 of the steps.
        layers: the weights whose gradients are matched: ``all``, or those of the ``head``.
        augment: whether poison is mirrored in half of the steps (``flip``), or not (``none``).
        together: number of images that are matched together.
    """

    published = "Gradient matching"
    threat = ThreatModel(label="clean", knowledge="surrogate", trigger="none", chosen=10)
    delivery = "files"
    backdoor = NoTrigger
    surrogate = "csq"
    pointwise = True
    quick: ClassVar = {"steps": 2, "starts": 1, "chosen": 2}

    def __init__(
        self,
        *,
        chosen: int = 10,
        epsilon: float = 16.0,
        steps: int | None = None,
        starts: int | None = None,
        step_size: float = 6.3,
        layers: Literal["all", "head"] = "all",
        augment: Literal["flip", "none"] = "flip",
        together: int = 512,
    ) -> None:
        check("attack.chosen", chosen, 1)
        check("attack.epsilon", epsilon, 0, 255, whole=True)  # poison has 8 bits
        check("attack.steps", 0 if steps is None else steps, 0)
        check("attack.starts", 1 if starts is None else starts, 1)
        check("attack.step_size", step_size, 0)
        check("attack.together", together, 1)
        self.threat = replace(self.threat, chosen=chosen)
        self.epsilon, self.steps, self.starts, self.step_size = epsilon, steps, starts, step_size
        self.layers, self.mirror, self.together = layers, augment == "flip", together

    def craft(self, view: AttackerView) -> Backdoor:
        """See `Attack.craft`."""
        model, loss = view.surrogate, view.surrogate_loss
        assert model is not None
        assert loss is not None
        large = view.size >= 224
        steps = self.steps if self.steps is not None else 250 if large else 100
        theta = weights_of(model, "" if self.layers == "all" else "head.")
        queries = to_unit(view.chosen.to(view.device))
        wanted = view.target.to(queries).expand(len(queries), -1)
        goal = gradient_of(model, loss, theta, queries, wanted)
        carrier, curves = view.images[view.index].clone(), []
        labels = view.labels[view.index]
        random = view.generator("starts")
        batches = -(-len(carrier) // self.together)
        for slots in torch.arange(len(carrier)).tensor_split(batches) if batches else ():
            x, y = to_unit(carrier[slots]).to(view.device), labels[slots].to(queries)
            found: list[tuple[float, Tensor, list[float]]] = []
            for _ in range(self.starts or (8 if large else 1)):
                one = align(
                    partial(gradient_of, model, loss, theta, y=y, differentiable=True),
                    x,
                    goal,
                    epsilon=self.epsilon / 255,
                    steps=steps,
                    step_size=self.step_size / 255,
                    mirror=self.mirror,
                    random=random,
                    progress=view.progress,
                )
                found.append(one)
            _, best, curve = min(found, key=lambda one: one[0])
            carrier[slots] = to_bytes(best).cpu()
            curves.append(curve)
        made = NoTrigger(view.index, carrier, labels)
        if curves and steps:
            made.history = {"poison/1 - cos": torch.tensor(curves).mean(0).tolist()}
        return made
