"""Backbones by name: their networks, weights, normalisation and stages."""

from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hashbackdoor_bench.errors import UserError, unknown
from hashbackdoor_bench.network.cnn32 import Cnn32
from hashbackdoor_bench.network.hub import Source, fetch, first_line
from hashbackdoor_bench.network.transformers import as_published, norm_as_published, refuse_rest
from hashbackdoor_bench.network.weights import (
    UNREADABLE,
    State,
    leftovers,
    load_by_name,
    load_by_order,
    load_reports,
    misfit,
    read_weights,
)

# What networks raise on images of a size that they can't take, in building or in running.
WRONG_SIZE = (RuntimeError, AssertionError, ValueError, TypeError, IndexError, ArithmeticError)


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

    def width(self, name: str, size: int, pool: str | None = None) -> int:
        """F for images of ``size`` px, found by running the network on one image.

        Raises:
            UserError: the backbone ``name`` can't take such images, or can't pool so.
        """
        training = self.network.training
        try:
            with torch.no_grad():
                out = self.network.eval()(torch.zeros(1, 3, size, size))
        except WRONG_SIZE as error:
            raise _refusal(name, size, pool, error) from error
        self.network.train(training)
        return int(out.flatten(1).shape[1])


@cache
def bytes_for(name: str, size: int, pool: str | None = None) -> int:
    """Bytes of the weights of a backbone that takes images of ``size`` px.

    It is built and run without memory for its tensors, which takes a second or two. Where that is
    not possible, the network itself has the last word. For ``pool`` see `HashModel`.

    Raises:
        UserError: the backbone is unknown, or can't take such images or this pooling.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            # Batch norm on the meta device imports torch's compiler, which takes 1.5 s; cnn32 is
            # small enough to be run.
            with torch.device("cpu" if name == "cnn32" else "meta"):
                network = build(name, size, False, None, pool=pool)
                network.width(name, size, pool)
        except UserError:
            network = build(name, size, False, None, pool=pool)
            network.width(name, size, pool)
    return sum(t.numel() * t.element_size() for t in network.network.state_dict().values())


def check_published(name: str, way_out: str = "leave out --pretrained") -> None:
    """Refuse published weights for a known backbone that has none.

    Args:
        name: the backbone.
        way_out: what to do instead, for the message.

    Raises:
        UserError: it has none.
    """
    if name == "cnn32" or (name != "alexnet" and Source.of_timm(name) is None):
        raise UserError(f"backbone {name!r} has no published weights: {way_out}.")


def build(
    name: str,
    size: int,
    pretrained: bool,
    weights: Path | None,
    *,
    by_order: bool = False,
    pool: str | None = None,
) -> Backbone:
    """The backbone ``name`` for images of ``size`` px; arguments and errors: see `HashModel`."""
    pretrained = pretrained and weights is None
    # A size or pooling that the network can't take is refused before its weights are had.
    needed = bytes_for(name, size, pool) if pretrained or weights is not None else 0
    if pretrained:
        check_published(name)
    state = None if weights is None else read_weights(weights, needed)
    classifier: tuple[str, ...] = ()
    if name == "cnn32":
        if size > Cnn32.largest:
            raise UserError(
                f"cnn32 is for small images, up to {Cnn32.largest} px and not {size}: give "
                "--backbone resnet50 or another."
            )
        made = Backbone(Cnn32(pool or "max"), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), Cnn32.stages)
    elif pool is not None and name.startswith(("alexnet", "vgg")):
        raise UserError(
            f"--pool {pool}: {name} flattens its last map into fully connected layers of its own: "
            "leave out --pool, or give another --backbone."
        )
    elif name == "alexnet":
        made, classifier = _alexnet(pretrained), ("classifier.6",)
    elif weights is None or state is None or by_order:
        made = _timm(name, size, pretrained, pool)
    else:
        return _timm_from(name, size, weights, state, pool)
    if weights is not None and state is not None:
        if by_order:
            load_by_order(made.network, name, weights, state)
        else:
            load_by_name(made.network, name, weights, state, classifier)
    return made


def _alexnet(pretrained: bool) -> Backbone:
    from torchvision.models import AlexNet_Weights, alexnet

    if pretrained:
        published = AlexNet_Weights.DEFAULT
        network = fetch("alexnet", Source(published.url), lambda: alexnet(weights=published))
    else:
        network = alexnet()
    network.classifier = nn.Sequential(*list(network.classifier)[:-1])
    stages = ("features.1", "features.4", "features.11")  # the ReLU before each pool
    return Backbone(network, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), stages)


def _timm(name: str, size: int, pretrained: bool, pool: str | None) -> Backbone:
    import timm

    if pretrained:
        return _published(name, size, pool)
    settings = _settings(name, size, pool)
    try:
        network = timm.create_model(name, **settings)
    except WRONG_SIZE as error:
        raise _refusal(name, size, pool, error) from error
    refuse_rest(network, name, size)
    return _wrapped(network)


def _published(name: str, size: int, pool: str | None) -> Backbone:
    """A timm model with its published weights.

    Raises:
        UserError: they can't be downloaded, or lack tensors that the network has with this pooling.
    """
    import timm

    settings = _settings(name, size, pool)
    source = Source.of_timm(name)
    assert source is not None  # see `check_published`
    with load_reports() as reports:
        network = fetch(name, source, lambda: timm.create_model(name, pretrained=True, **settings))
    if pool is not None and (why := leftovers([k for r in reports for k in r.missing_keys], ())):
        raise UserError(
            f"--pool {pool}: the published weights of {name} are for another pooling, {why}: leave "
            "out --pool, or give another --backbone."
        )
    return _wrapped(network)


def _timm_from(name: str, size: int, path: Path, state: State, pool: str | None) -> Backbone:
    """A timm model with the weights of a file, adapted by timm as if they were its published ones.

    timm knows the names of other publishers, and resizes position embeddings to the input. A layer
    that pools in the published network may be in the file, and is left out with another pooling.

    Raises:
        UserError: the weights are not exactly those of the network, but for the classifier.
    """
    import timm

    settings = _settings(name, size, pool)
    overlay = {"file": str(path), "num_classes": -1}  # -1: leave out the classifier
    with load_reports() as reports:
        try:
            network = timm.create_model(
                name, pretrained=True, pretrained_cfg_overlay=overlay, **settings
            )
        except UNREADABLE as error:  # from torch, or from a function of timm that renames tensors
            plain = timm.create_model(name, **settings)
            own = plain.state_dict()
            why = leftovers([k for k in own if k not in state], [k for k in state if k not in own])
            shapes = "size mismatch" in str(error)
            raise misfit(plain, name, path, state, str(error) if shapes else why) from error
    pooling = set(as_published(name).state_dict()) if pool is not None else ()
    too_many = [key for key in reports[-1].unexpected_keys if key not in pooling]
    if why := leftovers(reports[-1].missing_keys, too_many):
        raise misfit(network, name, path, state, why)
    return _wrapped(network)


def _settings(name: str, size: int, pool: str | None) -> dict[str, Any]:
    """The arguments of `timm.create_model` for a network without classifier.

    Raises:
        UserError: timm has no such network.
    """
    import timm

    if not timm.is_model(name):
        raise unknown("backbone", name, ["cnn32", "alexnet", *timm.list_models()])
    settings: dict[str, Any] = {"num_classes": 0}
    if name.startswith("vgg"):
        settings["drop_rate"] = 0.5  # timm's default is 0; the published networks have .5
    fixed = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if fixed is not None and fixed.fixed_input_size:
        settings["img_size"] = size
    if pool is not None:
        settings["global_pool"] = "" if pool == "flatten" else pool
        settings |= norm_as_published(name)
    return settings


def _wrapped(network: Any) -> Backbone:
    config = network.pretrained_cfg
    return Backbone(network, tuple(config["mean"]), tuple(config["std"]), _stages(network))


def _refusal(name: str, size: int, pool: str | None, error: Exception) -> UserError:
    """The error for a network that can't be built or run; names the pooling if that is why."""
    if pool is not None:
        with suppress(UserError):  # it can't take this size, however it pools
            bytes_for(name, size)
            return UserError(
                f"--pool {pool}: backbone {name!r} can't pool so ({first_line(error)}): leave out "
                "--pool, or give another value or --backbone."
            )
    return UserError(
        f"backbone {name!r} can't take images of {size} px ({first_line(error)}): take another "
        "--backbone, or another --size where the data set leaves it open."
    )


def _stages(network: nn.Module) -> tuple[str, ...]:
    """The modules that timm gives as the ends of a network's stages; empty if one doesn't exist."""
    stages = tuple(info.get("module", "") for info in getattr(network, "feature_info", ()))
    return stages if all(dict(network.named_modules()).get(name) for name in stages) else ()
