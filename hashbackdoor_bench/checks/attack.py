"""The contract of attacks, checked on 30 random images of 32 px and an untrained surrogate."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Literal, get_args, get_origin, get_type_hints

import torch
from safetensors.torch import load, save
from torch import Tensor

from hashbackdoor_bench import poisoning
from hashbackdoor_bench.api import (
    AnyAttack,
    Backdoor,
    Delivery,
    ModelAttack,
    ThreatModel,
    to_bytes,
    to_unit,
)
from hashbackdoor_bench.checks.attack_trial import CLASSES, CPU, POISONED, SIZE, Trial, untrained
from hashbackdoor_bench.checks.finding import (
    Finding,
    Rule,
    advanced,
    apply,
    bad_settings,
    global_states,
    seeded,
    settings,
)
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.registry import Method


def check_attack(method: Method[AnyAttack]) -> list[Finding]:
    """The promises that an attack breaks; empty if it keeps all of them.

    The attack is crafted a few times with its ``quick`` settings, on a tiny task, on the CPU; no
    victim is trained and nothing is written.

    Args:
        method: ``ATTACKS[name]``.
    """
    return apply(RULES, Trial(method), method)


def declares(trial: Trial) -> Iterator[str]:
    """The class says what it is."""
    cls = trial.method.cls
    for name in ("threat", "backdoor"):
        if not hasattr(cls, name):
            yield f"the class has no {name!r}: write {name} = … as in bench new attack."
            return
    if error := bad_settings(trial.method):
        yield f"its quick settings are wrong: {error}"
        return
    problems = list(settings(trial.method, 0))
    yield from problems
    if problems:
        return
    if not (cls.__doc__ or "").strip():
        yield "the class has no docstring: say what it does and, under Args:, each setting."
    made = trial.attack()
    try:
        made.refuse_control()
    except UserError as error:
        yield str(error)
    for name, hint in get_type_hints(ThreatModel).items():
        value = getattr(made.threat, name)
        if get_origin(hint) is Literal and value not in get_args(hint):
            yield f"threat.{name} is {value!r}: write one of {', '.join(get_args(hint))}."
        elif get_origin(hint) is None and type(value) is not hint:
            yield f"threat.{name} is {value!r}: write a value of type {hint.__name__}."
    if made.delivery not in get_args(Delivery):
        yield f"delivery is {made.delivery!r}: write one of {', '.join(get_args(Delivery))}."
    if not (isinstance(made.backdoor, type) and issubclass(made.backdoor, Backdoor)):
        yield f"backdoor is {made.backdoor!r}: name the class that craft returns."


def poison(trial: Trial) -> Iterator[str]:
    """Poison and covers are of the drawn items, in the right number, with the right labels."""
    for poisoned in (POISONED, 1, 0):
        seen = trial.view(poisoned)
        found = trial.crafted if poisoned == POISONED else trial.craft(seen)
        kind = trial.attack().backdoor
        if not isinstance(found, kind):
            yield f"craft returns a {type(found).__name__}, but backdoor is {kind.__name__}."
            return
        many = len(found.index)
        wanted = {
            "index": ((len(seen.planted),), torch.long),
            "carrier": ((many, 3, SIZE, SIZE), torch.uint8),
            "label": ((many, CLASSES), torch.uint8),
            "kind": ((many,), torch.uint8),
        }
        for name, (shape, dtype) in wanted.items():
            tensor = getattr(found, name)
            if (tuple(tensor.shape), tensor.dtype) != (shape, dtype):
                yield (
                    f"{name} is {tuple(tensor.shape)} {tensor.dtype}, but with {len(seen.index)} "
                    f"items to poison and {len(seen.covers)} covers it must be {shape} {dtype}: "
                    "plant all items of view.planted."
                )
                return
        try:
            poisoning.inspect(
                found,
                seen.labels,
                seen.target,
                seen.index,
                trial.attack().threat,
                covers=seen.covers,
            )
        except ValueError as error:
            yield f"{error}."


def view_untouched(trial: Trial) -> Iterator[str]:
    """Crafting changes neither the view nor the state of global random numbers."""
    seen, fresh, before = trial.view(), trial.view(), global_states()
    trial.craft(seen)
    for library in advanced(before):
        yield f"it draws from {library}'s global random numbers: take view.generator('…')."
    for name in ("images", "labels", "target", "index", "covers", "chosen", "references"):
        if not torch.equal(getattr(seen, name), getattr(fresh, name)):
            yield f"it changes view.{name} in place: work on a clone()."
    if seen.surrogate is not None and fresh.surrogate is not None:
        state = fresh.surrogate.state_dict()
        if seen.surrogate.training or any(p.requires_grad for p in seen.surrogate.parameters()):
            yield "it leaves view.surrogate unfrozen or in training mode: work on a copy of it."
        if any(not torch.equal(v, state[k]) for k, v in seen.surrogate.state_dict().items()):
            yield "it changes the weights of view.surrogate: train a copy.deepcopy() of it."


def deterministic(trial: Trial) -> Iterator[str]:
    """The same seed gives the same backdoor, and the same query the same triggered query."""
    with seeded(2):
        again = trial.craft(trial.view()).state_dict()
    for name, tensor in trial.crafted.state_dict().items():
        if name not in again or not torch.equal(tensor, again[name]):
            yield f"{name!r} differs when crafted twice: draw from view.generator('…') alone."
    out = []
    for seed in (1, 2):
        with seeded(seed):
            out.append(trial.backdoor(trial.x))
    if not torch.equal(*out):
        yield "forward(x) gives other images at every call: draw in craft and keep a buffer."


def prepares(trial: Trial) -> Iterator[str]:
    """A trigger that is optimised behind a purifier depends on the purifier."""
    if not trial.method.cls.through_purifier:
        return
    with seeded(1):
        other = trial.craft(replace(trial.view(), purify=lambda x, item: 1 - x)).state_dict()
    if all(torch.equal(tensor, other[k]) for k, tensor in trial.crafted.state_dict().items()):
        yield (
            "through_purifier is true, and a purifier changes nothing: give the surrogate "
            "view.purified(x, item) of images with the trigger, or leave through_purifier out."
        )


def restores(trial: Trial) -> Iterator[str]:
    """The same backdoor can be restored from its stored state alone."""
    state = {k: v.detach().contiguous() for k, v in trial.crafted.state_dict().items()}
    found = trial.attack().restore(load(save(state))).eval().requires_grad_(False)
    known = trial.crafted.eval().requires_grad_(False)
    how = "store all tensors that forward and plant read with register_buffer."
    if not torch.equal(found(trial.x), known(trial.x)):
        yield f"restore(state_dict) gives another trigger for queries: {how}"
    if not torch.equal(poisoning.planted(found, CPU), poisoning.planted(known, CPU)):
        yield f"restore(state_dict) gives other poisoned images: {how}"


def images(trial: Trial) -> Iterator[str]:
    """A trigger makes new float32 images in [0,1], of the same shape, for any batch."""
    every, poisoned = trial.backdoor(trial.x.clone()), len(trial.backdoor.index)
    for count in (0, 1, len(trial.x)):
        x, slot = trial.x[:count], torch.arange(min(count, poisoned))
        wrong = [
            *_image("forward(x)", x, trial.backdoor),
            *_image("plant(x, slot)", x[: len(slot)], trial.backdoor.plant, slot),
        ]
        yield from wrong
        if not wrong and not torch.allclose(trial.backdoor(x), every[:count], atol=1e-3):
            yield f"forward(x) depends on the batch (of {count} images): use each image alone."


def _image(name: str, x: Tensor, call: Callable[..., Tensor], *more: Tensor) -> Iterator[str]:
    """The problems of one call."""
    given, made = x.clone(), f"{name} of {len(x)} images"
    out = call(given, *more)
    if (out.shape, out.dtype) != (x.shape, x.dtype):
        yield f"{made} is {tuple(out.shape)} {out.dtype}, not {tuple(x.shape)} {x.dtype}."
        return
    if not torch.equal(given, x):
        yield f"{made} changes x in place: work on x.clone()."
    elif len(x) and out.data_ptr() == given.data_ptr():
        yield f"{made} returns x itself: return x.clone()."
    if not torch.isfinite(out).all():
        yield f"{made} holds NaN or infinity."
    elif not ((out >= 0) & (out <= 1)).all():
        low, high = float(out.min()), float(out.max())
        yield f"{made} ranges from {low:.3g} to {high:.3g}: end it with .clamp(0, 1)."


def slots(trial: Trial) -> Iterator[str]:
    """What is planted depends on the slot, not on the position in the batch."""
    slot = torch.arange(len(trial.backdoor.index))
    x = trial.x[slot % len(trial.x)]  # with covers there are more slots than images
    straight = trial.backdoor.plant(x, slot)
    mixed = trial.backdoor.plant(x.flip(0), slot.flip(0)).flip(0)
    if not torch.allclose(straight, mixed, atol=1e-3):
        yield "plant(x, slot) depends on the order of the batch: index by slot."


def survives_storage(trial: Trial) -> Iterator[str]:
    """The trigger survives storage in 8 bits."""
    seen, backdoor = trial.view(), trial.backdoor
    images = seen.images if len(seen.images) else to_bytes(trial.x)
    x = to_unit(images)
    raw, stored = backdoor(x), poisoning.triggered(backdoor, x)
    if not torch.equal(to_bytes(stored), to_bytes(raw)):
        yield "the trigger changes when it is stored a second time: keep it at 8-bit levels."
    if trial.attack().threat.trigger == "none":
        return
    if torch.equal(raw, x):
        yield "threat.trigger is not 'none', but forward(x) changes no pixel: put the trigger on x."
    elif torch.equal(to_bytes(raw), images):
        most = 255 * float((raw - x).abs().max())
        yield f"a largest change of {most:.2g} grey levels is lost in rounding: make it 1."


def tampers(trial: Trial) -> Iterator[str]:
    """A model attack keeps the architecture and gives the same weights for the same seed."""
    attack = trial.attack()
    if not isinstance(attack, ModelAttack):
        return
    states, given = [], untrained().state_dict()
    for seed in (3, 4):
        with seeded(seed):
            model, _ = trial.attack_on_model()
        states.append(model.state_dict())
    if {k: v.shape for k, v in states[0].items()} != {k: v.shape for k, v in given.items()}:
        yield "tamper returns a model of another architecture: edit the given model."
    elif any(not torch.equal(v, states[1][k]) for k, v in states[0].items()):
        yield "tamper gives other weights each time: draw from view.generator('…') alone."
    elif any(not torch.isfinite(v).all() for v in states[0].values() if v.is_floating_point()):
        yield "tamper returns weights that are NaN or infinite: keep them finite."


RULES: tuple[Rule[Trial], ...] = (
    declares,
    poison,
    images,
    slots,
    deterministic,
    prepares,
    view_untouched,
    restores,
    survives_storage,
    tampers,
)
