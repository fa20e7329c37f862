"""The builders of the stages in the table; each returns the tensors and facts of an artifact."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hashbackdoor_bench import metrics, poisoning
from hashbackdoor_bench.api import Attack, AttackerView, ModelAttack
from hashbackdoor_bench.network import Blueprint, HashModel, TrainingSet, TrainStep, centre_crop
from hashbackdoor_bench.stages.cache import Content

if TYPE_CHECKING:
    from hashbackdoor_bench.stages.pipeline import Run
    from hashbackdoor_bench.stages.plan import Plan, PlannedStage

TRIGGER = "backdoor."  # prefix of the backdoor's tensors in the artifact of a tampered model
# The stages of a frozen recipe: features of clean images, and of poison and triggered queries.
FEATURES, PLANTED_FEATURES = "features", "planted features"
ATTACKERS_FEATURES = "surrogate's features"


def clean_features(network: str, run: "Run", stage: "PlannedStage", work: Path) -> Content:
    """Features of all images, of the frozen backbone of ``victim`` or ``surrogate``."""
    splits, blueprint = run.plan.splits, getattr(run.plan, network)
    model = _backbone(run, blueprint)
    parts = {"train": splits.train, "query": splits.query, "database": splits.database}
    return {
        name: blueprint.codes(
            model,
            split.images,
            progress=run.progress,
            stage=f"{stage.title} ({name})",
            features=True,
        )
        for name, split in parts.items()
    }, {}


def planted_features(run: "Run", stage: "PlannedStage", work: Path) -> Content:
    """Features of the victim's frozen backbone: of planted images, and of triggered queries."""
    plan, blueprint = run.plan, run.plan.victim
    model = _backbone(run, blueprint)
    planted = _poisoned(run)
    assert planted.overlay is not None
    poison = []
    for slots in torch.split(torch.arange(len(planted.overlay)), 64):
        poison.append(
            blueprint.codes(
                model,
                planted.overlay[slots],
                trigger=planted.stamp and partial(_stamped, planted.stamp, slots.to(run.device)),
                progress=run.progress,
                stage=f"{stage.title} (poison)",
                features=True,
            )
        )
    queries = blueprint.codes(
        model,
        plan.splits.query.images[plan.truth.attacked],
        trigger=partial(poisoning.triggered, run.backdoor),
        progress=run.progress,
        stage=f"{stage.title} (queries)",
        features=True,
    )
    return {"poison": torch.cat(poison) if poison else queries[:0], "query": queries}, {}


def _stamped(stamp: Callable[[Tensor, Tensor], Tensor], slots: Tensor, x: Tensor) -> Tensor:
    return stamp(x, slots)


def _backbone(run: "Run", network: Blueprint) -> HashModel:
    """A network with its frozen backbone; its hash layer is not trained."""
    model, _ = network.fresh(1, run.device)
    return model.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def train_surrogate(run: "Run", stage: "PlannedStage", work: Path) -> Content:
    """The attacker's network, trained on the clean set."""
    expected, more = run.plan.expected, {}
    if expected and "backward" in expected.hooks:
        more["backward"] = expected.instance.backward
    items = _clean(run, ATTACKERS_FEATURES)
    return _train(run, stage, work, run.plan.surrogate, items, **more)


def train_control(run: "Run", stage: "PlannedStage", work: Path) -> Content:
    """The victim, trained on the clean set: the control."""
    return _train(run, stage, work, run.plan.victim, _clean(run, FEATURES))


def clean_items(run: "Run") -> TrainingSet:
    """The clean training set of the victim."""
    return _clean(run, FEATURES)


def _clean(run: "Run", features: str) -> TrainingSet:
    """The clean training set; in a frozen recipe, of the features of a stage."""
    clean = poisoning.clean_set(run.plan.splits.train)
    if features in run.plan.stages:
        clean = replace(clean, images=run.make(features).tensors["train"])
    return clean


def _poisoned(run: "Run") -> TrainingSet:
    plan = run.plan
    return poisoning.poisoned_set(
        plan.splits.train, run.backdoor, plan.delivery, plan.splits.size, run.device
    )


def train_victim(run: "Run", stage: "PlannedStage", work: Path) -> Content:
    """The victim, trained on the poisoned set."""
    if stage.inputs["poison"] is None:
        return train_control(run, stage, work)
    return _train(run, stage, work, run.plan.victim, poison_items(run))


def poison_items(run: "Run") -> TrainingSet:
    """The poisoned training set of the victim."""
    poisoned = _poisoned(run)
    if FEATURES in run.plan.stages:
        poisoned = replace(
            poisoned,
            images=run.make(FEATURES).tensors["train"],
            overlay=run.make(PLANTED_FEATURES).tensors["poison"],
            stamp=None,
            frozen=False,
        )
    return poisoned


def _train(
    run: "Run",
    stage: "PlannedStage",
    work: Path,
    network: Blueprint,
    items: TrainingSet,
    **more: Callable[[TrainStep], Tensor],
) -> Content:
    return network.train(
        items,
        run.device,
        checkpoint=work / "checkpoint",
        progress=run.progress,
        stage=stage.title,
        **more,
    )


def craft(run: "Run", stage: "PlannedStage", work: Path) -> Content:
    """The trigger and the poison."""
    plan, attack = run.plan, run.plan.attack
    assert isinstance(attack, Attack)
    surrogate = loss = None
    if "surrogate" in stage.needs:
        made = run.make("surrogate")
        surrogate, loss = plan.surrogate.load_with_loss(made.tensors, made.facts, run.device)
    seconds: dict[str, float] = {}  # times of shared stages

    def remember(
        name: str, params: Mapping[str, object], compute: Callable[[Path | None], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        artifact = run.share(name, params, compute)
        seconds[name] = artifact.seconds
        return artifact.tensors

    view = AttackerView(
        images=centre_crop(plan.splits.train.images, plan.splits.size),
        labels=plan.splits.train.labels,
        target=plan.target,
        index=plan.index,
        covers=plan.covers,
        surrogate=surrogate,
        surrogate_loss=loss,
        **_known_queries(plan),
        seed=plan.spec.seed,
        device=run.device,
        precision=str(plan.spec.precision),
        progress=run.progress,
        work=work,
        remember=remember,
        purify=None if plan.expected is None else plan.expected.purifier,
    )
    given = (view.target, view.index, view.covers)
    versions = [tensor._version for tensor in given]
    backdoor = attack.craft(view).cpu()
    if plan.loaded.changed or versions != [tensor._version for tensor in given]:
        raise ValueError(
            "the attack wrote to a tensor of its view, which others read: it changes a .clone()"
        )
    poisoning.inspect(
        backdoor, view.labels, plan.target, plan.index, attack.threat, covers=plan.covers
    )
    return backdoor.state_dict(), {"shared": seconds, "history": backdoor.history}


def _known_queries(plan: "Plan") -> dict[str, Any]:
    """The fields of an `AttackerView` that tell of queries."""
    images, size = plan.splits.query.images, plan.splits.size
    chosen = torch.empty(0, dtype=torch.long)
    if plan.aim.chosen:
        chosen = plan.truth.attacked.nonzero().flatten()
    return {
        "source": plan.source,
        "chosen": centre_crop(images[chosen], size),
        "references": centre_crop(images[plan.references], size),
    }


def tamper(run: "Run", stage: "PlannedStage", work: Path) -> Content:
    """The victim after a model attack has edited it, and the trigger."""
    plan, attack = run.plan, run.plan.attack
    assert isinstance(attack, ModelAttack)
    victim = run.make(*stage.needs)
    train = plan.splits.train
    view = AttackerView(  # a model attack gets no training images
        images=train.images.new_empty(0, 3, plan.splits.size, plan.splits.size),
        labels=train.labels[:0],
        target=plan.target,
        index=plan.index[:0],
        **_known_queries(plan),
        seed=plan.spec.seed,
        device=run.device,
        precision=str(plan.spec.precision),
        progress=run.progress,
        work=work,
    )
    given = plan.victim.load(victim.tensors, victim.facts, run.device)
    model, backdoor = attack.tamper(given, view)
    loss = {name: value for name, value in victim.tensors.items() if name.startswith("loss.")}
    tensors = {f"model.{name}": value for name, value in model.cpu().state_dict().items()}
    trigger = {f"{TRIGGER}{name}": value for name, value in backdoor.cpu().state_dict().items()}
    facts = {"train_size": victim.facts["train_size"], "history": backdoor.history}
    return {**tensors, **loss, **trigger}, facts


def encode_plain(victim: str, run: "Run", stage: "PlannedStage", work: Path) -> Content:
    """A victim's codes of queries and database."""
    return plain_codes(victim, run, stage, ("query", "database")), {}


def plain_codes(
    victim: str, run: "Run", stage: "PlannedStage", parts: Iterable[str]
) -> dict[str, Tensor]:
    """A victim's packed codes of ``query`` and ``database``, or of one of them."""
    if run.hashes_features(victim):
        features = run.make(FEATURES).tensors
        return {part: _hashed(run, victim, features[part]) for part in parts}
    splits = run.plan.splits
    return {
        part: packed_codes(run, victim, getattr(splits, part).images, f"{stage.title} ({part})")
        for part in parts
    }


def encode_triggered(victim: str, run: "Run", stage: "PlannedStage", work: Path) -> Content:
    """A victim's codes of the attacked queries, with the trigger on them."""
    if run.hashes_features(victim) and PLANTED_FEATURES in run.plan.stages:
        return {"query": _hashed(run, victim, run.make(PLANTED_FEATURES).tensors["query"])}, {}
    images = run.plan.splits.query.images[run.plan.truth.attacked]
    trigger = partial(poisoning.triggered, run.backdoor)
    return {"query": packed_codes(run, victim, images, stage.title, trigger)}, {}


def _hashed(run: "Run", victim: str, features: Tensor) -> Tensor:
    """Packed codes of features (N,F)."""
    code: Tensor = run.head(victim).code(features.to(run.device))
    return metrics.pack(code.cpu())


def packed_codes(
    run: "Run",
    victim: str,
    images: Tensor,
    title: str,
    trigger: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """A victim's packed codes of images (N,3,h,w) uint8."""
    found = run.plan.victim.codes(
        run.network(victim), images, trigger=trigger, progress=run.progress, stage=title
    )
    return metrics.pack(found)
