"""Pixels as files store them and as networks see them."""

import torch
from torch import Tensor


def to_unit(images: Tensor) -> Tensor:
    """(..., 3, H, W) uint8 -> float32 in [0,1]."""
    return images.float().div_(255)


def to_bytes(x: Tensor) -> Tensor:
    """(..., 3, H, W) in [0,1] -> uint8, as an image file stores it: rounded half-up, not truncated.

    Truncation would darken images by .5 grey levels on average, which is itself a trigger.
    """
    return x.detach().mul(255).add_(0.5).floor_().clamp_(0, 255).to(torch.uint8)
