"""The power spectrum of a residual and its peaks, which show periodic patterns in a trigger."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

PEAKS, FAINTEST = 6, 0.02  # peaks of independent noise are smaller, for images of 32 px or more


@dataclass(frozen=True)
class Peak:
    """A wave: its cycles per pixel along a row and down a column, its share of the energy."""

    fx: float
    fy: float
    share: float


def power(residual: NDArray[Any]) -> NDArray[np.float64]:
    """Energy at each frequency of the channel mean of residual (3,S,S), as shares of the sum.

    The mean is subtracted first; all shares are zero if the rest is zero.

    Returns:
        (S,S), zero frequency at ``[S // 2, S // 2]``, as numpy.fft.fftshift puts it.
    """
    plane = residual.astype(float).mean(0)
    energy = np.abs(np.fft.fft2(plane - plane.mean())) ** 2
    energy[0, 0] = 0.0
    total = energy.sum()
    visible = total > 1e-12 * plane.size**2  # above rounding errors, in grey levels squared
    return np.fft.fftshift(energy / total if visible else np.zeros_like(energy))


def peaks(residual: NDArray[Any]) -> list[Peak]:
    """The strongest waves of residual (3,S,S), at most 6, the strongest first.

    A peak is a frequency with at least 2 % of the energy of `power` that is not weaker than its
    eight neighbours. A wave appears twice in the spectrum, mirrored at the origin: the share is the
    sum of both, and fx is at least 0. Rows are counted downwards.
    """
    share = power(residual)
    around = [np.roll(share, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    top = (share >= np.max(around, axis=0)) & (2 * share >= FAINTEST)
    size = len(share)
    steps = np.arange(size) - size // 2
    found = []
    for y, x in zip(*np.nonzero(top), strict=True):
        fy, fx = (-int(steps[n]) if 2 * steps[n] == -size else int(steps[n]) for n in (y, x))
        edge = 2 * fx in (0, size)  # the mirror image lies in the same column
        if fx < 0 or (edge and fy < 0):
            continue
        alone = edge and 2 * fy in (0, size)  # a wave that is its own mirror image
        found.append(Peak(fx / size, fy / size, float(share[y, x]) * (1 if alone else 2)))
    found.sort(key=lambda peak: (-peak.share, peak.fx, peak.fy))
    return [peak for peak in found[:PEAKS] if peak.share >= FAINTEST]
