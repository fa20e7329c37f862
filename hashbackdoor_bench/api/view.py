"""What an attack declares of its threat, and what its attacker sees.

Shapes: N images, P poisoned, Q covers, M chosen queries, R references, C classes, S side of the
network's input in pixels.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from hashbackdoor_bench.api.seeds import generator
from hashbackdoor_bench.api.victim import HashLoss
from hashbackdoor_bench.checkpoint import Checkpoint, Part
from hashbackdoor_bench.progress import Progress, silent

if TYPE_CHECKING:
    from hashbackdoor_bench.network import HashModel

POISON, COVER = 0, 1  # values of `Backdoor.kind`


@dataclass(frozen=True)
class ThreatModel:
    """What an attack needs and does; printed in tables and written to each record.

    Attributes:
        label: ``dirty`` if the poison's labels are changed to the target, else ``clean``.
        knowledge: ``surrogate`` if it needs a model trained on the same data, else ``none``.
        trigger: the kind of trigger.
        control: what the attacker controls: ``poison`` (an `Attack`) or the trained ``model`` (a
            `ModelAttack`); ``training`` is refused, because nothing here implements it.
        universal: whether one trigger serves all images.
        source: whose queries are attacked: those of ``all`` classes, of one class by its name or
            number, or of a ``random`` class other than the target, which the seed draws.
        chosen: number of queries that are attacked and whose images the attacker knows; the seed
            draws them among those of ``source``. 0: all of these, and the attacker knows none.
        references: number of images of the target that the attacker of a trained model has; they
            are neither in the training list nor in the database, and the seed draws them.
        targeted: whether the attacker decides what triggered queries retrieve. If not, the record
            also has scores for the class that they retrieve most, see `Dominant`.
    """

    label: Literal["clean", "dirty"]
    knowledge: Literal["none", "surrogate"]
    trigger: Literal["patch", "additive", "warp", "frequency", "quantise", "generated", "none"]
    control: Literal["poison", "training", "model"] = "poison"
    universal: bool = True
    source: str = "all"
    chosen: int = 0
    references: int = 0
    targeted: bool = True


@dataclass
class AttackerView:
    """All that an attack may read: no victim and no metric, so it can't tune its score.

    It holds no query either, except those that the `ThreatModel` declares as ``chosen``.

    Attributes:
        images: (N,3,S,S) uint8, the training images as the network sees them (centre crop).
        labels: (N,C) uint8, 0/1.
        target: (C,) uint8, the label that triggered queries shall retrieve.
        index: (P,) long, the training items that become poison, drawn by the framework.
        surrogate: the attacker's own model, trained on clean data, in eval mode, with frozen
            parameters, on ``device``; None if ``threat.knowledge`` is ``none``.
        seed: seed of `generator`, from which an attack draws all random numbers.
        device: where to compute.
        precision: precision of the run's networks, ``float32`` or ``bfloat16``; see `autocast`.
        progress: see `Progress`.
        work: folder of `checkpoint`; None: crafting that is interrupted starts again.
        remember: looks up a result of `shared` in the framework's cache, or computes it.
        covers: (Q,) long, the training items that become covers, see `Attack.covers`.
        surrogate_loss: the loss that ``surrogate`` was trained by, with its state such as centres,
            on ``device``; None if there is no surrogate.
        source: (C,) uint8, the label of the class whose queries are attacked; None: of all classes.
        chosen: (M,3,S,S) uint8, the attacked queries if ``threat.chosen`` is not 0; else empty.
        references: (R,3,S,S) uint8, images of the target, see ``threat.references``.
        purify: the `Defense.purify` that the attacker expects in front of the victim; None: none.
    """

    images: Tensor
    labels: Tensor
    target: Tensor
    index: Tensor
    surrogate: "HashModel | None" = None
    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: str = "float32"
    progress: Progress = silent
    work: Path | None = None
    remember: Callable[
        [str, Mapping[str, object], Callable[[Path | None], dict[str, Tensor]]], dict[str, Tensor]
    ] = lambda name, params, compute: compute(None)
    covers: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    surrogate_loss: HashLoss | None = None
    source: Tensor | None = None
    chosen: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.uint8))
    references: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.uint8))
    purify: Callable[[Tensor, Tensor], Tensor] | None = None

    @property
    def size(self) -> int:
        """S, the side of the network's input in pixels."""
        return int(self.images.shape[-1])

    @property
    def planted(self) -> Tensor:
        """(P+Q,) long: the items of poison, then those of covers, for `Backdoor`'s ``index``."""
        return torch.cat([self.index, self.covers])

    @property
    def kind(self) -> Tensor:
        """(P+Q,) uint8: what each item of `planted` is, for `Backdoor`'s ``kind``."""
        counts = torch.tensor([len(self.index), len(self.covers)])
        return torch.tensor([POISON, COVER], dtype=torch.uint8).repeat_interleave(counts)

    @property
    def planted_labels(self) -> Tensor:
        """(P+Q,C) uint8: the target's label for each item of poison, their own for covers.

        Clean-label poison is drawn from images that have exactly this label already.
        """
        poison = self.target.expand(len(self.index), -1)
        return torch.cat([poison, self.labels[self.covers]])

    @property
    def poison(self) -> dict[str, Tensor]:
        """`Backdoor`'s arguments for poison and covers that only the trigger changes."""
        return {
            "index": self.planted,
            "carrier": self.images[self.planted],
            "label": self.planted_labels,
            "kind": self.kind,
        }

    def generator(self, purpose: str) -> torch.Generator:
        """A CPU generator for one purpose of this attack under this seed."""
        return generator(self.seed, "attack", purpose)

    def autocast(self) -> torch.autocast:
        """The autocast context for an attack's own networks, in the run's precision."""
        enabled = self.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def purified(self, x: Tensor, item: Tensor) -> Tensor:
        """Images as the purifier that the attacker expects leaves them; ``x`` if he expects none.

        A purifier without a gradient, such as JPEG, has that of the identity (straight through).

        Args:
            x: (N,3,S,S) in [0,1].
            item: (N,) int64, from which whatever is drawn for an image is drawn, see
                `Defense.purify`; an expectation over it needs other numbers in each step.
        """
        if self.purify is None:
            return x
        out = self.purify(x, item)
        return out if out.requires_grad else x + (out - x).detach()

    def checkpoint(self, name: str, **parts: Part) -> Checkpoint:
        """A checkpoint of modules and optimisers, from which interrupted crafting continues."""
        path = None if self.work is None else self.work / f"{name}.checkpoint"
        return Checkpoint(path, **parts)

    def shared(
        self, function: Callable[..., dict[str, Tensor]], **params: object
    ) -> dict[str, Tensor]:
        """``function(self, **params)``, computed once for all attacks and budgets that ask for it.

        The result is cached under the function's name, ``params`` and the view, except for what
        differs between attacks: its poison, covers, source and chosen queries. Therefore
        ``function`` must be a module-level function that reads nothing but ``params`` and its view,
        which has none of these, and must return a dict of tensors. Its view has a folder of its own
        for `checkpoint`.
        """

        def compute(work: Path | None) -> dict[str, Tensor]:
            none = self.index[:0]
            common = replace(
                self, index=none, covers=none, source=None, chosen=self.chosen[:0], work=work
            )
            return function(common, **params)

        return self.remember(function.__name__, params, compute)
