"""Cropping and augmentation: the network sees the centre of an image, in training a random part.

A batch is augmented as a whole, on the device, with random numbers that the caller draws.
"""

import math

import torch
from torch import Tensor

from hashbackdoor_bench.api import to_unit

PAD = 16  # an image stored at the network's size gets size / PAD px of zeros before its random crop


def centre_crop(images: Tensor, size: int) -> Tensor:
    """(N,3,h,w) -> (N,3,size,size), a view; the top left corner is rounded up, as Pillow does."""
    top, left = ((side - size + 1) // 2 for side in images.shape[-2:])
    return images[..., top : top + size, left : left + size]


def augment(images: Tensor, draws: Tensor, kind: str, size: int) -> Tensor:
    """Augment stored images.

    Args:
        images: (N,3,h,w) uint8.
        draws: (N,5) random numbers in [0,1), on the images' device.
        kind: ``crop``, ``flip``, ``rrc`` or ``none``, see `Recipe`.
        size: S.

    Returns:
        (N,3,S,S) float32 in [0,1].
    """
    if kind == "none":
        return to_unit(centre_crop(images, size))
    if kind == "rrc":
        return _resized_crop(to_unit(images), draws, size)
    mirrored = draws[:, 2:3] < 0.5
    if kind == "flip":
        images = centre_crop(images, size)
        shown = torch.where(mirrored[..., None, None], images.flip(-1), images)
        return to_unit(shown.contiguous(memory_format=torch.channels_last))
    if images.shape[-1] == size:
        images = torch.nn.functional.pad(images, (size // PAD,) * 4)
    n, _, height, width = images.shape
    step = torch.arange(size, device=images.device)
    row = (draws[:, 0] * (height - size + 1)).long()[:, None] + step  # (N,S)
    column = (draws[:, 1] * (width - size + 1)).long()[:, None] + step
    column = torch.where(mirrored, column.flip(1), column)
    item = torch.arange(n, device=images.device)[:, None, None]
    cropped = images[item, :, row[:, :, None], column[:, None, :]]  # (N,S,S,3)
    return to_unit(cropped).permute(0, 3, 1, 2)  # in the memory format channels-last


def _resized_crop(x: Tensor, draws: Tensor, size: int) -> Tensor:
    """RandomResizedCrop (area 8-100 %, ratio 3/4-4/3) and flip, bilinear, one box per image.

    torchvision draws up to ten boxes until one is inside; here a side that is too long is cut.
    """
    area = 0.08 + 0.92 * draws[:, 0]
    ratio = torch.exp((2 * draws[:, 1] - 1) * math.log(4 / 3))
    width = (area * ratio).sqrt().clamp_(max=1)
    height = (area / ratio).sqrt().clamp_(max=1)
    flip = torch.where(draws[:, 2] < 0.5, -1.0, 1.0)
    zero = torch.zeros_like(width)
    centre_x = (1 - width) * (2 * draws[:, 3] - 1)
    centre_y = (1 - height) * (2 * draws[:, 4] - 1)
    theta = torch.stack([width * flip, zero, centre_x, zero, height, centre_y], 1).view(-1, 2, 3)
    grid = torch.nn.functional.affine_grid(theta, [len(x), 3, size, size], align_corners=False)
    return torch.nn.functional.grid_sample(x, grid, padding_mode="border", align_corners=False)
