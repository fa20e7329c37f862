"""How visible poison and triggers are: PSNR, SSIM and differences, in pixel units 0..255."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)


def compare(pairs: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float | None]:
    """Mean over images of how far the second image of a pair is from the first.

    Args:
        pairs: batches of (originals, changed), each (n,3,S,S) uint8, as the victim or the service
            receives them.

    Returns:
        ``max`` and ``l2`` of the difference in grey levels, ``psnr`` in dB (None where an image did
        not change: it would be infinite), ``ssim`` (Gaussian window, range 255) and ``images``.
        ``max`` is the largest over all images, the others are means. None without images.
    """
    largest, l2, psnr, ssim = [], [], [], []
    for before, after in pairs:
        if not len(before):
            continue
        a, b = before.double(), after.double()
        difference = (b - a).flatten(1)
        largest.append(difference.abs().amax(1))
        l2.append(difference.norm(dim=1))
        psnr.append(
            peak_signal_noise_ratio(b, a, data_range=255.0, dim=(1, 2, 3), reduction="none")
        )
        ssim.append(
            structural_similarity_index_measure(b, a, data_range=255.0, reduction="none").view(-1)  # type: ignore[union-attr]
        )
    if not largest:
        return {"images": 0, "max": None, "l2": None, "psnr": None, "ssim": None}
    signal = torch.cat(psnr)
    return {
        "images": len(signal),
        "max": float(torch.cat(largest).max()),
        "l2": float(torch.cat(l2).mean()),
        "psnr": float(signal.mean()) if torch.isfinite(signal).all() else None,
        "ssim": float(torch.cat(ssim).mean()),
    }
