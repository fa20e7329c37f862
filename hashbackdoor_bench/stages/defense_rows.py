"""The rows of the table of stages that a run has with a defense.

    victim -> [tuning] [screening -> retrained victim] -> [repaired victim] -> defended codes
    the network that serves -> [suspicions] [inspection] [audit]            -> outcome

The clean victim goes through the same rows as control. A row exists if the defense has its hook, so
a defense that trains nothing costs seconds on cached victims, and everything that a run without it
has keeps its key.
"""

from functools import partial
from typing import TYPE_CHECKING

from hashbackdoor_bench.stages import defending, inputs
from hashbackdoor_bench.stages.building import FEATURES, PLANTED_FEATURES
from hashbackdoor_bench.stages.codes import (
    CONTROL,
    DEFENDED,
    NETWORKS,
    VICTIM,
    code_stages,
    served,
)
from hashbackdoor_bench.stages.outcome import score_defense
from hashbackdoor_bench.stages.stage import Inputs, Keys, Stage

if TYPE_CHECKING:
    from hashbackdoor_bench.stages.plan import Plan

POISON = ("backdoor", FEATURES, PLANTED_FEATURES)


# ---- what enters the keys -----------------------------------------------------------------------


def _defense(plan: "Plan", keys: Keys) -> Inputs:
    """The defense, its images and, if it is tuned, what its strength follows from."""
    tuned = [key for name, key in keys.items() if name.endswith("'s tuning")]
    return {
        **plan.defense.inputs,
        "seed": plan.spec.seed,
        **plan.clean.inputs(plan.splits),
        **({"tuning": tuned[0]} if tuned else {}),
    }


def _network(victim: str, plan: "Plan", keys: Keys) -> Inputs:
    return {**_defense(plan, keys), "model": keys[served(DEFENDED[victim], keys)]}


def _tuning(victim: str, plan: "Plan", keys: Keys) -> Inputs:
    cls = plan.defense.method.cls
    return {**_network(victim, plan, keys), "strength": cls.strength, "grid": list(cls.grid)}


def _screening(victim: str, plan: "Plan", keys: Keys) -> Inputs:
    delivered = _trained(victim, plan, keys)
    return {
        **_network(victim, plan, keys),
        **{name: delivered[name] for name in ("data", "poison")},
        "size": plan.splits.size,
    }


def _trained(victim: str, plan: "Plan", keys: Keys) -> Inputs:
    return (inputs.control if victim == CONTROL else inputs.victim)(plan, keys)


def _retrained(victim: str, plan: "Plan", keys: Keys) -> Inputs:
    found = _trained(victim, plan, keys)
    if "backward" in plan.defense.hooks:
        found |= _defense(plan, {})
    screening = keys.get(f"{victim}'s screening")
    return found if screening is None else {**found, "screening": screening}


def _repair(victim: str, plan: "Plan", keys: Keys) -> Inputs:
    screening = keys.get(f"{victim}'s screening")
    return {**_network(victim, plan, keys), **({"screening": screening} if screening else {})}


def _purify(plan: "Plan", keys: Keys) -> Inputs:
    return {"purify": _defense(plan, keys)} if "purify" in plan.defense.hooks else {}


def _plain(victim: str, plan: "Plan", keys: Keys) -> Inputs:
    return {
        **inputs.plain(DEFENDED[victim], plan, keys),
        **_purify(plan, keys),
        "stored": keys[code_stages(victim)["plain"]],  # the database's codes are those, if they fit
    }


def _triggered(victim: str, plan: "Plan", keys: Keys) -> Inputs:
    return {**inputs.triggered(DEFENDED[victim], plan, keys), **_purify(plan, keys)}


def _suspicions(victim: str, plan: "Plan", keys: Keys) -> Inputs:
    return {**inputs.triggered(DEFENDED[victim], plan, keys), **_network(victim, plan, keys)}


def _audit(victim: str, plan: "Plan", keys: Keys) -> Inputs:
    codes = [key for name, key in keys.items() if name not in NETWORKS[DEFENDED[victim]]]
    labels = {"query": plan.loaded.hashes["query"], "target": plan.target.tolist()}
    return {**_network(victim, plan, keys), **labels, **plan.attacked, "codes": codes}


def _outcome(plan: "Plan", keys: Keys) -> Inputs:
    return {
        "read": dict(keys),
        "clean": len(plan.clean.rows),
        "data": plan.splits.sha256,
        "target": plan.target.tolist(),
        **plan.attacked,
    }


# ---- the rows -----------------------------------------------------------------------------------


def _has(hook: str, plan: "Plan") -> bool:
    return hook in plan.defense.hooks


def _tunes(plan: "Plan") -> bool:
    return plan.defense.tuned


def _retrains(plan: "Plan") -> bool:
    return not {"screen", "backward"}.isdisjoint(plan.defense.hooks)


def _changes(plan: "Plan") -> bool:
    return plan.defense.changes_codes


def defended(victim: str) -> tuple[Stage, ...]:
    """The rows of a defense on ``CONTROL`` or ``VICTIM``."""
    which = "" if victim == VICTIM else f" ({CONTROL})"
    networks, codes = NETWORKS[DEFENDED[victim]], code_stages(DEFENDED[victim])
    tuning, screening = f"{victim}'s tuning", f"{victim}'s screening"
    poison = POISON if victim == VICTIM else (FEATURES,)
    retrained, repaired = networks[-2:]
    undefended = code_stages(victim)
    return (
        Stage(
            tuning, "tuning", f"tune the defense{which}", NETWORKS[victim],
            partial(_tuning, victim), partial(defending.tune, victim), _tunes,
        ),
        Stage(
            screening, "screening", f"screen training images{which}",
            (*NETWORKS[victim], *poison), partial(_screening, victim),
            partial(defending.screen, victim), partial(_has, "screen"),
        ),
        Stage(
            retrained, "train", f"train {DEFENDED[victim]}", (*poison, screening),
            partial(_retrained, victim), partial(defending.retrain, victim), _retrains,
        ),
        Stage(
            repaired, "repair", f"repair{which}",
            (*NETWORKS[victim], retrained, screening, tuning),
            partial(_repair, victim), partial(defending.repair, victim), partial(_has, "repair"),
        ),
        Stage(
            codes["plain"], "codes", f"encode with {DEFENDED[victim]}",
            (*networks, tuning, FEATURES, undefended["plain"]),
            partial(_plain, victim), partial(defending.encode_plain, victim), _changes,
        ),
        Stage(
            codes["triggered"], "codes", f"encode with {DEFENDED[victim]} (triggered)",
            tuple(dict.fromkeys((*networks, tuning, "backdoor", "tamper", PLANTED_FEATURES))),
            partial(_triggered, victim), partial(defending.encode_triggered, victim), _changes,
        ),
        Stage(
            f"{victim}'s suspicions", "suspicions", f"suspect queries{which}",
            tuple(dict.fromkeys((*networks, tuning, "backdoor", "tamper"))),
            partial(_suspicions, victim), partial(defending.suspect, victim),
            partial(_has, "suspect"),
        ),
        Stage(
            f"{victim}'s inspection", "inspection", f"inspect{which}", (*networks, tuning),
            partial(_network, victim), partial(defending.inspect, victim),
            partial(_has, "inspect"),
        ),
        Stage(
            f"{victim}'s audit", "audit", f"audit{which}",
            (*networks, *codes.values(), *undefended.values()),
            partial(_audit, victim), partial(defending.audit, victim), partial(_has, "audit"),
        ),
    )  # fmt: skip


def _read(victim: str) -> tuple[str, ...]:
    found = ("screening", "suspicions", "inspection", "audit")
    return (
        *code_stages(victim).values(),
        *code_stages(DEFENDED[victim]).values(),
        *(f"{victim}'s {name}" for name in found),
    )


OUTCOME = Stage(
    "outcome", "outcome", "score the defense",
    tuple(dict.fromkeys(("backdoor", "tamper", "scores", *_read(CONTROL), *_read(VICTIM)))),
    _outcome, score_defense, lambda plan: bool(plan.defense.hooks),
)  # fmt: skip
