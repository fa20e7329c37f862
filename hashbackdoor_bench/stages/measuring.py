"""The builders of the stages that measure: scores, and how visible triggers are."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hashbackdoor_bench import poisoning
from hashbackdoor_bench.api import COVER, POISON
from hashbackdoor_bench.metrics import compare, residuals, score_run
from hashbackdoor_bench.network import centre_crop
from hashbackdoor_bench.stages.artifact import Content
from hashbackdoor_bench.stages.codes import CONTROL, VICTIM

if TYPE_CHECKING:
    from hashbackdoor_bench.stages.pipeline import Run
    from hashbackdoor_bench.stages.plan import PlannedStage


def score(run: "Run", stage: "PlannedStage", work: Path) -> Content:
    """All scores of the run."""
    run.progress(stage.title, 0, 1)
    targeted = run.plan.attack.threat.targeted
    scores, retrieval = score_run(
        run.codes(VICTIM), run.codes(CONTROL), run.plan.truth, targeted=targeted
    )
    run.progress(stage.title, 1, 1)
    return {}, {"scores": scores, "retrieval": retrieval}


def measure_visibility(run: "Run", stage: "PlannedStage", work: Path) -> Content:
    """How visible poison, triggered queries and, where there are any, covers are."""
    run.progress(stage.title, 0, 1)
    parts = {"poison": partial(_planted_pairs, run, POISON), "query": partial(_query_pairs, run)}
    if (run.backdoor.kind == COVER).any():
        parts["cover"] = partial(_planted_pairs, run, COVER)
    found = {  # pairs are made twice, because all of them may not fit into memory
        name: {**compare(pairs()), **residuals(pairs())} for name, pairs in parts.items()
    }
    run.progress(stage.title, 1, 1)
    return {}, found


def _planted_pairs(run: "Run", kind: int) -> Iterator[tuple[Tensor, Tensor]]:
    before = centre_crop(run.plan.splits.train.images, run.plan.splits.size)
    after, wanted = poisoning.planted(run.backdoor, run.device), run.backdoor.kind.cpu() == kind
    index = run.backdoor.index.cpu()
    for part in torch.split(wanted.nonzero().squeeze(1), 64):
        yield before[index[part]], after[part]


def _query_pairs(run: "Run") -> Iterator[tuple[Tensor, Tensor]]:
    for rows in torch.split(run.plan.truth.attacked.nonzero().squeeze(1), 64):
        before = centre_crop(run.plan.splits.query.images[rows], run.plan.splits.size)
        yield before, run.trigger(before)
