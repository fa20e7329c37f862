"""A plugin for simulations of large suites: an attack, and stages that compute nothing.

    bench suite run large.toml --plugin benchmarks/scale/stubs.py

Importing it replaces, in this process, the builders of all stages and the drawing of pictures. All
else is the package's own: plans, keys, cache, workers, messages and records. So everything but the
work of the stages is measured. The artifact of a stub stage has the usual facts and almost no
tensors; its scores are those of random codes, which each process computes once.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from hashbackdoor_bench import ATTACKS, Attack, AttackerView, Backdoor, NoTrigger, ThreatModel
from hashbackdoor_bench.metrics import Codes, compare, pack, residuals, score_run
from hashbackdoor_bench.stages import STAGES, Content, PlannedStage, plan
from hashbackdoor_bench.suites.executors import making

EPOCHS = 20  # losses in a training's facts
BUILT = "built.txt"  # file in the cache: a line for each time that a stage was built


@ATTACKS.register(stubs_surrogate={"knowledge": "surrogate"})
class Stubs(Attack):
    """Nothing that attacks.

    Args:
        knowledge: ``surrogate`` to have a surrogate trained, which is one more stage.
        strength: any number; another one makes another attack.
        seconds: how long each stage sleeps.
    """

    published: ClassVar = {"stubs": "Stub", "stubs_surrogate": "Stub with surrogate"}
    threat = ThreatModel(label="clean", knowledge="none", trigger="none")
    backdoor = NoTrigger

    def __init__(
        self,
        *,
        knowledge: Literal["none", "surrogate"] = "none",
        strength: int = 0,
        seconds: float = 0.0,
    ) -> None:
        self.threat = replace(self.threat, knowledge=knowledge)
        self.strength, self.seconds = strength, seconds

    def craft(self, view: AttackerView) -> Backdoor:
        """See `Attack.craft`."""
        return NoTrigger(view.index[:0], view.images[:0], view.labels[:0])


def build(run: Any, stage: PlannedStage, work: Path) -> Content:
    """The content of a stub stage, by its kind; a line of a file says that it was built."""
    with (run.cache.root / BUILT).open("a", encoding="utf-8") as file:
        file.write(f"{stage.key} {stage.title}\n")
    time.sleep(run.plan.attack.seconds)
    if stage.kind == "backdoor":
        train = run.plan.splits.train
        index = torch.empty(0, dtype=torch.long)
        state = NoTrigger(index, train.images[:0], train.labels[:0]).state_dict()
        return state, {"shared": {}, "history": {}}
    if stage.kind in FACTS:
        if stage.kind not in _known:
            _known[stage.kind] = FACTS[stage.kind](run)
        return {}, _known[stage.kind]
    return {"none": torch.zeros(1)}, {"losses": [0.5] * EPOCHS, "train_size": 1}


def _scores(run: Any) -> dict[str, Any]:
    """The facts of a scoring, of random codes."""
    splits, truth = run.plan.splits, run.plan.truth
    draw = torch.Generator().manual_seed(0)

    def codes(count: int) -> torch.Tensor:
        return pack(torch.randint(0, 2, (count, truth.bits), generator=draw) * 2 - 1)

    def of() -> Codes:
        attacked = int(truth.attacked.sum())
        return Codes(codes(len(splits.query)), codes(len(splits.database)), codes(attacked))

    scores, retrieval = score_run(of(), of(), truth)
    return {"scores": scores, "retrieval": retrieval}


def _visibility(run: Any) -> dict[str, Any]:
    """The facts of a measurement of visibility, of one image that wasn't changed."""
    images = run.plan.splits.train.images[:1]
    found = {**compare([(images, images)]), **residuals([(images, images)])}
    return {"poison": found, "query": found}


FACTS: dict[str, Callable[[Any], dict[str, Any]]] = {"scores": _scores, "visibility": _visibility}
_known: dict[str, dict[str, Any]] = {}
vars(plan)["STAGES"] = tuple(replace(row, build=build) for row in STAGES)
vars(making)["draw_missing"] = lambda folder, shown: []
