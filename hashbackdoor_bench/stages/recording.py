"""The record of a run, from its plan and its artifacts."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from hashbackdoor_bench.records import Record, record_key
from hashbackdoor_bench.stages.table import VICTIM

if TYPE_CHECKING:
    from hashbackdoor_bench.stages.pipeline import Run
    from hashbackdoor_bench.stages.plan import Plan


def record_of(run: "Run") -> Record:
    """The scored run, with everything needed to make it again; makes what is missing."""
    plan = run.plan
    found = {name: run.make(name) for name in plan.stages}
    keys = {name: artifact.key for name, artifact in found.items()}
    seconds = {name: artifact.seconds for name, artifact in found.items()}
    seconds |= run.crafted.facts.get("shared", {})
    history = run.crafted.facts.get("history")
    return Record(
        key=record_key(plan.spec, keys),
        spec=asdict(plan.spec),
        protocol=_protocol(plan),
        threat=_threat(run),
        scores=found["scores"].facts["scores"],
        retrieval=found["scores"].facts["retrieval"],
        imperceptibility={name: found["visibility"].facts[name] for name in ("poison", "query")},
        params={
            "attack": {**dict(plan.spec.attack_settings), **plan.found},
            "victim": dict(plan.spec.victim_settings),
            "recipe": asdict(plan.victim.recipe),
            "surrogate": dict(plan.surrogate.settings),
        },
        training={
            name: artifact.facts["losses"]
            for name, artifact in found.items()
            if "losses" in artifact.facts
        }
        | ({"backdoor": history} if history else {}),
        seconds={name: round(value, 3) for name, value in seconds.items()},
        artifacts=keys,
        **found[VICTIM].facts["made by"],
    )


def _threat(run: "Run") -> dict[str, Any]:
    plan = run.plan
    poisoned = int((run.backdoor.kind == 0).sum())
    members = int((plan.splits.train.labels == plan.target).all(1).sum())
    return {
        **asdict(plan.attack.threat),
        "delivery": plan.spec.delivery,
        "budget": poisoned / members if members else None,
        "poisoned": poisoned,
        "covers": int((run.backdoor.kind == 1).sum()),
        "target_images": members,
    }


def _protocol(plan: "Plan") -> dict[str, Any]:
    splits = plan.splits
    return {
        "name": splits.name,
        "train": len(splits.train),
        "query": len(splits.query),
        "database": len(splits.database),
        "classes": len(splits.classes),
        "top_k": splits.top_k,
        "sha256": splits.sha256,
        "pixels": splits.pixels,
        "multilabel": splits.multilabel,
        "unlabelled": dict(splits.unlabelled),
        "notes": list(splits.notes),
    }
