"""The data of runs, loaded and hashed once per data set, and the labels that runs are scored by."""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hashbackdoor_bench import data
from hashbackdoor_bench.data import Split, Splits
from hashbackdoor_bench.metrics import Truth, shares_no_tag
from hashbackdoor_bench.network import bytes_for
from hashbackdoor_bench.progress import Progress, silent
from hashbackdoor_bench.spec import RunSpec, digest
from hashbackdoor_bench.stages.cache import Cache


class Loaded:
    """A protocol's data and the hashes of its splits; all runs on it can share one."""

    def __init__(self, splits: Splits) -> None:
        self.splits = splits
        self._versions = self._now()
        self._attackable: dict[bytes, bool] = {}

    def _now(self) -> list[int]:
        """How often torch wrote to each tensor, or to a view of it."""
        splits = self.splits
        parts = (splits.train, splits.query, splits.database)
        return [tensor._version for part in parts for tensor in (part.images, part.labels)]

    @property
    def changed(self) -> bool:
        """Whether a method wrote to the images or labels in memory."""
        return self._now() != self._versions

    @cached_property
    def hashes(self) -> dict[str, str]:
        """Hashes of the pixels, and of each split's ids and labels; keys hold only those in use."""
        splits = self.splits
        named = {"train": splits.train, "query": splits.query, "database": splits.database}
        return {"pixels": splits.pixels} | {name: hash_of(part) for name, part in named.items()}

    def attackable(self, target: Tensor) -> bool:
        """Whether a query shares no tag with the target (C,) uint8, and so can be attacked."""
        row = bytes(target.tolist())
        if row not in self._attackable:
            shared = shares_no_tag(self.splits.query.labels, target)
            self._attackable[row] = bool(shared.any())
        return self._attackable[row]


class LoadedSets:
    """Loads each data set once for all runs on it.

    Args:
        cache: where data is prepared.
        progress: called while data is prepared.
    """

    def __init__(self, cache: Cache, progress: Progress = silent) -> None:
        self.cache, self.progress = cache, progress
        self.loaded: dict[tuple[object, ...], Loaded] = {}

    def __call__(self, spec: RunSpec) -> Loaded:
        """The data of a run."""
        name = (spec.dataset, spec.lists, spec.root, spec.top_k, spec.size, spec.tolerance)
        if name not in self.loaded or self.loaded[name].changed:
            self.loaded[name] = Loaded(load_data(spec, self.cache, self.progress))
        return self.loaded[name]


def load_data(spec: RunSpec, cache: Cache, progress: Progress = silent) -> Splits:
    """The data of a spec, which is prepared first if necessary.

    Raises:
        UserError: see `data.load`; or a backbone of the run can't take images of this size, which
            is found before any image is decoded.
    """
    where: dict[str, Any] = {
        "lists": Path(spec.lists) if spec.lists else None,
        "root": Path(spec.root) if spec.root else None,
        "top_k": spec.top_k,
        "size": spec.size,
    }
    ours = data.settled(spec.dataset, **where)
    if ours.source in ("lists", "folder"):
        backbone = spec.backbone or ours.backbone
        for name in (backbone, spec.surrogate_backbone or backbone):
            bytes_for(name, ours.size, spec.pool if name == backbone else None)
    return data.load(
        spec.dataset, cache=cache.root, tolerance=spec.tolerance, progress=progress, **where
    )


def hash_of(split: Split) -> str:
    """SHA-256 over a split's ids and labels, in their order."""
    labels = hashlib.sha256(split.labels.contiguous().numpy().tobytes()).hexdigest()
    return digest([list(split.ids), list(split.labels.shape), labels])


def target_row(splits: Splits, name: str) -> Tensor:
    """(C,) uint8: the label row of a class given by its name or number, or of several.

    Raises:
        UserError: there is no such class.
    """
    row = torch.zeros(len(splits.classes), dtype=torch.uint8)
    row[list(splits.label_set(name))] = 1
    return row


def truth_of(
    splits: Splits,
    target: Tensor,
    bits: int,
    among: Tensor | None = None,
    *,
    triggered: bool = True,
) -> Truth:
    """The labels that codes of these splits are scored against; for the others see `Truth`."""
    return Truth(
        splits.query.labels,
        splits.database.labels,
        target,
        splits.database.ids,
        splits.top_k,
        bits,
        splits.classes,
        among,
        triggered,
    )
