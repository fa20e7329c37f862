"""Blur: each query is smoothed by a Gaussian before it is hashed.

Xu, Evans and Qi, "Feature Squeezing: Detecting Adversarial Examples in Deep Neural Networks", NDSS
2018, smooth images spatially to remove adversarial perturbations. https://arxiv.org/abs/1704.01155

    x' = x * G(s)       s = sigma S / 224 px, G separable, of 2 ceil(3 s) + 1 taps, edges mirrored

sigma is in pixels of an image of 224, so that it means the same part of a picture at every size.

Differs from the authors: they use a median filter of 2 or 3 px; a Gaussian has one continuous
strength.
"""

from torch import Tensor

from hashbackdoor_bench import DEFENSES, Assumes, Defense, check, gaussian_blur


@DEFENSES.register
class Blur(Defense):
    """Gaussian smoothing of queries.

    Args:
        sigma: standard deviation, in px at a side of 224.
    """

    published = "Blur"
    assumes = Assumes(sees=frozenset({"queries"}))
    strength = "sigma"
    grid = (0.5, 1.0, 2.0, 4.0, 8.0)

    def __init__(self, *, sigma: float = 4.0) -> None:
        check("defense.sigma", sigma, 0, 64)
        self.sigma = sigma

    def purify(self, x: Tensor, item: Tensor) -> Tensor:
        """See `Defense.purify`."""
        return gaussian_blur(x, self.sigma)
