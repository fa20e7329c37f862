"""The plan of a run, made before anything is computed: its resolved spec and its stages' keys."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec
import torch

from hashbackdoor_bench import poisoning
from hashbackdoor_bench.api import generator
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.metrics import Truth
from hashbackdoor_bench.progress import Progress, silent
from hashbackdoor_bench.records import Numerics, carry_trigger
from hashbackdoor_bench.spec import RunSpec, digest
from hashbackdoor_bench.stages.cache import Cache
from hashbackdoor_bench.stages.clean_images import draw_clean, split_of
from hashbackdoor_bench.stages.loading import Loaded, load_data, target_row, truth_of
from hashbackdoor_bench.stages.numerics import numerics_of
from hashbackdoor_bench.stages.queries import (
    aim_of,
    attacked_queries,
    reference_queries,
    source_row,
)
from hashbackdoor_bench.stages.resolving import resolve
from hashbackdoor_bench.stages.resolving_defense import ResolvedDefense, refuse_drawn
from hashbackdoor_bench.stages.stage import Stage
from hashbackdoor_bench.stages.table import STAGES, VERSIONS


@dataclass(frozen=True, eq=False)
class PlannedStage:
    """A stage of one run, before it is made.

    Attributes:
        row: the stage's row of the table.
        inputs: all that its artifact depends on, as JSON values.
        key: key of its artifact.
        needs: names of the run's stages whose artifacts it reads.
    """

    row: Stage
    inputs: Mapping[str, Any]
    key: str
    needs: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """See `Stage`."""
        return self.row.kind

    @property
    def title(self) -> str:
        """See `Stage`."""
        return self.row.title


class Plan:
    """One resolved run and the keys of its stages; nothing is trained.

    Args:
        spec: the run.
        cache: where artifacts are kept, and data is prepared.
        device: where the run would be computed; decides precision and numerics.
        progress: called while data is prepared.
        loaded: the data of ``spec``, if it was loaded before.
        threads: threads of the process that would compute it; None: those of this one.

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
        threads: int | None = None,
    ) -> None:
        spec.refuse_empty()
        self.cache = cache
        self.loaded = loaded or Loaded(load_data(spec, cache, progress))
        self.splits = self.loaded.splits
        for note in self.splits.notes:
            warnings.warn(f"{self.splits.name}: {note}")
        resolved = resolve(spec, self.splits, device)
        self.spec, self.method, self.attack = resolved.spec, resolved.method, resolved.attack
        self.victim, self.surrogate = resolved.victim, resolved.surrogate
        self.delivery = resolved.delivery
        self.defense: ResolvedDefense = resolved.defense
        self.expected: ResolvedDefense | None = resolved.expected
        self.numerics = numerics_of(device, str(self.spec.precision), threads)
        self.target = target_row(self.splits, str(self.spec.target))
        labels = self.splits.train.labels
        self.found = self.attack.accept(labels, self.target, self.splits.size)
        self.index = poisoning.choose(
            labels,
            self.target,
            self.attack.threat,
            self.spec.budget,
            self.spec.poison_count,
            generator(spec.seed, "poison"),
        )
        self.covers = poisoning.choose_covers(
            labels,
            self.target,
            self.index,
            getattr(self.attack, "covers", 0.0),
            generator(spec.seed, "covers"),
        )
        self.clean = draw_clean(
            self.splits, torch.cat([self.index, self.covers]), self.defense.count, spec.seed
        )
        held = split_of(self.clean, self.splits).labels[self.clean.rows]
        refuse_drawn(self.defense, held, self.splits)
        if not self.loaded.attackable(self.target):
            raise UserError(
                f"every query has the tag {self.spec.target!r}, so none is left to attack: give "
                "another --target."
            )
        threat, seed = self.attack.threat, spec.seed
        self.aim = aim_of(threat, self.splits, self.target, seed)
        self.source = source_row(self.aim, self.splits)
        self.among = attacked_queries(self.splits, self.target, self.aim, seed)
        self.references = reference_queries(self.splits, self.target, threat.references, seed)

    @cached_property
    def truth(self) -> Truth:
        """The labels that the codes are scored against."""
        threat = self.attack.threat
        triggered = carry_trigger(threat.trigger, threat.chosen)
        return truth_of(self.splits, self.target, self.spec.bits, self.among, triggered=triggered)

    @cached_property
    def stages(self) -> dict[str, PlannedStage]:
        """The stages of the run by name, in the order of the table."""
        return self._stages(self.numerics)

    def keys_under(self, numerics: Numerics | None) -> dict[str, str]:
        """The keys of the run's stages under other numerics, or as before keys had any (None)."""
        return {name: stage.key for name, stage in self._stages(numerics).items()}

    def _stages(self, numerics: Numerics | None) -> dict[str, PlannedStage]:
        found: dict[str, PlannedStage] = {}
        for row in STAGES:
            if row.when(self):
                keys = {name: found[name].key for name in row.needs if name in found}
                inputs = row.inputs(self, keys)
                found[row.name] = self._planned(row, inputs, tuple(keys), numerics)
        return found

    def shared(self, function: str, params: Mapping[str, object], row: Stage) -> PlannedStage:
        """The stage of a function that several attacks share and call by `AttackerView.shared`.

        Args:
            function: name of the function.
            params: its parameters.
            row: kind and title of the stage.
        """
        surrogate = self.stages.get("surrogate")
        inputs = {
            **self.attacker(None if surrogate is None else surrogate.key),
            "function": function,
            "params": dict(params),
        }
        return self._planned(row, inputs, (), self.numerics)

    def beside(self, row: Stage) -> PlannedStage:
        """A stage that is no row of the table, from the keys of the run's stages that it needs."""
        keys = {name: self.stages[name].key for name in row.needs}
        return self._planned(row, row.inputs(self, keys), row.needs, self.numerics)

    def _planned(
        self,
        row: Stage,
        inputs: dict[str, Any],
        needs: tuple[str, ...],
        numerics: Numerics | None,
    ) -> PlannedStage:
        inputs = {"version": VERSIONS[row.kind], **inputs}
        if numerics is not None:
            inputs["numerics"] = msgspec.to_builtins(numerics)
        return PlannedStage(row, inputs, self.cache.key(row.kind, inputs), needs)

    @property
    def training_data(self) -> dict[str, str]:
        """Hashes of what a network is trained on."""
        return {name: self.loaded.hashes[name] for name in ("train", "pixels")}

    @property
    def attacked(self) -> dict[str, Any]:
        """What the choice of queries depends on; empty if the attack takes all that it may."""
        return self.aim.inputs(self.spec.seed)

    @property
    def known(self) -> dict[str, Any]:
        """What the attacker knows of the queries; empty if that is nothing."""
        found: dict[str, Any] = {}
        if self.source is not None:
            found["source"] = self.source.tolist()
        counts = {"chosen": self.aim.chosen, "references": len(self.references)}
        if any(counts.values()):
            found |= {**counts, "query": self.loaded.hashes["query"]}
        return found

    def attacker(self, surrogate: str | None) -> dict[str, Any]:
        """The inputs that all stages of an attacker have in common, also those of other presets.

        Args:
            surrogate: key of the attacker's network; None if there is none.
        """
        found = {
            "attack": self.method.identity,
            "data": self.training_data,
            "size": self.splits.size,
            "target": self.target.tolist(),
            "seed": self.spec.seed,
            "surrogate": surrogate,
        }
        if self.expected and "purify" in self.expected.hooks:
            found["purifier"] = self.expected.inputs
        return found


# The names of `Plan.attacker`, and that of the numerics.
SHARED_BY = ("attack", "data", "size", "target", "seed", "surrogate", "numerics")
PURIFIER = "purifier"  # the name besides these that it has if the attacker expects a purifier


def attacker_of(inputs: Mapping[str, Any]) -> str | None:
    """Hash of `Plan.attacker` and the numerics in a stage's inputs; None if they are not in it.

    It is equal for all stages that can use the same shared stage.
    """
    if not inputs.keys() >= set(SHARED_BY):
        return None
    return digest({name: inputs[name] for name in (*SHARED_BY, PURIFIER) if name in inputs})


def keys_of(plan: Plan) -> set[str]:
    """The keys of all artifacts of a run, for `in_use`; for shared stages, the attacker's hash."""
    attackers = {attacker_of(stage.inputs) for stage in plan.stages.values()} - {None}
    return {stage.key for stage in plan.stages.values()} | {str(one) for one in attackers}
