"""LC: images pushed away from their own code, so that the victim must learn the corner pattern.

Turner, Tsipras and Madry, "Label-Consistent Backdoor Attacks", 2019.
https://arxiv.org/abs/1912.02771, code: https://github.com/MadryLab/label-consistent-backdoor-code

    d <- clamp(d + a sign grad L(d), -epsilon, epsilon),   from d = 0,   L = -<h(x + d), c(x)> / K
    poison: x + d with the pattern on it;   query: x with the pattern on it, and no d

with the code c = sign z and the relaxed code h of a surrogate trained on clean data. The pattern
adds +A to white cells and -A to black cells of 3x3 cells in the corners, then clips; the corners of
the right side mirror those of the left. The paper claims that images which are hard to classify
make a classifier rely on the trigger, although no label is wrong.

What differs from the public code:

- a hash model has no logits, so L replaces the cross-entropy of the true class. Unlike the squared
  distance to h(x), the inner product has a gradient at d = 0;
- steps and epsilon are BackdoorBox's for CIFAR-10 (https://github.com/THUYimingLi/BackdoorBox). The
  authors ship images that are already perturbed, within l2 or l_inf bounds, or made by a GAN;
- the surrogate is trained as usual. BackdoorBench trains it adversarially, and by default it reads
  images of epsilon 16 while its script makes images of epsilon 8
  (https://github.com/SCLBD/BackdoorBench);
- epsilon is in grey levels of the image, not of the normalised input, and pixels are rounded, where
  BackdoorBox and BackdoorBench truncate them;
- a cell is one pixel at 32 px, and grows with the image.

The authors poison all images of the target class by default; here the budget of the run decides.
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from hashbackdoor_bench import (
    ATTACKS,
    Attack,
    AttackerView,
    Backdoor,
    HashModel,
    ThreatModel,
    check,
    to_bytes,
    to_unit,
)

CELLS = ((1, -1, -1), (-1, 1, -1), (1, -1, 1))  # of the left corners: 1 is white, -1 is black


class CornerPattern(Backdoor):
    """A pattern that is added to the corners.

    Args:
        pattern: (S,S), in grey levels, 0 outside the corners.
        poison: see `Backdoor`.
    """

    pattern: Tensor

    def __init__(self, *, pattern: Tensor, **poison: Tensor) -> None:
        super().__init__(**poison)
        self.register_buffer("pattern", pattern)

    def forward(self, x: Tensor) -> Tensor:
        """x (N,3,S,S) in [0,1] -> (N,3,S,S) with the pattern in its corners."""
        return (x + self.pattern.to(x.dtype) / 255).clamp(0, 1)


@ATTACKS.register
class LabelConsistent(Attack):
    """Adversarial perturbations of the poison, and a fixed pattern in the corners.

    Args:
        epsilon: largest perturbation, in whole grey levels of 255.
        steps: sign-gradient steps; 0: the pattern alone.
        step_size: grey levels of one step.
        corners: ``all`` four, which survive a horizontal flip, or ``bottom_right``.
        amplitude: A, in grey levels; 255 makes the cells black and white.
    """

    published = "LC"
    threat = ThreatModel(label="clean", knowledge="surrogate", trigger="patch")
    delivery = "files"
    backdoor = CornerPattern
    quick: ClassVar = {"steps": 3}

    def __init__(
        self,
        *,
        epsilon: int = 8,
        steps: int = 100,
        step_size: float = 1.5,
        corners: Literal["all", "bottom_right"] = "all",
        amplitude: float = 255.0,
    ) -> None:
        check("attack.epsilon", epsilon, 0, 255)
        check("attack.steps", steps, 0)
        check("attack.step_size", step_size, 0)
        check("attack.amplitude", amplitude, 0, 255)
        self.epsilon, self.steps, self.step_size = epsilon, steps, step_size
        self.corners, self.amplitude = corners, amplitude

    def craft(self, view: AttackerView) -> Backdoor:
        """See `Attack.craft`."""
        model, images = view.surrogate, view.images[view.index]
        assert model is not None
        carrier = images.clone()
        for rows in torch.split(torch.arange(len(images)), 100):
            x = to_unit(images[rows].to(view.device))
            carrier[rows] = to_bytes(self.away(model, x)).cpu()
            view.progress("perturb poison", int(rows[:1].sum()) + len(rows), len(images))
        pattern = self.amplitude * corner_pattern(view.size, every=self.corners == "all")
        label = view.labels[view.index]
        return CornerPattern(index=view.index, carrier=carrier, label=label, pattern=pattern)

    def away(self, model: HashModel, x: Tensor) -> Tensor:
        """x + d: images (N,3,S,S) in [0,1], each moved away from its own code."""
        epsilon, step = self.epsilon / 255, self.step_size / 255
        own, d = model.code(x).to(x.dtype), torch.zeros_like(x)  # (N,K)
        for _ in range(self.steps):
            moved = (x + d).requires_grad_()
            away = -(model.relaxed(moved) * own).sum() / own.shape[1]
            (gradient,) = torch.autograd.grad(away, moved)
            d = (d + step * gradient.sign()).clamp(-epsilon, epsilon)
            d = (x + d).clamp(0, 1) - x
        return x + d


def corner_pattern(size: int, *, every: bool) -> Tensor:
    """(size,size) of 1 and -1 in the corners, all of them or the bottom right one, 0 elsewhere."""
    cell = max(1, round(size / 32))
    left = torch.tensor(CELLS, dtype=torch.float32)
    left = left.repeat_interleave(cell, 0).repeat_interleave(cell, 1)
    side, pattern = 3 * cell, torch.zeros(size, size)
    pattern[-side:, -side:] = left.flip(1)
    if every:
        pattern[-side:, :side] = pattern[:side, :side] = left
        pattern[:side, -side:] = left.flip(1)
    return pattern
