"""What the defender of a run sees: the view that the stages of a defense are built with."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hashbackdoor_bench import metrics, poisoning
from hashbackdoor_bench.api import Defense, Screening
from hashbackdoor_bench.defender import DefenderView
from hashbackdoor_bench.network import Images, centre_crop
from hashbackdoor_bench.stages.cache import Artifact
from hashbackdoor_bench.stages.clean_images import images_of, numbers_of, split_of
from hashbackdoor_bench.stages.codes import DEFENDED, VICTIM, code_stages

if TYPE_CHECKING:
    from hashbackdoor_bench.stages.pipeline import Run
    from hashbackdoor_bench.stages.plan import PlannedStage


def defense_of(victim: str, run: "Run") -> Defense:
    """The defense, with the strength that was chosen for this victim if it is tuned."""
    tuning = f"{victim}'s tuning"
    if tuning not in run.plan.stages:
        return run.plan.defense.instance
    return run.plan.defense.with_strength(run.make(tuning).facts["strength"])


def view_of(
    name: str, victim: str, run: "Run", stage: "PlannedStage", work: Path | None
) -> DefenderView:
    """The view of a defender.

    Args:
        name: the stage whose network he has.
        victim: ``CONTROL`` or ``VICTIM``.
        run: the run.
        stage: the stage that is made.
        work: folder of checkpoints.
    """
    plan, artifact = run.plan, run.make(name)
    model, loss = plan.victim.load_with_loss(artifact.tensors, artifact.facts, run.device)
    sees = plan.defense.instance.assumes.sees
    clean, train, poison, database, screening = plan.clean, None, None, None, None
    if {"train", "poison"} & sees:
        train, slot = _delivered(victim, run)
        poison = slot >= 0 if "poison" in sees else None
    if "database" in sees:
        own = code_stages(DEFENDED[victim])["plain"]
        stored = own if own in plan.stages else code_stages(victim)["plain"]
        if stored in stage.needs:
            database = metrics.unpack(run.make(stored).tensors["database"], plan.spec.bits)
    if f"{victim}'s screening" in stage.needs:
        screening = screening_of(run.make(f"{victim}'s screening"))
    return DefenderView(
        model=model,
        loss=loss.renewed(max(1, len(clean.rows))),
        clean=images_of(split_of(clean, plan.splits), clean.rows, plan.splits.size, plan.spec.seed),
        blueprint=plan.victim,
        train=train,
        screening=screening,
        database=database,
        poison=poison,
        seed=plan.spec.seed,
        device=run.device,
        progress=run.progress,
        title=stage.title,
        work=work,
    )


def screening_of(artifact: Artifact) -> Screening:
    """The screening that an artifact holds."""
    return Screening(artifact.tensors["suspicion"], artifact.tensors["drop"].bool())


def _delivered(victim: str, run: "Run") -> tuple[Images, Tensor]:
    """The training images as delivered, without augmentation, and their slots (n,), -1 if clean."""
    plan, train = run.plan, run.plan.splits.train
    images, labels = centre_crop(train.images, plan.splits.size), train.labels
    slot = torch.full((len(train),), -1)
    if victim == VICTIM and len(plan.index):
        index = run.backdoor.index.cpu()
        images, labels = images.clone(), labels.clone()
        size = plan.splits.size
        poison = poisoning.delivered(train, run.backdoor, plan.delivery, size, run.device)
        images[index] = centre_crop(poison, size)
        labels[index] = run.backdoor.label.cpu()
        slot[index] = torch.where(run.backdoor.kind.cpu() == 0, torch.arange(len(index)), -1)
    rows = torch.arange(len(train))
    return Images(images, labels, numbers_of(train, rows, plan.spec.seed)), slot
