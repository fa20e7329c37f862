"""The stages of a run: data -> surrogate -> backdoor -> victim -> codes -> scores -> record.

Each stage is a function of its parameters and of the artifacts before it, and is kept under the
hash of both: a clean victim is trained once for all attacks on it, a backdoor is crafted once for
all victims it is handed to. Keys follow from the spec alone, before anything is computed.
"""

import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from hashbackdoor_bench import data, metrics, poisoning
from hashbackdoor_bench.api import (
    Attack,
    AttackerView,
    Backdoor,
    Delivery,
    HashLoss,
    generator,
    to_bytes,
    to_unit,
)
from hashbackdoor_bench.cache import Artifact, Cache, Content, Damaged, writable
from hashbackdoor_bench.data import Split, Splits
from hashbackdoor_bench.errors import UserError, unknown
from hashbackdoor_bench.hasher import Hasher
from hashbackdoor_bench.imperceptibility import compare
from hashbackdoor_bench.model import best_precision
from hashbackdoor_bench.progress import Progress, silent
from hashbackdoor_bench.provenance import device_of, made_by
from hashbackdoor_bench.records import Record, read_record, record_key, record_path
from hashbackdoor_bench.registry import ATTACKS, VICTIMS, Method
from hashbackdoor_bench.scores import Codes, Truth, packed, score
from hashbackdoor_bench.spec import RunSpec, digest
from hashbackdoor_bench.training import centre_crop

# Raised by one when a stage's algorithm changes, so that its artifacts are made again.
VERSIONS = {"train": 1, "backdoor": 1, "shared": 1, "codes": 1, "visibility": 1, "scores": 1}


@dataclass(frozen=True)
class Stage:
    """A stage of a run, before it is made.

    Attributes:
        kind: a key of ``VERSIONS``, and the artifact's folder.
        title: for a person.
        inputs: all that its artifact depends on, as JSON values.
        key: of its artifact.
    """

    kind: str
    title: str
    inputs: Mapping[str, Any]
    key: str


class Run:
    """One resolved run and its stages; an artifact is made when it is first asked for.

    Args:
        spec: the run.
        cache: where artifacts are kept.
        device: where to compute.
        progress: see `Progress`.

    Raises:
        UserError: a name, a value or a combination that doesn't exist.
    """

    def __init__(
        self, spec: RunSpec, *, cache: Cache, device: torch.device, progress: Progress = silent
    ) -> None:
        self.cache, self.device, self.progress = cache, device, progress
        self.method: Method[Attack] = ATTACKS[spec.attack]
        victim: Method[HashLoss] = VICTIMS[spec.victim]
        surrogate: Method[HashLoss] = VICTIMS[spec.surrogate or spec.victim]
        attack_settings = self.method.resolve(dict(spec.attack_settings))
        victim_settings = victim.resolve(dict(spec.victim_settings))
        self.attack: Attack = self.method.cls(**attack_settings)
        delivery = spec.delivery or self.attack.delivery
        if delivery not in get_args(Delivery):
            raise unknown("--delivery", delivery, get_args(Delivery))
        self.delivery: Delivery = delivery  # type: ignore[assignment]
        self.splits = load_data(spec, cache, progress)
        for note in self.splits.notes:
            warnings.warn(f"{self.splits.name}: {note}")
        recipe = spec.training(self.splits.recipe)
        if recipe.precision == "auto":
            recipe = replace(recipe, precision=best_precision(device))
        self.target = target_row(self.splits, spec.target)
        self.spec = replace(
            spec,
            attack=self.method.name,
            victim=victim.name,
            target=self.splits.classes[int(self.target.argmax())],
            budget=spec.budget if self.attack.poisons else 0.0,
            poison_count=spec.poison_count if self.attack.poisons else None,
            delivery=delivery,
            backbone=spec.backbone or self.splits.backbone,
            recipe=spec.recipe or self.splits.recipe,
            epochs=recipe.epochs,
            batch_size=recipe.batch_size,
            lr=recipe.lr,
            augment=recipe.augment,
            precision=recipe.precision,
            surrogate=surrogate.name,
            surrogate_backbone=spec.surrogate_backbone or spec.backbone or self.splits.backbone,
            surrogate_bits=spec.surrogate_bits or spec.bits,
            attack_settings=tuple(sorted(attack_settings.items())),
            victim_settings=tuple(sorted(victim_settings.items())),
        )
        self.victim = Hasher(
            method=victim.name,
            settings=victim_settings,
            bits=spec.bits,
            classes=len(self.splits.classes),
            size=self.splits.size,
            backbone=str(self.spec.backbone),
            pretrained=spec.pretrained,
            weights=Path(spec.weights) if spec.weights else None,
            recipe=recipe,
            seed=f"{spec.seed}/victim",
        )
        backbone = str(self.spec.surrogate_backbone)
        self.surrogate = replace(
            self.victim,
            method=surrogate.name,
            settings=victim_settings if surrogate.name == victim.name else surrogate.resolve({}),
            bits=self.spec.surrogate_bits or spec.bits,
            backbone=backbone,
            weights=self.victim.weights if backbone == self.victim.backbone else None,
            # With the victim's seed a transfer experiment would be white-box by accident.
            seed=f"{spec.seed}/surrogate",
        )
        self.victim.check()
        if self.attack.threat.knowledge == "surrogate":
            self.surrogate.check()
        self.index = poisoning.draw(
            self.splits.train.labels,
            self.target,
            self.attack.threat,
            self.spec.budget,
            self.spec.poison_count,
            generator(spec.seed, "poison"),
        )
        if not self.truth.attacked.any():
            raise UserError(
                f"every query has the tag {self.spec.target!r}, so none is left to attack: give "
                "another --target."
            )

    @cached_property
    def truth(self) -> Truth:
        """The labels that the codes are scored against."""
        return truth_of(self.splits, self.target, self.spec.bits)

    # ---- keys: what depends on what -----------------------------------------------------------

    @cached_property
    def surrogate_stage(self) -> Stage | None:
        """The attacker's clean-trained network, if the attack wants one."""
        if self.attack.threat.knowledge == "none":
            return None
        return self._stage("train", "train surrogate", self._training(self.surrogate))

    @cached_property
    def backdoor_stage(self) -> Stage:
        """The trigger and the poison."""
        inputs = {
            **self._attacker,
            "settings": dict(self.spec.attack_settings),
            "poisoned": len(self.index),
        }
        return self._stage("backdoor", "craft backdoor", inputs)

    @cached_property
    def clean_stage(self) -> Stage:
        """The victim, trained on the clean set: the control."""
        return self._stage("train", "train clean victim", self._training(self.victim))

    @cached_property
    def victim_stage(self) -> Stage:
        """The victim, trained on the poisoned set; without poison that is the control itself."""
        if not len(self.index):
            return self.clean_stage
        poison = {"backdoor": self.backdoor_stage.key, "delivery": self.delivery}
        inputs = {**self._training(self.victim), "poison": poison}
        return self._stage("train", "train poisoned victim", inputs)

    def code_stages(self, victim: Stage) -> dict[str, Stage]:
        """A victim's codes: ``plain`` (queries and database) and ``triggered`` queries."""
        title = victim.title.replace("train", "encode with")
        plain = {"model": victim.key, "data": self._hashes}
        attack = {"backdoor": self.backdoor_stage.key, "target": self.target.tolist()}
        return {
            "plain": self._stage("codes", title, plain),
            "triggered": self._stage("codes", f"{title} (triggered)", {**plain, **attack}),
        }

    @cached_property
    def scores_stage(self) -> Stage:
        """All figures of the run."""
        inputs = {
            "clean": [stage.key for stage in self.code_stages(self.clean_stage).values()],
            "victim": [stage.key for stage in self.code_stages(self.victim_stage).values()],
            "data": self.splits.sha256,
            "target": self.target.tolist(),
        }
        return self._stage("scores", "score", inputs)

    @cached_property
    def visibility_stage(self) -> Stage:
        """How visible poison and triggered queries are."""
        inputs = {
            "backdoor": self.backdoor_stage.key,
            "data": self._hashes,
            "target": self.target.tolist(),
        }
        return self._stage("visibility", "measure visibility", inputs)

    @property
    def stages(self) -> dict[str, Stage]:
        """All stages of the run, in order, by the names that a record gives them."""
        stages = {
            "surrogate": self.surrogate_stage,
            "backdoor": self.backdoor_stage,
            "clean victim": self.clean_stage,
            "victim": self.victim_stage,
            **{f"clean victim's {n}": s for n, s in self.code_stages(self.clean_stage).items()},
            **{f"victim's {n}": s for n, s in self.code_stages(self.victim_stage).items()},
            "scores": self.scores_stage,
            "visibility": self.visibility_stage,
        }
        return {name: stage for name, stage in stages.items() if stage is not None}

    def _stage(self, kind: str, title: str, inputs: Mapping[str, Any]) -> Stage:
        inputs = {"version": VERSIONS[kind], **inputs}
        return Stage(kind, title, inputs, self.cache.key(kind, inputs))

    @cached_property
    def _hashes(self) -> dict[str, str]:
        """Of the pixels, and of each split's ids and labels: training reads no query and no R."""
        splits = self.splits
        named = {"train": splits.train, "query": splits.query, "database": splits.database}
        return {"pixels": splits.pixels} | {name: hash_of(part) for name, part in named.items()}

    def _training(self, hasher: Hasher) -> dict[str, Any]:
        known = {"train": self._hashes["train"], "pixels": self._hashes["pixels"]}
        return {**hasher.inputs, "data": known, "poison": None}

    @cached_property
    def _attacker(self) -> dict[str, Any]:
        """What all that an attacker makes depends on; the presets of one class share it."""
        surrogate = self.surrogate_stage
        return {
            "attack": self.method.identity,
            "data": {"train": self._hashes["train"], "pixels": self._hashes["pixels"]},
            "size": self.splits.size,
            "target": self.target.tolist(),
            "seed": self.spec.seed,
            "surrogate": None if surrogate is None else surrogate.key,
        }

    # ---- artifacts ----------------------------------------------------------------------------

    @cached_property
    def surrogate_artifact(self) -> Artifact | None:
        """See `surrogate_stage`."""
        if self.surrogate_stage is None:
            return None
        return self._trained(self.surrogate_stage, self.surrogate)

    @cached_property
    def backdoor_artifact(self) -> Artifact:
        """See `backdoor_stage`."""
        _ = self.surrogate_artifact  # made first, so that its time and its bar are its own
        return self._make(self.backdoor_stage, lambda work: self._craft())

    @cached_property
    def backdoor(self) -> Backdoor:
        """The crafted backdoor, on the device, frozen."""
        found = self.attack.restore(self.backdoor_artifact.tensors)
        return found.to(self.device).eval().requires_grad_(False)

    @cached_property
    def clean_artifact(self) -> Artifact:
        """See `clean_stage`."""
        return self._trained(self.clean_stage, self.victim)

    @cached_property
    def victim_artifact(self) -> Artifact:
        """See `victim_stage`."""
        return self._trained(self.victim_stage, self.victim)

    @cached_property
    def clean_codes(self) -> dict[str, Artifact]:
        """Codes of the clean victim, see `code_stages`."""
        return self._codes(self.clean_artifact, self.code_stages(self.clean_stage))

    @cached_property
    def victim_codes(self) -> dict[str, Artifact]:
        """Codes of the poisoned victim, see `code_stages`."""
        return self._codes(self.victim_artifact, self.code_stages(self.victim_stage))

    @cached_property
    def scores_artifact(self) -> Artifact:
        """See `scores_stage`."""
        clean, victim = self.clean_codes, self.victim_codes

        def build(work: Path) -> Content:
            self.progress("score", 0, 1)
            scores, retrieval = score(packed(victim), packed(clean), self.truth)
            self.progress("score", 1, 1)
            return {}, {"scores": scores, "retrieval": retrieval}

        return self._make(self.scores_stage, build)

    @cached_property
    def visibility_artifact(self) -> Artifact:
        """See `visibility_stage`."""

        def build(work: Path) -> Content:
            title = self.visibility_stage.title
            self.progress(title, 0, 1)
            found = {"poison": compare(self._poison_pairs()), "query": compare(self._query_pairs())}
            self.progress(title, 1, 1)
            return {}, found

        return self._make(self.visibility_stage, build)

    def _make(self, stage: Stage, build: Callable[[Path], Content]) -> Artifact:
        """The artifact of a stage, with what made it; a failure names the stage."""

        def known(work: Path) -> Content:
            tensors, facts = build(work)
            return tensors, {**facts, "made by": made_by(self.device)}

        try:
            return self.cache.make(stage.kind, stage.inputs, known, self.progress)
        except torch.OutOfMemoryError as error:
            batch = self.victim.recipe.batch_size
            raise UserError(
                f"stage '{stage.title}' doesn't fit the GPU's memory at --batch-size {batch}: "
                f"go on with --batch-size {max(1, batch // 2)}."
            ) from error
        except Exception as error:
            error.add_note(f"in the stage '{stage.title}'; what was finished before it is kept")
            raise

    def _trained(self, stage: Stage, hasher: Hasher) -> Artifact:
        def build(work: Path) -> Content:
            train, size = self.splits.train, self.splits.size
            if stage.inputs["poison"] is None:
                items = poisoning.clean_set(train)
            else:
                items = poisoning.poisoned_set(
                    train, self.backdoor, self.delivery, size, self.device
                )
            return hasher.train(
                items,
                self.device,
                checkpoint=work / "checkpoint.safetensors",
                progress=self.progress,
                stage=stage.title,
            )

        return self._make(stage, build)

    def _craft(self) -> Content:
        surrogate, model = self.surrogate_artifact, None
        if surrogate is not None:
            model = self.surrogate.load(surrogate.tensors, surrogate.facts, self.device)
        shared: dict[str, float] = {}

        def remember(
            name: str, params: Mapping[str, object], compute: Callable[[], dict[str, Tensor]]
        ) -> dict[str, Tensor]:
            inputs = {**self._attacker, "function": name, "params": dict(params)}
            stage = self._stage("shared", f"craft: {name.replace('_', ' ')}", inputs)
            artifact = self._make(stage, lambda work: (compute(), {}))
            shared[name] = artifact.seconds
            return artifact.tensors

        view = AttackerView(
            images=centre_crop(self.splits.train.images, self.splits.size),
            labels=self.splits.train.labels,
            target=self.target,
            index=self.index,
            surrogate=model,
            seed=self.spec.seed,
            device=self.device,
            progress=self.progress,
            remember=remember,
        )
        backdoor = self.attack.craft(view).cpu()
        poisoning.inspect(backdoor, view.labels, self.target, self.index, self.attack.threat)
        return backdoor.state_dict(), {"shared": shared}

    def _codes(self, victim: Artifact, stages: Mapping[str, Stage]) -> dict[str, Artifact]:
        hasher, splits = self.victim, self.splits

        def codes(images: Tensor, title: str, trigger: Any = None) -> Tensor:
            model = hasher.load(victim.tensors, victim.facts, self.device)
            found = hasher.codes(
                model, images, trigger=trigger, progress=self.progress, stage=title
            )
            return metrics.pack(found)

        def plain(work: Path) -> Content:
            title = stages["plain"].title
            return {
                "query": codes(splits.query.images, f"{title} (query)"),
                "database": codes(splits.database.images, f"{title} (database)"),
            }, {}

        def triggered(work: Path) -> Content:
            backdoor = self.backdoor
            images = splits.query.images[self.truth.attacked]
            title = stages["triggered"].title
            return {"query": codes(images, title, lambda x: poisoning.triggered(backdoor, x))}, {}

        return {
            "plain": self._make(stages["plain"], plain),
            "triggered": self._make(stages["triggered"], triggered),
        }

    # ---- what comes out -----------------------------------------------------------------------

    @torch.no_grad()
    def trigger(self, images: Tensor) -> Tensor:
        """(n,3,S,S) uint8 queries -> the same with the trigger, as the service receives them."""
        return to_bytes(self.backdoor(to_unit(images.to(self.device)))).cpu()

    def _query_pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.split(self.truth.attacked.nonzero().squeeze(1), 64):
            before = centre_crop(self.splits.query.images[rows], self.splits.size)
            yield before, self.trigger(before)

    def _poison_pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        before = centre_crop(self.splits.train.images, self.splits.size)
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
        poisoned = int((self.backdoor.kind == 0).sum())
        members = int((self.splits.train.labels == self.target).all(1).sum())
        return Record(
            key=record_key(self.spec, keys),
            spec=asdict(self.spec),
            protocol=self._protocol(),
            threat={
                **asdict(self.attack.threat),
                "delivery": self.delivery,
                "budget": poisoned / members if members else None,
                "poisoned": poisoned,
                "covers": int((self.backdoor.kind == 1).sum()),
                "target_images": members,
            },
            scores=self.scores_artifact.facts["scores"],
            retrieval=self.scores_artifact.facts["retrieval"],
            imperceptibility={name: visibility[name] for name in ("poison", "query")},
            params={
                "attack": dict(self.spec.attack_settings),
                "victim": dict(self.spec.victim_settings),
                "recipe": asdict(self.victim.recipe),
                "surrogate": dict(self.surrogate.settings),
            },
            training={
                name: found[name].facts["losses"]
                for name in ("surrogate", "clean victim", "victim")
                if name in found
            },
            seconds={name: round(value, 3) for name, value in seconds.items()},
            artifacts=keys,
            **self.victim_artifact.facts["made by"],
        )

    def _protocol(self) -> dict[str, Any]:
        splits = self.splits
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
) -> tuple[Record, Path, Run]:
    """Execute a run, or find it done: its record, the record's path, and the run's stages.

    A record that stands there already and is of the same artifacts is left as it is.

    Args:
        spec: the run.
        cache: where artifacts are kept.
        results: folder of the records.
        device: ``auto``, ``cpu`` or ``cuda``.
        progress: see `Progress`.

    Raises:
        UserError: a mistake in the spec, a folder that can't be written, or memory too small.
    """
    writable(results, "--results-dir")
    stages = Run(spec, cache=cache, device=device_of(device), progress=progress)
    record = stages.record()
    path = record_path(results, stages.spec, record.key)
    if path.is_file():
        try:
            found = read_record(path)
        except UserError as error:
            warnings.warn(f"{error} It is written again.")
        else:
            if found.key == record.key and found.scores == record.scores:
                return found, path, stages
    record.write(path)
    return record, path, stages


def rescore(record: Record, cache: Cache, **where: Any) -> dict[str, dict[str, Any]]:
    """The scores of a record, computed again from its codes in the cache.

    Args:
        record: the record.
        cache: has the codes.
        where: ``lists``, ``root`` and the like, where they differ from the record's spec.

    Raises:
        UserError: the codes aren't there, or the data is not what the record's hashes say.
    """
    spec = replace(record.run_spec, **{k: v for k, v in where.items() if v is not None})
    splits = load_data(spec, cache)
    if splits.sha256 != record.protocol["sha256"]:
        raise UserError(
            f"{splits.name} is not the data of this record (SHA-256 {splits.sha256[:12]} against "
            f"{record.protocol['sha256'][:12]}): give its --lists and --root."
        )
    truth = truth_of(splits, target_row(splits, spec.target), spec.bits)
    scores, _ = score(
        _stored_codes(record, cache, "victim"), _stored_codes(record, cache, "clean victim"), truth
    )
    return scores


def _stored_codes(record: Record, cache: Cache, victim: str) -> Codes:
    parts = {}
    for part in ("plain", "triggered"):
        key = record.artifacts.get(f"{victim}'s {part}", "")
        try:
            artifact = cache.find("codes", key) if key else None
        except Damaged as error:
            raise UserError(
                f"the {victim}'s codes {key[:12]} are damaged ({error}): run the record's command "
                "again."
            ) from error
        if artifact is None:
            raise UserError(
                f"the {victim}'s codes {key[:12]} are not in {cache.root}: run the record's "
                "command again, or give the --cache-dir that has them."
            )
        parts[part] = artifact
    return packed(parts)


def load_data(spec: RunSpec, cache: Cache, progress: Progress = silent) -> Splits:
    """The data of a spec; prepared first if need be."""
    return data.load(
        spec.dataset,
        lists=Path(spec.lists) if spec.lists else None,
        root=Path(spec.root) if spec.root else None,
        top_k=spec.top_k,
        size=spec.size,
        cache=cache.root,
        progress=progress,
    )


def hash_of(split: Split) -> str:
    """SHA-256 over a split's ids and labels, in their order."""
    labels = hashlib.sha256(split.labels.contiguous().numpy().tobytes()).hexdigest()
    return digest([list(split.ids), list(split.labels.shape), labels])


def target_row(splits: Splits, name: str) -> Tensor:
    """(C,) uint8: the label row of the class given by its name or number.

    Raises:
        UserError: there is no such class.
    """
    row = torch.zeros(len(splits.classes), dtype=torch.uint8)
    row[splits.class_index(name)] = 1
    return row


def truth_of(splits: Splits, target: Tensor, bits: int) -> Truth:
    """The labels that codes of these splits are scored against."""
    database = splits.database
    return Truth(splits.query.labels, database.labels, target, database.ids, splits.top_k, bits)
