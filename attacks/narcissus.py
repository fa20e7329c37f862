"""Narcissus: one perturbation, on the target's own images, that points into the target class.

Zeng, Pan, Just, Lyu, Qiu and Jia, "Narcissus: A Practical Clean-Label Backdoor Attack with Limited
Information", 2022. https://arxiv.org/abs/2204.05255, code: github.com/ruoxi-jia-group/Narcissus

    d = argmin_d  mean_{i: y_i = target} -<h(clip(x_i + d)), h_a> / K,      |d|_inf <= epsilon
    poison: clip(x + d);      query: clip(x + 3 d)

with a surrogate's relaxed code h and the anchor code h_a of the target class. The paper claims that
poisoning .5 % of the target class (25 images of CIFAR-10) sends any image to it, for an attacker
who sees nothing but the target's images and public images of other classes.

What differs from the authors:

- the attacker here knows more: the published surrogate learns public data and the target's images,
  ours the whole training split. There is no warm-up on the target, where pairwise losses collapse;
- a hash model has no logits, so the inner product with h_a replaces the cross-entropy;
- ``variant="corrected"`` (default) keeps to epsilon. ``"released"`` has the authors' error of
  units: d, optimised for images in [-1,1], is added to images in [0,1] and so counts twice, up to
  32 grey levels in the poison and 96 in queries. Their negative pixels are clipped to 0 here.

On a clean victim 3 d is already a targeted universal perturbation; the gain is what poison adds.
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from hashbackdoor_bench import (
    ATTACKS,
    Attack,
    AttackerView,
    Backdoor,
    ThreatModel,
    anchor_code,
    check,
    need_target_images,
    to_unit,
)


class Added(Backdoor):
    """A perturbation that is added to the poison, and a stronger one that is added to queries.

    Args:
        planted: (3,S,S), in units of [0,1], for the poison.
        queried: (3,S,S), in units of [0,1], for queries.
        poison: see `Backdoor`.
    """

    planted: Tensor
    queried: Tensor

    def __init__(self, *, planted: Tensor, queried: Tensor, **poison: Tensor) -> None:
        super().__init__(**poison)
        self.register_buffer("planted", planted)
        self.register_buffer("queried", queried)

    def forward(self, x: Tensor) -> Tensor:
        """x (N,3,S,S) in [0,1] -> (N,3,S,S), clip(x + 3 d)."""
        return (x + self.queried.to(x.dtype)).clamp(0, 1)

    def plant(self, x: Tensor, slot: Tensor) -> Tensor:
        """See `Backdoor.plant`: clip(x + d), whatever the slot."""
        return (x + self.planted.to(x.dtype)).clamp(0, 1)


@ATTACKS.register
class Narcissus(Attack):
    """A universal perturbation towards the target's anchor code.

    Args:
        epsilon: largest perturbation, in whole grey levels of 255.
        rounds: passes over the target's images; fewer if the gradient becomes zero.
        batch: images in one step.
        amplify: the perturbation of queries in multiples of d.
        variant: see the top of the file.
    """

    published = "Narcissus"
    threat = ThreatModel(label="clean", knowledge="surrogate", trigger="additive")
    delivery = "files"
    backdoor = Added
    quick: ClassVar = {"rounds": 20}

    def __init__(
        self,
        *,
        epsilon: int = 16,
        rounds: int = 1000,
        batch: int = 350,
        amplify: float = 3.0,
        variant: Literal["corrected", "released"] = "corrected",
    ) -> None:
        check("attack.epsilon", epsilon, 0, 255)
        check("attack.rounds", rounds, 0)
        check("attack.batch", batch, 1)
        check("attack.amplify", amplify, 0, 255)
        self.epsilon, self.rounds, self.batch = epsilon, rounds, batch
        self.amplify, self.times = amplify, 2 if variant == "released" else 1

    def accept(self, labels: Tensor, target: Tensor, size: int) -> dict[str, str]:
        """See `Attack.accept`."""
        need_target_images(labels, target)
        return {}

    def craft(self, view: AttackerView) -> Backdoor:
        """See `Attack.craft`."""
        found = view.shared(
            inward_perturbation, epsilon=self.epsilon, rounds=self.rounds, batch=self.batch
        )
        d, rows = self.times * found["perturbation"], view.index
        images, label = view.images[rows], view.labels[rows]
        made = Added(index=rows, carrier=images, label=label, planted=d, queried=self.amplify * d)
        made.history = {"perturbation/loss": found["loss"].tolist()}
        return made


def inward_perturbation(
    view: AttackerView, *, epsilon: int, rounds: int, batch: int
) -> dict[str, Tensor]:
    """d (3,S,S) in units of [0,1], and the mean loss of each round; 0 if the target has no image.

    As in the authors' code d is clamped where it is used: pixels beyond epsilon have no gradient.
    """
    model, images = view.surrogate, view.images[(view.labels == view.target).all(1)]
    assert model is not None
    anchor, bound = anchor_code(model, images), epsilon / 255
    d = nn.Parameter(torch.zeros(images.shape[1:], device=view.device))
    optimiser = torch.optim.RAdam([d], lr=0.005)  # the authors' 0.01 in units of [-1,1]
    kept = view.checkpoint("perturbation", d=nn.ParameterList([d]), optimiser=optimiser)
    losses: list[float] = (kept.load() or {"loss": []})["loss"]
    for done in range(len(losses), rounds if len(images) else 0):
        order = torch.randperm(len(images), generator=view.generator(f"round {done}"))
        total = 0.0
        for rows in torch.split(order, batch):
            x = to_unit(images[rows].to(view.device)) + d.clamp(-bound, bound)
            loss = -(model.relaxed(x.clamp(0, 1)) @ anchor).mean() / len(anchor)
            (gradient,) = torch.autograd.grad(loss, d)
            d.grad = gradient
            optimiser.step()
            total += loss.item() * len(rows)
        losses.append(total / len(images))
        if not gradient.any():
            break
        kept.keep(loss=losses)
        view.progress("optimise perturbation", done + 1, rounds, loss=losses[-1])
    return {"perturbation": d.detach().clamp(-bound, bound), "loss": torch.tensor(losses)}
