"""What the keys of stages hold: all that an artifact depends on, as JSON values.

Each function takes the plan and the keys of the artifacts that the stage needs.
"""

from typing import TYPE_CHECKING

from hashbackdoor_bench.corruptions import jpeg_versions
from hashbackdoor_bench.network import Blueprint
from hashbackdoor_bench.poisoning import quality_of
from hashbackdoor_bench.stages.building import ATTACKERS_FEATURES, FEATURES, PLANTED_FEATURES
from hashbackdoor_bench.stages.codes import CONTROL, VICTIM, code_stages, served
from hashbackdoor_bench.stages.stage import Inputs, Keys

if TYPE_CHECKING:
    from hashbackdoor_bench.stages.plan import Plan


def features_of(network: str, plan: "Plan", keys: Keys) -> Inputs:
    """Of the features of clean images, of ``victim`` or ``surrogate``."""
    blueprint: Blueprint = getattr(plan, network)
    return {**blueprint.features, "data": plan.loaded.hashes}


def planted_features(plan: "Plan", keys: Keys) -> Inputs:
    """Of the features of poison and triggered queries."""
    return {
        **features_of("victim", plan, keys),
        "backdoor": keys["backdoor"],
        **_delivery(plan),
        "target": plan.target.tolist(),
        **plan.attacked,
    }


def _delivery(plan: "Plan") -> Inputs:
    """How poison reaches training; a JPEG depends on who compresses it."""
    codec = {} if quality_of(plan.delivery) is None else {"codec": jpeg_versions()}
    return {"delivery": plan.delivery, **codec}


def trained(plan: "Plan", network: Blueprint, features: str | None) -> Inputs:
    """Of a network trained on the clean set; ``features`` is the key of its features."""
    inputs = {**network.inputs, "data": plan.training_data, "poison": None}
    return inputs if features is None else {**inputs, "features": features}


def surrogate(plan: "Plan", keys: Keys) -> Inputs:
    """Of the attacker's network."""
    inputs = trained(plan, plan.surrogate, keys.get(ATTACKERS_FEATURES))
    expected = plan.expected
    return inputs if not expected or "backward" not in expected.hooks else inputs | expected.inputs


def backdoor(plan: "Plan", keys: Keys) -> Inputs:
    """Of the trigger and the poison."""
    return {
        **plan.attacker(keys.get("surrogate")),
        "settings": dict(plan.spec.attack_settings),
        "poisoned": len(plan.index),
        **({"covers": len(plan.covers)} if len(plan.covers) else {}),
        **plan.known,
        **({"found": plan.found} if plan.found else {}),
    }


def control(plan: "Plan", keys: Keys) -> Inputs:
    """Of the clean victim."""
    return trained(plan, plan.victim, keys.get(FEATURES))


def victim(plan: "Plan", keys: Keys) -> Inputs:
    """Of the poisoned victim."""
    inputs = trained(plan, plan.victim, keys.get(FEATURES))
    if len(plan.index):
        inputs["poison"] = {"backdoor": keys["backdoor"], **_delivery(plan)}
        if PLANTED_FEATURES in keys:
            inputs["poison"]["features"] = keys[PLANTED_FEATURES]
    return inputs


def tamper(plan: "Plan", keys: Keys) -> Inputs:
    """Of the victim that a model attack has edited."""
    return {
        "attack": plan.method.identity,
        "settings": dict(plan.spec.attack_settings),
        "model": keys[VICTIM],
        "size": plan.splits.size,
        "target": plan.target.tolist(),
        "seed": plan.spec.seed,
        **plan.known,
        **({"found": plan.found} if plan.found else {}),
    }


def crafted(keys: Keys) -> str:
    """The key of the artifact that holds the trigger."""
    return keys.get("tamper") or keys["backdoor"]


def plain(victim: str, plan: "Plan", keys: Keys) -> Inputs:
    """Of the codes of queries and database; ``victim`` is one of ``NETWORKS``."""
    return {"model": keys[served(victim, keys)], "data": plan.loaded.hashes}


def triggered(victim: str, plan: "Plan", keys: Keys) -> Inputs:
    """Of the codes of triggered queries."""
    return {
        **plain(victim, plan, keys),
        "backdoor": crafted(keys),
        "target": plan.target.tolist(),
        **plan.attacked,
    }


def scores(plan: "Plan", keys: Keys) -> Inputs:
    """Of the scores."""
    return {
        "clean": [keys[name] for name in code_stages(CONTROL).values()],
        "victim": [keys[name] for name in code_stages(VICTIM).values()],
        "data": plan.splits.sha256,
        "classes": list(plan.splits.classes),
        "target": plan.target.tolist(),
        **plan.attacked,
        **({} if plan.attack.threat.targeted else {"targeted": False}),
        **({} if plan.truth.triggered else {"triggered": False}),
    }


def visibility(plan: "Plan", keys: Keys) -> Inputs:
    """Of how visible the trigger is."""
    return {
        "backdoor": crafted(keys),
        "data": plan.loaded.hashes,
        "target": plan.target.tolist(),
        **plan.attacked,
    }
