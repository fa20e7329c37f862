"""What a defense promises: some of seven hooks, and what it assumes of its defender.

Shapes: N batch, n training images, m clean images, W queries of a window, K bits, C classes, S side
of the network's input in pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

if TYPE_CHECKING:
    from hashbackdoor_bench.defender import DefenderView
    from hashbackdoor_bench.network import HashModel, TrainStep

# The hooks in the order of a run, and what each of them looks at or changes.
HOOKS = ("screen", "backward", "repair", "purify", "suspect", "inspect", "audit")


@dataclass(frozen=True)
class Assumes:
    """What a defense needs; checked before anything is trained, and printed in tables.

    Attributes:
        clean: smallest number of clean images with which it works; 0: it takes none.
        per_class: the same for each class.
        group: smallest number of training images of the largest class with which it works.
        sees: what the defender sees: of ``train``, ``weights``, ``queries`` and ``database``. Only
            a control that is no defense, such as an oracle, sees the ``poison``.
        needs: what victim and backbone must have: of ``items`` (see `HashLoss.items`),
            ``item_gradient`` (items whose loss doesn't depend on the batch), ``maps`` (see
            `HashModel.maps`) and ``channels`` (see `HashModel.channels`).
    """

    clean: int = 0
    per_class: int = 0
    group: int = 0
    sees: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Screening:
    """The result of `Defense.screen`.

    Attributes:
        suspicion: (n,) float32, finite, larger for images that are more suspicious.
        drop: (n,) bool, the images that are not trained on. Of no class more than half is dropped,
            see `DefenderView.guarded`.
    """

    suspicion: Tensor
    drop: Tensor


@dataclass(frozen=True)
class Inspection:
    """The result of `Defense.inspect`.

    Attributes:
        score: larger for a model that is more likely backdoored.
        per_class: (C,) float32, the same for each class as the target; (0,) if there is no such.
    """

    score: float
    per_class: Tensor


class Defense:
    """A defender, with the hooks that it overrides; the others are not called.

    Hyper-parameters are keyword-only arguments of the constructor, with published defaults. All
    random numbers come from ``view.generator``, ``step.generator`` or the number of an image.

    Class data:
        published: how papers write its name, see `AnyAttack`.
        version: raise it by one when the algorithm changes, so that its stages are made again.
        assumes: what it needs.
        strength: the hyper-parameter that says how strong a `repair` or `purify` is, which the
            operating point ``tuned`` chooses; None: there is none.
        grid: its values from the weakest to the strongest.
        control: whether it is no defense but a control in a table, such as an oracle.
        quick: hyper-parameters with which it takes about a second, for `bench check`.
    """

    published: ClassVar[str | Mapping[str, str]] = ""
    version: ClassVar[int] = 1
    assumes: ClassVar[Assumes] = Assumes()
    strength: ClassVar[str | None] = None
    grid: ClassVar[tuple[float, ...]] = ()
    control: ClassVar[bool] = False
    quick: ClassVar[Mapping[str, object]] = {}

    @classmethod
    def hooks(cls) -> tuple[str, ...]:
        """The names of the hooks that the class overrides, in the order of ``HOOKS``."""
        return tuple(name for name in HOOKS if getattr(cls, name) is not getattr(Defense, name))

    def versions(self) -> Mapping[str, str]:
        """Versions of libraries that change results, by name; they enter the keys of its stages.

        Those that enter every key, such as torch's, are left out.
        """
        return {}

    def screen(self, view: "DefenderView") -> Screening:
        """Say which training images to leave out; a victim is then trained on the rest.

        Args:
            view: ``view.model`` is the victim trained on all of ``view.train``.
        """
        raise NotImplementedError

    def backward(self, step: "TrainStep") -> Tensor:
        """Make the gradients of a training step and return its loss, as `plain_backward` does."""
        raise NotImplementedError

    def repair(self, view: "DefenderView") -> "HashModel":
        """A new network instead of ``view.model``, which doesn't change."""
        raise NotImplementedError

    def purify(self, x: Tensor, item: Tensor) -> Tensor:
        """Change queries before they are hashed, each by itself.

        Args:
            x: (N,3,S,S) in [0,1], of 8-bit levels.
            item: (N,) int64, a number from the run's seed and the image's name, from which whatever
                is drawn for this image is drawn: ``torch.Generator().manual_seed(int(item[i]))``.

        Returns:
            (N,3,S,S) in [0,1], a new tensor.
        """
        raise NotImplementedError

    def suspect(self, x: Tensor, item: Tensor, view: "DefenderView") -> Tensor:
        """How suspicious each query is, by itself: (N,) float32, larger for more.

        Args:
            x: (N,3,S,S) in [0,1], of 8-bit levels.
            item: (N,) int64, see `purify`.
            view: ``view.model`` is the network that serves.
        """
        raise NotImplementedError

    def inspect(self, view: "DefenderView") -> Inspection:
        """How likely ``view.model`` is to have a backdoor."""
        raise NotImplementedError

    def audit(self, window: Tensor, view: "DefenderView") -> Tensor:
        """How suspicious a window of the service's queries is: a scalar, larger for more.

        Args:
            window: (W,K) int8 of ±1, the codes of queries.
            view: ``view.database`` are the codes of the database.
        """
        raise NotImplementedError
