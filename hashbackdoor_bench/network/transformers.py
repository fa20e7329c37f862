"""What timm leaves to its users: where the last normalisation stands, and whole patches only."""

import inspect
from functools import cache

import torch
from torch import nn

from hashbackdoor_bench.errors import UserError


@cache
def as_published(name: str) -> nn.Module:
    """timm's network without classifier, of its own input size and pooling, without memory."""
    from timm import create_model

    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        network: nn.Module = create_model(name, num_classes=0)
    return network


def norm_as_published(name: str) -> dict[str, bool]:
    """The setting that keeps a transformer's last normalisation where it was published.

    With another pooling timm would make a new one, behind the pooling or before it, and leave out
    the published weights of the other.
    """
    network = as_published(name)
    if "fc_norm" not in inspect.signature(type(network)).parameters:
        return {}
    return {"fc_norm": not isinstance(network.fc_norm, nn.Identity)}


def refuse_rest(network: nn.Module, name: str, size: int) -> None:
    """Refuse images that are not cut into whole patches, of whose last pixels nothing is seen.

    timm takes them, and a trigger in the lower right corner would have no effect.

    Args:
        network: the backbone.
        name: its name.
        size: S, side of the images in px.

    Raises:
        UserError: the network's first convolution has patches that don't overlap, as those of a
            vision transformer, and they don't fill the image.
    """
    first = next((layer for layer in network.modules() if isinstance(layer, nn.Conv2d)), None)
    if first is None or first.kernel_size != first.stride or first.padding != (0, 0):
        return
    patch = first.stride[0]
    if rest := size % patch:
        near = [s for s in (size - rest, size - rest + patch) if s]
        raise UserError(
            f"backbone {name!r} cuts images into patches of {patch} px and would not see the last "
            f"{rest} of {size} px: take --size {' or '.join(map(str, near))} where the data set "
            "leaves it open, or another --backbone."
        )
