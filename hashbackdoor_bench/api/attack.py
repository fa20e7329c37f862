"""What an attack promises: it crafts a backdoor, or tampers with a trained model.

Shapes: N batch, P poisoned, Q covers, K bits, C classes, S side of the network's input in pixels.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn

from hashbackdoor_bench.api.seeds import generator
from hashbackdoor_bench.checkpoint import Checkpoint, Part
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.progress import Progress, silent

if TYPE_CHECKING:
    from hashbackdoor_bench.network import HashModel

Delivery = Literal["stamped", "files", "frozen"]
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
    """

    label: Literal["clean", "dirty"]
    knowledge: Literal["none", "surrogate"]
    trigger: Literal["patch", "additive", "warp", "frequency", "quantise", "generated", "none"]
    control: Literal["poison", "training", "model"] = "poison"
    universal: bool = True


@dataclass
class AttackerView:
    """All that an attack may read: no query, no victim and no metric, so it can't tune its score.

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

    def generator(self, purpose: str) -> torch.Generator:
        """A CPU generator for one purpose of this attack under this seed."""
        return generator(self.seed, "attack", purpose)

    def autocast(self) -> torch.autocast:
        """The autocast context for an attack's own networks, in the run's precision."""
        enabled = self.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def checkpoint(self, name: str, **parts: Part) -> Checkpoint:
        """A checkpoint of modules and optimisers, from which interrupted crafting continues."""
        path = None if self.work is None else self.work / f"{name}.checkpoint"
        return Checkpoint(path, **parts)

    def shared(
        self, function: Callable[..., dict[str, Tensor]], **params: object
    ) -> dict[str, Tensor]:
        """``function(self, **params)``, computed once for all attacks and budgets that ask for it.

        The result is cached under the function's name, ``params`` and all of the view except
        ``index``. Therefore ``function`` must be a module-level function that reads nothing but
        ``params`` and the view without its ``index``, and must return a dict of tensors. Its view
        has no poison, and a folder of its own for `checkpoint`.
        """

        def compute(work: Path | None) -> dict[str, Tensor]:
            none = self.index[:0]
            return function(replace(self, index=none, covers=none, work=work), **params)

        return self.remember(function.__name__, params, compute)


class Backdoor(nn.Module):
    """The result of crafting: the poison, and a trigger for queries.

    All state is in buffers and parameters: the ``state_dict`` is stored, and `Attack.restore` makes
    the backdoor from it again. ``history`` goes to the record: the losses of crafting by name, with
    one value per epoch; names such as ``part/loss`` are grouped by part.

    Args:
        index: (P,) long, the training items that are replaced, as poison or as covers.
        carrier: (P,3,S,S) uint8, their images before the trigger.
        label: (P,C) uint8, their labels.
        kind: (P,) uint8, ``POISON`` or ``COVER`` (carries a trigger, keeps its true label); None:
            all are poison.
    """

    index: Tensor
    carrier: Tensor
    label: Tensor
    kind: Tensor

    def __init__(
        self, index: Tensor, carrier: Tensor, label: Tensor, kind: Tensor | None = None
    ) -> None:
        super().__init__()
        self.history: dict[str, list[float]] = {}
        kind = torch.zeros(len(index), dtype=torch.uint8) if kind is None else kind
        for name, value in zip(
            ("index", "carrier", "label", "kind"), (index, carrier, label, kind), strict=True
        ):
            self.register_buffer(name, value)

    def forward(self, x: Tensor) -> Tensor:
        """Put the trigger on queries: x (N,3,S,S) in [0,1] -> a new tensor of the same kind."""
        raise NotImplementedError

    def plant(self, x: Tensor, slot: Tensor) -> Tensor:
        """Put the trigger on training images; the trigger of queries unless overridden.

        Args:
            x: (N,3,S,S) in [0,1].
            slot: (N,) long, the rows of ``index`` to which these images belong.
        """
        out: Tensor = self(x)
        return out


class AnyAttack(ABC):
    """What all attacks declare; hyper-parameters are keyword-only, with the paper's defaults.

    Class data:
        published: how papers write its name, which tables, figures and the leaderboard show: a
            literal text, or for a class with presets a literal mapping from each name on the
            command line. Empty: the file's name.
        threat: what it needs and does. If the settings decide this, such as the label of an attack
            with a dirty-label and a clean-label form, the constructor sets ``self.threat``.
        delivery: how the poison reached the victim's training as published, see `poisoning.py`.
        backdoor: the `Backdoor` that `craft` returns; `restore` makes it from stored tensors.
        poisons: whether it poisons at all; only controls don't.
        surrogate: the hashing method that the published attack crafts on; None: the victim's.
        version: raise it by one when the algorithm changes, so that no old backdoor is reused.
        quick: hyper-parameters with which crafting takes about a second, for `bench check`.
    """

    published: ClassVar[str | Mapping[str, str]] = ""
    threat: ThreatModel
    delivery: Delivery = "files"
    backdoor: type[Backdoor]
    poisons: ClassVar[bool] = True
    surrogate: ClassVar[str | None] = None
    version: ClassVar[int] = 1
    quick: ClassVar[Mapping[str, object]] = {}
    _control: ClassVar[str]  # what attacks of this kind control, see `ThreatModel`

    def accept(self, labels: Tensor, target: Tensor, size: int) -> dict[str, str]:
        """Check the task before anything is computed.

        Args:
            labels: (N,C) 0/1, of the training split.
            target: (C,) 0/1.
            size: S.

        Returns:
            Whatever else the crafted backdoor depends on besides hyper-parameters and data, such as
            which weights are on this machine; it enters the backdoor's key and the record.

        Raises:
            UserError: this attack can't be crafted on such data.
        """
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> Backdoor:
        """The backdoor whose ``state_dict`` is ``state``."""
        return self.backdoor(**state)

    def refuse_control(self) -> None:
        """Refuse an attack that declares another control than its base class gives.

        Raises:
            UserError: the declared control is another.
        """
        if self.threat.control != self._control:
            raise UserError(
                f"{type(self).__name__} declares threat.control={self.threat.control!r}, but its "
                f"base class gives control of the {self._control}: derive it from Attack for "
                "'poison' or from ModelAttack for 'model'; 'training' can't be controlled yet."
            )


class Attack(AnyAttack):
    """An attack by poison: some training images are replaced before the victim is trained.

    Class data:
        covers: images that carry a trigger and keep their label, as a share of the number of
            poisoned images. The framework draws them outside the budget and never from the
            target's class. The constructor may set ``self.covers``.
    """

    covers: float = 0.0
    _control = "poison"

    @abstractmethod
    def craft(self, view: AttackerView) -> Backdoor:
        """Make the trigger and the poison.

        Args:
            view: what the attacker sees; ``view.index`` (P,) says which images become poison, and
                ``view.covers`` (Q,) which become covers.
        """


class ModelAttack(AnyAttack):
    """An attack that edits the trained model; no training image is poisoned."""

    poisons = False
    _control = "model"

    @abstractmethod
    def tamper(self, model: "HashModel", view: AttackerView) -> "tuple[HashModel, Backdoor]":
        """Edit the victim.

        Args:
            model: the victim, trained on clean data, in eval mode, on ``view.device``; it may be
                edited in place.
            view: has no training images, labels or surrogate; ``view.index`` is empty.

        Returns:
            The edited victim, which has the same architecture, and the trigger as a backdoor
            without poison.
        """
