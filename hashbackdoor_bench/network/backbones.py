"""Backbones by name: their networks, weights, normalisation and stages."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hashbackdoor_bench.errors import UserError, unknown


@dataclass(frozen=True)
class Backbone:
    """A network without its classifier, with its normalisation and stages.

    Attributes:
        network: normalised images (N,3,S,S) -> features, (N,F) when flattened.
        mean: mean of each colour channel, in [0,1], for the normalisation of the input.
        std: standard deviation of each colour channel.
        stages: names of the modules at the ends of the stages, in the order in which they run;
            empty if they are unknown.
    """

    network: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]
    stages: tuple[str, ...]

    def width(self, name: str, size: int) -> int:
        """F for images of ``size`` px, found by running the network on one image.

        Raises:
            UserError: the backbone ``name`` can't take such images.
        """
        training = self.network.training
        try:
            with torch.no_grad():
                out = self.network.eval()(torch.zeros(1, 3, size, size))
        except (RuntimeError, AssertionError, ValueError) as error:
            raise UserError(
                f"backbone {name!r} can't take images of {size} px: take another --backbone."
            ) from error
        self.network.train(training)
        return int(out.flatten(1).shape[1])


class Cnn32(nn.Sequential):
    """A small VGG-like network for 32-pixel images: (N,3,32,32) -> (N,128), 0.3 M parameters.

    Three stages of two 3×3 convolutions with batch norm and ReLU, 32, 64 and 128 channels wide,
    with 2×2 max-pooling between them and a global maximum at the end; 38.6 M multiply-adds per
    image. With a global average instead, HashNet loses 8 points of MAP on fashion-mini, and a
    trigger of 16 pixels, which is one of 64 cells in the average, hardly changes the code.
    """

    stages = ("5", "12", "19")  # the last ReLU of each

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


def build(name: str, size: int, pretrained: bool, weights: Path | None) -> Backbone:
    """The backbone ``name`` for images of ``size`` px; arguments and errors: see `HashModel`."""
    if name == "cnn32":
        if pretrained:
            raise UserError("cnn32 has no pretrained weights: leave out --pretrained.")
        if size > 64:
            raise UserError(f"cnn32 is for 32 px, not {size}: give --backbone resnet50 or another.")
        made = Backbone(Cnn32(), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), Cnn32.stages)
    elif name == "alexnet":
        made = _alexnet(pretrained and weights is None)
    else:
        made = _timm(name, size, pretrained and weights is None)
    if weights is not None:
        _load_weights(made.network, name, weights)
    return made


def _alexnet(pretrained: bool) -> Backbone:
    from torchvision.models import AlexNet_Weights, alexnet

    network = _fetch(
        "alexnet", lambda: alexnet(weights=AlexNet_Weights.DEFAULT if pretrained else None)
    )
    network.classifier = nn.Sequential(*list(network.classifier)[:-1])
    stages = ("features.1", "features.4", "features.11")  # the ReLU before each pool
    return Backbone(network, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), stages)


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
    return Backbone(network, tuple(config["mean"]), tuple(config["std"]), _stages(network))


def _stages(network: nn.Module) -> tuple[str, ...]:
    """The modules that timm gives as the ends of a network's stages; empty if one doesn't exist."""
    stages = tuple(info.get("module", "") for info in getattr(network, "feature_info", ()))
    return stages if all(dict(network.named_modules()).get(name) for name in stages) else ()


def _fetch(name: str, build: Callable[[], Any]) -> Any:
    """Build a network; an unreachable hub becomes a `UserError`."""
    try:
        return build()
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"backbone {name!r} could not be made ({str(error).splitlines()[0][:120]}): "
            "without a network connection, give --weights FILE instead of --pretrained."
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
    except Exception as error:  # every format raises its own errors; the user's remedy is the same
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
