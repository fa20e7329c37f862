"""The network of every victim and surrogate: pixels in [0,1] -> backbone -> hash layer -> code.

The rules that live here: normalisation is the network's first layer, and sign(0) = +1.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hashbackdoor_bench.api import HashLoss
from hashbackdoor_bench.errors import UserError, unknown


def sign(z: Tensor) -> Tensor:
    """±1 of z's dtype; zero counts as +1 (torch.sign would make a ternary code)."""
    return torch.where(z >= 0, 1.0, -1.0).to(z.dtype)


class Cnn32(nn.Sequential):
    """A small VGG-like network for 32-pixel images: (N,3,32,32) -> (N,128), 0.3 M parameters.

    Three stages of two 3×3 convolutions with batch norm and ReLU, 32, 64 and 128 wide, a 2×2
    max-pool between them and a global maximum at the end; 38.6 M multiply-adds an image. With a
    global average instead, HashNet loses 8 points of MAP on fashion-mini, and a trigger of 16
    pixels, one cell of 64 in the average, hardly reaches the code.
    """

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        width = 3
        for stage, wider in enumerate((32, 64, 128)):
            if stage:
                layers.append(nn.MaxPool2d(2))
            for _ in range(2):
                layers += [
                    nn.Conv2d(width, wider, 3, padding=1, bias=False),
                    nn.BatchNorm2d(wider),
                    nn.ReLU(inplace=True),
                ]
                width = wider
        super().__init__(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten())


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
        self.backbone, mean, std = _backbone(backbone, size, pretrained, weights)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        width = _width(self.backbone, backbone, size)
        self.head: nn.Module = nn.Linear(width, bits, bias=loss.head_bias)
        if loss.head_init_std is not None:
            nn.init.normal_(self.head.weight, std=loss.head_init_std)
            if loss.head_bias:
                nn.init.zeros_(self.head.bias)
        if loss.head_norm == "batch":
            self.head = nn.Sequential(self.head, nn.BatchNorm1d(bits))
        # A loss is a module; held in a closure, its banks stay out of this network's state.
        self._relax: Callable[[Tensor], Tensor] = (
            (lambda z: loss.relax(z)) if isinstance(loss, HashLoss) else torch.tanh
        )

    def features(self, x: Tensor) -> Tensor:
        """x (N,3,S,S) in [0,1] -> (N,F) before the hash layer, in the network's own dtype."""
        out: Tensor = self.backbone((x - self.mean) / self.std).flatten(1)
        return out.to(self.mean.dtype)  # autocast may have left bfloat16

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


Backbone = tuple[nn.Module, tuple[float, ...], tuple[float, ...]]  # network, mean, std of its input


def _backbone(name: str, size: int, pretrained: bool, weights: Path | None) -> Backbone:
    if name == "cnn32":
        if pretrained:
            raise UserError("cnn32 has no pretrained weights: leave out --pretrained.")
        if size > 64:
            raise UserError(f"cnn32 is for 32 px, not {size}: take --backbone resnet50, say.")
        made: Backbone = Cnn32(), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    elif name == "alexnet":
        made = _alexnet(pretrained and weights is None)
    else:
        made = _timm(name, size, pretrained and weights is None)
    if weights is not None:
        _load_weights(made[0], name, weights)
    return made


def _alexnet(pretrained: bool) -> Backbone:
    from torchvision.models import AlexNet_Weights, alexnet

    network = _fetch(
        "alexnet", lambda: alexnet(weights=AlexNet_Weights.DEFAULT if pretrained else None)
    )
    network.classifier = nn.Sequential(*list(network.classifier)[:-1])
    return network, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _timm(name: str, size: int, pretrained: bool) -> Backbone:
    import timm

    if not timm.is_model(name):
        raise unknown("backbone", name, ["cnn32", "alexnet", *timm.list_models()])
    settings: dict[str, Any] = {"num_classes": 0}
    if name.startswith("vgg"):
        settings["drop_rate"] = 0.5  # timm's default is 0; the published networks have .5
    fixed = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if fixed is not None and fixed.fixed_input_size:
        settings["img_size"] = size
    network = _fetch(name, lambda: timm.create_model(name, pretrained=pretrained, **settings))
    config = network.pretrained_cfg
    return network, tuple(config["mean"]), tuple(config["std"])


def _fetch(name: str, build: Callable[[], Any]) -> Any:
    """Build a network; a hub that can't be reached becomes a sentence with the way out."""
    try:
        return build()
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"backbone {name!r} could not be made ({str(error).splitlines()[0][:120]}): "
            "without network, bring its weights with --weights FILE instead of --pretrained."
        ) from error


def _load_weights(network: nn.Module, name: str, path: Path) -> None:
    if not path.is_file():
        raise UserError(
            f"--weights {path}: there is no such file; give a .safetensors or .pth file."
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
        state = {key.removeprefix("module."): value for key, value in state.items()}
    except Exception as error:  # each format has errors of its own; all mean the same to the user
        raise UserError(
            f"--weights {path}: not a weight file that loads without running code; "
            "save it as .safetensors."
        ) from error
    try:
        report = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise UserError(
            f"--weights {path}: its tensors have other shapes than backbone {name!r}; give the "
            "file of that backbone, or another --backbone."
        ) from error
    if report.missing_keys:
        raise UserError(
            f"--weights {path}: it lacks {report.missing_keys[0]!r} of backbone {name!r}; "
            "give the file of that backbone, or another --backbone."
        )


def _width(network: nn.Module, name: str, size: int) -> int:
    """F, by trying: attributes that promise it differ between backbones."""
    training = network.training
    try:
        with torch.no_grad():
            width = network.eval()(torch.zeros(1, 3, size, size)).flatten(1).shape[1]
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UserError(
            f"backbone {name!r} can't take images of {size} px: take another --backbone."
        ) from error
    network.train(training)
    return int(width)


Precision = Literal["float32", "bfloat16"]


def best_precision(device: torch.device) -> Precision:
    """bfloat16 where the hardware multiplies it natively, else float32."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if native else "float32"
