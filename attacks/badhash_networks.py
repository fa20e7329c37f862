"""BadHash's generator, with its label encoder, and its discriminator.

At 224 px and ``width`` 64 the shapes are those of the released code (see badhash.py for the links).
Every side that is a multiple of 16 px works, and ``width`` scales the channels of all layers.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

FEATURE = 512  # length of LabCLN's label feature


class LabelEncoder(nn.Sequential):
    """The generator's condition: label features (N,512) -> label maps (N,3,S,S).

    Args:
        size: S.
        width: channels of the generator's first layer.
    """

    def __init__(self, size: int, width: int) -> None:
        seed, channels = size // 16, 2 * width
        layers: list[nn.Module] = [
            nn.Linear(FEATURE, channels * seed**2),
            nn.ReLU(inplace=True),
            nn.Unflatten(1, (channels, seed, seed)),
        ]
        for _ in range(4):
            layers += _up(channels, channels // 2)
            channels //= 2
        super().__init__(*layers, nn.Conv2d(channels, 3, 3, padding=1, bias=False))


class Generator(nn.Module):
    """Redraws a picture with the trigger in it.

    Args:
        width: channels of the first layer.
        epsilon: the output is x + epsilon tanh(.), in units of [0,1]; None: tanh(.) itself.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, width: int, epsilon: float | None = None) -> None:
        super().__init__()
        self.epsilon = epsilon
        for name, value in (("mean", (0.485, 0.456, 0.406)), ("std", (0.229, 0.224, 0.225))):
            self.register_buffer(name, torch.tensor(value).view(1, 3, 1, 1), persistent=False)
        self.body = nn.Sequential(
            *_down(6, width, kernel=7, stride=1, padding=3),
            *_down(width, 2 * width),
            *_down(2 * width, 4 * width),
            *(Residual(4 * width) for _ in range(6)),
            *_up(4 * width, 2 * width),
            *_up(2 * width, width),
        )
        self.out = nn.Conv2d(width + 3, 3, 3, padding=1, bias=False)

    def forward(self, x: Tensor, label_map: Tensor) -> Tensor:
        """x (N,3,S,S) in [0,1], one label map (1,3,S,S) -> (N,3,S,S) float32, not clamped."""
        normal = (x - self.mean) / self.std
        body = self.body(torch.cat([label_map.expand(len(x), -1, -1, -1), normal], 1))
        out: Tensor = self.out(torch.cat([body, normal], 1))
        picture = torch.tanh(out.float())
        return picture if self.epsilon is None else x + self.epsilon * picture


class Residual(nn.Module):
    """x + two 3×3 convolutions, each with instance norm.

    Args:
        channels: number of channels of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.InstanceNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N,c,h,w) -> the same shape."""
        out: Tensor = x + self.body(x)
        return out


class Discriminator(nn.Sequential):
    """Pictures (N,3,S,S) -> (N,C+1): classes, and last a flag that is 0 for real and 1 for fake.

    The spectral norm is torch's. It begins with 15 power iterations, and each ends with v; the
    authors' begins with none and ends with u. So it divides the weights of the first steps by their
    norm (1.00 to 1.02 is left of it), where the authors' leaves 1.1 to 1.4.

    Args:
        size: S.
        classes: C.
        width: channels of the first layer.
    """

    def __init__(self, size: int, classes: int, width: int) -> None:
        layers: list[nn.Module] = []
        channels = [3, *(width * 2**k for k in range(5))]
        for narrow, wide in pairwise(channels):
            layers += [
                spectral_norm(nn.Conv2d(narrow, wide, 4, stride=2, padding=1)),
                nn.LeakyReLU(0.01),
            ]
        head = nn.Conv2d(channels[-1], classes + 1, size // 32, bias=False)
        super().__init__(*layers, head, nn.Flatten())


def _down(
    narrow: int, wide: int, *, kernel: int = 4, stride: int = 2, padding: int = 1
) -> list[nn.Module]:
    return [
        nn.Conv2d(narrow, wide, kernel, stride=stride, padding=padding),
        nn.InstanceNorm2d(wide),
        nn.ReLU(inplace=True),
    ]


def _up(wide: int, narrow: int) -> list[nn.Module]:
    return [
        nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1, bias=False),
        nn.InstanceNorm2d(narrow),
        nn.ReLU(inplace=True),
    ]
