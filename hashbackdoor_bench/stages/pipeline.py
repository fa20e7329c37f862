"""A run, made stage by stage, and its record at the end."""

import warnings
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor

from hashbackdoor_bench.api import Backdoor, to_bytes, to_unit
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.files import room, unless_refused
from hashbackdoor_bench.memory import scarce
from hashbackdoor_bench.metrics import Codes
from hashbackdoor_bench.network import FrozenHead, HashModel
from hashbackdoor_bench.progress import Log, Progress, logged, silent
from hashbackdoor_bench.records import Record, read_record, record_path
from hashbackdoor_bench.spec import RunSpec, digest
from hashbackdoor_bench.stages.artifact import Artifact, Content
from hashbackdoor_bench.stages.building import TRIGGER
from hashbackdoor_bench.stages.cache import Cache
from hashbackdoor_bench.stages.cache_users import in_use
from hashbackdoor_bench.stages.codes import code_stages, codes_of, served
from hashbackdoor_bench.stages.idle import idle_surrogate, refuse_idle
from hashbackdoor_bench.stages.loading import Loaded
from hashbackdoor_bench.stages.numerics import threads_set, unchanged
from hashbackdoor_bench.stages.pictures import Draw, shown
from hashbackdoor_bench.stages.plan import Plan, PlannedStage, keys_of
from hashbackdoor_bench.stages.provenance import device_of, made_by
from hashbackdoor_bench.stages.recording import record_of
from hashbackdoor_bench.stages.stage import Stage


class Run:
    """A run's artifacts, each made when it is first asked for.

    Args:
        spec: the run.
        cache: where artifacts are kept.
        device: where to compute.
        progress: see `Progress`.
        loaded: the data of ``spec``, if it was loaded before.

    Raises:
        UserError: a name, a value or a combination that doesn't exist.
    """

    def __init__(
        self,
        spec: RunSpec,
        *,
        cache: Cache,
        device: torch.device,
        progress: Progress = silent,
        loaded: Loaded | None = None,
    ) -> None:
        self.plan = Plan(spec, cache=cache, device=device, progress=progress, loaded=loaded)
        self.cache, self.device, self.progress = cache, device, progress
        self.pictures: list[Path] = []  # drawn by `write_record`
        self._artifacts: dict[str, Artifact] = {}

    def make(self, name: str) -> Artifact:
        """The artifact of a stage, by its name in ``plan.stages``; what it needs is made first."""
        if name not in self._artifacts:
            stage = self.plan.stages[name]
            if not self.cache.has(stage.kind, stage.key):
                for need in stage.needs:  # before this stage, so that times and bars are separate
                    self.make(need)
            self._artifacts[name] = self._build(stage)
        return self._artifacts[name]

    def share(
        self,
        function: str,
        params: Mapping[str, object],
        compute: Callable[[Path | None], dict[str, Tensor]],
    ) -> Artifact:
        """The artifact of what attacks share, see `AttackerView.shared`."""
        title = f"craft: {function.replace('_', ' ')}"
        row = Stage(
            function,
            "shared",
            title,
            (),
            lambda plan, keys: {},
            lambda run, stage, work: (compute(work), {}),
        )
        return self._build(self.plan.shared(function, params, row))

    def beside(self, row: Stage) -> Artifact:
        """The artifact of a stage that is no row of the table, and in no record's key."""
        return self._build(self.plan.beside(row))

    def _build(self, stage: PlannedStage) -> Artifact:
        """Make or find the artifact of a stage; an exception gets a note that names the stage."""

        def build(work: Path) -> Content:
            with unchanged(self.plan.numerics):
                tensors, facts = stage.row.build(self, stage, work)
            return tensors, {**facts, "made by": made_by(self.device)}

        try:
            return self.cache.make(stage.kind, stage.inputs, build, self.progress)
        except Exception as error:
            if memory := scarce(error):
                batch = self.plan.victim.recipe.batch_size
                less = f"--batch-size {batch // 2}, or " if batch > 1 else ""
                raise UserError(
                    f"stage '{stage.title}' doesn't fit the {memory} memory at --batch-size "
                    f"{batch}: go on with {less}a smaller --backbone or --size, or with fewer "
                    "processes beside it (--jobs of a suite); what was finished is kept."
                ) from error
            error.add_note(f"in the stage '{stage.title}'; what was finished before it is kept")
            raise

    # ---- what the artifacts are ---------------------------------------------------------------

    @property
    def crafted(self) -> Artifact:
        """The artifact that holds the trigger: the backdoor, or the model tampered with."""
        return self.make("tamper" if "tamper" in self.plan.stages else "backdoor")

    @cached_property
    def backdoor(self) -> Backdoor:
        """The crafted backdoor, on the device, frozen."""
        state = self.crafted.tensors
        if "tamper" in self.plan.stages:
            state = {k.removeprefix(TRIGGER): v for k, v in state.items() if k.startswith(TRIGGER)}
        found = self.plan.attack.restore(state)
        return found.to(self.device).eval().requires_grad_(False)

    def network(self, victim: str) -> HashModel:
        """The network of one of ``NETWORKS`` as it is encoded with, in eval mode, frozen."""
        artifact = self.make(served(victim, self.plan.stages))
        return self.plan.victim.load(artifact.tensors, artifact.facts, self.device)

    def hashes_features(self, victim: str) -> bool:
        """Whether a victim is a hash layer on the features of a frozen backbone."""
        kind = self.plan.stages[served(victim, self.plan.stages)].kind
        return self.plan.victim.recipe.frozen and kind == "train"

    def head(self, victim: str) -> FrozenHead:
        """The hash layer of such a victim, in eval mode, frozen."""
        artifact = self.make(served(victim, self.plan.stages))
        return self.plan.victim.load_head(artifact.tensors, artifact.facts, self.device)

    def codes(self, victim: str) -> Codes:
        """The codes of one of ``NETWORKS``."""
        return codes_of({part: self.make(name) for part, name in code_stages(victim).items()})

    @torch.no_grad()
    def trigger(self, images: Tensor) -> Tensor:
        """(n,3,S,S) uint8 queries -> the same with the trigger, as the service receives them."""
        return to_bytes(self.backdoor(to_unit(images.to(self.device)))).cpu()

    def record(self) -> Record:
        """The scored run, with everything needed to make it again."""
        return record_of(self)


def run(
    spec: RunSpec,
    *,
    cache: Cache,
    results: Path,
    device: str = "auto",
    threads: int | None = None,
    progress: Progress = silent,
    log: Log | None = None,
    draw: Draw | None = None,
) -> tuple[Record, Path, Run]:
    """Execute a run, or find it finished; returns its record, the record's path and its stages.

    An existing record is never changed. If it has other scores (another processor of the same kind
    may train other weights), the new record is written beside it.

    Args:
        spec: the run.
        cache: where artifacts are kept.
        results: folder of the records.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: torch's threads; None: as many as it takes by itself. Results depend on it.
        progress: see `Progress`.
        log: called at the end of each epoch of training; None: there is no log.
        draw: draws the run's pictures before its record is written; None: there are none.

    Raises:
        UserError: a mistake in the spec, an option that changes nothing, a folder that can't be
            written, or memory too small.
    """
    with threads_set(threads):
        with unless_refused(results, "--results-dir"):
            stages = Run(spec, cache=cache, device=device_of(device), progress=progress)
            refuse_idle(spec, stages.plan.spec)
        for told in idle_surrogate(stages.plan.spec):
            warnings.warn(told)
        if log is not None:
            path = record_path(results, stages.plan.spec, stages.plan.record_key)
            stages.progress = logged(progress, partial(log, path))
        with in_use(cache.root, keys_of(stages.plan)):
            record, path = write_record(stages, results, draw)
    return record, path, stages


def write_record(stages: Run, results: Path, draw: Draw | None = None) -> tuple[Record, Path]:
    """Make the missing stages of a run and write its record, unless it exists, see `run`.

    The record is written last, so a run with a record is finished and has its pictures.
    """
    record = stages.record()
    path = record_path(results, stages.plan.spec, record.key)
    found = _standing(path)
    if found is not None and found.scores != record.scores:
        warnings.warn(f"{path} has other scores, of {found.device}; it is left as it is.")
        path = path.with_stem(f"{path.stem}-{digest(record.scores)[:6]}")
        found = _standing(path)
    with room(results):
        if draw is not None:
            stages.pictures = draw(path.with_suffix(""), shown(stages))
        if found is None:
            record.write(path)
    return found or record, path


def _standing(path: Path) -> Record | None:
    """The record at a path; None if there is none, or (with a warning) if it can't be read."""
    if not path.is_file():
        return None
    try:
        return read_record(path)
    except UserError as error:
        warnings.warn(f"{error} It is written again.")
        return None
