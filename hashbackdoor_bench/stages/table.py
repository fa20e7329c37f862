"""The stages of a run, in order, with one row per stage; only this table has their names.

    surrogate -> backdoor -> victim -> [tamper] -> codes -> scores -> record
    clean victim -----------------------------------> codes

In a frozen recipe, features of the clean images come before all networks, and those of poison and
triggered queries before the victim; networks are hash layers on them.

The clean victim is the control: the same network, trained without poison. A stage depends on its
inputs, on the artifacts that it needs and on the numerics, and its key is the hash of all. So a
clean victim is trained once for all attacks on it, a backdoor is crafted once for all victims, and
a victim without poison is not trained again, since its key is that of the clean victim. A new stage
needs one row here and one builder in `building`.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hashbackdoor_bench.api import Attack, ModelAttack
from hashbackdoor_bench.network import Blueprint
from hashbackdoor_bench.stages import building
from hashbackdoor_bench.stages.building import ATTACKERS_FEATURES, FEATURES, PLANTED_FEATURES
from hashbackdoor_bench.stages.cache import Content
from hashbackdoor_bench.stages.codes import CONTROL, VICTIM, code_stages

if TYPE_CHECKING:
    from hashbackdoor_bench.stages.pipeline import Run
    from hashbackdoor_bench.stages.plan import Plan, PlannedStage

Keys = Mapping[str, str]  # of the artifacts that a stage needs, by the stages' names
Inputs = dict[str, Any]

# The stages whose artifact is the victim's network, from training on; the service uses the last one
# that a run has.
NETWORKS = (VICTIM, "tamper")

# Raised by one when a stage's algorithm changes, so that its artifacts are made again.
VERSIONS = {
    "features": 1, "train": 1, "backdoor": 1, "shared": 1, "tamper": 1, "codes": 1, "visibility": 2,
    "scores": 2,
}  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """A row of the table.

    Attributes:
        name: its name in plans and records.
        kind: a key of ``VERSIONS``, and the folder of its artifacts.
        title: its name for users.
        needs: the names of the stages whose artifacts it reads, if the run has them.
        inputs: function of the plan and the keys of ``needs``: all that the artifact depends on, as
            JSON values. No other keys are passed to it, so ``needs`` can't be incomplete.
        build: function of the run, the planned stage and a folder for checkpoints that makes the
            artifact.
        when: function of the plan: whether the run has this stage.
    """

    name: str
    kind: str
    title: str
    needs: tuple[str, ...]
    inputs: Callable[["Plan", Keys], Inputs]
    build: Callable[["Run", "PlannedStage", Path], Content]
    when: Callable[["Plan"], bool] = lambda plan: True

    @property
    def group(self) -> str:
        """The line of `bench suite plan` in which it is counted: its title, or its kind."""
        kinds = ("features", "codes", "scores", "visibility")
        return self.kind if self.kind in kinds else self.title


def served(victim: str, stages: Collection[str]) -> str:
    """The stage whose network encodes for ``CONTROL`` or ``VICTIM``, of the stages of a run."""
    return CONTROL if victim == CONTROL else [name for name in NETWORKS if name in stages][-1]


# ---- what enters the keys -----------------------------------------------------------------------


def _features(network: str, plan: "Plan", keys: Keys) -> Inputs:
    blueprint: Blueprint = getattr(plan, network)
    return {**blueprint.features, "data": plan.loaded.hashes}


def _planted_features(plan: "Plan", keys: Keys) -> Inputs:
    return {
        **_features("victim", plan, keys),
        "backdoor": keys["backdoor"],
        "delivery": plan.spec.delivery,
        "target": plan.target.tolist(),
        **plan.attacked,
    }


def _trained(plan: "Plan", network: Blueprint, features: str | None) -> Inputs:
    inputs = {**network.inputs, "data": plan.training_data, "poison": None}
    return inputs if features is None else {**inputs, "features": features}


def _surrogate(plan: "Plan", keys: Keys) -> Inputs:
    return _trained(plan, plan.surrogate, keys.get(ATTACKERS_FEATURES))


def _backdoor(plan: "Plan", keys: Keys) -> Inputs:
    return {
        **plan.attacker(keys.get("surrogate")),
        "settings": dict(plan.spec.attack_settings),
        "poisoned": len(plan.index),
        **({"covers": len(plan.covers)} if len(plan.covers) else {}),
        **plan.known,
        **({"found": plan.found} if plan.found else {}),
    }


def _control(plan: "Plan", keys: Keys) -> Inputs:
    return _trained(plan, plan.victim, keys.get(FEATURES))


def _victim(plan: "Plan", keys: Keys) -> Inputs:
    inputs = _trained(plan, plan.victim, keys.get(FEATURES))
    if len(plan.index):
        inputs["poison"] = {"backdoor": keys["backdoor"], "delivery": plan.spec.delivery}
        if PLANTED_FEATURES in keys:
            inputs["poison"]["features"] = keys[PLANTED_FEATURES]
    return inputs


def _tamper(plan: "Plan", keys: Keys) -> Inputs:
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


def _crafted(keys: Keys) -> str:
    """The key of the artifact that holds the trigger."""
    return keys.get("tamper") or keys["backdoor"]


def _plain(victim: str, plan: "Plan", keys: Keys) -> Inputs:
    return {"model": keys[served(victim, keys)], "data": plan.loaded.hashes}


def _triggered(victim: str, plan: "Plan", keys: Keys) -> Inputs:
    return {
        **_plain(victim, plan, keys),
        "backdoor": _crafted(keys),
        "target": plan.target.tolist(),
        **plan.attacked,
    }


def _scores(plan: "Plan", keys: Keys) -> Inputs:
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


def _visibility(plan: "Plan", keys: Keys) -> Inputs:
    return {
        "backdoor": _crafted(keys),
        "data": plan.loaded.hashes,
        "target": plan.target.tolist(),
        **plan.attacked,
    }


# ---- the table ----------------------------------------------------------------------------------


def _needs_surrogate(plan: "Plan") -> bool:
    return plan.attack.threat.knowledge == "surrogate"


def _needs_frozen_surrogate(plan: "Plan") -> bool:
    return _needs_surrogate(plan) and plan.surrogate.recipe.frozen


def _frozen(plan: "Plan") -> bool:
    return plan.victim.recipe.frozen


def _crafts(plan: "Plan") -> bool:
    return isinstance(plan.attack, Attack)


def _tampers(plan: "Plan") -> bool:
    return isinstance(plan.attack, ModelAttack)


def _codes(victim: str, title: str, networks: tuple[str, ...]) -> tuple[Stage, Stage]:
    names = code_stages(victim)
    return (
        Stage(
            names["plain"], "codes", f"encode with {title}", (*networks, FEATURES),
            partial(_plain, victim), partial(building.encode_plain, victim),
        ),
        Stage(
            names["triggered"], "codes", f"encode with {title} (triggered)",
            tuple(dict.fromkeys((*networks, "backdoor", "tamper", PLANTED_FEATURES))),
            partial(_triggered, victim),
            partial(building.encode_triggered, victim),
        ),
    )  # fmt: skip


STAGES: tuple[Stage, ...] = (
    Stage(
        ATTACKERS_FEATURES, "features", "compute surrogate's features", (),
        partial(_features, "surrogate"), partial(building.clean_features, "surrogate"),
        _needs_frozen_surrogate,
    ),
    Stage(
        "surrogate", "train", "train surrogate", (ATTACKERS_FEATURES,), _surrogate,
        building.train_surrogate, _needs_surrogate,
    ),
    Stage(
        "backdoor", "backdoor", "craft backdoor", ("surrogate",), _backdoor,
        building.craft, _crafts,
    ),
    Stage(
        FEATURES, "features", "compute features", (), partial(_features, "victim"),
        partial(building.clean_features, "victim"), _frozen,
    ),
    Stage(
        PLANTED_FEATURES, "features", "compute features of poison and triggered queries",
        ("backdoor",), _planted_features, building.planted_features,
        lambda plan: _frozen(plan) and _crafts(plan),
    ),
    Stage(CONTROL, "train", "train clean victim", (FEATURES,), _control, building.train_control),
    Stage(
        VICTIM, "train", "train poisoned victim", ("backdoor", FEATURES, PLANTED_FEATURES), _victim,
        building.train_victim,
    ),
    Stage("tamper", "tamper", "tamper with victim", (VICTIM,), _tamper, building.tamper, _tampers),
    *_codes(CONTROL, "clean victim", (CONTROL,)),
    *_codes(VICTIM, "poisoned victim", NETWORKS),
    Stage(
        "scores", "scores", "score",
        (*code_stages(CONTROL).values(), *code_stages(VICTIM).values()), _scores, building.score,
    ),
    Stage(
        "visibility", "visibility", "measure visibility", ("backdoor", "tamper"), _visibility,
        building.measure_visibility,
    ),
)  # fmt: skip
GROUPS = tuple(dict.fromkeys(stage.group for stage in STAGES))
