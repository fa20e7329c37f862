"""Labelled images of one size, as a defender holds them."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Images:
    """Labelled images as the network sees them.

    Attributes:
        images: (n,3,S,S) uint8.
        labels: (n,C) uint8, 0/1.
        item: (n,) int64, the number of each image, see `Defense.purify`.
    """

    images: Tensor
    labels: Tensor
    item: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Tensor | slice) -> "Images":
        return Images(self.images[rows], self.labels[rows], self.item[rows])
