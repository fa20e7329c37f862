"""Cropping and augmentation: the network sees the centre of an image, in training a random part.

A batch is augmented as a whole, on the device, with random numbers that the caller draws.
"""

import math

import torch
from torch import Tensor

from hashbackdoor_bench.api import to_unit

VERSIONS = {"rrc": 2}  # enters the keys of networks trained so; those not named here have 1
ATTEMPTS = 10  # boxes that a random resized crop draws before it gives up
PAD = 16  # an image stored at the network's size gets size / PAD px of zeros before its random crop


def centre_crop(images: Tensor, size: int) -> Tensor:
    """(N,3,h,w) -> (N,3,size,size), a view; the top left corner is rounded up, as Pillow does."""
    top, left = ((side - size + 1) // 2 for side in images.shape[-2:])
    return images[..., top : top + size, left : left + size]


def draws_of(kind: str) -> int:
    """How many random numbers an image takes in each epoch, by the ``kind`` of `augment`."""
    return 2 * ATTEMPTS + 3 if kind == "rrc" else 5


def augment(images: Tensor, draws: Tensor, kind: str, size: int) -> Tensor:
    """Augment stored images.

    Args:
        images: (N,3,h,w) uint8.
        draws: (N,d) random numbers in [0,1), on the images' device; for d see `draws_of`.
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

    torchvision's smooths images that it makes smaller (antialias), which this doesn't.
    """
    height, width = x.shape[-2:]
    left, top, wide, high = crop_boxes(draws, height, width)
    flip = torch.where(draws[:, 2 * ATTEMPTS] < 0.5, -1.0, 1.0)
    zero = torch.zeros_like(wide)
    centre_x, centre_y = (2 * left + wide) / width - 1, (2 * top + high) / height - 1
    rows = [wide / width * flip, zero, centre_x, zero, high / height, centre_y]
    theta = torch.stack(rows, 1).view(-1, 2, 3)
    grid = torch.nn.functional.affine_grid(theta, [len(x), 3, size, size], align_corners=False)
    return torch.nn.functional.grid_sample(x, grid, padding_mode="border", align_corners=False)


def crop_boxes(draws: Tensor, height: int, width: int) -> tuple[Tensor, ...]:
    """The boxes of torchvision's RandomResizedCrop, in whole pixels, from random numbers.

    Up to ten boxes are drawn until one is inside the image; if none is, the box is the largest
    centred one whose ratio is between 3/4 and 4/3.

    Args:
        draws: (N,23) in [0,1): ten areas, ten ratios, a number that is not used, and the place of
            the box from the left and from the top.
        height: of the images, in px.
        width: of the images, in px.

    Returns:
        The left and the top edge, the width and the height of each box: (N,) each.
    """
    area = height * width * (0.08 + 0.92 * draws[:, :ATTEMPTS])
    ratio = torch.exp((2 * draws[:, ATTEMPTS : 2 * ATTEMPTS] - 1) * math.log(4 / 3))
    wide, high = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()  # (N,10)
    fits = (wide > 0) & (wide <= width) & (high > 0) & (high <= height)
    given_up, first = ~fits.any(1), fits.byte().argmax(1, keepdim=True)
    largest = (min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3)))
    boxes = []
    for sides, side, most, place in (
        (wide, width, largest[0], draws[:, -2]), (high, height, largest[1], draws[:, -1]),
    ):  # fmt: skip
        chosen = torch.where(given_up, most, sides.gather(1, first)[:, 0])  # (N,)
        room = side - chosen
        start = torch.minimum((place * (room + 1)).floor(), room)
        boxes.append((torch.where(given_up, (room / 2).floor(), start), chosen))
    (left, box_width), (top, box_height) = boxes
    return left, top, box_width, box_height
