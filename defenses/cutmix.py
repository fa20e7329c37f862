"""CutMix: in each training step a box of every image comes from another image of the batch.

Borgnia, Cherepanova, Fowl, Ghiasi, Geiping, Goldblum, Goldstein and Gupta, "Strong Data
Augmentation Sanitizes Poisoning and Backdoor Attacks Without an Accuracy Tradeoff", ICASSP 2021.
https://arxiv.org/abs/2011.09527
Yun, Han, Oh, Chun, Choe and Yoo, "CutMix: Regularization Strategy to Train Strong Classifiers with
Localizable Features", ICCV 2019. https://arxiv.org/abs/1905.04899,
code: https://github.com/clovaai/CutMix-PyTorch

    1 - l ~ area of a box of S sqrt(1 - l) each way, clipped at the image; l ~ Beta(beta, beta)
    x'_i  = x_i outside the box, x_p(i) inside             p: a permutation of the batch
    L     = l L(z', y, i) + (1 - l) L(z', y_p, p)          l: share of pixels outside the box

Losses are mixed and labels are not: two images are similar if they share a tag, so a mixed label
row would make an image similar to both classes, and a centre of two classes belongs to neither. In
a loss of pairs both images of a pair are labelled by themselves or both by their partners. A memory
bank stores each mixed image once, with its own label.

A trigger that repeats over the image, or covers it, survives a box; under delivery ``stamped`` the
trigger was put on after augmentation and before this step, so it is cut as any other pixels.

Every batch is mixed, and beta is 1, as in both papers. BackdoorBox clips l to [.3, .7], which no
paper does.
"""

import numpy as np
import torch
from torch import Tensor

from hashbackdoor_bench import DEFENSES, Assumes, Defense, TrainStep, check


@DEFENSES.register
class CutMix(Defense):
    """Boxes of other images.

    Args:
        beta: both parameters of the beta distribution of l; 1 is uniform.
    """

    published = "CutMix"
    assumes = Assumes(sees=frozenset({"train"}))

    def __init__(self, *, beta: float = 1.0) -> None:
        check("defense.beta", beta, 1e-3, 1e3)
        self.beta = beta

    def backward(self, step: TrainStep) -> Tensor:
        """See `Defense.backward`."""
        partner = torch.randperm(len(step.x), generator=step.generator).to(step.x.device)
        x, share = self.mixed(step.x, partner, step.generator)
        z = step.outputs(x)
        step.remember(z)
        value: Tensor = step.loss(z, step.y, step.index, step.step)
        if share < 1:
            other = step.loss(z, step.y[partner], step.index[partner], step.step)
            value = share * value + (1 - share) * other
        torch.autograd.backward(value)
        return value

    def mixed(self, x: Tensor, partner: Tensor, random: torch.Generator) -> tuple[Tensor, float]:
        """x (N,3,S,S) with a box from the images ``partner`` (N,), and l, the share outside it."""
        size = x.shape[-1]
        draws = np.random.default_rng(int(torch.randint(2**62, (), generator=random)))
        half = size * (1 - draws.beta(self.beta, self.beta)) ** 0.5 / 2  # of a side of the box
        sides = []
        for centre in size * draws.random(2):
            low, high = (min(max(round(end), 0), size) for end in (centre - half, centre + half))
            sides.append(slice(low, high))
        down, right = sides
        out = x.clone()
        out[:, :, down, right] = x[partner][:, :, down, right]
        area = (down.stop - down.start) * (right.stop - right.start)
        return out, 1 - area / size**2
