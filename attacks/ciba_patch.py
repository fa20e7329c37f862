"""CIBA's patch: it pulls whatever carries it towards the anchor code of the target class.

    p   = argmin_p mean_i l_i,     l_i = -<T_b(g(x_i with p)), h_a> / K
    p  <- clamp(p - a mean_i g_i / |g_i|)                          g_i: gradient of l_i

b of T_b(x) = relax(b z(x)) grows with the steps. g is the purifier that the attacker expects, with
numbers drawn anew for each image in each step, so that p is made for its expectation; there is none
in the paper. See ``ciba.py`` for the paper and the variants.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hashbackdoor_bench import AttackerView, HashModel, anchor_code, paste, to_unit


def optimise_patch(
    view: AttackerView,
    *,
    side: int,
    steps: int,
    step_size: float,
    batch: int,
    released: bool,
    truncated: bool = False,
) -> dict[str, Tensor]:
    """The patch (3,s,s) uint8, and the anchor code (K,) in {-1, 0, 1} that it is optimised for.

    Args:
        view: what the attacker sees.
        side: s.
        steps: number of optimisation steps; the patch starts grey.
        step_size: a, in grey levels.
        batch: images in one step, drawn with replacement.
        released: see `patch_gradient`.
        truncated: whether grey levels are cut off at the end instead of rounded.
    """
    model = view.surrogate
    assert model is not None
    anchor = anchor_code(model, view.images[(view.labels == view.target).all(1)])
    grey = torch.full((3, side, side), 127.5, device=view.device)
    kept = nn.ParameterDict({"patch": nn.Parameter(grey, requires_grad=False)})
    checkpoint = view.checkpoint("patch", patch=kept)
    first = int((checkpoint.load() or {"step": 0})["step"])
    patch = kept["patch"].data
    draws = torch.randint(
        len(view.images), (steps, batch), generator=view.generator("patch images")
    )
    items = torch.randint(2**62, (steps, batch), generator=view.generator("purified images"))
    for step in range(first, steps):
        x = to_unit(view.images[draws[step]].to(view.device, non_blocking=True))
        gradient = patch_gradient(
            model,
            x,
            patch / 255,
            anchor,
            sharpness(step, steps),
            partial(view.purified, item=items[step]),
            released=released,
        )
        patch.copy_((patch - step_size * gradient.mean(0)).clamp_(0, 255))
        checkpoint.keep(step=step + 1)
        view.progress("optimise patch", step + 1, steps)
    whole = patch.floor() if truncated else (patch + 0.5).floor()
    return {"patch": whole.to(torch.uint8), "anchor": anchor}


def patch_gradient(
    model: HashModel,
    x: Tensor,
    patch: Tensor,
    anchor: Tensor,
    sharp: float,
    purified: Callable[[Tensor], Tensor] = lambda x: x,
    *,
    released: bool = False,
) -> Tensor:
    """g_i / |g_i| of each image: (N,3,s,s).

    Args:
        model: the surrogate.
        x: (N,3,S,S) in [0,1].
        patch: (3,s,s) in [0,1].
        anchor: (K,), h_a.
        sharp: b.
        purified: g.
        released: as in the authors' code, take g_i in units of the network's normalised input, and
            divide it by |g_i| + 1e-8.
    """
    copies = patch.repeat(len(x), 1, 1, 1).requires_grad_()  # each image has a patch of its own
    codes = model.relaxed(purified(paste(x, copies)), sharp)  # (N,K)
    losses = -codes @ anchor.to(codes.dtype) / len(anchor)  # (N,)
    (gradient,) = torch.autograd.grad(losses.sum(), copies)
    if not released:
        return F.normalize(gradient.flatten(1), eps=1e-30).view_as(gradient)
    flat: Tensor = (gradient * model.std[0]).flatten(1)
    unit: Tensor = flat / (flat.norm(dim=1, keepdim=True) + 1e-8)
    return unit.view_as(gradient)


def sharpness(step: int, steps: int) -> float:
    """b: 0.1 in the first half of the steps, then raised in five stages to 1."""
    done = step / steps
    return 0.1 if done < 0.5 else (0.2, 0.3, 0.5, 0.7, 1.0)[min(4, int(10 * (done + 1e-9)) - 5)]
