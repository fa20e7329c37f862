"""How visible poison and triggers are, in grey levels 0..255, and how similar between images."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from hashbackdoor_bench.metrics.perceptual import Lpips, lpips_for, ssim_distance
from hashbackdoor_bench.metrics.spectrum import peaks

TILE = 8  # px, the period of the lattices of three transposed convolutions


def compare(pairs: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float | None]:
    """Mean differences between original and changed images.

    Args:
        pairs: batches of (originals, changed), each (n,3,S,S) uint8, as the victim or the service
            receives them.

    Returns:
        ``max`` and ``l2`` of the difference in grey levels, ``psnr`` in dB (None if an image did
        not change, since it would be infinite), ``ssim`` (Gaussian window), ``lpips`` (None if
        `lpips_for` returns None) and ``images``, their number. ``max`` is the largest over all
        images, the others are means; all are None if there are no images.
    """
    largest, l2, psnr, ssim, lpips = [], [], [], [], []
    network: Lpips | None = None
    for before, after in pairs:
        if not len(before):
            continue
        a, b = before.double(), after.double()
        difference = (b - a).flatten(1)
        largest.append(difference.abs().amax(1))
        l2.append(difference.norm(dim=1))
        psnr.append(_psnr(difference))
        # torchmetrics' convolution takes 17 GB and half a minute in float64 for 64 of 224 px
        ssim.append(1 - ssim_distance(a / 255, b / 255))
        network = network or lpips_for(before.shape[-1])
        if network is not None:
            with torch.no_grad():
                network.to(before.device)
                lpips.append(network(before.float() / 255, after.float() / 255))
    if not largest:
        return {"images": 0, "max": None, "l2": None, "psnr": None, "ssim": None, "lpips": None}
    signal = torch.cat(psnr)
    return {
        "images": len(signal),
        "max": float(torch.cat(largest).max()),
        "l2": float(torch.cat(l2).mean()),
        "psnr": float(signal.mean()) if torch.isfinite(signal).all() else None,
        "ssim": float(torch.cat(ssim).mean()),
        "lpips": float(torch.cat(lpips).mean()) if lpips else None,
    }


def _psnr(difference: Tensor) -> Tensor:
    """PSNR in dB of differences (n,M) in grey levels -> (n,), infinite where nothing differs.

    To the last bit that of torchmetrics, whose import takes a second: it takes the logarithms of
    255 and 10 in float32.
    """
    log_peak, log_base = torch.log(torch.tensor(255.0)), torch.log(torch.tensor(10.0))
    error = torch.sum(difference * difference, 1) / difference.shape[1]
    return (2 * log_peak - torch.log(error)) * (10 / log_base)


def residuals(pairs: Iterable[tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """How similar the changes of different images are, and their periodic parts.

    With r_i (3,S,S) the change of image i in grey levels, t_i (3,8,8) the folded r_i, see `folded`,
    and u_i the t_i less its mean and divided by its length:

        similarity = mean_{i != j} u_i . u_j           Pearson's correlation of t_i and t_j
        mean_share = |mean_i r_i|^2 / mean_i |r_i|^2   1: the same for all; 1/n: n unrelated ones

    Args:
        pairs: batches of (originals, changed), each (n,3,S,S) uint8, all of one size.

    Returns:
        ``similarity`` over all pairs of images whose t_i isn't constant, None for fewer than two of
        them; ``mean_share``, None where nothing changed; ``peaks`` of the spectrum of mean_i r_i,
        see `spectrum.peaks`: ``fx`` and ``fy`` in cycles per pixel, and their ``share``.
    """
    images, patterned, energy = 0, 0, 0.0
    total, direction = torch.zeros(()), torch.zeros(())  # sums over r_i and u_i
    for before, after in pairs:
        if not len(before):
            continue
        residual = after.double() - before.double()
        images += len(residual)
        energy += float((residual**2).sum())
        total = total.to(residual) + residual.sum(0)
        tile = folded(residual).flatten(1)
        tile = tile - tile.mean(1, keepdim=True)
        length = tile.norm(dim=1, keepdim=True)
        kept = length[:, 0] > 1e-6  # grey levels: above rounding, far below one changed pixel
        patterned += int(kept.sum())
        direction = direction.to(tile) + (tile[kept] / length[kept]).sum(0)
    similarity = None
    if patterned > 1:  # |sum u|^2 holds each pair twice, and each image's |u|^2 = 1
        similarity = (float((direction**2).sum()) - patterned) / (patterned * (patterned - 1))
    return {
        "similarity": similarity,
        "mean_share": float((total**2).sum()) / images / energy if energy else None,
        "peaks": [asdict(p) for p in peaks((total / images).cpu().numpy())] if energy else [],
    }


def folded(residual: Tensor) -> Tensor:
    """The part of residual (n,3,S,S) with a period of 8 px -> (n,3,8,8): mean of high-passed tiles.

    The high-pass subtracts from every pixel the mean around it, in its own channel, weighted by
    (1/2, 1, 1, 1, 1, 1, 1, 1, 1/2) / 8 along rows and columns. This removes every linear slope, and
    of a pattern with period 8 only the mean. Pixels within 4 px of the border have no such mean and
    are left out, as are rows and columns after the last complete tile. (n,3,0,0) under 16 px.
    """
    margin, side = TILE // 2, residual.shape[-1] // TILE * TILE - TILE
    if side < TILE:
        return residual[:, :, :0, :0]
    weight = torch.ones(TILE + 1).to(residual) / TILE
    weight[[0, -1]] /= 2
    windows = residual.unfold(3, TILE + 1, 1) @ weight
    smooth = windows.unfold(2, TILE + 1, 1) @ weight
    high = residual[:, :, margin:-margin, margin:-margin] - smooth
    count = side // TILE
    return high[:, :, :side, :side].reshape(-1, 3, count, TILE, count, TILE).mean((2, 4))
