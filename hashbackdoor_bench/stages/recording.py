"""The record of a run, put together from its plan and its artifacts."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import msgspec

from hashbackdoor_bench.data import Splits
from hashbackdoor_bench.records import (
    DataFacts,
    Defended,
    Dispersion,
    Imperceptibility,
    Losses,
    Parameters,
    Record,
    Retrieval,
    Scores,
    Threat,
    record_key,
    with_checksum,
)
from hashbackdoor_bench.stages.artifact import Artifact
from hashbackdoor_bench.stages.codes import CONTROL, VICTIM
from hashbackdoor_bench.stages.dispersing import DISPERSION, disperses
from hashbackdoor_bench.stages.queries import Aim

if TYPE_CHECKING:
    from hashbackdoor_bench.stages.pipeline import Run


def record_of(run: "Run") -> Record:
    """The record of a run; missing stages are made first."""
    plan = run.plan
    artifacts = {name: run.make(name) for name in plan.stages}
    keys = {name: artifact.key for name, artifact in artifacts.items()}
    crafted = run.crafted.facts
    seconds = {name: artifact.seconds for name, artifact in artifacts.items()}
    seconds |= crafted.get("shared", {})
    scored, seen = artifacts["scores"].facts, artifacts["visibility"].facts
    record = Record(
        key=record_key(plan.spec, keys),
        spec=plan.spec,
        protocol=_data_facts(plan.splits),
        threat=_threat(run),
        scores=msgspec.convert(scored["scores"], Scores),
        retrieval=msgspec.convert(scored["retrieval"], Retrieval),
        imperceptibility=msgspec.convert(
            {images: seen[images] for images in ("poison", "query", "cover") if images in seen},
            Imperceptibility,
        ),
        params=Parameters(
            attack={**dict(plan.spec.attack_settings), **plan.found},
            victim=dict(plan.spec.victim_settings),
            recipe=plan.victim.recipe.to_dict(),
            surrogate=dict(plan.surrogate.settings),
            weights=plan.victim.inputs["weights"] if plan.spec.weights else None,
        ),
        training=Losses(
            surrogate=_losses(artifacts["surrogate"]) if "surrogate" in artifacts else None,
            clean_victim=_losses(artifacts[CONTROL]),
            victim=_losses(artifacts[VICTIM]),
            backdoor={k: tuple(v) for k, v in (crafted.get("history") or {}).items()},
        ),
        seconds={name: round(value, 3) for name, value in seconds.items()},
        artifacts=keys,
        numerics=plan.numerics,
        defense=_defended(run) if plan.defense.hooks else None,
        dispersion=_dispersion(run) if disperses(plan) else None,
        **artifacts[VICTIM].facts["made by"],
    )
    return with_checksum(record)


def _defended(run: "Run") -> Defended:
    """What the defense did."""
    plan, stages = run.plan, run.plan.stages
    own = {
        hook: run.make(name)
        for hook, name in (
            ("tuning", f"{VICTIM}'s tuning"),
            ("screen", f"{VICTIM}'s screening"),
            ("train", f"retrained {VICTIM}"),
            ("repair", f"repaired {VICTIM}"),
            ("suspect", f"{VICTIM}'s suspicions"),
            ("inspect", f"{VICTIM}'s inspection"),
            ("audit", f"{VICTIM}'s audit"),
        )
        if name in stages
    }
    settings, tuning = dict(plan.spec.defense_settings), own.get("tuning")
    if tuning is not None:
        settings[str(plan.defense.method.cls.strength)] = tuning.facts["strength"]
    assumes = plan.defense.instance.assumes
    found = {
        "version": plan.defense.method.cls.version,
        "settings": settings,
        "hooks": plan.defense.hooks,
        "sees": sorted(assumes.sees),
        "control": plan.defense.method.cls.control,
        "clean": len(plan.clean.rows),
        "clean_sha256": plan.clean.inputs(plan.splits).get("clean"),
        "oracle_clean": plan.clean.oracle,
        "seconds": {hook: round(artifact.seconds, 3) for hook, artifact in own.items()},
        "forwards": {hook: artifact.facts["forwards"] for hook, artifact in own.items()},
        "tuning": tuning.facts["losses"] if tuning else [],
        **run.make("outcome").facts,
    }
    del found["made by"]
    return msgspec.convert(found, Defended)


def _dispersion(run: "Run") -> Dispersion:
    """How the poison is dispersed."""
    facts = run.beside(DISPERSION).facts
    return msgspec.convert({name: facts[name] for name in Dispersion.__struct_fields__}, Dispersion)


def _losses(trained: Artifact) -> tuple[float, ...]:
    """The mean loss of each epoch."""
    return tuple(trained.facts["losses"])


def _threat(run: "Run") -> Threat:
    labels, kind = run.plan.splits.train.labels, run.backdoor.kind
    poisoned = int((kind == 0).sum())
    members = int((labels == run.plan.target).all(1).sum())
    aim = run.plan.aim
    return Threat(
        **{**asdict(run.plan.attack.threat), "source": aim.source},
        delivery=run.plan.delivery,
        budget=poisoned / members if members else None,
        poisoned=poisoned,
        covers=int((kind == 1).sum()),
        target_images=members,
        attacked=None if aim == Aim() else int(run.plan.truth.attacked.sum()),
    )


def _data_facts(splits: Splits) -> DataFacts:
    return DataFacts(
        name=splits.name,
        train=len(splits.train),
        query=len(splits.query),
        database=len(splits.database),
        classes=len(splits.classes),
        top_k=splits.top_k,
        sha256=splits.sha256,
        pixels=splits.pixels,
        multilabel=splits.multilabel,
        unlabelled=dict(splits.unlabelled),
        notes=tuple(splits.notes),
    )
