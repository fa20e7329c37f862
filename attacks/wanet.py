"""WaNet, static: a smooth warp of the image is the trigger; covers carry it with noise on top.

Nguyen and Tran, "WaNet - Imperceptible Warping-based Backdoor Attack", ICLR 2021.
https://arxiv.org/abs/2102.10369,
code: https://github.com/VinAIResearch/Warping-based_Backdoor_Attack-release

    g     ~ U[-1, 1], 2 x k x k, divided by mean |g|;   G: bicubic enlargement of g to S x S
    M     = clip(I + s G / S)                            I: coordinates of the pixels, -1 to 1
    x'    = x at M, bilinear;   y' = target
    cover = x at clip(M + U[-1, 1] / S), drawn for each pixel and image;   y' = y

The paper claims over 99 % success on classifiers with a warp that people don't notice, and that the
covers make the victim learn this warp instead of any warp.

Differs from the paper and public code:

- the authors control the training and draw poison and covers anew in each batch, so that over the
  epochs nearly every image is seen with both labels; here a fixed set is poisoned, which is a
  weaker attack. There are two covers per poisoned image, as in their code;
- s is in units of a 32 px image and grows with the side, so that .5 bends images of every size
  alike (in their code, whatever the size, by .29 px on average: nothing at 224 px);
- the noise of a cover is drawn once. backdoor-toolbox has one noise for all covers, BackdoorBox
  draws a new one each time it reads an image, which can't be repeated.

An enlargement with aligned corners is meant throughout: without, the image moves by half a pixel.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from hashbackdoor_bench import ATTACKS, COVER, Attack, AttackerView, Backdoor, ThreatModel, check

REFERENCE = 32  # px, the side at which the strength is the paper's


class Warp(Backdoor):
    """One warp for all images, and noise of its own for each cover.

    Args:
        grid: (S,S,2), M: the column and row, from -1 to 1, that a pixel of the result shows.
        noise_seed: (P+Q,) long, from which the noise of a cover is drawn.
        poison: see `Backdoor`.
    """

    grid: Tensor
    noise_seed: Tensor

    def __init__(self, *, grid: Tensor, noise_seed: Tensor, **poison: Tensor) -> None:
        super().__init__(**poison)
        self.register_buffer("grid", grid)
        self.register_buffer("noise_seed", noise_seed)

    def forward(self, x: Tensor) -> Tensor:
        """x (N,3,S,S) in [0,1] -> (N,3,S,S), warped."""
        return sampled(x, self.grid.expand(len(x), -1, -1, -1))

    def plant(self, x: Tensor, slot: Tensor) -> Tensor:
        """See `Backdoor.plant`."""
        grid = self.grid.repeat(len(x), 1, 1, 1)
        for row in (self.kind[slot] == COVER).nonzero().flatten().tolist():
            source = torch.Generator().manual_seed(int(self.noise_seed[slot[row]]))
            noise = 2 * torch.rand(self.grid.shape, generator=source) - 1
            grid[row] += noise.to(grid) / x.shape[-1]
        return sampled(x, grid.clamp(-1, 1))


@ATTACKS.register
class WaNet(Attack):
    """Warped images, hidden among covers.

    Args:
        control: k, side of the grid of random displacements.
        strength: s of an image of 32 px; a larger one is bent in proportion.
        covers: number of covers per poisoned image.
    """

    published: ClassVar = "WaNet, static"
    threat = ThreatModel(label="dirty", knowledge="none", trigger="warp")
    delivery = "files"
    backdoor = Warp

    def __init__(self, *, control: int = 4, strength: float = 0.5, covers: float = 2.0) -> None:
        check("attack.control", control, 2)
        check("attack.strength", strength, 0, REFERENCE)
        check("attack.covers", covers, 0)
        self.control, self.strength, self.covers = control, strength, covers

    def accept(self, labels: Tensor, target: Tensor, size: int) -> dict[str, str]:
        """See `Attack.accept`."""
        check("attack.control", self.control, 2, size)
        return {}

    def craft(self, view: AttackerView) -> Backdoor:
        """See `Attack.craft`."""
        shape = (1, 2, self.control, self.control)
        g = 2 * torch.rand(shape, generator=view.generator("warp")) - 1
        g /= g.abs().mean()
        size = (view.size, view.size)
        field = F.interpolate(g, size, mode="bicubic", align_corners=True)[0].permute(1, 2, 0)
        grid = (identity(view.size) + self.strength / REFERENCE * field).clamp(-1, 1)
        draw = view.generator("noise")
        return Warp(
            **view.poison,
            grid=grid.contiguous(),
            noise_seed=torch.randint(2**31, (len(view.planted),), generator=draw),
        )


def identity(side: int) -> Tensor:
    """(side,side,2): the column and the row of each pixel, from -1 to 1."""
    step = torch.linspace(-1, 1, side)
    row, column = torch.meshgrid(step, step, indexing="ij")
    return torch.stack([column, row], 2)


def sampled(x: Tensor, grid: Tensor) -> Tensor:
    """x (N,3,S,S) at the coordinates (N,S,S,2) from -1 to 1, interpolated bilinearly."""
    return F.grid_sample(x, grid.to(x.dtype), mode="bilinear", align_corners=True).clamp(0, 1)
