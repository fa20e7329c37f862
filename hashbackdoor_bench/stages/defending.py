"""The builders of the stages that a run has with a defense, on the victim or the clean victim.

Each returns the tensors and facts of an artifact; the facts have the number of images that went
through networks, ``forwards``.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hashbackdoor_bench import metrics, poisoning
from hashbackdoor_bench.api import to_bytes, to_unit
from hashbackdoor_bench.defender import purified
from hashbackdoor_bench.network import HashModel, TrainingSet, centre_crop
from hashbackdoor_bench.stages import building
from hashbackdoor_bench.stages.cache import Content
from hashbackdoor_bench.stages.clean_images import numbers_of
from hashbackdoor_bench.stages.codes import DEFENDED, code_stages, served
from hashbackdoor_bench.stages.defender_views import defense_of, screening_of, view_of
from hashbackdoor_bench.stages.windows import audited

if TYPE_CHECKING:
    from hashbackdoor_bench.stages.pipeline import Run
    from hashbackdoor_bench.stages.plan import PlannedStage

Builder = Callable[[str, "Run", "PlannedStage", Path], Content]
COST = 0.02  # largest loss of MAP on the defender's images that ``tuned`` allows


def counted(build: Builder) -> Builder:
    """Count the images that go through networks."""

    @wraps(build)
    def made(victim: str, run: "Run", stage: "PlannedStage", work: Path) -> Content:
        before = HashModel.forwards
        tensors, facts = build(victim, run, stage, work)
        return tensors, {**facts, "forwards": HashModel.forwards - before}

    return made


@counted
def tune(victim: str, run: "Run", stage: "PlannedStage", work: Path) -> Content:
    """Choose the largest strength whose loss of MAP, on clean images, is at most ``COST``.

    The loss is the difference of AP of the same images before and after; the upper end of its 95 %
    interval counts. Nothing of the attack or of the test is looked at. If no strength of the grid
    is allowed, the weakest is taken.
    """
    chosen, name = run.plan.defense, served(victim, run.plan.stages)
    before = view_of(name, victim, run, stage, None).average_precisions()
    grid = run.plan.defense.method.cls.grid
    losses = []
    for number, strength in enumerate(grid):
        defense = chosen.with_strength(strength)
        view = view_of(name, victim, run, stage, _folder(work, number))
        hooks = defense.hooks()
        model = defense.repair(view) if "repair" in hooks else None
        after = view.average_precisions(model, defense.purify if "purify" in hooks else None)
        losses.append(float(metrics.bootstrap(before - after)[1]))
    allowed = [number for number, loss in enumerate(losses) if loss <= COST]
    return {}, {"strength": grid[max(allowed, default=0)], "losses": losses}


def _folder(work: Path, number: int) -> Path:
    """A folder of its own for the checkpoints of one strength."""
    folder = work / f"strength-{number}"
    folder.mkdir(exist_ok=True)
    return folder


@counted
def screen(victim: str, run: "Run", stage: "PlannedStage", work: Path) -> Content:
    """How suspicious each training image is, and which are dropped."""
    view = view_of(served(victim, run.plan.stages), victim, run, stage, work)
    found = defense_of(victim, run).screen(view)
    if not torch.isfinite(found.suspicion).all():
        raise ValueError("a suspicion is NaN or infinite")
    drop = found.drop if run.plan.defense.method.cls.control else view.guarded(found).drop
    return {"suspicion": found.suspicion.float(), "drop": drop.to(torch.uint8)}, {}


@counted
def retrain(victim: str, run: "Run", stage: "PlannedStage", work: Path) -> Content:
    """A victim trained without the dropped images, or with the gradients of the defense."""
    items: TrainingSet = (
        building.clean_items(run) if stage.inputs["poison"] is None else building.poison_items(run)
    )
    screening = f"{victim}'s screening"
    if screening in stage.needs:
        items = replace(items, kept=~screening_of(run.make(screening)).drop)
    more: dict[str, Any] = {}
    if "backward" in run.plan.defense.hooks:
        more["backward"] = run.plan.defense.instance.backward
    return run.plan.victim.train(
        items,
        run.device,
        checkpoint=work / "checkpoint",
        progress=run.progress,
        stage=stage.title,
        **more,
    )


@counted
def repair(victim: str, run: "Run", stage: "PlannedStage", work: Path) -> Content:
    """The network after a repair, with the loss that it was trained by."""
    name = _repaired_from(victim, run)
    model = defense_of(victim, run).repair(view_of(name, victim, run, stage, work))
    given = run.make(name)
    loss = {key: value for key, value in given.tensors.items() if key.startswith("loss.")}
    tensors = {f"model.{key}": value.cpu() for key, value in model.state_dict().items()}
    return {**tensors, **loss}, {"train_size": given.facts["train_size"]}


def _repaired_from(victim: str, run: "Run") -> str:
    """The stage whose network is repaired."""
    stages = [name for name in run.plan.stages if name != f"repaired {victim}"]
    return served(DEFENDED[victim], stages)


def encode_plain(victim: str, run: "Run", stage: "PlannedStage", work: Path) -> Content:
    """A defended victim's codes of queries, which are purified, and of the database.

    The database is hashed again if the network is another, and keeps its codes if it is not.
    """
    defended, splits = DEFENDED[victim], run.plan.splits
    made: dict[str, Tensor] = {}
    if served(defended, run.plan.stages) == served(victim, run.plan.stages):
        made["database"] = run.make(code_stages(victim)["plain"]).tensors["database"]
    if "purify" in run.plan.defense.hooks:
        rows = torch.arange(len(splits.query))
        made["query"] = _purified_codes(victim, run, stage, rows, None)
    missing = [part for part in ("query", "database") if part not in made]
    return {**made, **building.plain_codes(defended, run, stage, missing)}, {}


def encode_triggered(victim: str, run: "Run", stage: "PlannedStage", work: Path) -> Content:
    """A defended victim's codes of the attacked queries, triggered and then purified."""
    if "purify" not in run.plan.defense.hooks:
        return building.encode_triggered(DEFENDED[victim], run, stage, work)
    rows = run.plan.truth.attacked.nonzero().flatten()
    trigger = partial(poisoning.triggered, run.backdoor)
    return {"query": _purified_codes(victim, run, stage, rows, trigger)}, {}


def _purified_codes(
    victim: str,
    run: "Run",
    stage: "PlannedStage",
    rows: Tensor,
    trigger: Callable[[Tensor], Tensor] | None,
) -> Tensor:
    """Packed codes of some queries, with the trigger if there is one, purified."""
    plan, query = run.plan, run.plan.splits.query
    images = centre_crop(query.images[rows], plan.splits.size)
    if trigger is not None:
        parts = [
            to_bytes(trigger(to_unit(p.to(run.device)))).cpu() for p in torch.split(images, 64)
        ]
        images = torch.cat(parts) if parts else images
    item = numbers_of(query, rows, plan.spec.seed)
    images = purified(defense_of(victim, run).purify, images, item, run.device)
    return building.packed_codes(run, DEFENDED[victim], images, stage.title)


@counted
def suspect(victim: str, run: "Run", stage: "PlannedStage", work: Path) -> Content:
    """Suspicions of the attacked queries without and with the trigger, and of clean images."""
    plan, query = run.plan, run.plan.splits.query
    defense = defense_of(victim, run)
    view = view_of(served(DEFENDED[victim], plan.stages), victim, run, stage, work)
    rows = plan.truth.attacked.nonzero().flatten()
    images = centre_crop(query.images[rows], plan.splits.size)
    item = numbers_of(query, rows, plan.spec.seed)
    held = view.calibration

    def of(images: Tensor, item: Tensor, trigger: bool = False) -> Tensor:
        parts = []
        for part, numbers in zip(torch.split(images, 64), torch.split(item, 64), strict=True):
            x = to_unit(part.to(run.device))
            x = poisoning.triggered(run.backdoor, x) if trigger else x
            if "purify" in plan.defense.hooks:
                x = to_unit(to_bytes(defense.purify(x, numbers)))
            parts.append(defense.suspect(x, numbers, view).float().cpu())
        found = torch.cat(parts) if parts else torch.empty(0)
        if not torch.isfinite(found).all():
            raise ValueError("a suspicion is NaN or infinite")
        return found

    with torch.no_grad():
        return {
            "clean": of(images, item),
            "triggered": of(images, item, trigger=True),
            "calibration": of(held.images, held.item),
        }, {}


@counted
def inspect(victim: str, run: "Run", stage: "PlannedStage", work: Path) -> Content:
    """How likely the network is to have a backdoor."""
    view = view_of(served(DEFENDED[victim], run.plan.stages), victim, run, stage, work)
    found = defense_of(victim, run).inspect(view)
    return {"per_class": found.per_class.float()}, {"score": float(found.score)}


@counted
def audit(victim: str, run: "Run", stage: "PlannedStage", work: Path) -> Content:
    """How suspicious windows of clean queries are, and windows with triggered ones."""
    plan = run.plan
    view = view_of(served(DEFENDED[victim], plan.stages), victim, run, stage, work)
    shown = DEFENDED[victim] if plan.defense.changes_codes else victim
    codes = run.codes(shown)
    return audited(
        plan.defense.instance,
        view,
        query=metrics.unpack(codes.query, plan.spec.bits),
        triggered=metrics.unpack(codes.triggered, plan.spec.bits),
        labels=plan.splits.query.labels,
    ), {}
