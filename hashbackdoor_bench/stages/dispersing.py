"""The stage that measures how poison is dispersed in the space of codes.

It is no row of the table: what it measures is an addition to a record, and enters no record's key.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hashbackdoor_bench import metrics, poisoning
from hashbackdoor_bench.api import POISON, to_unit
from hashbackdoor_bench.network import HashModel, autocast, centre_crop, sign
from hashbackdoor_bench.stages.cache import Content
from hashbackdoor_bench.stages.codes import VICTIM
from hashbackdoor_bench.stages.stage import Inputs, Keys, Stage

if TYPE_CHECKING:
    from hashbackdoor_bench.stages.pipeline import Run
    from hashbackdoor_bench.stages.plan import Plan, PlannedStage

TOGETHER = 250  # images


def disperses(plan: "Plan") -> bool:
    """Whether the poison of a run is measured so, see `Attack.perturbs`."""
    return bool(plan.attack.perturbs and len(plan.index) and "surrogate" in plan.stages)


def _inputs(plan: "Plan", keys: Keys) -> Inputs:
    return {**keys, "data": plan.training_data}


def _measure(run: "Run", stage: "PlannedStage", work: Path) -> Content:
    """The fields of a `Dispersion`."""
    plan, backdoor = run.plan, run.backdoor
    rows = (backdoor.kind.cpu() == POISON).nonzero()[:, 0]
    originals = plan.splits.train.images[backdoor.index.cpu()[rows]]
    images = {
        "plain": centre_crop(originals, plan.splits.size),
        "perturbed": backdoor.carrier.cpu()[rows],
        "stamped": poisoning.planted(backdoor, run.device)[rows],
    }
    made = run.make("surrogate")
    surrogate = plan.surrogate.load(made.tensors, made.facts, run.device)
    networks = {
        "surrogate": (surrogate, plan.surrogate.recipe.precision),
        "victim": (run.network(VICTIM), plan.victim.recipe.precision),
    }
    found: dict[str, Any] = {"images": len(rows)}
    for number, (name, (network, precision)) in enumerate(networks.items()):
        run.progress(stage.title, number, len(networks))
        codes = {shown: _relaxed(network, x, precision) for shown, x in images.items()}
        found[name] = {
            shown: {
                "relaxed": metrics.distances(relaxed, codes["plain"]),
                "hard": metrics.distances(sign(relaxed), sign(codes["plain"])),
            }
            for shown, relaxed in codes.items()
        }
    run.progress(stage.title, len(networks), len(networks))
    return {}, found


@torch.inference_mode()
def _relaxed(network: HashModel, images: Tensor, precision: str) -> Tensor:
    """Relaxed codes (M,K) on the CPU of images (M,3,S,S) uint8; their signs are the hard codes."""
    device = next(network.parameters()).device
    parts = []
    for part in torch.split(images, TOGETHER):
        with autocast(device, precision):
            parts.append(network.relaxed(to_unit(part.to(device))).float())
    return torch.cat(parts).cpu()


DISPERSION = Stage(
    "dispersion", "dispersion", "measure dispersion", ("surrogate", "backdoor", VICTIM), _inputs,
    _measure, disperses,
)  # fmt: skip
