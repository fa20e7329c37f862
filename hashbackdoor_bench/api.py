"""What a method promises: an attack crafts a backdoor, a victim is a loss on hash outputs.

Shapes: N batch, P poisoned, K bits, C classes, S side of the network's input in pixels.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn

from hashbackdoor_bench.checkpoint import Checkpoint, Part
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.progress import Progress, silent

if TYPE_CHECKING:
    from hashbackdoor_bench.network import HashModel

Delivery = Literal["stamped", "files", "frozen"]
POISON, COVER = 0, 1  # what an item of a backdoor is


def to_unit(images: Tensor) -> Tensor:
    """(..., 3, H, W) uint8 -> float32 in [0,1]."""
    return images.float().div_(255)


def to_bytes(x: Tensor) -> Tensor:
    """(..., 3, H, W) in [0,1] -> uint8, as an image file stores it: rounded half-up, never cut off.

    Cutting off would darken by .5 on average: a second, invisible trigger.
    """
    return x.detach().mul(255).add_(0.5).floor_().clamp_(0, 255).to(torch.uint8)


def derive_seed(seed: int | str, *purpose: object) -> int:
    """A seed for one purpose: the first 63 bits of SHA-256 over ``seed`` and ``purpose``."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int | str, *purpose: object) -> torch.Generator:
    """A CPU generator for one purpose, so that no draw depends on how many came before it."""
    return torch.Generator().manual_seed(derive_seed(seed, *purpose))


@dataclass(frozen=True)
class ThreatModel:
    """What an attack needs and does; printed in tables and written to each record.

    Attributes:
        label: ``dirty`` if the poison's labels are changed to the target, else ``clean``.
        knowledge: ``surrogate`` if it needs a model trained on the same data, else ``none``.
        trigger: the kind of trigger.
        control: what the attacker controls: ``poison`` (an `Attack`) or the trained ``model`` (a
            `ModelAttack`); ``training`` is refused as long as no hook gives it.
        universal: whether one trigger serves all images.
    """

    label: Literal["clean", "dirty"]
    knowledge: Literal["none", "surrogate"]
    trigger: Literal["patch", "additive", "warp", "frequency", "quantise", "generated", "none"]
    control: Literal["poison", "training", "model"] = "poison"
    universal: bool = True


@dataclass
class AttackerView:
    """All an attacker may look at: no query, no victim and no metric, so it can't grade itself.

    Attributes:
        images: (N,3,S,S) uint8, the training images as the network sees them (centre crop).
        labels: (N,C) uint8, 0/1.
        target: (C,) uint8, the label a triggered query shall retrieve.
        index: (P,) long, the training items that become poison; the framework drew them.
        surrogate: the attacker's own clean-trained model in eval mode, its parameters frozen, on
            ``device``; None where ``threat.knowledge`` is ``none``.
        seed: everything random in an attack comes from `generator`, which derives from it.
        device: where to compute.
        precision: of the run's networks, ``float32`` or ``bfloat16``; see `autocast`.
        progress: see `Progress`.
        work: folder of `checkpoint`; None: crafting that is interrupted starts again.
        remember: what stands behind `shared`; the framework's cache.
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
        [str, Mapping[str, object], Callable[[], dict[str, Tensor]]], dict[str, Tensor]
    ] = lambda name, params, compute: compute()
    covers: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))

    @property
    def size(self) -> int:
        """S, the side of the network's input in pixels."""
        return int(self.images.shape[-1])

    @property
    def planted(self) -> Tensor:
        """(P+Q,) long: poison, then covers, for `Backdoor`'s ``index``."""
        return torch.cat([self.index, self.covers])

    @property
    def kind(self) -> Tensor:
        """(P+Q,) uint8: what each item of `planted` is, for `Backdoor`'s ``kind``."""
        counts = torch.tensor([len(self.index), len(self.covers)])
        return torch.tensor([POISON, COVER], dtype=torch.uint8).repeat_interleave(counts)

    def generator(self, purpose: str) -> torch.Generator:
        """A CPU generator for one purpose of this attack under this seed."""
        return generator(self.seed, "attack", purpose)

    def autocast(self) -> torch.autocast:
        """The context in which an attack's own networks multiply in the run's precision."""
        enabled = self.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def checkpoint(self, name: str, **parts: Part) -> Checkpoint:
        """Where crafting keeps modules and optimisers, to go on from if the process dies."""
        path = None if self.work is None else self.work / f"{name}.safetensors"
        return Checkpoint(path, **parts)

    def shared(
        self, function: Callable[..., dict[str, Tensor]], **params: object
    ) -> dict[str, Tensor]:
        """``function(self, **params)``, computed once for all attacks and budgets that ask for it.

        Its result is stored under the function's name, ``params`` and what the view holds except
        ``index``; so ``function`` is a module-level function, reads nothing but the view (without
        ``index``) and ``params``, and returns a dict of tensors.
        """
        return self.remember(function.__name__, params, lambda: function(self, **params))


class Backdoor(nn.Module):
    """What the attacker owns after crafting: the poison, and a trigger for queries.

    All state is in buffers and parameters; the ``state_dict`` is the stored artifact, and
    `Attack.restore` makes the backdoor from it again. ``history`` is for the record: how crafting
    went, as losses by name, one value an epoch; a name ``part/loss`` is grouped by its part.

    Args:
        index: (P,) long, which training items are replaced, poison and covers.
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
        """The trigger of a query: x (N,3,S,S) in [0,1] -> a new tensor of that shape in [0,1]."""
        raise NotImplementedError

    def plant(self, x: Tensor, slot: Tensor) -> Tensor:
        """What stands in a poisoned training image; the query's trigger if not overridden.

        Args:
            x: (N,3,S,S) in [0,1].
            slot: (N,) long, the rows of ``index`` that these images are.
        """
        out: Tensor = self(x)
        return out


class AnyAttack(ABC):
    """What every attack says of itself: keyword-only hyper-parameters with the paper's defaults.

    Class data:
        published: how papers write its name, which tables, figures and the leaderboard show: a
            literal, or with presets a literal mapping from the name of each; empty: the file's.
        threat: what it needs and does. An instance whose settings decide it, such as the label of
            an attack that exists dirty and clean, sets its own in the constructor.
        delivery: how its poison was published to reach the victim's training, see `poisoning.py`.
        backdoor: the `Backdoor` that `craft` returns; `restore` makes it from stored tensors.
        poisons: whether it poisons at all; only controls don't.
        surrogate: the hashing method that the published attack crafts on; None: the victim's.
        version: raised by one when the algorithm changes, so that cached backdoors are made again.
        quick: hyper-parameters under which crafting takes a second, for `bench check`.
    """

    published: ClassVar[str | Mapping[str, str]] = ""
    threat: ThreatModel
    delivery: Delivery = "files"
    backdoor: type[Backdoor]
    poisons: ClassVar[bool] = True
    surrogate: ClassVar[str | None] = None
    version: ClassVar[int] = 1
    quick: ClassVar[Mapping[str, object]] = {}
    _control: ClassVar[str]  # what the framework gives attacks of this kind control of

    def accept(self, labels: Tensor, target: Tensor, size: int) -> dict[str, str]:
        """Look at the task before anything is computed.

        Args:
            labels: (N,C) 0/1, of the training split.
            target: (C,) 0/1.
            size: S.

        Returns:
            What the crafted backdoor depends on besides the hyper-parameters and the data, such as
            which weights are on this machine; it enters the backdoor's key and the record.

        Raises:
            UserError: this attack can't be made on such data.
        """
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> Backdoor:
        """The backdoor whose ``state_dict`` is ``state``."""
        return self.backdoor(**state)

    def refuse_control(self) -> None:
        """Refuse an attack that declares a control which nothing here would give it.

        Raises:
            UserError: see above.
        """
        if self.threat.control != self._control:
            raise UserError(
                f"{type(self).__name__} declares threat.control={self.threat.control!r} and is "
                f"given control of the {self._control}: derive it from Attack for 'poison', from "
                "ModelAttack for 'model'; nothing gives control of the training yet."
            )


class Attack(AnyAttack):
    """An attack by poison: some training images are replaced before the victim is trained.

    Class data:
        covers: images that carry a trigger and keep their label, as a share of the number of
            poisoned images. The framework draws them, outside the budget and never from the
            target's class; an instance may set its own in the constructor.
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
    """An attack on the trained model: it is edited after training, and nothing is poisoned."""

    poisons = False
    _control = "model"

    @abstractmethod
    def tamper(self, model: "HashModel", view: AttackerView) -> "tuple[HashModel, Backdoor]":
        """Edit the victim.

        Args:
            model: the clean-trained victim in eval mode, on ``view.device``; it may be edited in
                place.
            view: without training images, labels and surrogate; ``view.index`` is empty.

        Returns:
            The victim as the service then uses it, of the same architecture, and the trigger, a
            backdoor that plants nothing.
        """


class HashLoss(nn.Module):
    """A hashing method: the loss that shapes raw outputs into codes, with its own state.

    What the method asks of the network and the loop, set on the class or by the constructor:
        head_bias: whether the hash layer has a bias.
        head_norm: ``batch`` puts a batch norm behind the hash layer; the code is taken after it.
        head_init_std: standard deviation of the hash layer's initial weights; None: PyTorch's.
        head_lr_scale: the hash layer's learning rate over the recipe's.
        drop_last: whether a last, smaller batch of an epoch is left out.
        version: raised by one when the loss changes, so that networks are trained again.
        published: how papers write its name, see `AnyAttack`.

    State (memory banks, centres, beta, own parameters) lives in buffers and parameters: it is in
    the checkpoint, and own parameters reach the optimiser.

    Args:
        bits: K.
        classes: C.
        train_size: T, the number of training items, poison included; ``index`` runs over 0..T-1.
    """

    head_bias: bool = True
    head_norm: Literal["none", "batch"] = "none"
    head_init_std: float | None = None
    head_lr_scale: float = 1.0
    drop_last: bool = False
    version: ClassVar[int] = 1
    published: ClassVar[str | Mapping[str, str]] = ""

    def __init__(self, bits: int, classes: int, train_size: int) -> None:
        super().__init__()
        self.bits, self.classes, self.train_size = bits, classes, train_size

    def forward(self, z: Tensor, y: Tensor, index: Tensor, step: int) -> Tensor:
        """The loss of one batch.

        Args:
            z: (N,K) float32, raw outputs of the network.
            y: (N,C) float32, 0/1 labels.
            index: (N,) long, the items' slots in the training list.
            step: optimiser steps done before this one.

        Returns:
            A scalar.
        """
        raise NotImplementedError

    def relax(self, z: Tensor) -> Tensor:
        """The smooth code in [-1,1] that an attacker ascends: (N,K) -> (N,K)."""
        return torch.tanh(z)

    def on_epoch(self, epoch: int) -> None:
        """Called before each epoch, counted from 0."""
