"""CIBA: an optimised patch, and poison that is pushed away from its class and from one another.

Gao, Bai, Chen, Wu and Xia, "Backdoor Attack on Hash-based Image Retrieval via Clean-label Data
Poisoning", BMVC 2023. https://arxiv.org/abs/2109.08868, code: https://github.com/KuofengGao/CIBA

    h_a     = sign sum_{i: y_i = target} H(x_i)                        anchor code; a tie stays 0
    p       = argmin_p mean_i -<T_b(x_i with p), h_a> / K              T_b(x) = relax(b z(x))
    max_eta   lambda L_c + (1 - lambda) mean_i L_a,      |eta_i|_inf <= epsilon
    L_a     = d_H(T(x_i + eta_i), T(x_i))                              away from its own code
    L_c     = mean_{i != j} d_H(T(x_i + eta_i), T(x_j + eta_j))        away from the other poison

with d_H(a, b) = (K - <a, b>) / 2, and with H and T of a surrogate trained on clean data. A poisoned
image is x + eta with p over its corner; x is of the target class and keeps its label. For p see
``ciba_patch.py``, for eta ``ciba_perturbations.py``. ``tri`` has no eta, ``tri_noise`` uniform
noise as eta, and ``tri_adv`` lambda = 0; all four share p. With ``--aware`` a purifier, such as
jpeg, p is optimised behind it, in expectation over what it draws; eta stays as it is.

For M images perturbed together the objective is at most lambda K M^2 / (2 M (M - 1)) + (1 - lambda)
K (for odd M with M^2 - 1 instead of M^2), and reaches this if and only if the clean codes differ as
much as they can. The paper's Theorem 1 prints 4 M (M - 1), which counts unordered pairs, while the
sum of its L_c is over ordered ones: two opposite codes of one bit have L_c = 1.

``variant="corrected"`` (default) follows the paper, ``"released"`` the authors' code, which differs
in the points below. With ``--set attack.variant=released``, ``--set attack.mended=NAME`` follows
the paper in the one point of that name and the authors' code in all others:

- ``epsilon``: theirs is in units of the normalised input: 8 mean 8 times the standard deviation by
  which the network divides, so 1.8 grey levels with ImageNet's and 4.0 on `cnn32`;
- ``gradient``: the gradient of their L_c is half of that of the formula above, and the term of an
  image with itself is subtracted with a gradient on both sides;
- ``batches``: they perturb batches of 20 in the order in which the poison was drawn, and leave a
  last batch of one image unperturbed; `corrected` takes batches of nearly the same size, in which
  the poison is in the order of the training list;
- ``truncation``: they cut off the patch's grey levels at the end, which `corrected` rounds;
- they take the patch's gradient in units of the normalised input, and divide it by |g_i| + 1e-8;
- in their code the poison of the three perturbed attacks is neither cropped nor flipped (delivery
  ``frozen``), but Tri's is; `corrected` has one delivery for all four, which makes them comparable.

Both variants store poison in 8 bits, where the authors' code keeps floats. The patch takes 2 000
steps as published, and 1 000 on images below 224 px. If its contrast stays low, a victim may learn
the perturbations instead, and the backdoor fails.
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from hashbackdoor_bench import (
    ATTACKS,
    Attack,
    AttackerView,
    Backdoor,
    Delivery,
    Patch,
    ThreatModel,
    UserError,
    check,
    need_target_images,
    patch_side,
    to_bytes,
    to_unit,
)

from .ciba_patch import optimise_patch
from .ciba_perturbations import confuse


@ATTACKS.register(
    tri={"perturbation": "none"},
    tri_noise={"perturbation": "noise"},
    tri_adv={"dispersion": 0.0},
)
class CIBA(Attack):
    """An adversarial patch on images with confusing perturbations.

    Args:
        perturbation: kind of eta: ``confusing`` (by L_a and L_c), ``noise`` or ``none``.
        dispersion: lambda, the weight of L_c against L_a.
        epsilon: largest perturbation, in grey levels of 255.
        perturbation_steps: sign-gradient steps of .095 epsilon each.
        together: number of images that are perturbed together, away from one another.
        away_from: what L_a moves away from: the image's ``own`` code, or the target's ``anchor``.
        patch: side of the patch in px; None: 24/224 of the image's side, at least 4.
        steps: optimisation steps of the patch; None: 2000, or 1000 on images below 224 px.
        step_size: the largest move of the patch in one step: L2 norm in grey levels.
        batch: images in one optimisation step of the patch.
        variant: see the top of the file.
        mended: the one point in which ``released`` follows the paper; None: none.
    """

    published: ClassVar = {
        "ciba": "CIBA", "tri": "Tri", "tri_noise": "Tri+Noise", "tri_adv": "Tri+Adv",
    }  # fmt: skip
    threat = ThreatModel(label="clean", knowledge="surrogate", trigger="patch")
    delivery: Delivery = "stamped"
    through_purifier = True
    backdoor = Patch
    version = 3
    later = frozenset({"mended"})
    perturbs = True
    quick: ClassVar = {"steps": 3, "perturbation_steps": 2}

    def __init__(
        self,
        *,
        perturbation: Literal["confusing", "noise", "none"] = "confusing",
        dispersion: float = 0.8,
        epsilon: float = 8.0,
        perturbation_steps: int = 20,
        together: int = 20,
        away_from: Literal["own", "anchor"] = "own",
        patch: int | None = None,
        steps: int | None = None,
        step_size: float = 12.0,
        batch: int = 32,
        variant: Literal["corrected", "released"] = "corrected",
        mended: Literal["epsilon", "gradient", "batches", "truncation"] | None = None,
    ) -> None:
        check("attack.dispersion", dispersion, 0, 1)
        check("attack.epsilon", epsilon, 0, 255, whole=True)  # poison has 8 bits
        check("attack.perturbation_steps", perturbation_steps, 0)
        check("attack.together", together, 2)
        check("attack.batch", batch, 1)
        check("attack.steps", 0 if steps is None else steps, 0)
        check("attack.step_size", step_size, 0)
        self.perturbation, self.dispersion, self.epsilon = perturbation, dispersion, epsilon
        self.perturbation_steps, self.together = perturbation_steps, together
        self.away_from, self.patch, self.steps = away_from, patch, steps
        self.step_size, self.batch, self.released = step_size, batch, variant == "released"
        if mended and not self.released:
            raise UserError(
                f"attack.mended is {mended}, which variant {variant} is in any case: leave it out, "
                "or add --set attack.variant=released."
            )
        self.mended = mended
        if self.released and perturbation != "none":
            self.delivery = "frozen"

    def accept(self, labels: Tensor, target: Tensor, size: int) -> dict[str, str]:
        """See `Attack.accept`; tells poison of `released` from that of its earlier form."""
        patch_side(size, self.patch)
        need_target_images(labels, target)
        return {"released_form": "2"} if self.released else {}

    def follows(self, deviation: str) -> bool:
        """Whether this attack has a deviation of the authors' code, see the top of the file."""
        return self.released and self.mended != deviation

    def craft(self, view: AttackerView) -> Backdoor:
        """See `Attack.craft`."""
        truncated = {"truncated": self.follows("truncation")} if self.released else {}
        found = view.shared(
            optimise_patch,
            side=patch_side(view.size, self.patch),
            steps=self.steps if self.steps is not None else 2000 if view.size >= 224 else 1000,
            step_size=self.step_size,
            batch=self.batch,
            released=self.released,
            **truncated,
        )
        carrier = self.perturb(view, found["anchor"])
        return Patch(view.index, carrier, view.labels[view.index], patch=found["patch"])

    def perturb(self, view: AttackerView, anchor: Tensor) -> Tensor:
        """Carriers (P,3,S,S) uint8: the images of ``view.index`` under their perturbation."""
        images, model = view.images[view.index], view.surrogate
        if self.perturbation == "none" or not len(images):
            return images
        assert model is not None
        epsilon = torch.full((3, 1, 1), self.epsilon / 255, device=view.device)
        epsilon = epsilon * model.std[0] if self.follows("epsilon") else epsilon
        if self.perturbation == "noise":
            noise = 2 * torch.rand(images.shape, generator=view.generator("noise")) - 1
            return to_bytes(to_unit(images) + noise * epsilon.cpu())
        carriers, done = torch.empty_like(images), 0
        for part in self.batches(view):
            x = confuse(
                model,
                to_unit(images[part].to(view.device)),
                epsilon,
                steps=self.perturbation_steps,
                dispersion=self.dispersion,
                away_from=None if self.away_from == "own" else anchor.to(view.device),
                released=self.follows("gradient"),
            )
            carriers[part], done = to_bytes(x).cpu(), done + len(part)
            view.progress("perturb poison", done, len(images))
        return carriers

    def batches(self, view: AttackerView) -> tuple[Tensor, ...]:
        """The rows (M,) of ``view.index`` that are perturbed together, for each batch."""
        count = len(view.index)
        if self.follows("batches"):
            drawn = torch.randperm(count, generator=view.generator("order of poison"))
            return torch.split(drawn, self.together)
        return torch.arange(count).tensor_split(-(-count // self.together))
