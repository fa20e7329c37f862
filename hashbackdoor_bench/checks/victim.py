"""The contract of victims, checked on random outputs, without a network or images."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from hashbackdoor_bench.api import HashLoss
from hashbackdoor_bench.checks.finding import Finding, Rule, apply, returned, seed_torch, settings
from hashbackdoor_bench.checks.victim_batches import draws, late, odd_batches, unordered
from hashbackdoor_bench.checks.victim_teaching import teaches
from hashbackdoor_bench.checks.victim_trial import (
    BATCH,
    BITS,
    CLASSES,
    ITEMS,
    Trial,
    changed,
    saved,
    value,
)
from hashbackdoor_bench.checks.victim_untrained import solves
from hashbackdoor_bench.network import sign
from hashbackdoor_bench.registry import Method


def check_victim(
    method: Method[HashLoss], given: Mapping[str, object] | None = None
) -> list[Finding]:
    """The promises that a victim breaks; empty if it keeps all of them.

    Args:
        method: ``VICTIMS[name]``.
        given: hyper-parameters other than the defaults.
    """
    return apply(victim_rules(method), Trial(method, given or {}), method)


def victim_rules(method: Method[HashLoss]) -> tuple[Rule[Trial], ...]:
    """The rules that a victim has to keep, which depend on whether it is trained."""
    return RULES if getattr(method.cls, "trained", True) else UNTRAINED


def declares(trial: Trial) -> Iterator[str]:
    """The class says what it is."""
    cls = trial.method.cls
    yield from settings(trial.method, 3)
    if not (cls.__doc__ or "").strip():
        yield "the class has no docstring: say what it does and, under Args:, each setting."
    if not issubclass(cls, HashLoss):
        yield f"{cls.__name__} is not a HashLoss: derive it from hashbackdoor_bench.HashLoss."
        return
    loss = trial.loss()
    if loss.head_norm not in ("none", "batch"):
        yield f"head_norm is {loss.head_norm!r}: write none or batch."
    found = (loss.bits, loss.classes, loss.train_size)
    if found != (BITS, CLASSES, ITEMS):
        yield f"bits, classes, train_size are {found}: pass them on to super().__init__()."


def scalar(trial: Trial) -> Iterator[str]:
    """The loss is a finite float32 scalar whose gradient reaches every output."""
    loss, (z, y, index) = trial.loss(), trial.batch()
    loss.on_epoch(0)
    out = value(loss, z, y, index, 0)
    if out.shape != () or out.dtype != torch.float32:
        yield f"it is {tuple(out.shape)} {out.dtype}, not () torch.float32: return a mean."
        return
    if not torch.isfinite(out):
        yield f"the loss is {out.item()} on a usual batch: it must be finite."
    if out.grad_fn is None:
        yield "no gradient leads from it to z: don't detach z or take its sign."
        return
    torch.autograd.backward(out)
    if z.grad is None or not (z.grad.abs().sum(1) > 0).all():
        yield "its gradient is 0 for an image of the batch: don't detach z or take its sign."


def untouched(trial: Trial) -> Iterator[str]:
    """Remember, forward and items don't change their inputs."""
    loss = trial.loss()
    for call in (loss.remember, loss.forward, loss.items):
        given, fresh = trial.batch(), trial.batch()
        with torch.no_grad():
            call(*given, 0)
        for name, one, other in zip(("z", "y", "index"), given, fresh, strict=True):
            if not torch.equal(one, other):
                yield f"{call.__name__} changes {name} in place: work on a clone()."


def writes_nothing(trial: Trial) -> Iterator[str]:
    """Forward and items change no state; only remember stores anything of a batch."""
    loss = trial.loss()
    trial.steps(loss, 0, 3)
    before, batch = saved(loss), trial.batch(3)
    values = []
    with torch.random.fork_rng(devices=[]):
        for _ in range(2):
            seed_torch(0)
            values.append(loss(*batch, 450).item())
        by_forward = changed(loss, before)
        loss.items(*batch, 450)
    for name in changed(loss, before):
        call = "forward" if name in by_forward else "items"
        yield f"{call} changes {name!r}: change it in remember."
    if values[0] != values[1] and not by_forward:
        yield (
            f"forward gives {values[0]:.6g} and then {values[1]:.6g} for the same batch: it must "
            "change no state."
        )


def item_losses(trial: Trial) -> Iterator[str]:
    """If the loss has items, their mean is the loss, and has its gradient."""
    index = trial.batch()[2]
    for name, y in trial.odd().items():
        loss, z = trial.loss(), trial.batch()[0].detach()[: len(y)].requires_grad_()
        whole = value(loss, z, y, index[: len(y)], 300)
        items = loss.items(z, y, index[: len(y)], 300)
        if items is None:
            return
        returned(items, Tensor, "items")
        if items.shape != (len(y),):
            yield f"on {name} items are {tuple(items.shape)}, not ({len(y)},): give each image one."
            return
        if not torch.allclose(items.mean(), whole, rtol=1e-4, atol=1e-6):
            yield f"on {name} the items' mean is {items.mean():.6g}, but the loss is {whole:.6g}."
            return
        if items.grad_fn is None:
            yield "no gradient leads from items to z: don't detach z or take its sign."
            return
        one, other = (torch.autograd.grad(v, z)[0] for v in (items.mean(), whole))
        if not torch.allclose(one, other, rtol=1e-3, atol=1e-5 * float(other.abs().max())):
            yield f"on {name} the items' mean has another gradient than the loss."
            return


def state(trial: Trial) -> Iterator[str]:
    """All state is in the state_dict, without a graph."""
    loss = trial.loss()
    before = set(loss.state_dict())
    trial.steps(loss, 0, 3)
    if added := set(loss.state_dict()) - before:
        yield f"{min(added)!r} appears during training: register it in the constructor."
    for name, attribute in vars(loss).items():
        if isinstance(attribute, Tensor):
            yield f"self.{name} is a tensor outside the state: use register_buffer({name!r}, …)."
    for name, buffer in loss.named_buffers():
        if buffer.requires_grad or buffer.grad_fn is not None:
            yield f"buffer {name!r} holds a graph: store z.detach()."


def resumes(trial: Trial) -> Iterator[str]:
    """An interrupted training continues exactly like an uninterrupted one."""
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


def renews(trial: Trial) -> Iterator[str]:
    """A renewed loss has the same centres, parameters and settings, and empty memory banks."""
    items = ITEMS + 3
    old = trial.loss()
    start = saved(old)
    trial.steps(old, 0, 3)
    learned = changed(old, start)  # by remember and on_epoch: memory banks, or values like beta
    with torch.no_grad():  # change the rest too, as training would: no constructor restores this
        for name, tensor in old.state_dict().items():
            if name not in learned and tensor.is_floating_point():
                tensor.add_(0.5)
    before, fresh, new = saved(old), trial.loss(items=items), old.renewed(items)
    if type(new) is not type(old) or new.train_size != items:
        yield (
            f"renewed({items}) gives a {type(new).__name__} for {new.train_size} items: return the "
            f"same class for {items} items."
        )
        return
    problems = [*_wrong_state(new, before, fresh.state_dict(), learned)]
    problems += _wrong_settings(new, old, fresh)
    yield from problems
    if problems:
        return
    z, y, _ = trial.batch()
    if not torch.isfinite(value(new, z, y, torch.arange(items - BATCH, items), 0)):
        yield "the renewed loss is not finite on its last items: give its banks a row for each."
    for tensor in new.state_dict().values():
        tensor.zero_()
    for name in changed(old, before):
        yield f"{name!r} is shared by the old and the renewed loss: copy it."


def _wrong_state(
    new: HashLoss, before: Mapping[str, Tensor], empty: Mapping[str, Tensor], learned: list[str]
) -> Iterator[str]:
    """Tensors of the renewed loss that are neither copied nor, for memory banks, empty."""
    for name, now in new.state_dict().items():
        kept = now.shape == before[name].shape and torch.equal(now, before[name])
        emptied = now.shape == empty[name].shape and torch.equal(now, empty[name])
        if before[name].shape != empty[name].shape:  # it has a row for each training item
            if not emptied:
                yield (
                    f"{name!r} is not an empty bank of {new.train_size} items: make it with "
                    "register_bank."
                )
        elif not kept and not (name in learned and emptied):
            yield f"{name!r} is changed by renewed: leave it as HashLoss.renewed copies it."


def _wrong_settings(new: HashLoss, old: HashLoss, fresh: HashLoss) -> Iterator[str]:
    for name, setting in vars(old).items():
        plain = isinstance(setting, bool | int | float | str | tuple | None)
        if plain and getattr(new, name, None) not in (setting, getattr(fresh, name, None)):
            yield f"self.{name} is {getattr(new, name, None)!r} instead of {setting!r}: copy it."


def relaxes(trial: Trial) -> Iterator[str]:
    """Relax gives a smooth code in [-1,1] with the signs of z."""
    loss, z = trial.loss(), trial.batch()[0].detach()
    z = torch.cat([z, torch.full((1, BITS), 1e4), torch.full((1, BITS), -1e4)]).requires_grad_()
    code = returned(loss.relax(z), Tensor, "relax")
    if code.shape != z.shape or not (code.abs() <= 1).all():
        most = float(code.detach().abs().max())
        yield f"relax(z) is {tuple(code.shape)}, up to {most:.3g}: it must be (N,K) in [-1,1]."
        return
    rows = torch.arange(len(z)).flip(0)
    for some in (rows, rows[-1:]):
        if not torch.allclose(loss.relax(z[some]), code[some], atol=1e-4):
            yield (
                "relax(z) depends on the batch, or draws: use each row alone, and what remember "
                "has kept."
            )
            break
    if not torch.equal(sign(code), sign(z)):
        yield "relax(z) has other signs than z, so attackers would optimise another code."
    if code.grad_fn is not None:
        code.sum().backward()  # type: ignore[no-untyped-call]
    if z.grad is None or not (z.grad[:BATCH] != 0).all():
        yield "relax(z) has no gradient: use tanh, not sign."


RULES: tuple[Rule[Trial], ...] = (
    declares,
    untouched,
    scalar,
    draws,
    writes_nothing,
    odd_batches,
    unordered,
    late,
    item_losses,
    state,
    resumes,
    renews,
    relaxes,
    teaches,
)
UNTRAINED: tuple[Rule[Trial], ...] = (declares, solves, relaxes)
