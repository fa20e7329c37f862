"""What a run is made of, before anything is computed: its resolved spec and the keys of its stages.

    data -> surrogate -> backdoor -> victim -> codes -> scores

Each stage is a function of its parameters and of the artifacts before it, and its key is the hash
of both: a clean victim is trained once for all attacks on it, a backdoor is crafted once for all
victims it is handed to.
"""

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from hashbackdoor_bench import data, poisoning
from hashbackdoor_bench.api import Attack, Delivery, HashLoss, generator
from hashbackdoor_bench.data import Split, Splits
from hashbackdoor_bench.errors import UserError, unknown
from hashbackdoor_bench.metrics import Truth
from hashbackdoor_bench.network import Blueprint, best_precision
from hashbackdoor_bench.progress import Progress, silent
from hashbackdoor_bench.registry import ATTACKS, VICTIMS, Method
from hashbackdoor_bench.spec import RunSpec, digest
from hashbackdoor_bench.stages.cache import Cache

# Raised by one when a stage's algorithm changes, so that its artifacts are made again.
VERSIONS = {"train": 1, "backdoor": 1, "shared": 1, "codes": 1, "visibility": 2, "scores": 2}


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


@dataclass(frozen=True, eq=False)
class Loaded:
    """A protocol's data and the hashes of its splits; all runs on it can share one."""

    splits: Splits

    @cached_property
    def hashes(self) -> dict[str, str]:
        """Of the pixels, and of each split's ids and labels: training reads no query and no R."""
        splits = self.splits
        named = {"train": splits.train, "query": splits.query, "database": splits.database}
        return {"pixels": splits.pixels} | {name: hash_of(part) for name, part in named.items()}


class Plan:
    """One resolved run and the keys of its stages; nothing is trained.

    Args:
        spec: the run.
        cache: where artifacts are kept, and data is prepared.
        device: where it would be computed; decides the precision.
        progress: told if data is prepared first.
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
        self.cache = cache
        self.method: Method[Attack] = ATTACKS[spec.attack]
        victim: Method[HashLoss] = VICTIMS[spec.victim]
        attack_settings = self.method.resolve(dict(spec.attack_settings))
        victim_settings = victim.resolve(dict(spec.victim_settings))
        self.attack: Attack = self.method.cls(**attack_settings)
        surrogate: Method[HashLoss] = VICTIMS[
            spec.surrogate or self.attack.surrogate or spec.victim
        ]
        delivery = spec.delivery or self.attack.delivery
        if delivery not in get_args(Delivery):
            raise unknown("--delivery", delivery, get_args(Delivery))
        self.delivery: Delivery = delivery  # type: ignore[assignment]
        self.loaded = loaded or Loaded(load_data(spec, cache, progress))
        self.splits = self.loaded.splits
        for note in self.splits.notes:
            warnings.warn(f"{self.splits.name}: {note}")
        recipe = spec.training(self.splits.recipe)
        if recipe.precision == "auto":
            recipe = replace(recipe, precision=best_precision(device))
        wanted = spec.target if spec.target is not None else data.protocol(spec.dataset).target
        self.target = target_row(self.splits, wanted)
        labels, size = self.splits.train.labels, self.splits.size
        self.found = self.attack.accept(labels, self.target, size)
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
        self.victim = Blueprint(
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
        self.index = poisoning.choose(
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

    @cached_property
    def surrogate_stage(self) -> Stage | None:
        """The attacker's clean-trained network, if the attack wants one."""
        if self.attack.threat.knowledge == "none":
            return None
        return self.stage("train", "train surrogate", self._training(self.surrogate))

    @cached_property
    def backdoor_stage(self) -> Stage:
        """The trigger and the poison."""
        inputs = {
            **self.attacker,
            "settings": dict(self.spec.attack_settings),
            "poisoned": len(self.index),
            **({"found": self.found} if self.found else {}),
        }
        return self.stage("backdoor", "craft backdoor", inputs)

    @cached_property
    def clean_stage(self) -> Stage:
        """The victim, trained on the clean set: the control."""
        return self.stage("train", "train clean victim", self._training(self.victim))

    @cached_property
    def victim_stage(self) -> Stage:
        """The victim, trained on the poisoned set; without poison that is the control itself."""
        if not len(self.index):
            return self.clean_stage
        poison = {"backdoor": self.backdoor_stage.key, "delivery": self.delivery}
        inputs = {**self._training(self.victim), "poison": poison}
        return self.stage("train", "train poisoned victim", inputs)

    def code_stages(self, victim: Stage) -> dict[str, Stage]:
        """A victim's codes: ``plain`` (queries and database) and ``triggered`` queries."""
        title = victim.title.replace("train", "encode with")
        plain = {"model": victim.key, "data": self.loaded.hashes}
        attack = {"backdoor": self.backdoor_stage.key, "target": self.target.tolist()}
        return {
            "plain": self.stage("codes", title, plain),
            "triggered": self.stage("codes", f"{title} (triggered)", {**plain, **attack}),
        }

    @cached_property
    def scores_stage(self) -> Stage:
        """All figures of the run."""
        inputs = {
            "clean": [stage.key for stage in self.code_stages(self.clean_stage).values()],
            "victim": [stage.key for stage in self.code_stages(self.victim_stage).values()],
            "data": self.splits.sha256,
            "classes": list(self.splits.classes),
            "target": self.target.tolist(),
        }
        return self.stage("scores", "score", inputs)

    @cached_property
    def visibility_stage(self) -> Stage:
        """How visible poison and triggered queries are."""
        inputs = {
            "backdoor": self.backdoor_stage.key,
            "data": self.loaded.hashes,
            "target": self.target.tolist(),
        }
        return self.stage("visibility", "measure visibility", inputs)

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

    def stage(self, kind: str, title: str, inputs: Mapping[str, Any]) -> Stage:
        """A stage whose artifact depends on ``inputs`` and on the version of its algorithm."""
        inputs = {"version": VERSIONS[kind], **inputs}
        return Stage(kind, title, inputs, self.cache.key(kind, inputs))

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        """The stages that each of `stages` reads."""
        encoded = {"clean victim": ("clean victim",), "victim": ("victim",)}
        needs = {
            "surrogate": (),
            "backdoor": ("surrogate",),
            "clean victim": (),
            "victim": ("backdoor",) if len(self.index) else (),
            **{f"{who}'s plain": models for who, models in encoded.items()},
            **{f"{who}'s triggered": (*models, "backdoor") for who, models in encoded.items()},
            "scores": tuple(
                f"{who}'s {part}" for who in encoded for part in ("plain", "triggered")
            ),
            "visibility": ("backdoor",),
        }
        there = self.stages
        return {name: tuple(n for n in needs[name] if n in there) for name in there}

    def _training(self, blueprint: Blueprint) -> dict[str, Any]:
        return {**blueprint.inputs, "data": self._training_data, "poison": None}

    @property
    def _training_data(self) -> dict[str, str]:
        return {name: self.loaded.hashes[name] for name in ("train", "pixels")}

    @cached_property
    def attacker(self) -> dict[str, Any]:
        """What all that an attacker makes depends on; the presets of one class share it."""
        surrogate = self.surrogate_stage
        return {
            "attack": self.method.identity,
            "data": self._training_data,
            "size": self.splits.size,
            "target": self.target.tolist(),
            "seed": self.spec.seed,
            "surrogate": None if surrogate is None else surrogate.key,
        }


def attacker_of(inputs: Mapping[str, Any]) -> str:
    """Hash of the part of a backdoor's or a shared stage's inputs that is `Plan.attacker`.

    Equal for all stages that could ask for the same shared stage.
    """
    names = ("attack", "data", "size", "target", "seed", "surrogate")
    return digest({name: inputs[name] for name in names})


def use(plan: Plan) -> set[str]:
    """The keys of all that a run reads or makes, for `in_use`; shared stages by attacker."""
    return {stage.key for stage in plan.stages.values()} | {attacker_of(plan.attacker)}


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
    query, database = splits.query, splits.database
    return Truth(
        query.labels, database.labels, target, database.ids, splits.top_k, bits, splits.classes
    )
