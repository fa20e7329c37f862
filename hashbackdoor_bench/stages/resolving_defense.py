"""The defense of a run: an instance of it, and whether it fits the run's attack and victim."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from hashbackdoor_bench.api import HOOKS, AnyAttack, Defense, ModelAttack
from hashbackdoor_bench.data import Splits
from hashbackdoor_bench.errors import NotApplicable, UserError
from hashbackdoor_bench.network import Blueprint
from hashbackdoor_bench.registry import DEFENSES, Method
from hashbackdoor_bench.spec import RunSpec
from hashbackdoor_bench.stages.codes import DEFENDED

TRAINS, TUNABLE = {"screen", "backward"}, {"repair", "purify"}  # hooks
NETWORK = {"backward", *TUNABLE, "suspect", "inspect"}  # hooks that run networks on images
PRUNABLE = 2  # convolutions that a repair of channels needs
CONVOLUTIONS = "resnet18, vgg11_bn or cnn32"


@dataclass(frozen=True)
class ResolvedDefense:
    """The defense of a run.

    Attributes:
        method: the registered defense.
        settings: all of its hyper-parameters.
        tuned: whether its strength is chosen on clean images.
        count: m, number of clean images that the defender has.
    """

    method: Method[Defense]
    settings: dict[str, Any]
    tuned: bool
    count: int

    @property
    def instance(self) -> Defense:
        """The defense, with its hyper-parameters."""
        return self.method.cls(**self.settings)

    @property
    def purifier(self) -> Callable[[Tensor, Tensor], Tensor] | None:
        """Its `Defense.purify`, if it has this hook."""
        return self.instance.purify if "purify" in self.hooks else None

    @property
    def inputs(self) -> dict[str, Any]:
        """What a stage with the defense in it depends on, as JSON values."""
        versions = dict(self.instance.versions())
        return {
            "defense": self.method.identity,
            "settings": self.settings,
            **({"versions": versions} if versions else {}),
        }

    def with_strength(self, value: float) -> Defense:
        """The defense of another strength."""
        changed = {**self.settings, str(self.method.cls.strength): value}
        return self.method.cls(**self.method.resolve(changed))

    @property
    def hooks(self) -> tuple[str, ...]:
        """The names of its hooks; empty for no defense."""
        return self.method.cls.hooks()

    @property
    def changes_codes(self) -> bool:
        """Whether queries or database get other codes."""
        return not (TRAINS | TUNABLE).isdisjoint(self.hooks)

    @property
    def holds_out(self) -> bool:
        """Whether its strength is chosen on other clean images than those that it repairs with.

        A network finds the images that it was trained on better than others.
        """
        assumes = self.method.cls.assumes
        return self.tuned and "repair" in self.hooks and bool(assumes.clean or assumes.per_class)

    def encoder(self, victim: str) -> str:
        """Which of ``NETWORKS`` makes the codes: ``CONTROL`` or ``VICTIM``, or it defended."""
        return DEFENDED[victim] if self.changes_codes else victim


def resolve_defense(spec: RunSpec, splits: Splits) -> ResolvedDefense:
    """The defense of a spec.

    Raises:
        UserError: a name or value that doesn't exist, or a defense that does nothing.
        NotApplicable: the defense can't be tuned.
    """
    method: Method[Defense] = DEFENSES[spec.defense]
    settings = method.resolve(dict(spec.defense_settings))
    cls, tuned = method.cls, spec.operating_point == "tuned"
    if not cls.hooks() and not cls.control:
        raise UserError(
            f"defense {method.name} has none of the methods {', '.join(HOOKS)}, so it would do "
            "nothing: look for a misspelt name in its class."
        )
    if tuned and (cls.strength is None or not cls.grid or TRAINS & set(cls.hooks())):
        why = (
            "trains a victim for each strength" if TRAINS & set(cls.hooks()) else "has no strength"
        )
        raise NotApplicable(
            f"defense {method.name} {why}, so none is tuned: leave --operating-point tuned out, or "
            "give another --set for each run."
        )
    if tuned:
        name = str(cls.strength)
        default = method.resolve({})[name]
        if settings[name] != default:
            raise UserError(
                f"--set defense.{name}={settings[name]} and --operating-point tuned exclude each "
                f"other, since tuning chooses {name}: leave one of them out."
            )
    needs_clean = tuned or cls.assumes.clean or cls.assumes.per_class
    count = int(spec.clean_share * len(splits.train) + 0.5) if needs_clean else 0
    return ResolvedDefense(method, settings, tuned, count)


def resolve_expected(
    name: str, attack: AnyAttack, attacks_name: str, surrogate: Blueprint
) -> ResolvedDefense | None:
    """The defense that an attacker expects, with its published settings; None for no defense.

    Args:
        name: name of the defense.
        attack: the attack.
        attacks_name: name of the attack.
        surrogate: the attacker's network.

    Raises:
        UserError: the name doesn't exist, or the attack can't prepare for the defense.
    """
    method: Method[Defense] = DEFENSES[name]
    hooks, own = set(method.cls.hooks()), method.name
    if not hooks:
        return None
    if not hooks & {"backward", "purify"}:
        raise UserError(
            f"--aware {own}: an attacker prepares for a defense that purifies queries or changes "
            "training steps, and this one does neither: choose jpeg, shrinkpad, blur or cutmix."
        )
    if "purify" in hooks and not attack.through_purifier:
        raise UserError(
            f"--aware {own}: attack {attacks_name} doesn't optimise its trigger behind a purifier: "
            "leave --aware out, or choose --attack ciba."
        )
    if "backward" in hooks and attack.threat.knowledge != "surrogate":
        raise UserError(
            f"--aware {own}: attack {attacks_name} trains no network that could be trained in "
            "this way: leave --aware out, or choose --attack ciba."
        )
    if "backward" in hooks and surrogate.recipe.frozen:
        raise UserError(
            f"--aware {own} changes the images of a training step, and a frozen recipe trains on "
            "features that are computed once: give another --surrogate-recipe."
        )
    for need in sorted(method.cls.assumes.needs):
        sentence = _lack(need, surrogate).replace("--victim", "--surrogate")
        if sentence:
            raise UserError(f"--aware {own}: it {sentence}")
    return ResolvedDefense(method, method.resolve({}), tuned=False, count=0)


def refuse(
    defense: ResolvedDefense, attack: AnyAttack, name: str, network: Blueprint, splits: Splits
) -> None:
    """Refuse a defense that doesn't fit.

    Args:
        defense: the defense.
        attack: the attack.
        name: name of the attack.
        network: the victim's network.
        splits: the data.

    Raises:
        NotApplicable: what the defense needs and the run lacks, and what to type instead.
    """
    own, hooks, assumes = defense.method.name, set(defense.hooks), defense.instance.assumes
    if isinstance(attack, ModelAttack) and hooks & TRAINS:
        raise NotApplicable(
            f"attack {name} edits the trained network, and defense {own} acts before or during "
            "training, so they never meet: choose a defense that repairs or purifies."
        )
    if network.recipe.frozen and "backward" in hooks:
        raise NotApplicable(
            f"defense {own} changes the images of a training step, and --recipe frozen trains on "
            "features that are computed once: give another --recipe."
        )
    if network.recipe.frozen and "repair" in hooks and defense.count:
        raise NotApplicable(
            f"defense {own} trains the network on clean images, and --recipe frozen keeps the "
            "backbone as published: give another --recipe, or a repair without images."
        )
    classes = len(splits.classes)
    least = max(assumes.clean, _per_class(defense) * classes)
    if defense.count < least:
        each = f" {_per_class(defense)} clean images per class" if _per_class(defense) else ""
        who = f"defense {own}" + (" with --operating-point tuned" if defense.tuned else "")
        raise NotApplicable(
            f"{who} asks for{each or ' ' + str(least) + ' clean images'} ({least}), and "
            f"--clean-share gives {defense.count}: give --clean-share "
            f"{least / max(1, len(splits.train)):.3g} or more."
        )
    largest = int(splits.train.labels.sum(0).max())
    if largest < assumes.group:
        raise NotApplicable(
            f"defense {own} needs {assumes.group} training images of a class, and this protocol "
            f"has {largest}: choose another --defense or --dataset."
        )
    for need in sorted(assumes.needs):
        sentence = _lack(need, network)
        if sentence:
            raise NotApplicable(f"defense {own} {sentence}")


def _per_class(defense: ResolvedDefense) -> int:
    """The clean images of each class that it needs; a MAP among them needs two."""
    least = max(defense.instance.assumes.per_class, 2 if defense.tuned else 0)
    return 2 * least if defense.holds_out else least


def refuse_drawn(defense: ResolvedDefense, labels: Tensor, splits: Splits) -> None:
    """Refuse a draw of clean images in which a class has too few, although they are enough in all.

    Where images have several labels, a rare one may be missing.

    Args:
        defense: the defense.
        labels: (m,C) 0/1, of the clean images.
        splits: the data.

    Raises:
        UserError: how many the defense needs and how many there are.
    """
    least, trained = _per_class(defense), splits.train.labels.any(0).tolist()
    counts = labels.sum(0, dtype=torch.long).tolist()
    for name, count, occurs in zip(splits.classes, counts, trained, strict=True):
        if occurs and count < least and not splits.multilabel:
            raise NotApplicable(
                f"defense {defense.method.name} needs {least} clean images of each class, and "
                f"{count} of {name!r} were drawn: give a larger --clean-share, or choose a "
                "--defense without clean images, such as clp or jpeg."
            )


def _lack(need: str, network: Blueprint) -> str:
    """What a network lacks of one of `Assumes.needs`, to follow the name; empty: nothing."""
    lacks: dict[str, Callable[[Blueprint], str]] = {
        "items": _lacks_items,
        "item_gradient": _lacks_item_gradient,
        "maps": _lacks_maps,
        "channels": _lacks_channels,
    }
    return lacks[need](network)


def _lacks_items(network: Blueprint) -> str:
    if network.by_item:
        return ""
    return f"needs a loss for each image, and {network.method} gives none: choose another --victim."


def _lacks_item_gradient(network: Blueprint) -> str:
    if network.pointwise:
        return ""
    return (
        f"needs a gradient for each image, and the loss of {network.method} compares the images of "
        "a batch: choose a --victim that takes each image by itself, such as csq."
    )


def _lacks_maps(network: Blueprint) -> str:
    if _stages(network.backbone, network.size, network.pool)[0]:
        return ""
    return f"needs feature maps, and {network.backbone} gives none: choose --backbone resnet18."


def _lacks_channels(network: Blueprint) -> str:
    found = _stages(network.backbone, network.size, network.pool)[1]
    if found >= PRUNABLE:
        return ""
    return (
        f"finds {found} convolutions with channels to prune in {network.backbone} and needs "
        f"{PRUNABLE}: choose --backbone {CONVOLUTIONS}, or another --defense."
    )


@cache
def _stages(backbone: str, size: int, pool: str | None) -> tuple[int, int]:
    """How many feature maps a backbone gives, and how many of its convolutions can be pruned."""
    from hashbackdoor_bench.api import HashLoss
    from hashbackdoor_bench.network import HashModel

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        model = HashModel(backbone, 1, HashLoss, size=size, pool=pool).eval()
        maps = model.maps(torch.zeros(1, 3, size, size))
        convolutions = [one for one in model.channels() if one.norm or one.conv.bias is not None]
    return len(maps), len(convolutions)
