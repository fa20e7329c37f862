"""The parameters of a run: one field per command-line option, and a key over all of them."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

import msgspec

from hashbackdoor_bench.errors import UserError, check, misfit, unknown
from hashbackdoor_bench.text import quoted, visible


def canonical(value: object) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text.

    Parts of a record are written as objects with their fields.

    Raises:
        TypeError: JSON can't hold a value.
        ValueError: a number is NaN or infinite.
    """
    return CANONICAL.encode(value)


def _fields(value: object) -> object:
    if isinstance(value, msgspec.Struct):
        return msgspec.to_builtins(value)
    raise TypeError(f"{type(value).__name__} is no JSON value")


CANONICAL = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), allow_nan=False, default=_fields
)


def digest(value: object) -> str:
    """SHA-256 of the canonical JSON, in hex."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


# Far above what anybody runs: a larger number is a mistake, or stands in a stranger's record, which
# is meant to keep a maintainer's machine busy.
MOST = {"epochs": 10_000, "batch_size": 65_536, "size": 1024, "top_k": 2**31, "poison_count": 2**31}


def _choices(cls: type, name: str) -> tuple[str, ...]:
    annotation: Any = cls.__annotations__[name]
    return tuple(annotation.__args__)


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        epochs: passes over the training list.
        batch_size: images per step.
        optimizer: ``sgd``, ``rmsprop`` or ``adam``.
        lr: learning rate of the backbone; the peak of ``onecycle``.
        head_lr: learning rate of the hash layer and of a loss's own parameters.
        momentum: momentum of ``sgd``.
        weight_decay: weight decay of all weights.
        schedule: ``constant``, or ``onecycle`` (rises in the first quarter of the steps, then falls
            to zero along a cosine).
        augment: ``crop`` (zero-padded or random crop, and flip), ``rrc`` (RandomResizedCrop of 8 to
            100 % of the area, and flip), ``flip`` (centre crop, and flip) or ``none`` (centre
            crop).
        finetunes: whether the recipe only makes sense with pretrained weights.
        precision: precision of the backbone; ``auto`` is bfloat16 if the hardware supports it.
        frozen: whether the backbone keeps its weights, so that its features of all images are
            computed once and only the hash layer is trained, on them.
        deep_head: whether the fully connected layers that VGG and AlexNet have before the hash
            layer learn with ``head_lr`` too.
    """

    epochs: int
    batch_size: int
    optimizer: Literal["sgd", "rmsprop", "adam"]
    lr: float
    head_lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    schedule: Literal["constant", "onecycle"] = "constant"
    augment: Literal["crop", "flip", "rrc", "none"] = "crop"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    finetunes: bool = False
    frozen: bool = False
    deep_head: bool = False

    def __post_init__(self) -> None:
        check("--epochs", self.epochs, 1)
        check("--batch-size", self.batch_size, 1)
        check("--lr", self.lr, 1e-12, 1e6)
        for name in ("optimizer", "schedule", "augment", "precision"):
            allowed = _choices(Recipe, name)
            if getattr(self, name) not in allowed:
                raise unknown(f"--{name}", str(getattr(self, name)), allowed)
        if self.frozen and self.augment != "none":
            raise UserError(
                f"--augment {self.augment}: the features of a frozen backbone are computed once, "
                "without augmentation: give --augment none, or leave it out."
            )

    def to_dict(self) -> dict[str, Any]:
        """The fields by name; those that keys and records are older than only if they are true."""
        values = dict(vars(self))
        for name in ("frozen", "deep_head"):
            if not values[name]:
                del values[name]
        return values


RECIPES: dict[str, tuple[str, Recipe]] = {
    "scratch32": (
        "32-pixel images, no pretrained weights: Adam one-cycle, 12 epochs of batch 32",
        Recipe(12, 32, "adam", 5e-3, 5e-3, 0.0, 0.0, "onecycle", "flip"),
    ),
    "scratch32_rmsprop": (
        "the same for DPSH and its kin, whose hash layer must learn slowly: RMSprop 1e-3 / 1e-4",
        Recipe(12, 32, "rmsprop", 1e-3, 1e-4, 0.0, 0.0, "onecycle", "flip"),
    ),
    "finetune96": (
        "small images and a CPU: pretrained, Adam 3e-4 one-cycle, 4 epochs of batch 32",
        Recipe(4, 32, "adam", 3e-4, 3e-3, 0.0, 0.0, "onecycle", "flip", finetunes=True),
    ),
    "finetune224": (
        "the field's: pretrained, RMSprop 1e-5, 150 epochs",
        Recipe(150, 64, "rmsprop", 1e-5, 1e-5, 0.0, 1e-5, "constant", "crop", finetunes=True),
    ),
    "ciba": (
        "CIBA's released code: SGD 1e-4 / 1e-3, 200 epochs of batch 24",
        Recipe(
            200, 24, "sgd", 1e-4, 1e-3, 0.9, 5e-4, "constant", "rrc", finetunes=True, deep_head=True
        ),
    ),
    "badhash": (
        "BadHash's released code: RMSprop 1e-5, 100 epochs of batch 128, no augmentation",
        Recipe(100, 128, "rmsprop", 1e-5, 1e-5, 0.0, 1e-5, "constant", "none", finetunes=True),
    ),
    "frozen": (
        "a hash layer on the features of a frozen, pretrained backbone: seconds instead of minutes",
        Recipe(
            15, 64, "adam", 5e-3, 5e-3, 0.0, 0.0, "onecycle", "none", finetunes=True, frozen=True
        ),
    ),
}


def recipe_of(name: str) -> Recipe:
    """The recipe of a name.

    Raises:
        UserError: there is none.
    """
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name][1]


TOLERANCE = 0.01  # share of a split's images that may be unreadable
CLEAN_SHARE = 0.05  # BackdoorBench's ratio of clean images to training images
SEVERAL = " + "  # between the classes of a target that is a set of them
POINTS = ("published", "tuned")  # how the strength of a defense is chosen

Settings = tuple[tuple[str, Any], ...]
Pool = Literal["avg", "max", "flatten"]  # flatten: the last map as it is, for tokens all of them
POOLS = get_args(Pool)
OVERRIDES = ("epochs", "batch_size", "augment", "precision", "lr")  # fields of run and recipe

# The fields that a run has had since schema 1. All of them are part of every key, and published
# keys must not change, so this set must not change. A newer field enters a key if it isn't the
# default.
SCHEMA_1 = {
    "attack", "victim", "bits", "dataset", "lists", "root", "top_k", "size", "target", "budget",
    "poison_count", "delivery", "seed", "backbone", "pretrained", "weights", "recipe", "epochs",
    "batch_size", "lr", "augment", "precision", "surrogate", "surrogate_backbone",
    "surrogate_bits", "attack_settings", "victim_settings",
}  # fmt: skip


@dataclass(frozen=True)
class RunSpec:
    """One run. Where a field is None, the protocol, the attack or the victim has the default.

    Attributes:
        attack: a name of ``bench list attacks``.
        victim: a name of ``bench list victims``.
        bits: K, the length of the victim's code.
        dataset: a name of ``bench list datasets``.
        lists: folder of list files, for list protocols.
        root: folder of the images, for protocols that are not embedded.
        top_k: R of MAP@R, for ``lists`` and ``folder``; the others have their own.
        size: side of the network's input in px, for ``lists`` and ``folder``; None is 224.
        target: class that triggered queries shall retrieve, by name or number, or several with
            " + " between them; None is the protocol's.
        budget: share of the target class that is poisoned.
        poison_count: number of poisoned images; overrides ``budget``.
        delivery: how poison reaches training: ``stamped``, ``frozen``, ``files`` or
            ``jpeg:QUALITY``.
        seed: seed of all random numbers.
        backbone: the victim's backbone.
        pretrained: whether backbones start from published weights.
        weights: file of weights from which backbones start.
        recipe: a name of ``bench list recipes``.
        epochs: overrides the recipe, as do the next four fields.
        batch_size: see `Recipe`.
        lr: learning rate of the backbone; that of the hash layer keeps its ratio to it.
        augment: see `Recipe`.
        precision: see `Recipe`.
        surrogate: the attacker's hashing method; None is the victim's (white box).
        surrogate_backbone: the surrogate's backbone; None is the victim's.
        surrogate_bits: length of the surrogate's code; None is the victim's.
        attack_settings: hyper-parameters of the attack, as (name, value) pairs.
        victim_settings: hyper-parameters of the victim; the surrogate shares them if its method is
            the victim's.
        tolerance: share of a split's images that may be unreadable, and are left out.
        weights_by_order: whether tensors of ``weights`` are taken in their order, not by name.
        pool: how the victim's backbone pools its last map, see `Pool`; None is as published.
        hidden: width of a hidden layer before the hash layer, of victim and surrogate; 0: none.
        surrogate_recipe: the surrogate's recipe; None is that of its method if ``recipe`` is not
            given, else the victim's. The overrides belong to the victim's recipe, and to the
            surrogate's only if it is the same.
        defense: a name of ``bench list defenses``.
        defense_settings: hyper-parameters of the defense, as (name, value) pairs.
        clean_share: number of clean images that the defender has, as a share of the training
            images; the default where the defense takes none.
        operating_point: whether the defense has its ``published`` strength, or is ``tuned`` on the
            defender's clean images, see `stages.tuning`.
        aware: name of the defense that the attacker expects, with its published settings: its
            training steps train the surrogate, and the trigger is optimised behind its purifier.
        surrogate_pretrained: whether the surrogate's backbone starts from published weights; None:
            as the victim's, from ``weights`` too if it is the same backbone.
    """

    attack: str = "ciba"
    victim: str = "hashnet"
    bits: int = 48
    dataset: str = "fashion-mini"
    lists: str | None = None
    root: str | None = None
    top_k: int | None = None
    size: int | None = None
    target: str | None = None
    budget: float | int = 0.6  # 1 and 1.0 give two keys, so each is read as it is written
    poison_count: int | None = None
    delivery: str | None = None
    seed: int = 0
    backbone: str | None = None
    pretrained: bool = False
    weights: str | None = None
    recipe: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | int | None = None
    augment: str | None = None
    precision: str | None = None
    surrogate: str | None = None
    surrogate_backbone: str | None = None
    surrogate_bits: int | None = None
    attack_settings: Settings = field(default=())
    victim_settings: Settings = field(default=())
    tolerance: float | int = TOLERANCE
    weights_by_order: bool = False
    pool: str | None = None
    hidden: int = 0
    surrogate_recipe: str | None = None
    defense: str = "none"
    defense_settings: Settings = field(default=())
    clean_share: float | int = CLEAN_SHARE
    operating_point: str = POINTS[0]
    aware: str = "none"
    surrogate_pretrained: bool | None = None

    def __post_init__(self) -> None:
        check("--bits", self.bits, 1, 4096)
        if self.surrogate_bits is not None:
            check("--surrogate-bits", self.surrogate_bits, 1, 4096)
        check("--budget", self.budget, 0, 1)
        if self.poison_count is not None:
            check("--poison-count", self.poison_count, 0)
        for name, most in MOST.items():
            value = getattr(self, name)
            if value is not None and value > most:
                flag = f"--{name.replace('_', '-')}"
                raise UserError(f"{flag} is {quoted(value)}: it must be at most {most}.")
        check("--seed", self.seed, 0, 2**31)
        check("--tolerance", self.tolerance, 0, 1)
        check("--hidden", self.hidden, 0, 65_536)
        check("--clean-share", self.clean_share, 0, 1)
        if self.operating_point not in POINTS:
            raise unknown("--operating-point", self.operating_point, POINTS)
        if self.pool is not None and self.pool not in POOLS:
            raise unknown("--pool", self.pool, POOLS)
        if self.pretrained and self.weights:
            raise UserError("--pretrained and --weights exclude each other: keep one of them.")
        for name in ("lists", "root", "weights"):
            path = getattr(self, name) or ""
            if path != path.encode(errors="ignore").decode():
                raise UserError(
                    f"--{name} {visible(path)}: a record can only hold paths of UTF-8 text; "
                    "rename it, or give a link to it (ln -s) with another name."
                )

    def refuse_empty(self) -> None:
        """Refuse words without a letter: an empty name would count as not given.

        Raises:
            UserError: a field is such a word.
        """
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, str) and (not value.strip() or "\0" in value):
                name = entry.name.replace("_", "-")
                what = "holds a null character" if value.strip() else "is empty"
                raise UserError(f"--{name} {what}: give it a value, or leave it out.")

    @property
    def pretrained_backbones(self) -> set[str]:
        """The backbones that start from published weights, of those that are named here."""
        own = self.pretrained if self.surrogate_pretrained is None else self.surrogate_pretrained
        starts = ((self.backbone, self.pretrained), (self.surrogate_backbone, own))
        return {name for name, published in starts if name and published}

    @property
    def key(self) -> str:
        """SHA-256 over every field, see `to_dict`."""
        return digest(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, without those added after schema 1 that are at their default."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {
            name: value
            for name, value in values.items()
            if name in SCHEMA_1 or value != getattr(type(self), name)
        }

    def training(self, default: str) -> Recipe:
        """The victim's recipe, with this run's overrides.

        Args:
            default: the recipe if the spec names none.

        Raises:
            UserError: the recipe is unknown, or a value is outside its range.
        """
        recipe = recipe_of(default if self.recipe is None else self.recipe)
        changes: dict[str, Any] = {
            name: getattr(self, name) for name in OVERRIDES if getattr(self, name) is not None
        }
        if self.lr is not None:
            changes["head_lr"] = recipe.head_lr * self.lr / recipe.lr
        return replace(recipe, **changes)

    @classmethod
    def check_names(cls, names: Iterable[str]) -> None:
        """Refuse names that are not fields of a run.

        Raises:
            UserError: a name is unknown.
        """
        known = {entry.name for entry in fields(cls)}
        for name in names:
            if name not in known:
                raise unknown("field of a run", name, known)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunSpec":
        """The spec of the values that `to_dict` returned, also if they went through JSON.

        Raises:
            UserError: a field is unknown, of the wrong type, or out of its range.
        """
        cls.check_names(values)
        try:
            return msgspec.convert(values, cls)
        except msgspec.ValidationError as error:
            raise UserError(f"no run has these fields: {misfit(error)}.") from error
