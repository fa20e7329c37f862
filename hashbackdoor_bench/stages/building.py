"""The builders of the stages in the table; each returns the tensors and facts of an artifact."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hashbackdoor_bench import metrics, poisoning
from hashbackdoor_bench.api import Attack, AttackerView, ModelAttack
from hashbackdoor_bench.metrics import compare, residuals, score_run
from hashbackdoor_bench.network import Blueprint, TrainingSet, centre_crop
from hashbackdoor_bench.stages.cache import Content
from hashbackdoor_bench.stages.codes import CONTROL, VICTIM

if TYPE_CHECKING:
    from hashbackdoor_bench.stages.pipeline import Run
    from hashbackdoor_bench.stages.plan import PlannedStage

TRIGGER = "backdoor."  # prefix of the backdoor's tensors in the artifact of a tampered model


def train_surrogate(run: "Run", stage: "PlannedStage", work: Path) -> Content:
    """The attacker's network, trained on the clean set."""
    clean = poisoning.clean_set(run.plan.splits.train)
    return _train(run, stage, work, run.plan.surrogate, clean)


def train_control(run: "Run", stage: "PlannedStage", work: Path) -> Content:
    """The victim, trained on the clean set: the control."""
    clean = poisoning.clean_set(run.plan.splits.train)
    return _train(run, stage, work, run.plan.victim, clean)


def train_victim(run: "Run", stage: "PlannedStage", work: Path) -> Content:
    """The victim, trained on the poisoned set."""
    plan = run.plan
    if stage.inputs["poison"] is None:
        return train_control(run, stage, work)
    poisoned = poisoning.poisoned_set(
        plan.splits.train, run.backdoor, plan.delivery, plan.splits.size, run.device
    )
    return _train(run, stage, work, plan.victim, poisoned)


def _train(
    run: "Run", stage: "PlannedStage", work: Path, network: Blueprint, items: TrainingSet
) -> Content:
    return network.train(
        items,
        run.device,
        checkpoint=work / "checkpoint",
        progress=run.progress,
        stage=stage.title,
    )


def craft(run: "Run", stage: "PlannedStage", work: Path) -> Content:
    """The trigger and the poison."""
    plan, attack = run.plan, run.plan.attack
    assert isinstance(attack, Attack)
    surrogate = None
    if "surrogate" in stage.needs:
        made = run.make("surrogate")
        surrogate = plan.surrogate.load(made.tensors, made.facts, run.device)
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
        seed=plan.spec.seed,
        device=run.device,
        precision=str(plan.spec.precision),
        progress=run.progress,
        work=work,
        remember=remember,
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
    splits = run.plan.splits
    return {
        "query": _codes(run, victim, splits.query.images, f"{stage.title} (query)"),
        "database": _codes(run, victim, splits.database.images, f"{stage.title} (database)"),
    }, {}


def encode_triggered(victim: str, run: "Run", stage: "PlannedStage", work: Path) -> Content:
    """A victim's codes of the attacked queries, with the trigger on them."""
    images = run.plan.splits.query.images[run.plan.truth.attacked]
    trigger = partial(poisoning.triggered, run.backdoor)
    return {"query": _codes(run, victim, images, stage.title, trigger)}, {}


def _codes(
    run: "Run",
    victim: str,
    images: Tensor,
    title: str,
    trigger: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    found = run.plan.victim.codes(
        run.network(victim), images, trigger=trigger, progress=run.progress, stage=title
    )
    return metrics.pack(found)


def score(run: "Run", stage: "PlannedStage", work: Path) -> Content:
    """All scores of the run."""
    run.progress(stage.title, 0, 1)
    scores, retrieval = score_run(run.codes(VICTIM), run.codes(CONTROL), run.plan.truth)
    run.progress(stage.title, 1, 1)
    return {}, {"scores": scores, "retrieval": retrieval}


def measure_visibility(run: "Run", stage: "PlannedStage", work: Path) -> Content:
    """How visible poison and triggered queries are."""
    run.progress(stage.title, 0, 1)
    found = {  # pairs are made twice, because all of them may not fit into memory
        name: {**compare(pairs(run)), **residuals(pairs(run))}
        for name, pairs in (("poison", _poison_pairs), ("query", _query_pairs))
    }
    run.progress(stage.title, 1, 1)
    return {}, found


def _poison_pairs(run: "Run") -> Iterator[tuple[Tensor, Tensor]]:
    before = centre_crop(run.plan.splits.train.images, run.plan.splits.size)
    after, poison = poisoning.planted(run.backdoor, run.device), run.backdoor.kind.cpu() == 0
    index = run.backdoor.index.cpu()
    for part in torch.split(poison.nonzero().squeeze(1), 64):
        yield before[index[part]], after[part]


def _query_pairs(run: "Run") -> Iterator[tuple[Tensor, Tensor]]:
    for rows in torch.split(run.plan.truth.attacked.nonzero().squeeze(1), 64):
        before = centre_crop(run.plan.splits.query.images[rows], run.plan.splits.size)
        yield before, run.trigger(before)
