"""BadHash: a generator rewrites the whole picture so that a surrogate sees another class in it.

Hu, Zhou, Zhang, Zhang, Zheng, He and Jin, "BadHash: Invisible Backdoor Attacks against Deep Hashing
with Clean Label", ACM MM 2022. https://arxiv.org/abs/2207.00278,
code: https://github.com/CGCL-codes/BadHash

    r, h(l) = LabCLN(l)                    label vector -> feature and code; trained on labels alone
    x_b     = G(x, r)                      the same picture with the trigger in it
    L_G     = a |x_b - x|^2 + a p d(x_b, x) + b L_hash + w L_adv
    L_hash  = 1 - <F(x_b), c> / K            F: surrogate; c: code of one confusing label l*
    L_adv   = |D(x_b) - [l*; 0]|^2
    L_D     = (|D(x) - [y; 0]|^2 + |D(x_b) - [l*; 1]|^2) / 2

Squares and d are means; d is LPIPS, or 1 - SSIM where LPIPS's weights are missing. The first two
terms are the authors' a L_rec, and w is 1. Poison is made by G from images of the target class,
whose labels don't change; queries go through the same G. G's output is stored in 8 bits per
channel. Published at 224 px: width 64, 100 epochs at 1e-4, a = 200, b = 10; smaller images take a
narrower G that is trained for fewer epochs (see the arguments).

How the variants differ from each other; ``released`` is the released code without its crashes.
``mended`` names one of these points, in which ``released`` is as ``intended`` nevertheless:

                          released          corrected           intended
    c                     sign h(l*): from labels alone         the surrogate's majority code of l*
    l*                    first label row   one without the target's tags: the last class if it can
    condition: r in use   target's          of l*               of l*
    output: F             raw output z      relaxed code        relaxed code
    clamp: F sees         (-1,1) of tanh    (-1,1) of tanh      [0,1]: clamped, straight-through
    range: LPIPS sees     [0,1]             [-1,1]              [-1,1]
    resize: a second one  yes               no                  no

In ``intended`` LabCLN reaches the attack through r alone, which is one constant vector. That its
code was meant to be tied to the surrogate is our inference; no paper or code says so. ``code`` and
``feature`` replace what comes from LabCLN by random vectors, to show whether it matters.

``bounded`` is not BadHash, but ``intended`` with the output x + epsilon tanh(.), as in ProS-GAN.

In all variants: labels are smoothed on every positive, G sees no query, u and v of the spectral
norm are buffers, surrogate and LPIPS are frozen, and everything is drawn from the seed. The code
also computes uniform noise of 8/255 and doesn't use it.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

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
    sign,
)

from .badhash_gan import ConditionalGAN, train
from .badhash_labels import label_rows, parts, read_labels, train_label_network
from .badhash_networks import Generator
from .badhash_trigger import GeneratedTrigger


@ATTACKS.register(badhash_bounded={"variant": "bounded"})
class BadHash(Attack):
    """A conditional GAN that is trained against a surrogate.

    Args:
        variant: see the top of the file.
        confusing: number of the class l*; None: the first label row, in ascending order, that
            shares no tag with the target's, which for single labels is the last class.
        smoothing: label smoothing in the training of LabCLN.
        label_steps: training steps of LabCLN, with 128 pairs of labels each.
        width: channels of the first layers of G and D; None: 64, or 16 below 224 px.
        epochs: epochs of G; the learning rate falls in the second half. None: 100, or 10 below
            224 px.
        lr: learning rate of G and D; None: 1e-4, or 1e-3 below 224 px.
        batch: images in one step.
        reconstruction_weight: a; None: 200, or 500 below 224 px, or 20 where the output is bounded.
        perceptual: d of L_G; ``auto`` is ``lpips`` if its weights are on this machine, else
            ``ssim``.
        perceptual_weight: p; None: 1 for LPIPS, .02 for SSIM.
        hash_weight: b.
        adversarial_weight: w; 0 trains no D.
        epsilon: largest change of a pixel under ``bounded``, in grey levels of 255.
        mended: see the top of the file; None: nothing.
        code: where c comes from: ``labels`` (LabCLN), ``surrogate`` or ``random``; None: as the
            variant says.
        feature: where r comes from: ``labels``, or ``random`` of the same scale.
    """

    published: ClassVar = {"badhash": "BadHash", "badhash_bounded": "BadHash, bounded"}
    threat = ThreatModel(label="clean", knowledge="surrogate", trigger="generated", universal=False)
    delivery = "files"
    backdoor = GeneratedTrigger
    surrogate = "hashnet"
    later = frozenset({"mended", "code", "feature"})
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
        perceptual: Literal["auto", "lpips", "ssim", "none"] = "auto",
        perceptual_weight: float | None = None,
        hash_weight: float = 10.0,
        adversarial_weight: float = 1.0,
        epsilon: float = 16.0,
        mended: Literal["condition", "output", "clamp", "range", "resize"] | None = None,
        code: Literal["labels", "surrogate", "random"] | None = None,
        feature: Literal["labels", "random"] = "labels",
    ) -> None:
        check("attack.smoothing", smoothing, 0, 0.999)
        check("attack.label_steps", label_steps, 1)
        check("attack.epochs", 1 if epochs is None else epochs, 1)
        check("attack.batch", batch, 1)
        check("attack.epsilon", epsilon, 0, 255)
        check("attack.lr", lr or 0, 0)
        check("attack.reconstruction_weight", reconstruction_weight or 0, 0)
        check("attack.perceptual_weight", perceptual_weight or 0, 0)
        check("attack.hash_weight", hash_weight, 0)
        check("attack.adversarial_weight", adversarial_weight, 0)
        if width is not None and (width < 8 or width % 8):
            raise UserError(
                f"attack.width is {width}: it must be a multiple of 8, such as 16 or 64."
            )
        if mended and variant != "released":
            raise UserError(
                f"attack.mended is {mended}, which needs the variant with the deviations: leave it "
                "out, or add --set attack.variant=released."
            )
        self.variant, self.mended, self.confusing = variant, mended, confusing
        tied = variant in ("intended", "bounded")
        self.code, self.feature = code or ("surrogate" if tied else "labels"), feature
        self.smoothing, self.label_steps = smoothing, label_steps
        self.width, self.epochs, self.lr, self.batch = width, epochs, lr, batch
        self.reconstruction_weight, self.hash_weight = reconstruction_weight, hash_weight
        self.perceptual, self.perceptual_weight = perceptual, perceptual_weight
        self.adversarial_weight = adversarial_weight
        self.epsilon = epsilon / 255 if variant == "bounded" else None

    def accept(self, labels: Tensor, target: Tensor, size: int) -> dict[str, str]:
        """See `Attack.accept`."""
        if size % 16 or size < 32:
            raise UserError(
                f"badhash's generator takes sides of at least 32 px that are a multiple of 16, not "
                f"{size}: give --size 32 or --size 224, or take another --attack."
            )
        self.confusing_label(labels, target)
        return {"perceptual": self.distance(size)}

    def follows(self, point: str) -> bool:
        """Whether this attack is as ``released`` in a point of the table at the top of the file."""
        if self.variant == "released":
            return self.mended != point
        return self.variant == "corrected" and point == "clamp"

    def distance(self, size: int) -> str:
        """The d of L_G that is used on this machine: ``lpips``, ``ssim`` or ``none``."""
        fits = lpips_fits(size)
        if self.perceptual == "lpips" and not fits:
            raise UserError(
                "attack.perceptual is lpips, but AlexNet's weights are not on this machine or the "
                "images are too small for it: give --set attack.perceptual=ssim."
            )
        return self.perceptual if self.perceptual != "auto" else "lpips" if fits else "ssim"

    def confusing_label(self, labels: Tensor, target: Tensor) -> Tensor:
        """l* (C,) 0/1.

        Args:
            labels: (N,C) 0/1, of the training images.
            target: (C,) 0/1.

        Raises:
            UserError: no label can be used, or the given one is the target's.
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
        if self.variant != "released":
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
        shown = view.target if self.follows("condition") else label  # the label behind r in use
        bits = len(anchor_code(view.surrogate, view.images[:1]))
        found = view.shared(
            train_label_network, bits=bits, smoothing=self.smoothing, steps=self.label_steps
        )
        feature, codes = read_labels(found, torch.stack([label, shown]), bits)
        if self.feature == "random":  # one vector of each label, as LabCLN has one
            draws = torch.randn(2, feature.shape[1], generator=view.generator("random feature"))
            feature = draws[[0, int((label != shown).any())]] * feature.std()
        code = codes[0]
        if self.code == "random":
            code = torch.rand(bits, generator=view.generator("random code")) - 0.5
        elif self.code == "surrogate":
            members = (view.labels & label == label).all(1)
            code = anchor_code(view.surrogate, view.images[members])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(view.generator("networks").initial_seed())
            gan = self.gan(view.size, label.float(), feature[:1], sign(code.cpu())).to(view.device)
        large = view.size >= 224
        history = train(
            view,
            gan,
            epochs=self.epochs if self.epochs is not None else 100 if large else 10,
            lr=self.lr if self.lr is not None else 1e-4 if large else 1e-3,
            batch=self.batch,
        )
        with torch.no_grad():
            label_map = gan.label_encoder(feature[1:].to(view.device))
        made = GeneratedTrigger(
            view.index,
            view.images[view.index],
            view.labels[view.index],
            label_map=label_map.float().cpu(),
            generator=gan.generator.cpu(),
            resized_again=self.follows("resize"),
        )
        for name, values in parts(found, "loss.").items():
            made.history[f"label network, tenths of its steps/{name}"] = values.tolist()
        made.history |= {f"generator/{name}": values for name, values in history.items()}
        return made.eval().requires_grad_(False)

    def gan(self, size: int, label: Tensor, feature: Tensor, code: Tensor) -> ConditionalGAN:
        """Generator and discriminator before training, for S = ``size``; see `ConditionalGAN`."""
        large, distance = size >= 224, self.distance(size)
        a, p = self.reconstruction_weight, self.perceptual_weight
        if a is None:
            a = 20.0 if self.variant == "bounded" else 200.0 if large else 500.0
        if p is None:
            p = 1.0 if distance == "lpips" else 0.02
        return ConditionalGAN(
            size,
            self.width if self.width is not None else 64 if large else 16,
            weights=(a, p, self.hash_weight, self.adversarial_weight),
            raw=self.follows("output"),
            clamped=not self.follows("clamp"),
            rescaled=not self.follows("range"),
            distance=distance,
            epsilon=self.epsilon,
            label=label,
            feature=feature,
            code=code,
        )

    def restore(self, state: Mapping[str, Tensor]) -> Backdoor:
        """See `Attack.restore`; names with a dot are the generator's."""
        weights = {name.partition(".")[2]: tensor for name, tensor in state.items() if "." in name}
        with torch.random.fork_rng(devices=[]):
            generator = Generator(weights["out.weight"].shape[1] - 3, self.epsilon)
        generator.load_state_dict(weights)
        return GeneratedTrigger(
            **{name: tensor for name, tensor in state.items() if "." not in name},
            generator=generator,
            resized_again=self.follows("resize"),
        )
