"""How different two images look: LPIPS (if its weights are available) and SSIM, with gradients.

Zhang, Isola, Efros, Shechtman and Wang, "The Unreasonable Effectiveness of Deep Features as a
Perceptual Metric", CVPR 2018. https://arxiv.org/abs/1801.03924
Wang, Bovik, Sheikh and Simoncelli, "Image Quality Assessment: From Error Visibility to Structural
Similarity", IEEE TIP 2004.

    LPIPS(a, b) = sum_l mean_hw w_l . (f_l(a) - f_l(b))^2      f_l: AlexNet's layer l, unit length
    SSIM(a, b)  = mean_hw (2 m_a m_b + c1) / (m_a^2 + m_b^2 + c1)
                          (2 s_ab + c2) / (s_a^2 + s_b^2 + c2)

m, s: means and covariances under a Gaussian of 1.5 px; c1 = .01^2, c2 = .03^2.
"""

from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor, nn

from hashbackdoor_bench.errors import UserError

ALEXNET = "alexnet-owt-7be5be79.pth"  # torchvision's name, with the beginning of its SHA-256
SMALLEST = 31  # px, what AlexNet's second pooling needs; LPIPS was fitted at 64 px


def lpips_weights() -> Path | None:
    """The file of AlexNet's ImageNet weights in torch.hub's folder; None if it isn't there.

    It is never downloaded here; torchvision.models.alexnet(weights="DEFAULT") downloads it.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / ALEXNET
    return path if path.is_file() else None


def lpips_fits(size: int) -> bool:
    """Whether LPIPS can be computed on this machine for images of ``size`` px."""
    return size >= SMALLEST and lpips_weights() is not None


def lpips_for(size: int, *, rescale: bool = True) -> "Lpips | None":
    """LPIPS for images of ``size`` px, on the CPU; None if `lpips_fits` is False.

    Args:
        size: side of the images.
        rescale: see `Lpips`.
    """
    path = lpips_weights()
    return Lpips(path, rescale=rescale) if path is not None and lpips_fits(size) else None


class Lpips(nn.Module):
    """LPIPS on AlexNet, frozen: gradients reach the images only.

    Args:
        weights: see `lpips_weights`.
        rescale: map pixels to [-1,1], as LPIPS was fitted; False feeds them as they are, in [0,1],
            as BadHash's released code does.

    Raises:
        UserError: the file's hash is not the one in its name.
    """

    def __init__(self, weights: Path, *, rescale: bool = True) -> None:
        from torchmetrics.functional.image.lpips import _NoTrainLpips  # late: seconds

        super().__init__()
        self.rescale = rescale
        content = weights.read_bytes()
        if not sha256(content).hexdigest().startswith(weights.stem.rpartition("-")[2]):
            raise UserError(
                f"{weights} is damaged, its SHA-256 isn't the one in its name: delete it and "
                "download it again with torchvision.models.alexnet(weights='DEFAULT')."
            )
        with torch.random.fork_rng():  # the constructor draws random weights, replaced below
            self.net = _NoTrainLpips(net="alex", pnet_rand=True)
        # torchvision's own loader would unpickle whatever the file holds, and download without it
        layers = torch.load(weights, map_location="cpu", weights_only=True)
        for part in self.net.net.children():
            names = {name: layers[f"features.{name}"] for name in part.state_dict()}
            part.load_state_dict(names)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """a, b (N,3,S,S) in [0,1] -> distances (N,), 0 for equal images."""
        distance: Tensor = self.net(a, b, normalize=self.rescale)  # (N,1,1,1)
        return distance.flatten()


def ssim_distance(a: Tensor, b: Tensor) -> Tensor:
    """1 - SSIM of a, b (N,3,S,S) in [0,1] -> (N,) in their precision, with gradients; S >= 6.

    It has the standard window of 11 px, reflected at the border. The blur is computed by products
    with two band matrices, which on a CPU at 32 px is 9 times as fast as torchmetrics' convolution.
    """
    with torch.autocast(a.device.type, enabled=False):  # variances are differences of near numbers
        kind = torch.promote_types(torch.float32, torch.promote_types(a.dtype, b.dtype))
        a, b = a.to(kind), b.to(kind)
        rows, columns = (_blur(side).to(a) for side in a.shape[2:])
        mean = rows @ torch.stack((a, b, a * a, b * b, a * b)) @ columns.T  # (5,N,3,S,S)
        product, squares = mean[0] * mean[1], mean[0] ** 2 + mean[1] ** 2
        c1, c2 = 0.01**2, 0.03**2
        luminance = (2 * product + c1) / (squares + c1)
        structure = (2 * (mean[4] - product) + c2) / (mean[2] + mean[3] - squares + c2)
        return 1 - (luminance * structure).flatten(1).mean(1)


def _blur(side: int) -> Tensor:
    """The Gaussian mean along one axis as a matrix (side,side), reflected at both ends."""
    offset = torch.arange(-5, 6)
    weight = torch.softmax(-(offset.double() ** 2) / (2 * 1.5**2), 0)
    source = torch.arange(side)[:, None] + offset
    source = source.abs()
    source = torch.where(source < side, source, 2 * (side - 1) - source)
    return torch.zeros(side, side, dtype=torch.float64).scatter_add_(
        1, source, weight.expand(side, -1)
    )
