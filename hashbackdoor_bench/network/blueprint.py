"""Making, training and loading one network: a surrogate, or a clean or poisoned victim."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hashbackdoor_bench.api import HashLoss, derive_seed, generator
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.files import file_hash
from hashbackdoor_bench.network import augmentation
from hashbackdoor_bench.network.backbones import bytes_for, check_published
from hashbackdoor_bench.network.model import FrozenHead, HashModel
from hashbackdoor_bench.network.training import encode, fit, solve
from hashbackdoor_bench.network.training_set import TrainingSet
from hashbackdoor_bench.network.training_step import TrainStep
from hashbackdoor_bench.network.weights import check_file
from hashbackdoor_bench.progress import Progress
from hashbackdoor_bench.registry import VICTIMS
from hashbackdoor_bench.spec import Recipe

PIXELS = 2**20  # a GPU encodes at least so many pixels at once
TOGETHER = 256  # images of which features are computed at once


@dataclass(frozen=True)
class Blueprint:
    """Everything that a network's weights depend on, except the training list.

    Attributes:
        method: a name of ``VICTIMS``.
        settings: all hyper-parameters of the method.
        bits: K.
        classes: C.
        size: S, side of the input in px.
        backbone: see `HashModel`.
        pretrained: whether the backbone starts from published weights.
        weights: file of weights from which the backbone starts.
        recipe: how the network is trained; its precision is not ``auto``.
        seed: seed of initial weights, order, augmentation and dropout.
        weights_by_order: whether tensors of ``weights`` are taken in their order, not by name.
        pool: see `HashModel`.
        hidden: see `HashModel`.
    """

    method: str
    settings: Mapping[str, Any]
    bits: int
    classes: int
    size: int
    backbone: str
    pretrained: bool
    weights: Path | None
    recipe: Recipe
    seed: str
    weights_by_order: bool = False
    pool: str | None = None
    hidden: int = 0

    @property
    def inputs(self) -> dict[str, Any]:
        """All attributes as JSON values for a cache key; the weight file by its hash.

        Raises:
            UserError: the weight file can't be read.
        """
        values: dict[str, object] = {
            **vars(self),
            "settings": dict(self.settings),
            "recipe": self.recipe.to_dict(),
            "weights": self.weights and file_hash(self.weights, "--weights"),
            "source": VICTIMS[self.method].identity,
        }
        for name in ("weights_by_order", "pool", "hidden"):  # keys are older than these choices
            if not values[name]:
                del values[name]
        if self.recipe.augment in augmentation.VERSIONS:
            values["augmentation"] = augmentation.VERSIONS[self.recipe.augment]
        return values

    @property
    def features(self) -> dict[str, Any]:
        """What the features of a frozen backbone depend on, as JSON values for a cache key."""
        names = ("backbone", "size", "pretrained", "weights", "weights_by_order")
        known = {"weights_by_order": self.weights_by_order, **self.inputs}
        pooled = {"pool": self.pool} if self.pool else {}
        return {name: known[name] for name in names} | pooled | {"precision": self.recipe.precision}

    @property
    def pointwise(self) -> bool:
        """Whether the loss of an image doesn't depend on the other images of its batch."""
        together, alone = self._items(2), self._items(1)
        return together is not None and alone is not None and torch.allclose(together[:1], alone)

    @property
    def by_item(self) -> bool:
        """Whether the loss of a batch is a mean of losses of its images."""
        return self._items(2) is not None

    def _items(self, count: int) -> Tensor | None:
        """The losses (n,) of the first ``count`` of two images, as a batch."""
        with torch.random.fork_rng(devices=[]):
            loss = self._loss(2)
        z = torch.randn(2, self.bits, generator=generator(0, "pointwise"))
        y, index = torch.eye(2, self.classes), torch.arange(2)
        return loss.items(z[:count], y[:count], index[:count], 0)

    def check(
        self,
        option: str = "--recipe",
        start: str = "--weights FILE, or --pretrained",
        way_out: str = "leave out --pretrained, or give --weights FILE",
    ) -> None:
        """Refuse to fine-tune random weights, and what the backbone can't take.

        Args:
            option: the option that gave the recipe, for messages.
            start: the options that give it weights, for messages.
            way_out: what to do if it has no published weights, for messages.

        Raises:
            UserError: the recipe needs pretrained weights, and there are none; or the backbone is
                unknown, can't take images of this size or pool so, has no published weights where
                they are asked for, or ``weights`` can't be its file.
        """
        if not VICTIMS[self.method].cls.trained and (not self.recipe.frozen or self.hidden):
            raise UserError(
                f"victim {self.method} isn't trained, it makes a linear hash layer from the "
                f"features of a frozen backbone: add {option} frozen with {start}, and leave out "
                "--hidden."
            )
        needed = bytes_for(self.backbone, self.size, self.pool)
        if self.pretrained:
            check_published(self.backbone, way_out)
        if self.weights is not None:
            check_file(self.weights, needed)
        elif self.weights_by_order:
            raise UserError("--weights-by-order needs a file: add --weights FILE, or leave it out.")
        if self.recipe.finetunes and not self.pretrained and self.weights is None:
            if self.recipe.frozen:
                raise UserError(
                    f"{self.backbone} would be frozen with random weights: add {start} with a "
                    "backbone that has published weights (tf_efficientnet_lite0 with --dataset "
                    f"fashion-mini@96 has), or take another {option}."
                )
            raise UserError(
                f"{self.backbone} would be fine-tuned from random weights at a learning rate of "
                f"{self.recipe.lr:g}: add {start}, or take {option} scratch32."
            )

    def fresh(
        self, train_size: int, device: torch.device, *, start: bool = True
    ) -> tuple[HashModel, HashLoss]:
        """The network and its loss before training.

        Args:
            train_size: T, number of items in the training list.
            device: device of the network and the loss.
            start: whether to load the pretrained weights from which training starts.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self.seed, "init"))
            loss = self._loss(train_size)
            model = HashModel(
                self.backbone,
                self.bits,
                loss,
                size=self.size,
                pretrained=self.pretrained and start,
                weights=self.weights if start else None,
                weights_by_order=self.weights_by_order,
                pool=self.pool,
                hidden=self.hidden,
            )
        return model.to(device), loss.to(device)

    def head(
        self, width: int, train_size: int, device: torch.device
    ) -> tuple[FrozenHead, HashLoss]:
        """The hash layer on features (N,F) of a frozen backbone, and its loss, before training.

        Args:
            width: F.
            train_size: T, number of items in the training list.
            device: device of the layer and the loss.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self.seed, "init"))
            loss = self._loss(train_size)
            model = FrozenHead(width, self.bits, loss, self.hidden)
        return model.to(device), loss.to(device)

    def _loss(self, train_size: int) -> HashLoss:
        loss: HashLoss = VICTIMS[self.method].cls(
            self.bits, self.classes, train_size, **self.settings
        )
        return loss

    def train(
        self,
        items: TrainingSet,
        device: torch.device,
        *,
        checkpoint: Path,
        progress: Progress,
        stage: str,
        backward: Callable[[TrainStep], Tensor] | None = None,
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Train on ``items``; returns the tensors and facts of an artifact, for `load`.

        With a frozen recipe the images and the overlay of ``items`` are features, and the artifact
        holds the hash layer alone. ``backward`` makes the gradients of a step, see `TrainStep`.
        """
        model: HashModel | FrozenHead
        if self.recipe.frozen:
            model, loss = self.head(items.images.shape[1], len(items.labels), device)
        else:
            model, loss = self.fresh(len(items.labels), device)
        if not loss.trained:
            losses = solve(model.head, loss, items)
        else:
            losses = fit(
                model,
                loss,
                items,
                self.recipe,
                seed=self.seed,
                size=self.size,
                checkpoint=checkpoint,
                progress=progress,
                stage=stage,
                backward=backward,
            )
        tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        tensors |= {f"loss.{name}": tensor for name, tensor in loss.state_dict().items()}
        return tensors, {"losses": losses, "train_size": len(items.labels)}

    def load(
        self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], device: torch.device
    ) -> HashModel:
        """The trained network of an artifact, in eval mode and frozen."""
        return self.load_with_loss(tensors, facts, device)[0]

    def load_with_loss(
        self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], device: torch.device
    ) -> tuple[HashModel, HashLoss]:
        """The trained network of an artifact and its loss, in eval mode and frozen."""
        whole = any(name.startswith("model.backbone.") for name in tensors)
        model, loss = self.fresh(facts["train_size"], device, start=not whole)
        if whole:
            model.load_state_dict(_under("model.", tensors))
        else:  # a frozen recipe: the backbone is as published
            model.head.load_state_dict(_under("model.head.", tensors))
        loss.load_state_dict(_under("loss.", tensors))
        for module in (model, loss):
            module.eval().requires_grad_(False)
        return model.to(memory_format=torch.channels_last), loss

    def load_head(
        self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], device: torch.device
    ) -> FrozenHead:
        """The trained hash layer of a frozen recipe's artifact, in eval mode and frozen."""
        own = _under("model.", tensors)
        first = "head.0.weight" if "head.0.weight" in own else "head.weight"
        model, _ = self.head(own[first].shape[1], facts["train_size"], device)
        model.load_state_dict(own)
        return model.eval().requires_grad_(False)

    def codes(
        self,
        model: HashModel,
        images: Tensor,
        *,
        trigger: Callable[[Tensor], Tensor] | None = None,
        progress: Progress,
        stage: str,
        features: bool = False,
    ) -> Tensor:
        """Codes (N,K) of stored images (N,3,h,w), or features (N,F) of a frozen backbone.

        Batches are larger than in training, as there is no backward pass; on a GPU they have at
        least 2^20 pixels, since launching small batches would take longer than computing them.
        Those of features, which runs of all batch sizes share, don't depend on the recipe.
        """
        batch = TOGETHER if features else 4 * self.recipe.batch_size
        if next(model.parameters()).device.type == "cuda":
            batch = max(batch, PIXELS // self.size**2)
        return encode(
            model,
            images,
            size=self.size,
            precision=self.recipe.precision,
            trigger=trigger,
            batch_size=batch,
            progress=progress,
            stage=stage,
            features=features,
        )


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
