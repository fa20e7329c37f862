"""The small network of the runs on 32-pixel images, which are trained from scratch."""

from typing import ClassVar

from torch import nn


class Cnn32(nn.Sequential):
    """A small VGG-like network for 32-pixel images: (N,3,32,32) -> (N,128), 0.3 M parameters.

    Three stages of two 3×3 convolutions with batch norm and ReLU, 32, 64 and 128 channels wide,
    with 2×2 max-pooling between them and a global maximum at the end; 38.6 M multiply-adds per
    image. With a global average instead, HashNet loses 8 points of MAP on fashion-mini, and a
    trigger of 16 pixels, which is one of 64 cells in the average, hardly changes the code.

    Args:
        pool: ``avg`` or ``max`` at the end, or ``flatten``: (N,8192) features of a 32-pixel image.
    """

    stages = ("5", "12", "19")  # the last ReLU of each
    pools: ClassVar = {"avg": nn.AdaptiveAvgPool2d, "max": nn.AdaptiveMaxPool2d}
    largest = 192  # px: the last stage sees squares of 32 px, which show little of a larger image

    def __init__(self, pool: str = "max") -> None:
        layers: list[nn.Module] = []
        width = 3
        for stage, wider in enumerate((32, 64, 128)):
            if stage:
                layers.append(nn.MaxPool2d(2))
            for _ in range(2):
                layers += [
                    nn.Conv2d(width, wider, 3, padding=1, bias=False),
                    nn.BatchNorm2d(wider),
                    nn.ReLU(inplace=True),
                ]
                width = wider
        super().__init__(
            *layers, *([self.pools[pool](1)] if pool in self.pools else []), nn.Flatten()
        )
