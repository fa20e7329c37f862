"""The network of every victim and surrogate: pixels in [0,1] -> backbone -> hash layer -> code.

The rules that live here: normalisation is the network's first layer, and sign(0) = +1.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from hashbackdoor_bench.api import HashLoss
from hashbackdoor_bench.network.backbones import build
from hashbackdoor_bench.network.layers import Channel, stage_maps, trace_channels


def sign(z: Tensor) -> Tensor:
    """±1 of z's dtype; zero counts as +1 (torch.sign would make a ternary code)."""
    return torch.where(z >= 0, 1.0, -1.0).to(z.dtype)


def hash_layer(width: int, bits: int, loss: HashLoss | type[HashLoss]) -> nn.Module:
    """The layer that turns features (N,F) into z (N,K), as ``loss`` asks for it."""
    layer = nn.Linear(width, bits, bias=loss.head_bias)
    if loss.head_init_std is not None:
        nn.init.normal_(layer.weight, std=loss.head_init_std)
        if loss.head_bias:
            nn.init.zeros_(layer.bias)
    return nn.Sequential(layer, nn.BatchNorm1d(bits)) if loss.head_norm == "batch" else layer


class HashModel(nn.Module):
    """A backbone without its classifier and a linear hash layer; inputs are pixels in [0,1].

    Args:
        backbone: ``cnn32``, ``alexnet`` (torchvision's; timm has none), or any name timm knows.
        bits: K.
        loss: the victim's loss, which says what the hash layer looks like and how z is relaxed.
        size: S, side of the input in pixels.
        pretrained: take the backbone's published weights from the hub.
        weights: a local file of the backbone's weights (``.safetensors``, or a state dict that
            torch loads without unpickling objects); wins over ``pretrained``.

    Raises:
        UserError: an unknown backbone, weights that don't fit, or a hub that can't be reached.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: str,
        bits: int,
        loss: HashLoss | type[HashLoss],
        *,
        size: int = 32,
        pretrained: bool = False,
        weights: Path | None = None,
    ) -> None:
        super().__init__()
        made = build(backbone, size, pretrained, weights)
        self.size, self.backbone, self._stages = size, made.network, made.stages
        for name, value in (("mean", made.mean), ("std", made.std)):
            self.register_buffer(name, torch.tensor(value).view(1, 3, 1, 1), persistent=False)
        self.head = hash_layer(made.width(backbone, size), bits, loss)
        # A loss is a module; held in a closure, its banks stay out of this network's state.
        self._relax: Callable[[Tensor], Tensor] = (
            (lambda z: loss.relax(z)) if isinstance(loss, HashLoss) else torch.tanh
        )

    def features(self, x: Tensor) -> Tensor:
        """x (N,3,S,S) in [0,1] -> (N,F) before the hash layer, in the network's own dtype."""
        out: Tensor = self.backbone(self._normalised(x)).flatten(1)
        return out.to(self.mean.dtype)  # autocast may have left bfloat16

    def _normalised(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std

    def maps(self, x: Tensor) -> list[Tensor]:
        """x (N,3,S,S) in [0,1] -> what each stage of the backbone puts out, (N,c,h,w), in order.

        What counts as a stage is the backbone's own choice: in timm what `feature_info` names, with
        every block of a transformer. Its tokens are laid out as the grid of patches, without class
        and register tokens. The list is empty for a backbone whose stages are not known or have no
        square grid.
        """
        return [
            out.to(self.mean.dtype)
            for out in stage_maps(self.backbone, self._stages, self._normalised(x))
        ]

    def channels(self) -> list[Channel]:
        """The backbone's convolutions in the order in which they run, each with its normalisation.

        Found by running one image: a network may declare its layers in another order. Convolutions
        that it doesn't run are left out, and one that it runs twice is named once.
        """
        image = torch.zeros(1, 3, self.size, self.size, device=self.mean.device)
        return trace_channels(self.backbone, self._stages, image.to(self.mean.dtype))

    def forward(self, x: Tensor) -> Tensor:
        """x (N,3,S,S) in [0,1] -> z (N,K), raw outputs, never in less than float32."""
        features = self.features(x)
        with torch.autocast(x.device.type, enabled=False):
            z: Tensor = self.head(features)
        return z

    def relaxed(self, x: Tensor, sharpness: float = 1.0) -> Tensor:
        """x (N,3,S,S) in [0,1] -> (N,K) in [-1,1]: the victim's smooth code of ``sharpness`` z."""
        return self._relax(sharpness * self(x))

    def code(self, x: Tensor) -> Tensor:
        """x (N,3,S,S) in [0,1] -> (N,K) int8 of ±1."""
        return sign(self(x)).to(torch.int8)


Precision = Literal["float32", "bfloat16"]


def best_precision(device: torch.device) -> Precision:
    """bfloat16 where the hardware multiplies it natively, else float32."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if native else "float32"
