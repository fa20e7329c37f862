"""The stages and convolutions of a backbone, found by hooks while images run through it."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

NORMS = (nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)  # timm's own are derived from these


@dataclass(frozen=True)
class Channel:
    """A convolution and the normalisation of its output channels.

    Attributes:
        conv: the convolution, with weights (c_out, c_in, h, w).
        norm: the normalisation layer whose input is the output of ``conv`` or a view of it; None if
            there is none.
        stage: number of its stage, from 0 as in `HashModel.maps`; the number of stages if it runs
            after the last one.
    """

    conv: nn.Conv2d
    norm: nn.Module | None
    stage: int


def stage_maps(network: nn.Module, stages: Sequence[str], x: Tensor) -> list[Tensor]:
    """The outputs of the stages of ``network`` for x (N,3,S,S), see `HashModel.maps`.

    Args:
        network: the backbone; timm's `forward_intermediates` is used if it has one, since that
            arranges tokens on their grid.
        stages: names of the modules at the ends of stages.
        x: normalised images.
    """
    lay_out = getattr(network, "forward_intermediates", None)
    if stages and lay_out is not None:
        return list(lay_out(x, intermediates_only=True, output_fmt="NCHW"))
    maps: list[Tensor] = []

    def keep(module: nn.Module, given: Any, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            maps.append(output.clone())  # the next layer may work in place

    with ExitStack() as hooks:
        for name in stages:
            hooks.enter_context(network.get_submodule(name).register_forward_hook(keep))
        network(x)
    return maps if len(maps) == len(stages) else []


@torch.no_grad()
def trace_channels(network: nn.Module, stages: Sequence[str], x: Tensor) -> list[Channel]:
    """The convolutions that x (1,3,S,S) runs through, see `HashModel.channels`."""
    channels: dict[nn.Conv2d, Channel] = {}
    outputs: list[tuple[nn.Conv2d, Tensor, int]] = []  # keeps tensors alive: addresses stay unique
    done = 0

    def convolved(module: nn.Conv2d, given: Any, output: Tensor) -> None:
        channels.setdefault(module, Channel(module, None, done))
        outputs.append((module, output, output._version))

    def finished(*_: object) -> None:
        nonlocal done
        done += 1

    def normalises(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        for conv, output, version in outputs:
            if _same_memory(output, given[0]) and given[0]._version == version:
                channels[conv] = replace(channels[conv], norm=module)

    with ExitStack() as hooks, _in_use(network):
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                hooks.enter_context(module.register_forward_hook(convolved))
            elif isinstance(module, NORMS):
                hooks.enter_context(module.register_forward_pre_hook(normalises))
        for name in stages:  # after the hooks of convolutions, since a stage may end in one
            hooks.enter_context(network.get_submodule(name).register_forward_hook(finished))
        network(x)
    return list(channels.values())


@torch.no_grad()
def trace_parameters(network: nn.Module, stages: Sequence[str], x: Tensor) -> dict[str, int]:
    """How many stages are finished when a parameter is first used, by the parameter's name.

    Args:
        network: the backbone; a parameter that no module of its own uses, such as a position
            embedding, is left out.
        stages: names of the modules at the ends of stages.
        x: (1,3,S,S), a normalised image.
    """
    found: dict[str, int] = {}
    done = 0

    def finished(*_: object) -> None:
        nonlocal done
        done += 1

    with ExitStack() as hooks, _in_use(network):
        for prefix, module in network.named_modules():
            own = [f"{prefix}.{name}" for name, _ in module.named_parameters(recurse=False)]
            if prefix and own:

                def starts(*_: object, own: Sequence[str] = own) -> None:
                    for name in own:
                        found.setdefault(name, done)

                hooks.enter_context(module.register_forward_pre_hook(starts))
        for name in stages:
            hooks.enter_context(network.get_submodule(name).register_forward_hook(finished))
        network(x)
    return found


def _same_memory(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are the same, or views of the same memory."""
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


@contextmanager
def _in_use(network: nn.Module) -> Iterator[None]:
    """Put all modules in eval mode, and each back in its own mode at the end."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
