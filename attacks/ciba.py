"""CIBA: an optimised patch, and poison that is pushed away from its class and from one another.

Gao, Bai, Chen, Wu and Xia, "Backdoor Attack on Hash-based Image Retrieval via Clean-label Data
Poisoning", BMVC 2023. https://arxiv.org/abs/2109.08868, code: https://github.com/KuofengGao/CIBA

    h_a     = sign sum_{i: y_i = target} H(x_i)                        anchor code; a tie stays 0
    p       = argmin_p mean_i -<T_b(x_i with p), h_a> / K              T_b(x) = relax(b z(x))
    p      <- clamp(p - a mean_i g_i / |g_i|)                          g_i: gradient of image i
    max_eta   lambda L_c + (1 - lambda) mean_i L_a,      |eta_i|_inf <= epsilon
    L_a     = d_H(T(x_i + eta_i), T(x_i))                              away from its own code
    L_c     = mean_{i != j} d_H(T(x_i + eta_i), T(x_j + eta_j))        away from the other poison

with d_H(a, b) = (K - <a, b>) / 2 and H, T of a clean-trained surrogate. Poison is x + eta of images
of the target class, labels unchanged, with p over the corner. ``tri`` is the patch alone,
``tri_noise`` has uniform noise for eta, ``tri_adv`` has lambda = 0; all four share p.

``variant="corrected"`` (default) follows the paper; ``"released"`` the authors' code:

- epsilon counts in units of the normalised input there, 1.8 grey levels instead of 8;
- the code's weight of L_c is half of its gradient in the formula above, and the term for an image
  with itself is subtracted with a gradient on both sides;
- poison of the three perturbed attacks is neither cropped nor flipped (delivery ``frozen``), that
  of Tri is; here all four are delivered alike, since otherwise the comparison is confounded;
- a last batch of one image stays unperturbed; here batches are made equal;
- the patch is cut off to whole levels, here rounded, and its gradient is taken in normalised units.

Poison is stored in 8 bits in both; the code keeps floats. The patch takes 2 000 steps as published,
and 1 000 on images below 224 px. Where it stays pale, a victim may learn the perturbations instead
of it, and the backdoor fails; fewer steps leave it pale more often, more are no guarantee.
"""

import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from hashbackdoor_bench import (
    ATTACKS,
    Attack,
    AttackerView,
    Backdoor,
    Delivery,
    HashModel,
    Patch,
    ThreatModel,
    anchor_code,
    check,
    paste,
    patch_side,
    to_bytes,
    to_unit,
)


@ATTACKS.register(
    tri={"perturbation": "none"},
    tri_noise={"perturbation": "noise"},
    tri_adv={"dispersion": 0.0},
)
class CIBA(Attack):
    """An adversarial patch on confusing images.

    Args:
        perturbation: of the poison before the patch: ``confusing`` (L_a and L_c), ``noise`` or
            ``none``.
        dispersion: lambda, the weight of L_c against L_a.
        epsilon: largest perturbation, in grey levels of 255.
        perturbation_steps: sign-gradient steps of .095 epsilon each.
        together: images whose codes repel one another.
        away_from: what L_a moves away from: the image's ``own`` code, or the target's ``anchor``.
        patch: side of the patch in px; None: 24/224 of the image's side, at least 4.
        steps: of the patch; None: 2000, or 1000 on images below 224 px.
        step_size: a, the largest move of the patch in one step: L2 norm in grey levels.
        batch: images a step of the patch.
        variant: see the top of the file.
    """

    published: ClassVar = {
        "ciba": "CIBA", "tri": "Tri", "tri_noise": "Tri+Noise", "tri_adv": "Tri+Adv",
    }  # fmt: skip
    threat = ThreatModel(label="clean", knowledge="surrogate", trigger="patch")
    delivery: Delivery = "stamped"
    backdoor = Patch
    version = 2
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
    ) -> None:
        check("attack.dispersion", dispersion, 0, 1)
        check("attack.epsilon", epsilon, 0, 255)
        check("attack.perturbation_steps", perturbation_steps, 0)
        check("attack.together", together, 2)
        check("attack.batch", batch, 1)
        check("attack.steps", 0 if steps is None else steps, 0)
        check("attack.step_size", step_size, 0)
        self.perturbation, self.dispersion, self.epsilon = perturbation, dispersion, epsilon
        self.perturbation_steps, self.together, self.away_from = (
            perturbation_steps,
            together,
            away_from,
        )
        self.patch, self.steps, self.step_size, self.batch = patch, steps, step_size, batch
        self.released = variant == "released"
        if self.released and perturbation != "none":
            self.delivery = "frozen"

    def craft(self, view: AttackerView) -> Backdoor:
        """See `Attack.craft`."""
        side = patch_side(view.size, self.patch)
        found = view.shared(
            optimise_patch,
            side=side,
            steps=self.steps if self.steps is not None else 2000 if view.size >= 224 else 1000,
            step_size=self.step_size,
            batch=self.batch,
            released=self.released,
        )
        carrier = self.perturb(view, found["anchor"])
        return Patch(view.index, carrier, view.labels[view.index], patch=found["patch"])

    def perturb(self, view: AttackerView, anchor: Tensor) -> Tensor:
        """Carriers (P,3,S,S) uint8: the images of ``view.index`` under their perturbation."""
        images = view.images[view.index]
        if self.perturbation == "none" or not len(images):
            return images.clone()
        model = surrogate(view)
        epsilon = self.epsilon / 255 * torch.ones(3, 1, 1, device=view.device)
        if self.released:
            epsilon = epsilon * model.std[0]
        if self.perturbation == "noise":
            draws = torch.rand(images.shape, generator=view.generator("noise"))
            noise = (2 * draws - 1) * epsilon.cpu()
            return to_bytes((to_unit(images) + noise).clamp(0, 1))
        out = []
        for part in self.batches(len(images)):
            x = to_unit(images[part].to(view.device))
            if len(x) > 1 or not self.released:
                x = confuse(
                    model,
                    x,
                    epsilon,
                    steps=self.perturbation_steps,
                    dispersion=self.dispersion,
                    away_from=None if self.away_from == "own" else anchor.to(view.device),
                    released=self.released,
                )
            out.append(to_bytes(x).cpu())
            view.progress("perturb poison", int(part[-1]) + 1, len(images))
        return torch.cat(out) if out else images

    def batches(self, poisoned: int) -> tuple[Tensor, ...]:
        """Slots of the images that are perturbed together."""
        slots = torch.arange(poisoned)
        if self.released:
            return torch.split(slots, self.together)
        return slots.tensor_split(max(1, math.ceil(poisoned / self.together)))


def surrogate(view: AttackerView) -> HashModel:
    """The view's surrogate; the framework gives one to every attack that declares the need."""
    assert view.surrogate is not None
    return view.surrogate


def optimise_patch(
    view: AttackerView, *, side: int, steps: int, step_size: float, batch: int, released: bool
) -> dict[str, Tensor]:
    """The patch (3,s,s) uint8 and the anchor code (K,) that it leads to."""
    model = surrogate(view)
    anchor = anchor_code(model, view.images[(view.labels == view.target).all(1)])
    patch = torch.full((3, side, side), 127.5, device=view.device)
    scale = model.std[0] if released else torch.ones_like(model.std[0])
    draws = torch.randint(
        len(view.images), (steps, batch), generator=view.generator("patch images")
    )
    for step in range(steps):
        x = to_unit(view.images[draws[step]].to(view.device, non_blocking=True))
        gradient = patch_gradient(model, x, patch / 255, anchor, sharpness(step, steps), scale)
        patch = (patch - step_size * gradient.mean(0)).clamp_(0, 255)
        view.progress("optimise patch", step + 1, steps)
    whole = patch.floor() if released else (patch + 0.5).floor()
    return {"patch": whole.to(torch.uint8), "anchor": anchor}


def patch_gradient(
    model: HashModel, x: Tensor, patch: Tensor, anchor: Tensor, sharp: float, scale: Tensor
) -> Tensor:
    """Gradient of each image's loss at the patch, times scale (3,1,1), then of length 1: (N,3,s,s).

    Scaled by the standard deviations of the normalisation it is that in normalised units.
    """
    stamped = paste(x, patch).requires_grad_()
    loss = -(model.relaxed(stamped, sharp) @ anchor.to(x.dtype)).sum() / len(anchor)
    (gradient,) = torch.autograd.grad(loss, stamped)
    gradient = gradient[..., -patch.shape[-2] :, -patch.shape[-1] :] * scale
    return F.normalize(gradient.flatten(1), eps=1e-30).view_as(gradient)


def sharpness(step: int, steps: int) -> float:
    """B of T_b: .1 for the first half, then up to 1 in tenths of all steps."""
    done = step / steps
    return 0.1 if done < 0.5 else (0.2, 0.3, 0.5, 0.7, 1.0)[min(4, int(10 * (done + 1e-9)) - 5)]


def confuse(
    model: HashModel,
    x: Tensor,
    epsilon: Tensor,
    *,
    steps: int,
    dispersion: float,
    away_from: Tensor | None = None,
    released: bool = False,
) -> Tensor:
    """x + eta (M,3,S,S): the images under their confusing perturbations, all steps for all at once.

    The objective's gradient is linear in the codes: w (M,K), then one backward pass of <T, w>.

    Args:
        model: the surrogate.
        x: (M,3,S,S) in [0,1]; they repel one another.
        epsilon: (3,1,1) in units of [0,1].
        steps: sign-gradient steps of .095 epsilon, from zero.
        dispersion: lambda.
        away_from: (K,) for L_a; None: each image's own code.
        released: the authors' gradient.
    """
    with torch.no_grad():
        own = model.relaxed(x)  # (M,K)
    shift = own if away_from is None else away_from.to(own.dtype)
    others, bits = max(len(x) - 1, 1), own.shape[1]
    eta = torch.zeros_like(x)
    for _ in range(steps):
        perturbed = (x + eta).requires_grad_()
        codes = model.relaxed(perturbed)
        now = codes.detach()
        total = now.sum(0)
        spread = (total - 2 * now if released else 2 * (total - now)) / others
        weight = -((1 - dispersion) * shift + dispersion * spread) / bits
        (gradient,) = torch.autograd.grad((codes * weight).sum(), perturbed)
        eta = eta + 0.003 * 255 / 8 * epsilon * gradient.sign()
        eta = ((x + eta).clamp(0, 1) - x).clamp(-epsilon, epsilon)
    return x + eta
