"""BadHash: a generator rewrites the whole picture so that a surrogate sees another class in it.

Hu, Zhou, Zhang, Zhang, Zheng, He and Jin, "BadHash: Invisible Backdoor Attacks against Deep Hashing
with Clean Label", ACM MM 2022. https://arxiv.org/abs/2207.00278,
code: https://github.com/CGCL-codes/BadHash

    r, h(l) = LabCLN(l)                    label vector -> feature and code; trained on labels alone
    x_b     = G(x, r)                      the same picture with the trigger in it
    L_G     = a L_rec + b L_hash + L_adv
    L_rec   = |x_b - x|^2 + p d(x_b, x)      means; d: LPIPS, or 1 - SSIM without its weights
    L_hash  = 1 - <F(x_b), c> / K            F: surrogate; c: code of one confusing label l*
    L_adv   = |D(x_b) - [l*; 0]|^2
    L_D     = (|D(x) - [y; 0]|^2 + |D(x_b) - [l*; 1]|^2) / 2

Poison are images of the target class through G, labels unchanged; queries go through the same G.
G ends as a picture of 8 bits like any other. Published at 224 px: width 64, 100 epochs at 1e-4,
a = 200; smaller images take a narrower, shorter G (see the arguments).

What each ``variant`` is, next to the released code with only its crashes repaired:

                       released          corrected           intended
    c                  sign h(l*): from labels alone         the surrogate's majority code of l*
    l*                 first label row   one without the target's tags: the last class if it may be
    r when G is used   target's          of l*               of l*
    F                  raw output z      relaxed code        relaxed code
    F sees             (-1,1) of tanh    (-1,1) of tanh      [0,1]: clamped, straight-through
    LPIPS sees         [0,1]             [-1,1]              [-1,1]
    resized again      yes               no                  no

``bounded`` is not BadHash: ``intended`` with the output x + epsilon tanh(.) of ProS-GAN's kind.

In all variants: labels are smoothed on every positive, G sees no query, u and v of the spectral
norm are buffers, surrogate and LPIPS are frozen, and everything is drawn from the seed. The code
also computes uniform noise of 8/255 and doesn't use it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from hashbackdoor_bench import (
    ATTACKS,
    Attack,
    AttackerView,
    Backdoor,
    ThreatModel,
    UserError,
    anchor_code,
    check,
    lpips_fits,
    resize_again,
    sign,
)

from .badhash_networks import Painter
from .badhash_training import (
    Game,
    Settings,
    label_rows,
    parts,
    picture,
    play,
    read_labels,
    train_label_network,
)

Distance = Literal["auto", "lpips", "ssim", "none"]
T = TypeVar("T")


@dataclass(frozen=True)
class Variant:
    """A column of the table above."""

    tied: bool = True
    other_label: bool = True  # l* shares no tag with the target
    same_condition: bool = True
    relaxed: bool = True
    clamped: bool = True
    rescaled: bool = True
    resized_again: bool = False
    bounded: bool = False


VARIANTS = {
    "released": Variant(False, False, False, False, False, False, resized_again=True),
    "corrected": Variant(tied=False, clamped=False),
    "intended": Variant(),
    "bounded": Variant(bounded=True),
}


class GeneratedTrigger(Backdoor):
    """A picture goes through the generator.

    Args:
        index: see `Backdoor`, like the next three.
        carrier: see `Backdoor`.
        label: see `Backdoor`.
        kind: see `Backdoor`.
        label_map: (1,3,S,S), the generator's condition.
        painter: the generator.
        epsilon: the output is x + epsilon tanh(.), in units of [0,1]; None: tanh(.) itself.
        again: whether the service resizes the stored picture a second time.
    """

    label_map: Tensor

    def __init__(
        self,
        index: Tensor,
        carrier: Tensor,
        label: Tensor,
        kind: Tensor | None = None,
        *,
        label_map: Tensor,
        painter: Painter,
        epsilon: float | None,
        again: bool,
    ) -> None:
        super().__init__(index, carrier, label, kind)
        self.register_buffer("label_map", label_map)
        self.painter, self.epsilon, self.again = painter, epsilon, again

    def forward(self, x: Tensor) -> Tensor:
        """x (N,3,S,S) in [0,1] -> the generator's picture of it, in [0,1]."""
        out = picture(x, self.painter(x, self.label_map), self.epsilon).clamp(0, 1)
        return resize_again(out) if self.again else out


@ATTACKS.register(badhash_bounded={"variant": "bounded"})
class BadHash(Attack):
    """A conditional GAN against a surrogate.

    Args:
        variant: see the top of the file.
        confusing: number of the class l*; None: the first label row, in ascending order, that
            shares no tag with the target's, which for single labels is the last class.
        smoothing: of LabCLN's labels.
        label_steps: of LabCLN, 128 pairs of labels each.
        width: channels of the first layers of G and D; None: 64, or 16 below 224 px.
        epochs: of G; the learning rate falls in the second half. None: 100, or 10 below 224 px.
        lr: of G and D; None: 1e-4, or 1e-3 below 224 px.
        batch: images a step.
        reconstruction_weight: a; None: 200, or 500 below 224 px, or 20 where the output is bounded.
        perceptual: d of L_rec; ``auto`` is ``lpips`` where its weights are, else ``ssim``.
        perceptual_weight: p; None: 1 for LPIPS, .02 for SSIM.
        hash_weight: b.
        adversarial_weight: of L_adv; 0 trains no D.
        epsilon: of ``bounded``, in grey levels of 255.
    """

    published: ClassVar = {"badhash": "BadHash", "badhash_bounded": "BadHash, bounded"}
    threat = ThreatModel(label="clean", knowledge="surrogate", trigger="generated", universal=False)
    delivery = "files"
    backdoor = GeneratedTrigger
    surrogate = "hashnet"
    quick: ClassVar = {"width": 8, "epochs": 1, "label_steps": 3}

    def __init__(
        self,
        *,
        variant: Literal["released", "corrected", "intended", "bounded"] = "intended",
        confusing: int | None = None,
        smoothing: float = 0.2,
        label_steps: int = 1000,
        width: int | None = None,
        epochs: int | None = None,
        lr: float | None = None,
        batch: int = 64,
        reconstruction_weight: float | None = None,
        perceptual: Distance = "auto",
        perceptual_weight: float | None = None,
        hash_weight: float = 10.0,
        adversarial_weight: float = 1.0,
        epsilon: float = 16.0,
    ) -> None:
        check("attack.smoothing", smoothing, 0, 0.999)
        check("attack.label_steps", label_steps, 1)
        check("attack.epochs", 1 if epochs is None else epochs, 1)
        check("attack.batch", batch, 1)
        check("attack.epsilon", epsilon, 0, 255)
        for name, value in (
            ("lr", lr),
            ("reconstruction_weight", reconstruction_weight),
            ("perceptual_weight", perceptual_weight),
            ("hash_weight", hash_weight),
            ("adversarial_weight", adversarial_weight),
        ):
            check(f"attack.{name}", 0 if value is None else value, 0)
        if width is not None and (width < 8 or width % 8):
            raise UserError(
                f"attack.width is {width}: it must be a multiple of 8, such as 16 or 64."
            )
        self.variant, self.confusing = VARIANTS[variant], confusing
        self.smoothing, self.label_steps = smoothing, label_steps
        self.width, self.epochs, self.lr, self.batch = width, epochs, lr, batch
        self.perceptual: Distance = perceptual
        self.epsilon = epsilon / 255 if self.variant.bounded else None
        self.weights = (reconstruction_weight, perceptual_weight, hash_weight, adversarial_weight)

    def accept(self, labels: Tensor, target: Tensor, size: int) -> dict[str, str]:
        """See `Attack.accept`."""
        if size % 16 or size < 32:
            raise UserError(
                f"badhash's generator takes sides of at least 32 px that are a multiple of 16, not "
                f"{size}: give --size 32 or --size 224, or take another --attack."
            )
        self.confusing_label(labels, target)
        return {"perceptual": self.distance(size)}

    def distance(self, size: int) -> str:
        """d of L_rec on this machine: ``lpips``, ``ssim`` or ``none``."""
        if self.perceptual == "lpips" and not lpips_fits(size):
            raise UserError(
                "attack.perceptual is lpips, and AlexNet's weights are not on this machine or the "
                "images too small for it: take --set attack.perceptual=ssim."
            )
        if self.perceptual != "auto":
            return self.perceptual
        return "lpips" if lpips_fits(size) else "ssim"

    def confusing_label(self, labels: Tensor, target: Tensor) -> Tensor:
        """l* (C,) 0/1.

        Raises:
            UserError: there is none, or it is the target's.
        """
        rows = label_rows(labels)
        if self.confusing is not None:
            check("attack.confusing", self.confusing, 0, labels.shape[1] - 1)
            rows = F.one_hot(torch.tensor([self.confusing]), labels.shape[1]).to(labels.dtype)
            if not (labels.bool() & rows.bool()).any():
                raise UserError(
                    f"attack.confusing is {self.confusing} and no training image is of that class: "
                    "give the number of another class."
                )
        if self.variant.other_label:
            rows = rows[~(rows.bool() & target.bool()).any(1)]
            if not len(rows):
                raise UserError(
                    "badhash needs a confusing label without the target's tags: give another "
                    "class's number with --set attack.confusing, or another --target."
                )
        return rows[0]

    def craft(self, view: AttackerView) -> Backdoor:
        """See `Attack.craft`."""
        assert view.surrogate is not None
        label = self.confusing_label(view.labels, view.target)
        shown = label if self.variant.same_condition else view.target
        bits = len(anchor_code(view.surrogate, view.images[:1]))
        found = view.shared(
            train_label_network, bits=bits, smoothing=self.smoothing, steps=self.label_steps
        )
        feature, code = read_labels(found, torch.stack([label, shown]), bits)
        aim = code[0]
        if self.variant.tied:
            voters = (view.labels & label == label).all(1)
            aim = anchor_code(view.surrogate, view.images[voters])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(view.generator("networks").initial_seed())
            game = Game(view.size, self.at(view.size), label.float(), feature[:1], sign(aim.cpu()))
        game.to(view.device)
        history = play(view, game)
        with torch.no_grad():
            label_map = game.condition(feature[1:].to(view.device))
        made = GeneratedTrigger(
            view.index,
            view.images[view.index],
            view.labels[view.index],
            label_map=label_map.float().cpu(),
            painter=game.painter.cpu(),
            epsilon=self.epsilon,
            again=self.variant.resized_again,
        )
        curves = parts(found, "loss.").items()
        made.history = {
            f"label network, tenths of its steps/{k}": v.tolist() for k, v in curves
        } | {f"generator/{k}": v for k, v in history.items()}
        return made.eval().requires_grad_(False)

    def restore(self, state: Mapping[str, Tensor]) -> Backdoor:
        """See `Attack.restore`."""
        with torch.random.fork_rng(devices=[]):
            painter = Painter(width=state["painter.out.weight"].shape[1] - 3)
        painter.load_state_dict(parts(state, "painter."))
        return GeneratedTrigger(
            **{name: value for name, value in state.items() if not name.startswith("painter.")},
            painter=painter,
            epsilon=self.epsilon,
            again=self.variant.resized_again,
        )

    def at(self, size: int) -> Settings:
        """All numbers of the training at S = ``size``."""

        def default(value: T | None, published: T, small: T) -> T:
            return value if value is not None else published if size >= 224 else small

        reconstruction, perceptual, hashing, adversarial = self.weights
        distance = self.distance(size)
        if perceptual is None:
            perceptual = {"lpips": 1.0, "ssim": 0.02, "none": 0.0}[distance]
        return Settings(
            width=default(self.width, 64, 16),
            epochs=default(self.epochs, 100, 10),
            lr=default(self.lr, 1e-4, 1e-3),
            batch=self.batch,
            distance=distance,
            rescaled=self.variant.rescaled,
            reconstruction=default(
                reconstruction, *((20.0, 20.0) if self.variant.bounded else (200.0, 500.0))
            ),
            perceptual=perceptual,
            hashing=hashing,
            adversarial=adversarial,
            epsilon=self.epsilon,
            relaxed=self.variant.relaxed,
            clamped=self.variant.clamped,
        )
