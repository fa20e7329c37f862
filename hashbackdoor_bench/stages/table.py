"""The stages of a run, in order, with one row per stage.

    surrogate -> backdoor -> victim -> [tamper] -> codes -> scores -> record
    clean victim -----------------------------------> codes

The rows that a defense adds are in `defense_rows`; nothing else has the names of stages.

In a frozen recipe, features of the clean images come before all networks, and those of poison and
triggered queries before the victim; networks are hash layers on them.

The clean victim is the control: the same network, trained without poison. A stage depends on its
inputs, on the artifacts that it needs and on the numerics, and its key is the hash of all. So a
clean victim is trained once for all attacks on it, a backdoor is crafted once for all victims, and
a victim without poison is not trained again, since its key is that of the clean victim. A new stage
needs one row, one function in `inputs` and one builder.
"""

from functools import partial
from typing import TYPE_CHECKING

from hashbackdoor_bench.api import Attack, ModelAttack
from hashbackdoor_bench.stages import building, inputs, measuring
from hashbackdoor_bench.stages.building import ATTACKERS_FEATURES, FEATURES, PLANTED_FEATURES
from hashbackdoor_bench.stages.codes import CONTROL, NETWORKS, VICTIM, code_stages
from hashbackdoor_bench.stages.defense_rows import OUTCOME, defended
from hashbackdoor_bench.stages.stage import Stage

if TYPE_CHECKING:
    from hashbackdoor_bench.stages.plan import Plan

# Raised by one when a stage's algorithm changes, so that its artifacts are made again.
VERSIONS = {
    "features": 1, "train": 1, "backdoor": 1, "shared": 1, "tamper": 1, "codes": 1, "visibility": 2,
    "scores": 2,
    "tuning": 1, "screening": 1, "repair": 1, "suspicions": 1, "inspection": 1, "audit": 1,
    "outcome": 1, "dispersion": 1,
}  # fmt: skip

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
            partial(inputs.plain, victim), partial(building.encode_plain, victim),
        ),
        Stage(
            names["triggered"], "codes", f"encode with {title} (triggered)",
            tuple(dict.fromkeys((*networks, "backdoor", "tamper", PLANTED_FEATURES))),
            partial(inputs.triggered, victim),
            partial(building.encode_triggered, victim),
        ),
    )  # fmt: skip


STAGES: tuple[Stage, ...] = (
    Stage(
        ATTACKERS_FEATURES, "features", "compute surrogate's features", (),
        partial(inputs.features_of, "surrogate"), partial(building.clean_features, "surrogate"),
        _needs_frozen_surrogate,
    ),
    Stage(
        "surrogate", "train", "train surrogate", (ATTACKERS_FEATURES,), inputs.surrogate,
        building.train_surrogate, _needs_surrogate,
    ),
    Stage(
        "backdoor", "backdoor", "craft backdoor", ("surrogate",), inputs.backdoor,
        building.craft, _crafts,
    ),
    Stage(
        FEATURES, "features", "compute features", (), partial(inputs.features_of, "victim"),
        partial(building.clean_features, "victim"), _frozen,
    ),
    Stage(
        PLANTED_FEATURES, "features", "compute features of poison and triggered queries",
        ("backdoor",), inputs.planted_features, building.planted_features,
        lambda plan: _frozen(plan) and _crafts(plan),
    ),
    Stage(
        CONTROL, "train", "train clean victim", (FEATURES,), inputs.control,
        building.train_control,
    ),
    Stage(
        VICTIM, "train", "train poisoned victim", ("backdoor", FEATURES, PLANTED_FEATURES),
        inputs.victim, building.train_victim,
    ),
    Stage(
        "tamper", "tamper", "tamper with victim", (VICTIM,), inputs.tamper, building.tamper,
        _tampers,
    ),
    *_codes(CONTROL, "clean victim", NETWORKS[CONTROL]),
    *_codes(VICTIM, "poisoned victim", NETWORKS[VICTIM]),
    Stage(
        "scores", "scores", "score",
        (*code_stages(CONTROL).values(), *code_stages(VICTIM).values()),
        inputs.scores, measuring.score,
    ),
    Stage(
        "visibility", "visibility", "measure visibility", ("backdoor", "tamper"), inputs.visibility,
        measuring.measure_visibility,
    ),
    *defended(CONTROL),
    *defended(VICTIM),
    OUTCOME,
)  # fmt: skip
GROUPS = tuple(dict.fromkeys(stage.group for stage in STAGES))
