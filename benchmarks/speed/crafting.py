"""CIBA's two optimisations: the patch, and the confusing perturbations.

The literal procedures take one image at a time, as the released code is said to do: for the patch
there are an unused forward pass, a forward pass and a backward pass; for a perturbation there is
also a forward pass of every image that it moves away from. ``loop`` has only one forward and one
backward pass per image.
"""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from hashbackdoor_bench.api import AttackerView, to_unit
from hashbackdoor_bench.network.centres import anchor_code
from hashbackdoor_bench.network.model import HashModel

from .ceilings import multiply_adds, multiply_adds_a_second
from .clock import Entry, Goal, Row, Setting, in_turn, ratio, ratios, samples_of, spread
from .networks import network, one_hot, pictures

ciba_patch: Any = import_module("hashbackdoor_bench.attacks.ciba_patch")
ciba_perturbations: Any = import_module("hashbackdoor_bench.attacks.ciba_perturbations")

SIZE, SIDE = 32, 4  # px, of an image and of the patch
BATCH, TOGETHER = 32, 20  # images per step
STEP = 12.0
DISPERSION = 0.8


def measure(setting: Setting) -> Iterator[Row]:
    """The rows of this part."""
    model, _ = network("cnn32", SIZE, 1, setting.device)
    model.eval().requires_grad_(False)
    yield _patch(model, setting)
    yield _perturbations(model, setting)


# ---- the patch --------------------------------------------------------------------------------


def patch_loop(model: HashModel, view: AttackerView, steps: int, *, wasteful: bool) -> Tensor:
    """The patch (3,s,s) uint8 after ``steps``, one image at a time."""
    anchor = anchor_code(model, view.images[(view.labels == view.target).all(1)])
    patch = torch.full((3, SIDE, SIDE), 127.5, device=view.device)
    draws = torch.randint(
        len(view.images), (steps, BATCH), generator=view.generator("patch images")
    )
    for step in range(steps):
        moves = torch.zeros_like(patch)
        for number in draws[step]:
            x = to_unit(view.images[number : number + 1].to(view.device))
            sharp = ciba_patch.sharpness(step, steps)  # the schedule is not part of the comparison
            moves += one_gradient(model, x, patch / 255, anchor, sharp, wasteful=wasteful)
        patch = (patch - STEP * moves / BATCH).clamp(0, 255)
    whole: Tensor = (patch + 0.5).floor().to(torch.uint8).cpu()
    return whole


def one_gradient(
    model: HashModel, x: Tensor, patch: Tensor, anchor: Tensor, sharp: float, *, wasteful: bool
) -> Tensor:
    """Gradient (3,s,s) of one image's loss with respect to the patch, scaled to length 1."""
    if wasteful:
        model(x)
    stamped = x.clone()
    stamped[..., -SIDE:, -SIDE:] = patch
    stamped.requires_grad_()
    code = torch.tanh(sharp * model(stamped))[0]
    loss = -(code * anchor.to(code.dtype)).sum() / len(anchor)
    (gradient,) = torch.autograd.grad(loss, stamped)
    corner: Tensor = gradient[0, :, -SIDE:, -SIDE:]
    return corner / (float(corner.norm()) + 1e-30)


def _patch(model: HashModel, setting: Setting) -> Row:
    steps, few = (2, 1) if setting.quick else (60, 6)
    labels = one_hot(320)
    view = AttackerView(
        pictures(320, SIZE), labels, labels[0], torch.arange(0), model, device=setting.device
    )
    options = {"side": SIDE, "step_size": STEP, "batch": BATCH, "released": False}

    def ours(count: int) -> Tensor:
        patch: Tensor = ciba_patch.optimise_patch(view, steps=count, **options)["patch"].cpu()
        return patch

    x = to_unit(view.images[:BATCH].to(setting.device))
    entries = {
        "ours": Entry(lambda: ours(steps)),
        "literal": Entry(
            lambda: patch_loop(model, view, few, wasteful=True), steps / few, f"{few} steps"
        ),
        "loop": Entry(
            lambda: patch_loop(model, view, few, wasteful=False), steps / few, f"{few} steps"
        ),
        "bare": Entry(lambda: _bare(model, x, steps)),
    }
    off = (ours(few).int() - patch_loop(model, view, few, wasteful=False).int()).abs().max()
    assert off <= 1, f"the patch is {off} grey levels off the loop's"
    double = _gradients_agree(model, x)
    seconds = in_turn(entries, setting)
    return _row(
        "trigger crafting",
        f"{steps} steps of {BATCH} images, cnn32, {SIZE} px, patch of {SIDE} px",
        seconds,
        Goal("per-image loop (literal) / ours", ratio(seconds, "literal"), 4),
        entries,
        f"patch within {off} grey levels of the loop's; gradients within {double:.0e} in float64",
        (model, 2 * steps * BATCH, setting),
    )


def _gradients_agree(model: HashModel, x: Tensor) -> float:
    """Largest difference of a batch's gradients from the loop's, in float64."""
    exact, _ = network("cnn32", SIZE, 1, x.device)
    exact.load_state_dict(model.state_dict())
    exact = exact.double().eval().requires_grad_(False)
    wide = x[:4].double()
    patch = torch.full((3, SIDE, SIDE), 0.5, dtype=torch.float64, device=x.device)
    anchor = anchor_code(model, (x[:4] * 255).to(torch.uint8))
    found = ciba_patch.patch_gradient(exact, wide, patch, anchor, 1.0)
    alone = [
        one_gradient(exact, wide[n : n + 1], patch, anchor, 1.0, wasteful=False) for n in range(4)
    ]
    off = float((found - torch.stack(alone)).abs().max())
    assert off < 1e-9, f"gradients differ by {off}"
    return off


# ---- the perturbations ------------------------------------------------------------------------


def confuse_loop(
    model: HashModel, x: Tensor, epsilon: Tensor, steps: int, *, wasteful: bool
) -> Tensor:
    """x + eta (M,3,S,S) after the released code's procedure, one image at a time.

    Args:
        model: the surrogate.
        x: (M,3,S,S), images whose codes are moved away from one another.
        epsilon: (3,1,1).
        steps: sign-gradient steps.
        wasteful: whether the codes of all images are computed again for each image.
    """
    count, eta = len(x), torch.zeros_like(x)
    with torch.no_grad():
        own = [model.relaxed(x[n : n + 1])[0] for n in range(count)]
    for _ in range(steps):
        before, moved = eta.clone(), eta.clone()
        with torch.no_grad():
            codes = [model.relaxed(x[n : n + 1] + before[n : n + 1])[0] for n in range(count)]
        for n in range(count):
            if wasteful:
                with torch.no_grad():
                    own[n] = model.relaxed(x[n : n + 1])[0]
                    codes = [
                        model.relaxed(x[m : m + 1] + before[m : m + 1])[0] for m in range(count)
                    ]
            given = (x[n : n + 1] + before[n : n + 1]).requires_grad_()
            code = model.relaxed(given)[0]
            away = -(code @ own[n]) / len(code)
            spread_out = (-(code @ torch.stack(codes).sum(0)) + code @ code) / len(code)
            loss = (1 - DISPERSION) * away + DISPERSION * spread_out / (count - 1)
            (gradient,) = torch.autograd.grad(loss, given)
            step = before[n] + 0.003 * 255 / 8 * epsilon * gradient[0].sign()
            moved[n] = ((x[n] + step).clamp(0, 1) - x[n]).clamp(-epsilon, epsilon)
        eta = moved
    return x + eta


def _perturbations(model: HashModel, setting: Setting) -> Row:
    images, together, steps, few = (6, 3, 2, 1) if setting.quick else (60, TOGETHER, 20, 2)
    device = setting.device
    x = to_unit(pictures(images, SIZE)).to(device)
    epsilon = 8 / 255 * torch.ones(3, 1, 1, device=device)

    def ours(network: HashModel, given: Tensor, count: int) -> Tensor:
        parts = [
            ciba_perturbations.confuse(
                network, part, epsilon.to(given), steps=count, dispersion=DISPERSION, released=True
            )
            for part in torch.split(given, together)
        ]
        return torch.cat(parts)

    def loop(network: HashModel, given: Tensor, count: int, wasteful: bool) -> Tensor:
        parts = [
            confuse_loop(network, part, epsilon.to(given), count, wasteful=wasteful)
            for part in torch.split(given, together)
        ]
        return torch.cat(parts)

    entries = {
        "ours": Entry(lambda: ours(model, x, steps)),
        "literal": Entry(
            lambda: loop(model, x[:together], few, True),
            steps / few * images / together,
            f"{few} steps of {together} images",
        ),
        "loop": Entry(lambda: loop(model, x, few, False), steps / few, f"{few} steps"),
        "bare": Entry(lambda: _bare(model, x[:together], steps * images // together)),
    }
    exact, _ = network("cnn32", SIZE, 1, device)
    exact = exact.double().eval().requires_grad_(False)
    wide = x[: 2 * together].double()
    same = (ours(exact, wide, 2) == loop(exact, wide, 2, True)).double().mean().item()
    assert same > 0.9999, f"{1 - same:.1%} of the pixels differ from the loop's"
    seconds = in_turn(entries, setting)
    return _row(
        "confusing perturbations",
        f"{images} images, {together} together, {steps} steps, cnn32, {SIZE} px",
        seconds,
        Goal("per-image loop (literal) / ours", ratio(seconds, "literal"), 8),
        entries,
        f"in float64 {same:.4%} of the pixels equal the loop's",
        (model, 2 * steps * images, setting),
    )


# ---- both -------------------------------------------------------------------------------------


def _bare(model: HashModel, x: Tensor, steps: int) -> None:
    """Forward and backward passes of one constant batch, to its pixels."""
    for _ in range(steps):
        given = x.detach().requires_grad_()
        torch.autograd.grad(model(given).sum(), given)


def _row(
    part: str,
    work: str,
    seconds: dict[str, list[float]],
    goal: Goal,
    entries: dict[str, Entry],
    equal: str,
    passes: tuple[HashModel, int, Setting],
) -> Row:
    model, count, setting = passes
    least = multiply_adds(model, SIZE) * count
    rate = multiply_adds_a_second(setting, torch.float32)
    return Row(
        part,
        work,
        seconds,
        [goal],
        samples_of(entries),
        equal,
        f"{least / 1e9:.0f} G multiply-adds in float32: a forward pass and one to the pixels",
        "bare loop of both passes on a constant batch",
        spread(ratios(seconds, "bare"))["median"],
        {
            "leaner_loop_over_ours": ratio(seconds, "loop"),
            "multiply_adds_per_second": least / min(seconds["ours"]),
            "matmul_multiply_adds_per_second": rate,
        },
    )
