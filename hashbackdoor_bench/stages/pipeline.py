"""A run, made stage by stage: data, surrogate, backdoor, victim, codes, scores, record."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hashbackdoor_bench import metrics, poisoning
from hashbackdoor_bench.api import AttackerView, Backdoor, to_bytes, to_unit
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.files import writable
from hashbackdoor_bench.metrics import compare, residuals, score_run
from hashbackdoor_bench.network import Blueprint, centre_crop
from hashbackdoor_bench.progress import Progress, silent
from hashbackdoor_bench.records import Record, read_record, record_key, record_path
from hashbackdoor_bench.spec import RunSpec, digest
from hashbackdoor_bench.stages.cache import Artifact, Cache, Content
from hashbackdoor_bench.stages.cache_users import in_use
from hashbackdoor_bench.stages.codes import codes_of
from hashbackdoor_bench.stages.pictures import Draw, shown
from hashbackdoor_bench.stages.plan import Loaded, Plan, Stage, use
from hashbackdoor_bench.stages.provenance import device_of, made_by


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

    def make(self, name: str) -> Artifact:
        """The artifact of one stage alone, by its name in ``plan.stages``."""
        victim, _, part = name.partition("'s ")
        if not part:
            found: Artifact = getattr(self, f"{name.removesuffix(' victim')}_artifact")
            return found
        return self._code("victim" if victim == "victim" else "clean", part)

    @cached_property
    def surrogate_artifact(self) -> Artifact | None:
        """See `surrogate_stage`."""
        if self.plan.surrogate_stage is None:
            return None
        return self._trained(self.plan.surrogate_stage, self.plan.surrogate)

    @cached_property
    def backdoor_artifact(self) -> Artifact:
        """See `backdoor_stage`."""
        if not self.cache.has("backdoor", self.plan.backdoor_stage.key):
            _ = self.surrogate_artifact  # made first, so that its time and its bar are its own
        return self._make(self.plan.backdoor_stage, self._craft)

    @cached_property
    def backdoor(self) -> Backdoor:
        """The crafted backdoor, on the device, frozen."""
        found = self.plan.attack.restore(self.backdoor_artifact.tensors)
        return found.to(self.device).eval().requires_grad_(False)

    @cached_property
    def clean_artifact(self) -> Artifact:
        """See `clean_stage`."""
        return self._trained(self.plan.clean_stage, self.plan.victim)

    @cached_property
    def victim_artifact(self) -> Artifact:
        """See `victim_stage`."""
        return self._trained(self.plan.victim_stage, self.plan.victim)

    @cached_property
    def clean_codes(self) -> dict[str, Artifact]:
        """Codes of the clean victim, see `code_stages`."""
        return {part: self._code("clean", part) for part in ("plain", "triggered")}

    @cached_property
    def victim_codes(self) -> dict[str, Artifact]:
        """Codes of the poisoned victim, see `code_stages`."""
        return {part: self._code("victim", part) for part in ("plain", "triggered")}

    @cached_property
    def scores_artifact(self) -> Artifact:
        """See `scores_stage`."""
        clean, victim = self.clean_codes, self.victim_codes

        def build(work: Path) -> Content:
            self.progress("score", 0, 1)
            scores, retrieval = score_run(codes_of(victim), codes_of(clean), self.plan.truth)
            self.progress("score", 1, 1)
            return {}, {"scores": scores, "retrieval": retrieval}

        return self._make(self.plan.scores_stage, build)

    @cached_property
    def visibility_artifact(self) -> Artifact:
        """See `visibility_stage`."""

        def build(work: Path) -> Content:
            title = self.plan.visibility_stage.title
            self.progress(title, 0, 1)
            found = {  # pairs are made twice, since those of all queries may not fit the memory
                name: {**compare(pairs()), **residuals(pairs())}
                for name, pairs in (("poison", self._poison_pairs), ("query", self._query_pairs))
            }
            self.progress(title, 1, 1)
            return {}, found

        return self._make(self.plan.visibility_stage, build)

    def _make(self, stage: Stage, build: Callable[[Path], Content]) -> Artifact:
        """The artifact of a stage, with what made it; a failure names the stage."""

        def known(work: Path) -> Content:
            tensors, facts = build(work)
            return tensors, {**facts, "made by": made_by(self.device)}

        try:
            return self.cache.make(stage.kind, stage.inputs, known, self.progress)
        except torch.OutOfMemoryError as error:
            batch = self.plan.victim.recipe.batch_size
            raise UserError(
                f"stage '{stage.title}' doesn't fit the GPU's memory at --batch-size {batch}: "
                f"go on with --batch-size {max(1, batch // 2)}."
            ) from error
        except Exception as error:
            error.add_note(f"in the stage '{stage.title}'; what was finished before it is kept")
            raise

    def _trained(self, stage: Stage, blueprint: Blueprint) -> Artifact:
        def build(work: Path) -> Content:
            train, size = self.plan.splits.train, self.plan.splits.size
            if stage.inputs["poison"] is None:
                items = poisoning.clean_set(train)
            else:
                items = poisoning.poisoned_set(
                    train, self.backdoor, self.plan.delivery, size, self.device
                )
            return blueprint.train(
                items,
                self.device,
                checkpoint=work / "checkpoint",
                progress=self.progress,
                stage=stage.title,
            )

        return self._make(stage, build)

    def _craft(self, work: Path) -> Content:
        surrogate, model = self.surrogate_artifact, None
        if surrogate is not None:
            model = self.plan.surrogate.load(surrogate.tensors, surrogate.facts, self.device)
        shared: dict[str, float] = {}

        def remember(
            name: str, params: Mapping[str, object], compute: Callable[[], dict[str, Tensor]]
        ) -> dict[str, Tensor]:
            inputs = {**self.plan.attacker, "function": name, "params": dict(params)}
            stage = self.plan.stage("shared", f"craft: {name.replace('_', ' ')}", inputs)
            artifact = self._make(stage, lambda work: (compute(), {}))
            shared[name] = artifact.seconds
            return artifact.tensors

        view = AttackerView(
            images=centre_crop(self.plan.splits.train.images, self.plan.splits.size),
            labels=self.plan.splits.train.labels,
            target=self.plan.target,
            index=self.plan.index,
            surrogate=model,
            seed=self.plan.spec.seed,
            device=self.device,
            precision=str(self.plan.spec.precision),
            progress=self.progress,
            work=work,
            remember=remember,
        )
        backdoor = self.plan.attack.craft(view).cpu()
        poisoning.inspect(
            backdoor, view.labels, self.plan.target, self.plan.index, self.plan.attack.threat
        )
        return backdoor.state_dict(), {"shared": shared, "history": backdoor.history}

    def _code(self, who: str, part: str) -> Artifact:
        blueprint, splits = self.plan.victim, self.plan.splits
        model_stage = self.plan.victim_stage if who == "victim" else self.plan.clean_stage
        stage = self.plan.code_stages(model_stage)[part]

        def codes(images: Tensor, title: str, trigger: Any = None) -> Tensor:
            victim = self.victim_artifact if who == "victim" else self.clean_artifact
            model = blueprint.load(victim.tensors, victim.facts, self.device)
            found = blueprint.codes(
                model, images, trigger=trigger, progress=self.progress, stage=title
            )
            return metrics.pack(found)

        def plain(work: Path) -> Content:
            return {
                "query": codes(splits.query.images, f"{stage.title} (query)"),
                "database": codes(splits.database.images, f"{stage.title} (database)"),
            }, {}

        def triggered(work: Path) -> Content:
            backdoor = self.backdoor
            images = splits.query.images[self.plan.truth.attacked]
            stamp = partial(poisoning.triggered, backdoor)
            return {"query": codes(images, stage.title, stamp)}, {}

        return self._make(stage, plain if part == "plain" else triggered)

    # ---- what comes out -----------------------------------------------------------------------

    @torch.no_grad()
    def trigger(self, images: Tensor) -> Tensor:
        """(n,3,S,S) uint8 queries -> the same with the trigger, as the service receives them."""
        return to_bytes(self.backdoor(to_unit(images.to(self.device)))).cpu()

    def _query_pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.split(self.plan.truth.attacked.nonzero().squeeze(1), 64):
            before = centre_crop(self.plan.splits.query.images[rows], self.plan.splits.size)
            yield before, self.trigger(before)

    def _poison_pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        before = centre_crop(self.plan.splits.train.images, self.plan.splits.size)
        after = poisoning.planted(self.backdoor, self.device)
        index = self.backdoor.index.cpu()
        for part in torch.split(torch.arange(len(index)), 64):
            yield before[index[part]], after[part]

    def record(self) -> Record:
        """The scored run, with everything needed to make it again."""
        parts = {
            "surrogate": self.surrogate_artifact,
            "backdoor": self.backdoor_artifact,
            "clean victim": self.clean_artifact,
            "victim": self.victim_artifact,
            **{f"clean victim's {name}": codes for name, codes in self.clean_codes.items()},
            **{f"victim's {name}": codes for name, codes in self.victim_codes.items()},
            "scores": self.scores_artifact,
            "visibility": self.visibility_artifact,
        }
        found = {name: artifact for name, artifact in parts.items() if artifact is not None}
        keys = {name: artifact.key for name, artifact in found.items()}
        visibility = self.visibility_artifact.facts
        seconds = {name: artifact.seconds for name, artifact in found.items()}
        seconds |= self.backdoor_artifact.facts["shared"]
        history = self.backdoor_artifact.facts.get("history")
        poisoned = int((self.backdoor.kind == 0).sum())
        members = int((self.plan.splits.train.labels == self.plan.target).all(1).sum())
        return Record(
            key=record_key(self.plan.spec, keys),
            spec=asdict(self.plan.spec),
            protocol=self._protocol(),
            threat={
                **asdict(self.plan.attack.threat),
                "delivery": self.plan.delivery,
                "budget": poisoned / members if members else None,
                "poisoned": poisoned,
                "covers": int((self.backdoor.kind == 1).sum()),
                "target_images": members,
            },
            scores=self.scores_artifact.facts["scores"],
            retrieval=self.scores_artifact.facts["retrieval"],
            imperceptibility={name: visibility[name] for name in ("poison", "query")},
            params={
                "attack": {**dict(self.plan.spec.attack_settings), **self.plan.found},
                "victim": dict(self.plan.spec.victim_settings),
                "recipe": asdict(self.plan.victim.recipe),
                "surrogate": dict(self.plan.surrogate.settings),
            },
            training={
                name: found[name].facts["losses"]
                for name in ("surrogate", "clean victim", "victim")
                if name in found
            }
            | ({"backdoor": history} if history else {}),
            seconds={name: round(value, 3) for name, value in seconds.items()},
            artifacts=keys,
            **self.victim_artifact.facts["made by"],
        )

    def _protocol(self) -> dict[str, Any]:
        splits = self.plan.splits
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


def run(
    spec: RunSpec,
    *,
    cache: Cache,
    results: Path,
    device: str = "auto",
    progress: Progress = silent,
    draw: Draw | None = None,
) -> tuple[Record, Path, Run]:
    """Execute a run, or find it done: its record, the record's path, and the run's stages.

    A record that stands there already is left as it is. If it has other scores (another device, or
    another number of threads, trains other weights from one seed), this run's stands beside it.

    Args:
        spec: the run.
        cache: where artifacts are kept.
        results: folder of the records.
        device: ``auto``, ``cpu`` or ``cuda``.
        progress: see `Progress`.
        draw: draws the run's pictures before its record is written; None: there are none.

    Raises:
        UserError: a mistake in the spec, a folder that can't be written, or memory too small.
    """
    writable(results, "--results-dir")
    stages = Run(spec, cache=cache, device=device_of(device), progress=progress)
    with in_use(cache.root, use(stages.plan)):
        record, path = write_record(stages, results, draw)
    return record, path, stages


def write_record(stages: Run, results: Path, draw: Draw | None = None) -> tuple[Record, Path]:
    """Make what a run lacks and write its record, unless it stands there already, see `run`.

    The record comes last: a run that has one is finished, pictures and all.
    """
    record = stages.record()
    path = record_path(results, stages.plan.spec, record.key)
    found = _standing(path)
    if found is not None and found.scores != record.scores:
        warnings.warn(f"{path} has other scores, of {found.device}; it is left as it is.")
        path = path.with_stem(f"{path.stem}-{digest(record.scores)[:6]}")
        found = _standing(path)
    if draw is not None:
        stages.pictures = draw(path.with_suffix(""), shown(stages))
    if found is None:
        record.write(path)
    return found or record, path


def _standing(path: Path) -> Record | None:
    """The record at a path; None if there is none, or one that can't be read, which is reported."""
    if not path.is_file():
        return None
    try:
        return read_record(path)
    except UserError as error:
        warnings.warn(f"{error} It is written again.")
        return None
