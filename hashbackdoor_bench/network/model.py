"""The network of victims and surrogates: pixels in [0,1] -> backbone -> hash layer -> code.

Normalisation is the network's first layer, and sign(0) = +1.
"""

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from hashbackdoor_bench.api import HashLoss
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.network.backbones import build
from hashbackdoor_bench.network.layers import (
    Channel,
    stage_maps,
    trace_channels,
    trace_parameters,
)


def sign(z: Tensor) -> Tensor:
    """±1 of z's dtype; zero counts as +1 (torch.sign would make a ternary code)."""
    return torch.where(z >= 0, 1.0, -1.0).to(z.dtype)


def hash_layer(
    width: int, bits: int, loss: HashLoss | type[HashLoss], hidden: int = 0
) -> nn.Module:
    """The layer that turns features (N,F) into z (N,K), in the form that ``loss`` requires.

    Args:
        width: F.
        bits: K.
        loss: the victim's loss, or its class.
        hidden: width of a hidden layer with ReLU before it; 0: none.
    """
    before = [nn.Linear(width, hidden), nn.ReLU()] if hidden else []
    layer = nn.Linear(hidden or width, bits, bias=loss.head_bias)
    if loss.head_init_std is not None:
        nn.init.normal_(layer.weight, std=loss.head_init_std)
        if loss.head_bias:
            nn.init.zeros_(layer.bias)
    after = [nn.BatchNorm1d(bits)] if loss.head_norm == "batch" else []
    return nn.Sequential(*before, layer, *after) if before or after else layer


class HashModel(nn.Module):
    """A backbone without its classifier and a linear hash layer; inputs are pixels in [0,1].

    Args:
        backbone: ``cnn32``, ``alexnet`` (torchvision's; timm has none), or a timm model.
        bits: K.
        loss: the victim's loss, which determines the form of the hash layer and how z is relaxed.
        size: S, side of the input in pixels.
        pretrained: start from the backbone's published weights.
        weights: a local file of the backbone's weights (``.safetensors``, or a state dict that
            torch loads without unpickling objects); overrides ``pretrained``.
        weights_by_order: take the tensors of ``weights`` in their order, whatever their names.
        pool: how the backbone pools its last map: ``avg``, ``max`` or ``flatten``, which keeps all
            of it; None: as published. Of tokens, the first two leave out the class token, and all
            three come after the last normalisation, where it was published.
        hidden: width of a hidden layer before the hash layer; 0: none.

    Raises:
        UserError: the backbone is unknown or can't take images of this size, weights don't fit, or
            the hub can't be reached.
    """

    mean: Tensor
    std: Tensor
    forwards: ClassVar[int] = 0  # images that went through networks of this process

    def __init__(
        self,
        backbone: str,
        bits: int,
        loss: HashLoss | type[HashLoss],
        *,
        size: int = 32,
        pretrained: bool = False,
        weights: Path | None = None,
        weights_by_order: bool = False,
        pool: str | None = None,
        hidden: int = 0,
    ) -> None:
        super().__init__()
        made = build(backbone, size, pretrained, weights, by_order=weights_by_order, pool=pool)
        self.size, self.backbone, self._stages = size, made.network, made.stages
        for name, value in (("mean", made.mean), ("std", made.std)):
            self.register_buffer(name, torch.tensor(value).view(1, 3, 1, 1), persistent=False)
        self.head = hash_layer(made.width(backbone, size, pool), bits, loss, hidden)
        # The loss is a module: in a closure, its state doesn't become part of this network's.
        self._relax: Callable[[Tensor], Tensor] = (
            (lambda z: loss.relax(z)) if isinstance(loss, HashLoss) else torch.tanh
        )

    def features(self, x: Tensor) -> Tensor:
        """x (N,3,S,S) in [0,1] -> (N,F) before the hash layer, in the network's own dtype."""
        out: Tensor = self.backbone(self._normalised(x)).flatten(1)
        return out.to(self.mean.dtype)  # autocast may have left bfloat16

    def _normalised(self, x: Tensor) -> Tensor:
        HashModel.forwards += len(x)
        return (x - self.mean) / self.std

    def maps(self, x: Tensor) -> list[Tensor]:
        """x (N,3,S,S) in [0,1] -> the output (N,c,h,w) of each stage of the backbone, in order.

        The backbone determines its stages: in timm they are those of `feature_info`, which are all
        blocks of a transformer. Tokens are arranged on the grid of patches, without class and
        register tokens. The list is empty if a backbone's stages are unknown or have no square
        grid.
        """
        return [
            out.to(self.mean.dtype)
            for out in stage_maps(self.backbone, self._stages, self._normalised(x))
        ]

    def channels(self) -> list[Channel]:
        """The backbone's convolutions in the order in which they run, each with its normalisation.

        They are found by running one image, since the order of declaration may be another.
        Convolutions that don't run are left out, and one that runs twice is in the list once.
        """
        return trace_channels(self.backbone, self._stages, self._image())

    def late_parameters(self, stages: int) -> list[str]:
        """The names of the parameters that run last: those of the hash layer, and before it a few.

        Args:
            stages: number of the backbone's last stages whose parameters are among them; those that
                run after the last stage always are. Of a backbone whose stages are unknown, there
                are none.

        Raises:
            UserError: the backbone has fewer stages.
        """
        if self._stages and stages > len(self._stages):
            raise UserError(
                f"stages {stages}: the backbone has {len(self._stages)}, so give 0 to "
                f"{len(self._stages)}."
            )
        first = len(self._stages) - stages if self._stages else 1
        used = trace_parameters(self.backbone, self._stages, self._image())
        late = [f"backbone.{name}" for name, done in used.items() if done >= first]
        return late + [f"head.{name}" for name, _ in self.head.named_parameters()]

    def _image(self) -> Tensor:
        """A black image (1,3,S,S), to find what runs."""
        image = torch.zeros(1, 3, self.size, self.size, device=self.mean.device)
        return image.to(self.mean.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """x (N,3,S,S) in [0,1] -> z (N,K), raw outputs, at least in float32."""
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


class FrozenHead(nn.Module):
    """The hash layer alone, on features that were computed before: what a frozen recipe trains.

    Args:
        width: F.
        bits: K.
        loss: the victim's loss, which determines the form of the hash layer.
        hidden: width of a hidden layer before the hash layer; 0: none.
    """

    def __init__(self, width: int, bits: int, loss: HashLoss, hidden: int = 0) -> None:
        super().__init__()
        self.backbone, self.head = nn.Identity(), hash_layer(width, bits, loss, hidden)

    def forward(self, features: Tensor) -> Tensor:
        """Features (N,F) float32 -> z (N,K) float32."""
        with torch.autocast(features.device.type, enabled=False):
            z: Tensor = self.head(features)
        return z

    def code(self, features: Tensor) -> Tensor:
        """Features (N,F) float32 -> (N,K) int8 of ±1."""
        return sign(self(features)).to(torch.int8)


Precision = Literal["float32", "bfloat16"]


def best_precision(device: torch.device) -> Precision:
    """bfloat16 where the hardware multiplies it natively, else float32."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if native else "float32"
