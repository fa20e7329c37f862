"""DECREE: a model is suspicious if a small pattern gives all images nearly the same code.

Feng, Tao, Cheng, Shen, Xu, Liu, Zhang, Ma and Zhang, "Detecting Backdoors in Pre-trained Encoders",
CVPR 2023. https://arxiv.org/abs/2303.15180, code: https://github.com/GiantSeaweed/DECREE (main.py)

    x'_i = (1 - m) x_i + m p              m (S,S) and p (3,S,S) in [0,1], the same for all images
    min over m, p:  -mean_{i != j} cos(u'_i, u'_j) + lambda |m|_1        u'_i = relax(z(x'_i) / 10)
    PL1   = smallest |m|_1 / S^2 of a step in which the mean cosine is above .99; 1 if none is
    score = 1 - PL1

m and p are (1 + tanh) / 2 of what Adam moves. lambda starts at .001; it is multiplied by 5 after
six steps in succession above .99, and divided by 5 after six below. No label, class or target is
used, so the cost doesn't grow with the number of classes.

A hash network has a code for each class and few others, so a clean one needs less of a pattern than
an encoder does. Only the difference from clean models of the same kind says something; the paper's
threshold of PL1 = .1 is for encoders. A trigger that depends on the image isn't looked for.

Differs from the authors: u' is the victim's smooth code instead of an embedding; images are the
defender's, theirs are from the test set; the number of steps is fixed and the rate falls at a fifth
and at half of them, as it does for CLIP; their L1 counts m once for each colour.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hashbackdoor_bench import (
    DEFENSES,
    Assumes,
    DefenderView,
    Defense,
    HashModel,
    Inspection,
    check,
    to_unit,
)

SHARPNESS = 0.1  # of the smooth code: a saturated one has no gradient
FIRST, FACTOR, PATIENCE = 1e-3, 5.0, 5  # of lambda
SMALLEST, LARGEST = 1e-7, 1e5


@DEFENSES.register
class DECREE(Defense):
    """The smallest pattern that makes codes alike.

    Args:
        steps: optimisation steps of the pattern.
        batch: clean images in one step.
        alike: mean cosine of the codes above which a pattern works.
    """

    published = "DECREE"
    assumes = Assumes(clean=2, sees=frozenset({"weights"}))
    quick: ClassVar[Mapping[str, object]] = {"steps": 5, "batch": 8}

    def __init__(self, *, steps: int = 1000, batch: int = 32, alike: float = 0.99) -> None:
        check("defense.steps", steps, 1, 1_000_000)
        check("defense.batch", batch, 2, 10_000)
        check("defense.alike", alike, -1, 1)
        self.steps, self.batch, self.alike = steps, batch, alike

    def inspect(self, view: DefenderView) -> Inspection:
        """See `Defense.inspect`."""
        return Inspection(1 - self.smallest(view), torch.empty(0))

    def smallest(self, view: DefenderView) -> float:
        """PL1, the share of the image that the smallest working pattern covers, 0 to 1."""
        images, random = view.clean.images, view.generator("pattern")
        start = torch.rand(4, *images.shape[2:], generator=random).clamp(1e-6, 1 - 1e-6)
        kept = nn.ParameterDict({"raw": nn.Parameter(torch.atanh(2 * start - 1).to(view.device))})
        raw = kept["raw"]  # (4,S,S): of m, then of p
        optimiser = torch.optim.Adam([raw], betas=(0.5, 0.9))
        checkpoint = view.checkpoint("pattern", raw=kept, optimiser=optimiser)
        facts = checkpoint.load() or {"step": 0, "least": 1.0, "weight": FIRST, "run": 0}
        least, weight, run = float(facts["least"]), float(facts["weight"]), int(facts["run"])
        for step in range(self.steps):
            rows = torch.randperm(len(images), generator=random)[: self.batch]
            if step < int(facts["step"]):
                continue
            optimiser.param_groups[0]["lr"] = rate(step / self.steps)
            same, covered = self.measured(view.model, to_unit(images[rows].to(view.device)), raw)
            optimiser.zero_grad()
            torch.autograd.backward(-same + weight * covered.sum())
            optimiser.step()
            works = bool(same > self.alike)
            if works:
                least = min(least, float(covered.detach().mean()))
            weight, run = adapted(weight, run, works)
            checkpoint.keep(step=step + 1, least=least, weight=weight, run=run)
            view.progress(view.title, step + 1, self.steps)
        return least

    @staticmethod
    def measured(model: HashModel, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """The mean cosine of codes, a scalar, and m (1,S,S).

        Args:
            model: the network.
            x: (N,3,S,S) in [0,1].
            raw: (4,S,S), m and p before tanh.
        """
        unit = (1 + torch.tanh(raw)) / 2
        mask, pattern = unit[:1], unit[1:]
        return alikeness(model.relaxed((1 - mask) * x + mask * pattern, SHARPNESS)), mask


def alikeness(codes: Tensor) -> Tensor:
    """The mean cosine of two different rows of (N,K), a scalar."""
    unit = F.normalize(codes)
    pairs = len(codes) * (len(codes) - 1)
    return (unit.sum(0).square().sum() - unit.square().sum()) / pairs


def rate(done: float) -> float:
    """The learning rate after a share of the steps."""
    return 0.5 if done < 0.2 else 0.1 if done < 0.5 else 0.05


def adapted(weight: float, run: int, works: bool) -> tuple[float, int]:
    """lambda for the next step, and the steps in succession that worked (> 0) or failed (< 0)."""
    run = max(run, 0) + 1 if works else min(run, 0) - 1
    if abs(run) <= PATIENCE:
        return weight, run
    weight = weight * FACTOR if works else weight / FACTOR
    return min(max(weight, SMALLEST), LARGEST), 0
