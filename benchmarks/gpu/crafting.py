"""CIBA's patch and perturbations and BadHash's generator, at 224 px."""

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import Any

import torch

from hashbackdoor_bench.api import AttackerView, to_unit
from hashbackdoor_bench.network.model import best_precision

from ..speed.ceilings import multiply_adds, multiply_adds_a_second
from ..speed.clock import Row, Setting, peak_bytes, seconds_of
from ..speed.networks import BITS, network, one_hot, pictures

ciba_patch: Any = import_module("hashbackdoor_bench.attacks.ciba_patch")
ciba_perturbations: Any = import_module("hashbackdoor_bench.attacks.ciba_perturbations")
badhash: Any = import_module("hashbackdoor_bench.attacks.badhash")
badhash_gan: Any = import_module("hashbackdoor_bench.attacks.badhash_gan")


def measure(setting: Setting) -> Iterator[Row]:
    """The rows of this part."""
    backbone, size, images = ("cnn32", 32, 40) if setting.quick else ("resnet50", 224, 640)
    model, _ = network(backbone, size, 1, setting.device)
    model.eval().requires_grad_(False)
    labels = one_hot(images)
    view = AttackerView(
        pictures(images, size), labels, labels[0], torch.arange(0), model,
        device=setting.device, precision=best_precision(setting.device),
    )  # fmt: skip
    macs = multiply_adds(model.backbone, size)
    steps = 2 if setting.quick else 20
    yield _row(
        "trigger crafting",
        f"{steps} steps of 32 images, {backbone}, {size} px",
        partial(
            ciba_patch.optimise_patch, view, side=size // 10, steps=steps, step_size=12.0, batch=32,
            released=False,
        ),
        (32 * steps, 2 * macs),
        setting,
    )  # fmt: skip
    x = to_unit(view.images[:20]).to(setting.device)
    yield _row(
        "confusing perturbations",
        f"20 images together, {steps} steps, {backbone}, {size} px",
        partial(
            ciba_perturbations.confuse, model, x, 8 / 255 * torch.ones(3, 1, 1).to(x), steps=steps,
            dispersion=0.8, released=False,
        ),
        (20 * steps, 2 * macs),
        setting,
    )  # fmt: skip
    yield _generator(view, setting)


def _generator(view: AttackerView, setting: Setting) -> Row:
    """One epoch of BadHash's generator, at the width that it has at this size."""
    attack = badhash.BadHash(perceptual="ssim", **({"width": 8} if setting.quick else {}))
    code = torch.ones(BITS)
    gan = attack.gan(view.size, view.labels[1].float(), torch.zeros(1, 512), code)
    gan = gan.to(setting.device)
    macs = multiply_adds_of_generator(gan, view.size)
    return _row(
        "generator",
        f"BadHash's G and D, an epoch of {len(view.images)} images in batches of 64, "
        f"{view.size} px, {view.precision}",
        lambda: badhash_gan.train(view, gan, epochs=1, lr=1e-4, batch=64),
        (len(view.images), 3 * macs),
        setting,
        torch.bfloat16 if view.precision == "bfloat16" else torch.float32,
    )


def multiply_adds_of_generator(gan: Any, size: int) -> int:
    """Multiply-adds of G's forward pass for one image, in convolutions and linear layers."""
    total = 0

    def count(layer: Any, given: Any, out: torch.Tensor) -> None:
        nonlocal total
        if isinstance(layer, torch.nn.ConvTranspose2d):
            total += given[0].numel() * layer.weight[0].numel()
        else:
            total += out.numel() * layer.weight[0].numel()

    kinds = torch.nn.Conv2d | torch.nn.Linear | torch.nn.ConvTranspose2d
    hooks = [
        m.register_forward_hook(count) for m in gan.generator.modules() if isinstance(m, kinds)
    ]
    device = next(gan.generator.parameters()).device
    with torch.no_grad():
        gan(torch.zeros(1, 3, size, size, device=device))
    for hook in hooks:
        hook.remove()
    return total


def _row(
    part: str,
    work: str,
    run: Callable[[], object],
    least: tuple[int, int],
    setting: Setting,
    dtype: torch.dtype = torch.float32,
) -> Row:
    """A row without contestants; ``least``: images, and multiply-adds for each."""
    images, macs = least
    run()
    seconds = [seconds_of(run, setting.device) for _ in range(min(3, setting.repeat))]
    rate = multiply_adds_a_second(setting, dtype)
    return Row(
        part,
        work,
        {"ours": seconds},
        least=f"{images * macs / 1e9:.0f} G multiply-adds",
        facts={
            "images_per_second": images / min(seconds),
            "multiply_adds_per_second": images * macs / min(seconds),
            f"share_of_matrix_rate_in_{str(dtype).rpartition('.')[2]}": images
            * macs
            / min(seconds)
            / rate,
            "peak_memory_bytes": peak_bytes(run, setting.device),
        },
    )
