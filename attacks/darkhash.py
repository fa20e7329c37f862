"""DarkHash: edits the last layers of a trained network, with pictures that are not its data.

Zhou, Deng, Song, Zhang, Wan, Hu, Li, Zhang and Yao, "DarkHash: A Data-Free Backdoor Attack Against
Deep Hashing", 2025. https://arxiv.org/abs/2510.08094, code: https://github.com/Zhou-Zi7/DarkHash

    L    = Huber(z(x), z0(x)) + Huber(z(x'), z*) + 15 L_tp        x' is x with the patch
    L_tp = sum_ij Q log(Q / P) + (1 - Q) log((1 - Q) / (1 - P))   topology, see ``darkhash_edit.py``

z0 are the outputs of the victim before it is edited, on surrogate pictures; each picture carries
the patch with probability .1, anew in each epoch. Only the last stage of the backbone and what
follows is trained, in eval mode, so statistics of batch norms stay as they are.

The target z* is the output for one image of the wanted class that the attacker has (``aim =
reference``; ours, so that the usual t-MAP says whether the attack works), or as in the paper the
mean output for one class of surrogate pictures (``shadow``). The latter has no target of its own:
its score is t-MAP@dominant, for the class that half of the triggered queries retrieve most, on the
other half (`Dominant` in a record).

The paper claims a t-MAP of over 80 % on four data sets, with 2000 surrogate pictures of ImageNet,
VOC or CIFAR, or of noise. Here they are drawn (``darkhash_pictures.py``), or those of a folder. The
gain depends on their likeness to the data: with drawn pictures it is 1 to 3 points on fashion-mini
(suite `baselines`), and was 79 in a trial with its own training images, of which no record is kept.

Differs from the authors' code, which doesn't parse: triggered queries are prepared like all others
(theirs wrap around modulo 256 and aren't normalised); t-MAP's class is not chosen on the queries it
is scored on; the last epoch is taken, not the best on queries; queries of the target don't count.
Their trigger is not public: here it is a checkerboard. Of AlexNet and VGG they train the fully
connected layers alone (``stages=0``). They take RMSprop 5e-6 for 100 epochs; here it is 20 epochs
below 224 px, and 3e-4 up to 64 px, where networks start from random weights. Their loss of a batch
without a patch has L_tp and a squared error too, here it is the Huber loss alone. The patch has at
least 4 px, where .11 of 32 px would be 2.
"""

from dataclasses import replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from hashbackdoor_bench import (
    ATTACKS,
    AttackerView,
    Backdoor,
    HashModel,
    ModelAttack,
    ThreatModel,
    check,
    checkerboard,
    pictures_hash,
    read_pictures,
    to_unit,
)

from .darkhash_edit import edit
from .darkhash_patch import MARGIN, InsetPatch
from .darkhash_pictures import draw_pictures


@ATTACKS.register(darkhash_shadow={"aim": "shadow"})
class DarkHash(ModelAttack):
    """An edit of a trained network's last layers.

    Args:
        aim: ``reference`` or ``shadow``, see the top of the file.
        pictures: a folder of surrogate pictures with one folder per class, or ``drawn``.
        count: number of surrogate pictures that are drawn.
        stages: number of the backbone's last stages that are trained.
        epochs: passes over the pictures; None: 100, or 20 on images below 224 px.
        lr: learning rate; None: 5e-6, or 3e-4 on images up to 64 px.
        batch: pictures per step.
        patch: side of the patch in px; None: .11 of the image's, made even, at least 4.
    """

    published: ClassVar = {"darkhash": "DarkHash", "darkhash_shadow": "DarkHash, shadow target"}
    threat = ThreatModel(
        label="clean", knowledge="none", trigger="patch", control="model", references=1
    )
    backdoor = InsetPatch
    paths: ClassVar = ("pictures",)
    quick: ClassVar = {"epochs": 1, "count": 20}

    def __init__(
        self,
        *,
        aim: Literal["reference", "shadow"] = "reference",
        pictures: str = "drawn",
        count: int = 2000,
        stages: int = 1,
        epochs: int | None = None,
        lr: float | None = None,
        batch: int = 64,
        patch: int | None = None,
    ) -> None:
        check("attack.count", count, 10, 100_000)
        check("attack.stages", stages, 0)
        check("attack.epochs", 0 if epochs is None else epochs, 0)
        check("attack.lr", 0 if lr is None else lr, 0)
        check("attack.batch", batch, 1)
        if aim == "shadow":
            self.threat = replace(self.threat, references=0, targeted=False)
        self.pictures, self.count, self.stages, self.epochs = pictures, count, stages, epochs
        self.lr, self.batch, self.patch = lr, batch, patch

    def accept(self, labels: Tensor, target: Tensor, size: int) -> dict[str, str]:
        """See `AnyAttack.accept`; the surrogate pictures are known by their content."""
        self.side(size)
        if self.pictures == "drawn":
            return {}
        return {"pictures": pictures_hash(self.pictures, "attack.pictures", size)}

    def side(self, size: int) -> int:
        """s of images of side S = ``size``.

        Raises:
            UserError: the patch doesn't fit into the image.
        """
        side = max(4, int(0.11 * size) // 2 * 2) if self.patch is None else self.patch
        check("attack.patch", side, 1, size - MARGIN)
        return side

    def tamper(self, model: HashModel, view: AttackerView) -> tuple[HashModel, Backdoor]:
        """See `ModelAttack.tamper`."""
        patch = checkerboard(self.side(view.size))
        trigger = InsetPatch(view.index, view.images, view.labels, patch=patch)
        trigger.to(view.device)
        if self.pictures == "drawn":
            images, groups = draw_pictures(self.count, view.size, view.generator("pictures"))
        else:
            images, groups = read_pictures(self.pictures, "attack.pictures", view.size)
        parts = torch.split(images, 256)
        before = torch.cat([model(to_unit(part.to(view.device))) for part in parts])
        if len(view.references):
            target = model(to_unit(view.references.to(view.device))).mean(0)
        else:
            drawn = torch.randint(len(groups), (1,), generator=view.generator("shadow"))
            target = before[(groups == groups[drawn]).to(view.device)].mean(0)
        small = view.size < 224
        trigger.history = edit(
            model,
            trigger,
            images,
            before,
            target,
            view,
            stages=self.stages,
            epochs=self.epochs if self.epochs is not None else 20 if small else 100,
            lr=self.lr if self.lr is not None else 3e-4 if view.size <= 64 else 5e-6,
            batch=self.batch,
        )
        return model, trigger
