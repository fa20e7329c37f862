"""HTBA: poison that looks like the target and has the features of the trigger, which it hides.

Saha, Subramanya and Pirsiavash, "Hidden Trigger Backdoor Attacks", AAAI 2020.
https://arxiv.org/abs/1910.00033, code: https://github.com/UMBCvision/Hidden-Trigger-Backdoor-Attacks

    min_d  sum_i || f(x_i + d_i) - f(s_p(i) with patch) ||^2,      |d_i|_inf <= epsilon

x_i is an image of the target and keeps its label; s_j is an image of the source class with the
patch at a random place; f are the surrogate's features; p pairs poison and sources one to one and
is computed anew in each step, see ``htba_matching.py``. No training image shows the patch; queries
of the source class carry it, at a place that depends on their pixels.

The paper claims that a network that fine-tunes its last layer on such poison takes patched sources
for the target. It needs features that stay as they are (``--recipe frozen``). A victim that trains
all of its layers learns to tell them apart, and t-MAP stays near its controls. That is its limit.

``match`` says what is matched: the features before the hash layer as in the paper, or (our choice)
the hash layer's output ``z``, or the relaxed ``code`` h with -<h_i, h_j> / K as the distance.

Differs from the authors:
- their step is the raw gradient times .01, halved every 1000 of 5000 steps, and so depends on the
  scale of f (``variant="released"``); here it is epsilon / 10 along the gradient's sign. Both are
  halved at each fifth of the steps, which is theirs at 5000;
- they pair greedily, and fail where two distances are equal; here the sum of distances is least;
- they stop when no pair is farther apart than 10, and keep the nearest half of their poison; here
  all steps are taken and all poison is kept, because the framework chooses it;
- they truncate poison to 8 bits, here it is rounded; they draw one place per batch of queries.

The poison takes 5000 steps as published, and 100 on images below 224 px. The patch is 4 x 4 random
colours, enlarged to 30/224 of the image's side, as in the paper.
"""

from dataclasses import replace
from typing import ClassVar, Literal

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
    patch_side,
    to_bytes,
    to_unit,
)

from .htba_matching import Match, approach
from .htba_patch import RoamingPatch, coloured_patch, paste_at

PAPER_SIDE = 30  # px of 224


@ATTACKS.register
class HTBA(Attack):
    """Images of the target with the features of patched sources.

    Args:
        match: what poison and patched sources have in common, see the top of the file.
        source: class whose queries are attacked, by name or number; ``random`` draws one from the
            seed, and ``all`` attacks, and takes sources from, all classes but the target's.
        epsilon: largest perturbation, in grey levels of 255.
        steps: optimisation steps; None: 5000, or 100 on images below 224 px.
        together: number of images that are paired and perturbed together.
        patch: side of the patch in px; None: 30/224 of the image's side, at least 4.
        variant: see the top of the file.
    """

    published = "HTBA"
    threat = ThreatModel(label="clean", knowledge="surrogate", trigger="patch", source="random")
    delivery = "files"
    backdoor = RoamingPatch
    quick: ClassVar = {"steps": 3}

    def __init__(
        self,
        *,
        match: Match = "features",
        source: str = "random",
        epsilon: float = 16.0,
        steps: int | None = None,
        together: int = 100,
        patch: int | None = None,
        variant: Literal["corrected", "released"] = "corrected",
    ) -> None:
        check("attack.epsilon", epsilon, 0, 255, whole=True)  # poison has 8 bits
        check("attack.steps", 0 if steps is None else steps, 0)
        check("attack.together", together, 1)
        self.threat = replace(self.threat, source=source)
        self.match, self.epsilon, self.steps, self.together = match, epsilon, steps, together
        self.patch, self.released = patch, variant == "released"

    def accept(self, labels: Tensor, target: Tensor, size: int) -> dict[str, str]:
        """See `Attack.accept`."""
        patch_side(size, self.patch, PAPER_SIDE)
        return {}

    def craft(self, view: AttackerView) -> Backdoor:
        """See `Attack.craft`."""
        side = patch_side(view.size, self.patch, PAPER_SIDE)
        patch = coloured_patch(side, view.generator("patch"))
        sources, draw = self.sources(view), view.generator("sources")
        steps = self.steps if self.steps is not None else 5000 if view.size >= 224 else 100
        carrier = view.images[view.index].clone()
        curves = []
        batches = -(-len(carrier) // self.together)
        for slots in torch.arange(len(carrier)).tensor_split(batches) if batches else ():
            rows = sources[torch.randint(len(sources), (len(slots),), generator=draw)]
            places = torch.randint((view.size - side + 1) ** 2, (len(rows),), generator=draw)
            x, s = (to_unit(part.to(view.device)) for part in (carrier[slots], view.images[rows]))
            assert view.surrogate is not None
            found, curve = approach(
                view.surrogate,
                x,
                paste_at(s, to_unit(patch.to(view.device)), places.to(view.device)),
                match=self.match,
                epsilon=self.epsilon / 255,
                steps=steps,
                released=self.released,
                progress=view.progress,
            )
            carrier[slots] = to_bytes(found).cpu()
            curves.append(curve)
        made = RoamingPatch(view.index, carrier, view.labels[view.index], patch=patch)
        if curves and steps:
            made.history = {"poison/distance": torch.tensor(curves).mean(0).tolist()}
        return made

    def sources(self, view: AttackerView) -> Tensor:
        """(J,) long: the training images of the source class without the target's tags.

        Raises:
            UserError: there is none.
        """
        labels = view.labels.bool()
        found = ~(labels & view.target.bool()).any(1)
        if view.source is not None:
            found &= (labels & view.source.bool()).any(1)
        if not found.any():
            raise UserError(
                f"attack.source {self.threat.source!r} has no training image without the target's "
                "tag: give another class, or random."
            )
        return found.nonzero().flatten()
