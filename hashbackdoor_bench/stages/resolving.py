"""A run's spec with every default filled in, and the methods and networks that it names."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from hashbackdoor_bench import data
from hashbackdoor_bench.api import AnyAttack, HashLoss
from hashbackdoor_bench.data import Splits
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.network import Blueprint, best_precision, packaged_weights
from hashbackdoor_bench.poisoning import delivery_of
from hashbackdoor_bench.registry import ATTACKS, DEFENSES, VICTIMS, Method
from hashbackdoor_bench.spec import OVERRIDES, RunSpec, canonical, recipe_of
from hashbackdoor_bench.stages.resolving_defense import (
    ResolvedDefense,
    refuse,
    resolve_defense,
    resolve_expected,
)


@dataclass(frozen=True)
class Resolved:
    """What a spec means on one data set and one device.

    Attributes:
        spec: the run, with every default filled in.
        method: the registered attack.
        attack: an instance of it.
        victim: the victim's network.
        surrogate: the attacker's network; trained only if the attack needs one.
        delivery: the delivery of ``spec``.
        defense: the defense of ``spec``.
        expected: the defense that the attacker expects; None: none.
    """

    spec: RunSpec
    method: Method[AnyAttack]
    attack: AnyAttack
    victim: Blueprint
    surrogate: Blueprint
    delivery: str
    defense: ResolvedDefense
    expected: ResolvedDefense | None


def resolve(spec: RunSpec, splits: Splits, device: torch.device) -> Resolved:
    """Fill in a spec's defaults.

    Args:
        spec: the run.
        splits: its data, which has a default recipe, backbone and target.
        device: where it would be computed; decides the precision.

    Raises:
        UserError: a name, a value or a combination that doesn't exist.
    """
    method: Method[AnyAttack] = ATTACKS[spec.attack]
    victim: Method[HashLoss] = VICTIMS[spec.victim]
    attack_settings = method.resolve(dict(spec.attack_settings))
    victim_settings = victim.resolve(dict(spec.victim_settings))
    attack = method.cls(**attack_settings)
    attack.refuse_control()
    surrogate: Method[HashLoss] = VICTIMS[spec.surrogate or attack.surrogate or spec.victim]
    delivery = delivery_of(spec.delivery or attack.delivery)
    defense = resolve_defense(spec, splits)
    asked, classes = spec.recipe, len(splits.classes)
    same = surrogate.name == victim.name
    attackers_settings = victim_settings if same else surrogate.resolve({})
    own = _own_recipe(victim, victim_settings, spec.bits, classes, splits.recipe)
    attackers_bits = spec.surrogate_bits or spec.bits
    attackers_recipe = spec.surrogate_recipe or (
        asked or _own_recipe(surrogate, attackers_settings, attackers_bits, classes, splits.recipe)
    )
    crafts = attack.threat.knowledge == "surrogate"
    shares = crafts and surrogate.cls.trained and attackers_recipe == (asked or own)
    if not victim.cls.trained and not shares:  # what changes nothing is in no key, see `idle`
        spec = replace(spec, epochs=None, lr=None)
    recipe = spec.training(own)
    if recipe.precision == "auto":
        recipe = replace(recipe, precision=best_precision(device))
    if spec.weights_by_order and spec.weights is None:
        raise UserError("--weights-by-order needs a file: add --weights FILE, or leave it out.")
    wanted = spec.target if spec.target is not None else data.protocol(spec.dataset).target
    backbone = spec.backbone or splits.backbone
    other = spec.surrogate_backbone or backbone
    start = _own_start(spec, same_backbone=other == backbone)
    full = replace(
        spec,
        attack=method.name,
        victim=victim.name,
        target=splits.target_name(wanted),
        budget=spec.budget if attack.poisons else 0.0,
        poison_count=spec.poison_count if attack.poisons else None,
        delivery=delivery,
        backbone=backbone,
        recipe=asked or own,
        **{name: getattr(recipe, name) for name in OVERRIDES},
        surrogate=surrogate.name,
        surrogate_backbone=other,
        surrogate_bits=attackers_bits,
        surrogate_recipe=None if attackers_recipe == (asked or own) else attackers_recipe,
        attack_settings=tuple(sorted(method.recorded(attack_settings).items())),
        victim_settings=tuple(sorted(victim_settings.items())),
        defense=defense.method.name,
        defense_settings=tuple(sorted(defense.settings.items())),
        clean_share=spec.clean_share if defense.count else RunSpec.clean_share,
        aware=DEFENSES[spec.aware].name,
        surrogate_pretrained=start if crafts else None,
    )
    network = Blueprint(
        method=victim.name,
        settings=victim_settings,
        bits=spec.bits,
        classes=classes,
        size=splits.size,
        recipe=recipe,
        seed=f"{spec.seed}/victim",
        pool=spec.pool,
        hidden=spec.hidden,
        **_weights(spec, backbone, spec.weights, pretrained=spec.pretrained),
    )
    attackers = replace(
        network,
        method=surrogate.name,
        settings=attackers_settings,
        bits=attackers_bits,
        pool=spec.pool if other == backbone else None,
        **_weights(
            spec,
            other,
            spec.weights if other == backbone and start is None else None,
            pretrained=spec.pretrained if start is None else start,
        ),
        # With the victim's seed a transfer experiment would be white-box by accident.
        seed=f"{spec.seed}/surrogate",
    )
    if full.surrogate_recipe is not None:
        its = replace(recipe_of(full.surrogate_recipe), precision=recipe.precision)
        attackers = replace(attackers, recipe=its)
    network.check()
    if crafts:
        attackers.check(
            option="--surrogate-recipe",
            start="--surrogate-pretrained",
            way_out="add --no-surrogate-pretrained, or give another --surrogate-backbone",
        )
        if attack.pointwise and not attackers.pointwise:
            raise UserError(
                f"attack {method.name} needs a surrogate whose loss takes each image by itself, "
                f"and {surrogate.name} compares images: add --surrogate csq, or orthohash."
            )
    refuse(defense, attack, method.name, network, splits)
    expected = resolve_expected(spec.aware, attack, method.name, attackers)
    return Resolved(full, method, attack, network, attackers, delivery, defense, expected)


def _own_recipe(
    method: Method[HashLoss], settings: Mapping[str, Any], bits: int, classes: int, default: str
) -> str:
    """The recipe that a hashing method needs on a data set whose default is ``default``."""
    make: Callable[..., HashLoss] = method.cls
    return _recipes(make, canonical(settings), bits, classes).get(default, default)


@cache
def _recipes(
    make: Callable[..., HashLoss], settings: str, bits: int, classes: int
) -> Mapping[str, str]:
    with torch.random.fork_rng(devices=[]):
        return make(bits, classes, 1, **json.loads(settings)).recipes


def _own_start(spec: RunSpec, *, same_backbone: bool) -> bool | None:
    """``surrogate_pretrained``; None if it says only what holds for the victim anyway."""
    from_file = spec.weights is not None and same_backbone
    same = spec.surrogate_pretrained == spec.pretrained and not from_file
    return None if same else spec.surrogate_pretrained


def _weights(spec: RunSpec, backbone: str, file: str | None, *, pretrained: bool) -> dict[str, Any]:
    """The fields of a `Blueprint` that say from which weights its backbone starts.

    Args:
        spec: the run.
        backbone: the backbone.
        file: the user's file of its weights, if there is one.
        pretrained: whether it starts from published weights.
    """
    packaged = packaged_weights(backbone) if pretrained else None
    return {
        "backbone": backbone,
        "pretrained": pretrained and packaged is None,
        "weights": packaged or (Path(file) if file else None),
        "weights_by_order": packaged is not None or (file is not None and spec.weights_by_order),
    }
