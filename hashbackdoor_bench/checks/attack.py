"""The contract of attacks, checked on 30 random images of 32 px and an untrained surrogate."""

from collections.abc import Iterator
from dataclasses import replace
from math import inf, isfinite
from typing import Literal, get_args, get_origin, get_type_hints

import torch
from safetensors.torch import load, save

from hashbackdoor_bench import poisoning
from hashbackdoor_bench.api import (
    AnyAttack,
    Backdoor,
    Delivery,
    ModelAttack,
    ThreatModel,
)
from hashbackdoor_bench.checks.attack_trial import CLASSES, CPU, POISONED, SIZE, Trial, untrained
from hashbackdoor_bench.checks.attack_trigger import (
    alone,
    images,
    layouts,
    steady,
    survives_storage,
)
from hashbackdoor_bench.checks.finding import (
    Finding,
    Rule,
    advanced,
    apply,
    bad_settings,
    changed_by_loading,
    changes_of_loss,
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
    if not isinstance(made.threat, ThreatModel):
        yield f"threat is {made.threat!r}: write ThreatModel(…)."
        return
    share = getattr(made, "covers", 0.0)
    if not isinstance(share, float | int) or not 0 <= share < inf:
        yield f"covers is {share!r}: write a number, covers for each poisoned image, 0 or more."
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


def history(trial: Trial) -> Iterator[str]:
    """The history of crafting can be written to a record."""
    found = trial.crafted.history
    numbers = isinstance(found, dict) and all(
        isinstance(name, str)
        and isinstance(values, list | tuple)
        and all(isinstance(value, float | int) and isfinite(value) for value in values)
        for name, values in found.items()
    )
    if not numbers:
        yield (
            "history holds something else than lists of finite numbers by name, and no record can "
            "hold it: append float(loss), once in each epoch."
        )


def view_untouched(trial: Trial) -> Iterator[str]:
    """Crafting changes neither the view nor the state of global random numbers."""
    first = trial.drawn  # an attack may keep what it draws in its first crafting
    seen, fresh, before = trial.view(), trial.view(), global_states()
    trial.craft(seen)
    for library in dict.fromkeys([*first, *advanced(before)]):
        yield f"it draws from {library}'s global random numbers: take view.generator('…')."
    for name in ("images", "labels", "target", "index", "covers", "chosen", "references"):
        if not torch.equal(getattr(seen, name), getattr(fresh, name)):
            yield f"it changes view.{name} in place: work on a clone()."
    if seen.surrogate_loss is not None and fresh.surrogate_loss is not None:
        yield from changes_of_loss("view.surrogate_loss", seen.surrogate_loss, fresh.surrogate_loss)
    if seen.surrogate is not None and fresh.surrogate is not None:
        state = fresh.surrogate.state_dict()
        if seen.surrogate.training or any(p.requires_grad for p in seen.surrogate.parameters()):
            yield "it leaves view.surrogate unfrozen or in training mode: work on a copy of it."
        if any(not torch.equal(v, state[k]) for k, v in seen.surrogate.state_dict().items()):
            yield "it changes the weights of view.surrogate: train a copy.deepcopy() of it."


def deterministic(trial: Trial) -> Iterator[str]:
    """The same seed gives the same backdoor."""
    with seeded(2):
        again = trial.craft(trial.view()).state_dict()
    for name, tensor in trial.crafted.state_dict().items():
        if name not in again or not torch.equal(tensor, again[name]):
            yield f"{name!r} differs when crafted twice: draw from view.generator('…') alone."


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


def tampers(trial: Trial) -> Iterator[str]:
    """A model attack gives a network of the same form, and the same one for the same seed."""
    attack = trial.attack()
    if not isinstance(attack, ModelAttack):
        return
    states, given = [], untrained().state_dict()
    for seed in (3, 4):
        with seeded(seed):
            model, _ = trial.attack_on_model(trial.view())
        states.append(model.state_dict())
    if {k: v.shape for k, v in states[0].items()} != {k: v.shape for k, v in given.items()}:
        yield "tamper returns a model of another architecture: edit the given model."
    elif other := [v.dtype for k, v in states[0].items() if v.dtype != given[k].dtype]:
        yield f"tamper returns weights of {other[0]}: keep the types of the given model."
    elif any(not torch.equal(v, states[1][k]) for k, v in states[0].items()):
        yield "tamper gives other weights each time: draw from view.generator('…') alone."
    elif any(not torch.isfinite(v).all() for v in states[0].values() if v.is_floating_point()):
        yield "tamper returns weights that are NaN or infinite: keep them finite."
    elif changed_by_loading(model, untrained(), trial.x):
        yield (
            "the model that tamper returns makes other codes than its weights, which alone are "
            "kept: edit weights, and leave no hook or other method on it."
        )


RULES: tuple[Rule[Trial], ...] = (
    declares,
    poison,
    history,
    images,
    alone,
    steady,
    layouts,
    deterministic,
    prepares,
    view_untouched,
    restores,
    survives_storage,
    tampers,
)
