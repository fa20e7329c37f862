"""What every victim promises, looked at on random outputs; no network, no images."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from hashbackdoor_bench.api import HashLoss
from hashbackdoor_bench.checks.finding import Finding, Rule, apply, settings
from hashbackdoor_bench.network import sign
from hashbackdoor_bench.registry import Method

BITS, CLASSES, ITEMS, BATCH = 8, 6, 12, 6


def check_victim(
    method: Method[HashLoss], given: Mapping[str, object] | None = None
) -> list[Finding]:
    """The promises that a victim breaks; none if it keeps all of them.

    Args:
        method: ``VICTIMS[name]``.
        given: hyper-parameters other than the defaults.
    """
    return apply(RULES, Trial(method, given or {}), method)


class Trial:
    """A loss at work on random outputs.

    Args:
        method: the victim.
        given: its hyper-parameters.
    """

    def __init__(self, method: Method[HashLoss], given: Mapping[str, object]) -> None:
        self.method, self.given = method, given

    def loss(self, bits: int = BITS, classes: int = CLASSES, items: int = ITEMS) -> HashLoss:
        """A new one; the same at every call, as the framework makes it from one seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.method(bits, classes, items, **self.given)

    def batch(self, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """z (N,K) with a gradient, y (N,C) with one or two tags, index (N,) of the items."""
        draw = torch.Generator().manual_seed(seed)
        z = torch.randn(BATCH, BITS, generator=draw).requires_grad_()
        y = torch.eye(CLASSES)[torch.arange(BATCH) % 3]
        y[0, 1] = 1
        return z, y, torch.randperm(ITEMS, generator=draw)[:BATCH]

    def steps(self, loss: HashLoss, first: int, last: int) -> list[float]:
        """Values of steps first..last, each an epoch of 15, as the training loop calls them."""
        values = []
        for step in range(first, last):
            loss.on_epoch(15 * step)
            torch.manual_seed(step)
            values.append(loss(*self.batch(step), 150 * step).item())
        return values


def declares(trial: Trial) -> Iterator[str]:
    """The class says what it is."""
    cls = trial.method.cls
    yield from settings(trial.method, 3)
    if not (cls.__doc__ or "").strip():
        yield "the class has no docstring: say what it does and, under Args:, each setting."
    if not issubclass(cls, HashLoss):
        yield f"{cls.__name__} is no HashLoss: derive it from hashbackdoor_bench.HashLoss."
        return
    loss = trial.loss()
    if loss.head_norm not in ("none", "batch"):
        yield f"head_norm is {loss.head_norm!r}: write none or batch."
    if not loss.head_lr_scale > 0:
        yield f"head_lr_scale is {loss.head_lr_scale}: it must be above 0."
    found = (loss.bits, loss.classes, loss.train_size)
    if found != (BITS, CLASSES, ITEMS):
        yield f"bits, classes, train_size are {found}: pass them on to super().__init__()."


def scalar(trial: Trial) -> Iterator[str]:
    """The loss is a finite float32 scalar whose gradient reaches every output."""
    loss, (z, y, index) = trial.loss(), trial.batch()
    loss.on_epoch(0)
    value = loss(z, y, index, 0)
    if value.shape != () or value.dtype != torch.float32:
        yield f"it is {tuple(value.shape)} {value.dtype}, not () torch.float32: end in a mean."
        return
    if not torch.isfinite(value):
        yield f"it is {value.item()} on a usual batch."
    if value.grad_fn is None:
        yield "no gradient leads from it to z: don't detach z or take its sign."
        return
    value.backward()
    if z.grad is None or not (z.grad.abs().sum(1) > 0).all():
        yield "its gradient is 0 for an image of the batch: don't detach z or take its sign."


def untouched(trial: Trial) -> Iterator[str]:
    """The loss leaves its inputs as they are."""
    given, fresh = trial.batch(), trial.batch()
    with torch.no_grad():
        trial.loss()(*given, 0)
    for name, one, other in zip(("z", "y", "index"), given, fresh, strict=True):
        if not torch.equal(one, other):
            yield f"it changes {name} in place: work on a clone()."


def odd_batches(trial: Trial) -> Iterator[str]:
    """Odd batches give a finite loss and a finite gradient."""
    _, usual, index = trial.batch()
    cases = {
        "a usual batch": usual,
        "a batch of one class": torch.eye(CLASSES)[[2] * BATCH],
        "a batch without two images of a class": torch.eye(CLASSES)[:BATCH],
        "a batch of one image": usual[:1],
        "a batch without labels": torch.zeros(BATCH, CLASSES),
    }
    for scale in (1.0, 0.0, 1e4):
        for name, y in cases.items():
            z = (scale * trial.batch()[0].detach())[: len(y)].requires_grad_()
            value = trial.loss()(z, y, index[: len(y)], 1000)
            value.backward()
            where = f"on {name}, with z around {scale:g},"
            if not torch.isfinite(value):
                yield f"{where} it is {value.item()}: take logsumexp, softplus or clamp."
            elif z.grad is None or not torch.isfinite(z.grad).all():
                yield f"{where} its gradient is not finite: mind the branch not taken by where()."


def state(trial: Trial) -> Iterator[str]:
    """All state is in the state_dict, and holds no graph."""
    loss = trial.loss()
    before = set(loss.state_dict())
    trial.steps(loss, 0, 3)
    if added := set(loss.state_dict()) - before:
        yield f"{min(added)!r} appears during training: register it in the constructor."
    for name, value in vars(loss).items():
        if isinstance(value, Tensor):
            yield f"self.{name} is a tensor outside the state: register_buffer({name!r}, …)."
    for name, value in loss.named_buffers():
        if value.requires_grad or value.grad_fn is not None:
            yield f"buffer {name!r} holds a graph: store z.detach()."


def resumes(trial: Trial) -> Iterator[str]:
    """A training that is interrupted goes on as the undisturbed one."""
    with torch.random.fork_rng(devices=[]):
        expected = trial.steps(trial.loss(), 0, 6)
        stopped, resumed = trial.loss(), trial.loss()
        trial.steps(stopped, 0, 3)
        resumed.load_state_dict({k: v.clone() for k, v in stopped.state_dict().items()})
        z = trial.batch()[0]
        if not torch.equal(resumed.relax(z), stopped.relax(z)):
            yield "relax differs after load_state_dict: keep what it reads in a buffer."
        found = trial.steps(resumed, 3, 6)
    if found != expected[3:]:
        yield (
            f"after load_state_dict the loss is {found[0]:.6g} instead of {expected[3]:.6g}: keep "
            "what changes during training in buffers, or derive it from step or epoch."
        )


def relaxes(trial: Trial) -> Iterator[str]:
    """Relax gives a smooth code in [-1,1] with the signs of z."""
    loss, z = trial.loss(), trial.batch()[0].detach()
    z = torch.cat([z, torch.full((1, BITS), 1e4), torch.full((1, BITS), -1e4)]).requires_grad_()
    code = loss.relax(z)
    if code.shape != z.shape or not (code.abs() <= 1).all():
        most = float(code.detach().abs().max())
        yield f"relax(z) is {tuple(code.shape)} up to {most:.3g}: it must be (N,K) in [-1,1]."
        return
    if not torch.equal(sign(code), sign(z)):
        yield "relax(z) has other signs than z, so an attacker would ascend another code."
    if code.grad_fn is not None:
        code.sum().backward()  # type: ignore[no-untyped-call]
    if z.grad is None or not (z.grad[:BATCH] != 0).all():
        yield "relax(z) has no gradient: take tanh, not sign."


def teaches(trial: Trial) -> Iterator[str]:
    """Descending it draws images of one class together and classes apart."""
    bits, items = 16, 48
    draw = torch.Generator().manual_seed(5)
    kind = torch.arange(items) % 2
    y = torch.eye(2)[kind]
    x = 0.3 * torch.randn(items, 8, generator=draw)
    x[:, 0] += 3  # what all have in common decides the bits before training
    x[:, 1] += 0.6 * (2 * kind - 1)
    weight = (torch.randn(8, bits, generator=draw) / 3).requires_grad_()
    loss = trial.loss(bits, 2, items)
    optimizer = torch.optim.SGD([weight, *loss.parameters()], lr=0.1, momentum=0.9)
    for epoch in range(50):
        loss.on_epoch(epoch)
        order = torch.randperm(items, generator=draw)
        for number, index in enumerate(torch.split(order, 16)):
            value = loss(x[index] @ weight, y[index], index, 3 * epoch + number)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    code = sign(x @ weight.detach())
    distance = (bits - code @ code.T) / 2
    alike = kind[:, None] == kind
    gap = float(distance[~alike].mean() - distance[alike].mean())
    if not gap > bits / 3:
        yield (
            f"after 150 steps, codes of two classes are {gap:.1f} of {bits} bits further apart "
            "than codes of one: look at the sign of the loss, and at how similar pairs are found."
        )


RULES: tuple[Rule[Trial], ...] = (
    declares,
    untouched,
    scalar,
    odd_batches,
    state,
    resumes,
    relaxes,
    teaches,
)
