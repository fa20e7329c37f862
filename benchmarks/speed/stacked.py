"""Steps of several victims one after another, against the same steps of all of them at once.

Victims of one shape could be trained as one: by ``torch.func.vmap`` over stacked weights, or as one
network whose convolutions have a group for each victim. That saves launches, not arithmetic, so it
pays where launches are the bound.
"""

import copy
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from hashbackdoor_bench.network.cnn32 import Cnn32
from hashbackdoor_bench.network.model import FrozenHead
from hashbackdoor_bench.network.training_step import autocast

from .clock import Entry, Goal, Row, Setting, in_turn, ratio
from .networks import BITS, network, one_hot, recipe

VICTIMS, HEADS = 4, 8
BATCH, FEATURES, STEPS = 32, 1280, 10
FAR = 1e-4  # largest difference of gradients in float32, relative to the largest gradient


def measure(setting: Setting) -> Iterator[Row]:
    """The rows of this part."""
    yield _victims(setting)
    yield _heads(setting)


def _victims(setting: Setting) -> Row:
    count, steps = (2, 1) if setting.quick else (VICTIMS, STEPS)
    precision = str(recipe(setting.device).precision)
    models = [_network(seed).to(setting.device) for seed in range(count)]
    x = torch.rand(BATCH, 3, 32, 32, device=setting.device)
    x = x.contiguous(memory_format=torch.channels_last)
    ways: dict[str, Callable[[str], tuple[Callable[[], Tensor], list[Tensor]]]] = {
        "ours": lambda precision: _alone(models, x, precision),
        "vmap": lambda precision: _vmapped(models, x, precision),
        "grouped convolutions": lambda precision: _grouped(models, x, precision),
    }
    off = _difference({name: way("float32") for name, way in ways.items()}, len(models))
    entries = {name: Entry(_training(*way(precision), steps)) for name, way in ways.items()}
    seconds = {
        n: [t / steps / count for t in times] for n, times in in_turn(entries, setting).items()
    }
    others = [name for name in seconds if name != "ours"]
    return Row(
        "stacked victims",
        f"cnn32, {count} victims, one batch of {BATCH}, {precision}; seconds of a step of one",
        seconds,
        [Goal("share of the fastest way", min([1.0, *(ratio(seconds, n) for n in others)]), 0.9)],
        least="the same multiply-adds for each victim",
        equal=f"gradients of the first convolution: {off:.0e} off in float32",
        peers=others,
    )


def _heads(setting: Setting) -> Row:
    count, steps = (2, 1) if setting.quick else (HEADS, 10 * STEPS)
    device, items = setting.device, 3000
    _, loss = network("cnn32", 32, items, device)
    index = torch.arange(BATCH, device=device)
    labels = one_hot(items)[:BATCH].float().to(device)
    x = torch.rand(BATCH, FEATURES, device=device)
    heads = [FrozenHead(FEATURES, BITS, loss).to(device) for _ in range(count)]

    def alone() -> None:
        for head in heads:
            optimizer = torch.optim.Adam(head.parameters(), lr=5e-3)
            for step in range(steps):
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(loss(head(x), labels, index, step))
                optimizer.step()

    weight, bias = (
        torch.stack([head.head.get_parameter(name) for head in heads]).detach()
        for name in ("weight", "bias")
    )
    weight, bias = weight.requires_grad_(), bias[:, None].requires_grad_()

    def together() -> None:
        optimizer = torch.optim.Adam([weight, bias], lr=5e-3)
        for step in range(steps):
            z = torch.baddbmm(bias.expand(-1, BATCH, -1), x.expand(count, -1, -1), weight.mT)
            value = vmap(lambda one, now=step: loss(one, labels, index, now))(z)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(value.sum())
            optimizer.step()

    alone()
    together()  # from the same weights
    pairs = zip(heads, weight.detach(), strict=True)
    off = max(float((h.head.get_parameter("weight") - w).detach().abs().max()) for h, w in pairs)
    entries = {"ours": Entry(alone), "batched products": Entry(together)}
    seconds = {
        n: [t / steps / count for t in times] for n, times in in_turn(entries, setting).items()
    }
    return Row(
        "stacked heads",
        f"{count} hash layers, {FEATURES} features to {BITS} bits, batches of {BATCH}; seconds of "
        "a step of one",
        seconds,
        [Goal("share of the fastest way", min(1.0, ratio(seconds, "batched products")), 0.5)],
        least="the same multiply-adds for each layer",
        equal=f"weights after {steps} steps: {off:.0e} off",
        peers=["batched products"],
    )


def _network(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Cnn32().to(memory_format=torch.channels_last)


def _loss(features: Tensor) -> Tensor:
    """A scalar whose gradient reaches every weight; victims' losses take 2 % of a step."""
    return features.float().square().mean()


def _alone(
    models: Sequence[nn.Module], x: Tensor, precision: str
) -> tuple[Callable[[], Tensor], list[Tensor]]:
    nets = [copy.deepcopy(model) for model in models]

    def losses() -> Tensor:
        with autocast(x.device, precision):
            return torch.stack([_loss(net(x)) for net in nets])

    return losses, [p for net in nets for p in net.parameters()]


def _vmapped(
    models: Sequence[nn.Module], x: Tensor, precision: str
) -> tuple[Callable[[], Tensor], list[Tensor]]:
    nets = [copy.deepcopy(model) for model in models]
    weights, buffers = stack_module_state(nets)
    shape = copy.deepcopy(nets[0]).to("meta")

    def one(weight: dict[str, Tensor], buffer: dict[str, Tensor]) -> Tensor:
        return _loss(functional_call(shape, (weight, buffer), (x,)))

    def losses() -> Tensor:
        with autocast(x.device, precision):
            found: Tensor = vmap(one)(weights, buffers)
        return found

    return losses, list(weights.values())


def _grouped(
    models: Sequence[nn.Module], x: Tensor, precision: str
) -> tuple[Callable[[], Tensor], list[Tensor]]:
    layers: list[nn.Module] = []
    count = len(models)
    for parts in zip(*models, strict=True):
        layer = parts[0]
        if isinstance(layer, nn.Conv2d):
            into, out = layer.in_channels * count, layer.out_channels * count
            layer = nn.Conv2d(into, out, 3, padding=1, bias=False, groups=count).to(x.device)
        elif isinstance(layer, nn.BatchNorm2d):
            layer = nn.BatchNorm2d(layer.num_features * count).to(x.device)
        for name, value in layer.named_parameters():
            value.data = torch.cat([part.get_parameter(name) for part in parts]).detach()
        layers.append(layer)
    net = nn.Sequential(*layers).to(memory_format=torch.channels_last)
    wide = x.repeat(1, count, 1, 1).contiguous(memory_format=torch.channels_last)

    def losses() -> Tensor:
        with autocast(x.device, precision):
            return torch.stack([_loss(part) for part in net(wide).chunk(count, 1)])

    return losses, list(net.parameters())


def _training(
    losses: Callable[[], Tensor], weights: list[Tensor], steps: int
) -> Callable[[], None]:
    optimizer = torch.optim.Adam(weights, lr=1e-4)

    def run() -> None:
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(losses().sum())
            optimizer.step()

    return run


def _difference(ways: dict[str, tuple[Callable[[], Tensor], list[Tensor]]], count: int) -> float:
    """Largest difference of the gradients of the first convolutions, relative to the largest.

    Raises:
        AssertionError: the difference is larger than rounding errors; on a GPU those of TF32.
    """
    found: dict[str, Tensor] = {}
    for name, (losses, weights) in ways.items():
        torch.autograd.backward(losses().sum())
        first = weights[:: len(weights) // count] if name == "ours" else weights[:1]
        found[name] = torch.cat([w.grad.flatten() for w in first if w.grad is not None])
    largest = float(found["ours"].abs().max())
    off = max(float((one - found["ours"]).abs().max()) / largest for one in found.values())
    far = FAR if found["ours"].device.type == "cpu" else 100 * FAR
    assert off < far, f"the gradients are {off} off those of one victim at a time"
    return off
