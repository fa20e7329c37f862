"""What an attack promises: it crafts a backdoor, or tampers with a trained model.

Shapes: N batch, P poisoned, K bits, C classes, S side of the network's input in pixels.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn

from hashbackdoor_bench.api.view import AttackerView, ThreatModel
from hashbackdoor_bench.errors import UserError

if TYPE_CHECKING:
    from hashbackdoor_bench.network import HashModel

Delivery = Literal["stamped", "files", "frozen"]


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
        pointwise: whether the loss of an image must not depend on the other images of its batch, as
            for an attack on gradients; surrogates with other losses are then refused.
        through_purifier: whether its trigger is optimised behind `AttackerView.purified`.
        version: raise it by one when the algorithm changes, so that no old backdoor is reused.
        quick: hyper-parameters with which crafting takes about a second, for `bench check`.
        later: names of hyper-parameters that are newer than published records of the attack. They
            stand in keys and records only where they don't have their defaults, so that a run
            without them keeps its key.
        paths: names of hyper-parameters that are paths, as a literal tuple. A relative one in a
            TOML file is taken relative to the file, unless it is the default, which may be a word
            such as ``noise``. What a path leads to belongs into what `accept` returns.
        perturbs: whether it perturbs images by their codes on the surrogate, so that the record
            says how far these are from the clean codes and from one another, see `Dispersion`.
    """

    published: ClassVar[str | Mapping[str, str]] = ""
    threat: ThreatModel
    delivery: Delivery = "files"
    backdoor: type[Backdoor]
    poisons: ClassVar[bool] = True
    surrogate: ClassVar[str | None] = None
    pointwise: ClassVar[bool] = False
    through_purifier: ClassVar[bool] = False
    version: ClassVar[int] = 1
    quick: ClassVar[Mapping[str, object]] = {}
    later: ClassVar[frozenset[str]] = frozenset()
    paths: ClassVar[tuple[str, ...]] = ()
    perturbs: ClassVar[bool] = False
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
