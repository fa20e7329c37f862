"""Encoding a database, against a bare forward loop at the best batch size.

The literal procedure encodes one image at a time and records the graph of every forward pass, as
the released code is said to do.
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from hashbackdoor_bench.api import to_unit
from hashbackdoor_bench.network.blueprint import Blueprint
from hashbackdoor_bench.network.model import HashModel
from hashbackdoor_bench.network.training_step import autocast
from hashbackdoor_bench.progress import silent

from .ceilings import best, multiply_adds, multiply_adds_a_second
from .clock import Entry, Goal, Row, Setting, in_turn, ratio, samples_of
from .networks import BITS, CLASSES, network, pictures, recipe

SIZE = 32
BATCHES = (32, 64, 125, 250, 500, 1000, 2000)


def bare(model: HashModel, x: Tensor, batches: int, precision: str) -> None:
    """Forward passes of one constant batch x (N,3,S,S)."""
    with torch.inference_mode(), autocast(x.device, precision):
        for _ in range(batches):
            model(x)


def best_batch(model: HashModel, setting: Setting, precision: str) -> int:
    """The batch size at which a bare forward pass takes the least time per image."""
    count = 64 if setting.quick else 4000
    found = {}
    for batch in BATCHES[:2] if setting.quick else BATCHES:
        x = to_unit(pictures(batch, SIZE)).to(setting.device, memory_format=torch.channels_last)
        found[batch] = best(
            partial(bare, model, x, max(1, count // batch), precision),
            setting.device,
        ) / max(1, count // batch * batch)
    return min(found, key=found.__getitem__)


def measure(setting: Setting) -> Iterator[Row]:
    """The rows of this part."""
    count, few = (100, 10) if setting.quick else (50_000, 500)
    device = setting.device
    images = pictures(count, SIZE)
    ours = recipe(device)
    model, _ = network("cnn32", SIZE, 1, device)
    model.eval().requires_grad_(False)
    blueprint = Blueprint("hashnet", {}, BITS, CLASSES, SIZE, "cnn32", False, None, ours, "0")

    def encoded(of: Tensor) -> Tensor:
        return blueprint.codes(model, of, progress=silent, stage="encode")

    def literal() -> Tensor:
        model.requires_grad_(True)
        codes = []
        for image in images[:few]:
            x = to_unit(image[None]).to(device)
            with autocast(device, ours.precision):
                codes.append(model(x).sign().detach().cpu())
        model.requires_grad_(False)
        return torch.cat(codes)

    batch = best_batch(model, setting, ours.precision)
    x = to_unit(images[:batch]).to(device, memory_format=torch.channels_last)
    entries = {
        "ours": Entry(lambda: encoded(images)),
        "literal": Entry(literal, count / few, f"{few} images"),
        "bare": Entry(
            lambda: bare(model, x, count // batch, ours.precision), count / (count // batch * batch)
        ),
    }
    same = float((encoded(images[:few]) == literal().to(torch.int8)).double().mean())
    assert same > 0.999, f"{1 - same:.2%} of the bits differ from the literal's"
    seconds = in_turn(entries, setting)
    least = multiply_adds(model, SIZE) * count
    dtype = torch.bfloat16 if ours.precision == "bfloat16" else torch.float32
    share = ratio(seconds, "bare")
    yield Row(
        "evaluation encode",
        f"{count} images of {SIZE} px, cnn32, {BITS} bits, {ours.precision}",
        seconds,
        [Goal("share of a bare forward loop", share, 0.9)],
        samples_of(entries),
        f"{same:.3%} of the bits equal those of images alone (other rounding near zero)",
        f"{least / 1e9:.0f} G multiply-adds, {images.nbytes / 1e6:.0f} MB read",
        f"bare forward loop on a constant batch of {batch}, the best of {BATCHES}",
        share,
        {
            "best_batch": batch,
            "images_per_second": count / min(seconds["ours"]),
            "multiply_adds_per_second": least / min(seconds["ours"]),
            "matmul_multiply_adds_per_second": multiply_adds_a_second(setting, dtype),
        },
    )
