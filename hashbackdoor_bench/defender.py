"""What a defender sees: a model, clean images and training images, but nothing of the attack.

Shapes: n images, m clean images, D database items, K bits, C classes, F features, S side of the
network's input in pixels.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from hashbackdoor_bench import metrics
from hashbackdoor_bench.api import HashLoss, Screening, derive_seed, generator, to_bytes, to_unit
from hashbackdoor_bench.checkpoint import Checkpoint, Part
from hashbackdoor_bench.network import (
    Blueprint,
    HashModel,
    Images,
    TrainingSet,
    TrainStep,
    autocast,
    fit,
)
from hashbackdoor_bench.progress import Progress, silent
from hashbackdoor_bench.spec import Recipe

LEAST = 30  # images with one combination of tags, from which on it is a group of its own
BATCH = 64  # images that are purified at once


@dataclass
class DefenderView:
    """All that a defense may read: no query, trigger, poison index, target or test metric.

    Attributes:
        model: the network, in eval mode, frozen, a copy.
        loss: the loss that it was trained by, with its centres, and without its memory of training
            items.
        clean: (m) the defender's clean images; none if the defense assumes none.
        blueprint: how the network was made.
        train: (n) the training images as delivered, poison inside, without augmentation; None
            unless the defense assumes that it sees them.
        screening: what the same defense's `screen` found; None before it, and without it.
        database: (D,K) int8 of ±1, the codes of the database; None unless the defense assumes that
            it sees them.
        poison: (n,) bool, which of ``train`` are poison; None, but for a control that is no
            defense.
        seed: seed of `generator`, from which a defense draws all random numbers.
        device: where to compute.
        progress: see `Progress`.
        title: name of the stage for ``progress``.
        work: folder of checkpoints; None: what is interrupted starts again.
    """

    model: HashModel
    loss: HashLoss
    clean: Images
    blueprint: Blueprint
    train: Images | None = None
    screening: Screening | None = None
    database: Tensor | None = None
    poison: Tensor | None = None
    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    progress: Progress = silent
    title: str = "defend"
    work: Path | None = None

    @property
    def recipe(self) -> Recipe:
        """How the victim was trained."""
        return self.blueprint.recipe

    @property
    def fitting(self) -> Images:
        """The half of the clean images to which a detector is fitted, balanced over classes."""
        return self.clean[self._number % 2 == 0]

    @property
    def calibration(self) -> Images:
        """The other half, on which the framework sets the thresholds of `Defense.suspect`."""
        return self.clean[self._number % 2 == 1]

    @property
    def _number(self) -> Tensor:
        """(m,) long: how many clean images with the same first tag come before each."""
        label = self.clean.labels.int().argmax(1)
        return (label[:, None] == label).tril(-1).sum(1)

    def generator(self, purpose: str) -> torch.Generator:
        """A CPU generator for one purpose of this defense under this seed."""
        return generator(self.seed, "defense", purpose)

    def checkpoint(self, name: str, **parts: Part) -> Checkpoint:
        """A checkpoint of modules and optimisers, from which interrupted work continues."""
        path = None if self.work is None else self.work / f"{name}.checkpoint"
        return Checkpoint(path, **parts)

    # ---- what the network makes of images -------------------------------------------------------

    def features(self, images: Tensor, model: HashModel | None = None) -> Tensor:
        """Images (n,3,S,S) uint8 -> (n,F) float32 on the CPU, of ``self.model`` or another."""
        return self._encoded(images, model, features=True).float()

    def codes(self, images: Tensor, model: HashModel | None = None) -> Tensor:
        """Images (n,3,S,S) uint8 -> (n,K) int8 of ±1 on the CPU, of ``self.model`` or another."""
        return self._encoded(images, model, features=False)

    @torch.no_grad()
    def hashed(self, x: Tensor) -> Tensor:
        """x (N,3,S,S) in [0,1] -> (N,K) int8 of ±1: codes of images that a defense has made."""
        with autocast(x.device, self.recipe.precision):
            code: Tensor = self.model.code(x.contiguous(memory_format=torch.channels_last))
        return code

    def _encoded(self, images: Tensor, model: HashModel | None, *, features: bool) -> Tensor:
        made = self.blueprint.codes(
            model or self.model,
            images,
            progress=self.progress,
            stage=self.title,
            features=features,
        )
        return made.clone()  # autograd takes no tensors of inference mode

    @cached_property
    def anchors(self) -> Tensor:
        """(C,K) int8 of ±1: the majority code of each class, over clean images, else training."""
        labels = self._known.labels.float()
        return torch.where(labels.T @ self._known_codes.float() >= 0, 1, -1).to(torch.int8)

    @cached_property
    def radius(self) -> Tensor:
        """(C,) float32, bits: the 95th percentile of a class's Hamming distances to its anchor.

        NaN for a class without images.
        """
        distance = (
            self._known_codes.shape[1] - self._known_codes.float() @ self.anchors.float().T
        ) / 2
        found = torch.full((len(self.anchors),), torch.nan)
        for number, column in enumerate(self._known.labels.T.bool()):
            if column.any():
                found[number] = distance[column, number].quantile(0.95)
        return found

    @property
    def _known(self) -> Images:
        if len(self.clean) or self.train is None:
            return self.clean
        return self.train

    @cached_property
    def _known_codes(self) -> Tensor:
        return self.codes(self._known.images)

    def average_precisions(
        self,
        model: HashModel | None = None,
        purify: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """(m,) float64: AP of each clean image among the others, by the convention ``field``.

        Args:
            model: the network; None: ``self.model``.
            purify: see `Defense.purify`; the image that is searched for is purified, and those that
                are found are not.
        """
        clean = self.clean
        stored = self.codes(clean.images, model)
        codes = stored
        if purify is not None:
            codes = self.codes(purified(purify, clean.images, clean.item, self.device), model)
        return metrics.leave_one_out(codes, stored, clean.labels)

    def map(self, model: HashModel | None = None) -> float:
        """MAP of the clean images among one another: how a defender sees what a repair costs."""
        return float(self.average_precisions(model).nanmean())

    # ---- training images in groups --------------------------------------------------------------

    def groups(self) -> list[Tensor]:
        """The positions (n_g,) long in ``train`` of the images that a filter compares.

        Those of one combination of tags, if there are at least ``LEAST``; of the rest, those that
        have one tag.
        """
        assert self.train is not None
        labels = self.train.labels
        tags = [tuple(row) for row in labels.tolist()]
        found = [
            torch.tensor([number for number, own in enumerate(tags) if own == one])
            for one in sorted(set(tags))
        ]
        whole = [items for items in found if len(items) >= LEAST and labels[items[0]].any()]
        rest = torch.ones(len(labels), dtype=torch.bool)
        for items in whole:
            rest[items] = False
        single = [(column.bool() & rest).nonzero().flatten() for column in labels.T]
        return whole + [items for items in single if len(items)]

    def screened(self, score: Callable[[Tensor], Tensor], share: float) -> Screening:
        """A screening that drops the most suspicious images of each of the `groups`.

        Suspicion is standardised in each group by median and MAD, so that groups can be compared;
        an image in several groups has the largest.

        Args:
            score: items (n_g,) long of a group -> (n_g,), larger for more suspicious.
            share: share of each group that is dropped, rounded down.
        """
        assert self.train is not None
        suspicion = torch.full((len(self.train),), -torch.inf)
        drop = torch.zeros(len(self.train), dtype=torch.bool)
        for items in self.groups():
            raw = score(items).double()
            suspicion[items] = torch.maximum(suspicion[items], metrics.standardised(raw).float())
            order = raw.argsort(descending=True, stable=True)
            drop[items[order[: int(share * len(items))]]] = True
        suspicion[suspicion == -torch.inf] = 0.0  # an image without a tag is in no group
        return self.guarded(Screening(suspicion, drop))

    def guarded(self, screening: Screening) -> Screening:
        """The screening with at most half of each of the `groups` dropped: the most suspicious."""
        drop = screening.drop.clone()
        for items in self.groups():
            gone = items[drop[items]]
            order = screening.suspicion[gone].argsort(descending=True, stable=True)
            drop[gone[order[len(items) // 2 :]]] = False
        return Screening(screening.suspicion, drop)

    # ---- training -------------------------------------------------------------------------------

    def fit(
        self,
        data: Images,
        recipe: Recipe,
        *,
        model: HashModel | None = None,
        backward: Callable[[TrainStep], Tensor] | None = None,
        name: str = "fit",
    ) -> HashModel:
        """A copy of a network that is trained further, by the victim's own loss.

        The loss keeps what fixes the code book, such as centres, and forgets what it remembers of
        training items, see `HashLoss.renewed`. Batches have pairs of all classes in turn.

        Args:
            data: the images to train on.
            recipe: how to train; ``replace(view.recipe, epochs=10)`` changes the victim's.
            model: the network; None: ``self.model``. It is not changed.
            backward: see `TrainStep`.
            name: distinguishes several trainings of one hook.
        """
        made = copy.deepcopy(model or self.model).requires_grad_(True)
        loss = self.loss.renewed(len(data)).requires_grad_(True)
        slot = torch.full((len(data),), -1)
        items = TrainingSet(data.images, data.labels, slot, in_pairs=True)
        fit(
            made,
            loss,
            items,
            replace(recipe, precision=self.recipe.precision),
            seed=str(derive_seed(self.seed, "defense", name)),
            size=self.blueprint.size,
            checkpoint=None if self.work is None else self.work / f"{name}.checkpoint",
            progress=self.progress,
            stage=self.title,
            backward=backward,
        )
        return made.eval().requires_grad_(False)


@torch.no_grad()
def purified(
    purify: Callable[[Tensor, Tensor], Tensor], images: Tensor, item: Tensor, device: torch.device
) -> Tensor:
    """Images (n,3,S,S) uint8 and their numbers (n,) -> the purified images, uint8, on the CPU."""
    parts = [
        to_bytes(purify(to_unit(part.to(device)), numbers.to(device))).cpu()
        for part, numbers in zip(torch.split(images, BATCH), torch.split(item, BATCH), strict=True)
    ]
    return torch.cat(parts) if parts else images
