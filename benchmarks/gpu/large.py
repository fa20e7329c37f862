"""Training and encoding at 32 and 224 px, against bare loops and the rate of the matrix units."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from hashbackdoor_bench.api import to_unit
from hashbackdoor_bench.network.blueprint import Blueprint
from hashbackdoor_bench.network.training import fit
from hashbackdoor_bench.network.training_set import TrainingSet
from hashbackdoor_bench.network.training_step import autocast
from hashbackdoor_bench.progress import silent

from ..speed.ceilings import multiply_adds, multiply_adds_a_second
from ..speed.clock import Entry, Goal, Row, Setting, in_turn, peak_bytes, ratio
from ..speed.encoding import bare
from ..speed.networks import BITS, CLASSES, network, one_hot, pictures, recipe
from ..speed.training import SMALL, TINY, Size, optimizer_of, step_of, trained

LARGE = (
    Size("cnn32", 12_000, 32, 32, 256, "flip"),
    Size("resnet50", 2560, 256, 224, 128, "crop"),
    Size("vit_base_patch16_224", 2560, 256, 224, 128, "crop"),
)
ENCODED = (("cnn32", 32, 50_000), ("resnet50", 224, 4096), ("vit_base_patch16_224", 224, 4096))


def measure_training(setting: Setting) -> Iterator[Row]:
    """The rows of training."""
    first = TINY if setting.quick else SMALL
    yield _shared(trained(first, setting, loader=False))
    yield graphed(first, setting)
    yield algorithms(first, setting)
    if not setting.quick:
        for size in LARGE:
            yield _shared(trained(size, setting, loader=False))
        yield algorithms(LARGE[1], setting)


def _shared(row: Row) -> Row:
    """The row with the share of the matrix rate among its facts."""
    rates = row.facts["multiply_adds_per_second"], row.facts["matmul_multiply_adds_per_second"]
    return replace(row, facts={**row.facts, "share_of_matrix_rate": rates[0] / rates[1]})


def algorithms(size: Size, setting: Setting) -> Row:
    """An epoch with cuDNN's usual choice of algorithms, its deterministic ones, and a search."""
    device = setting.device
    images, labels = pictures(size.items, size.stored), one_hot(size.items)
    data = TrainingSet(images, labels, torch.full((size.items,), -1))
    seen: dict[str, list[torch.Tensor]] = {}

    def once(name: str) -> None:
        how = recipe(device, batch_size=size.batch, augment=size.augment)
        model, loss = network(size.backbone, size.size, size.items, device)
        cudnn = torch.backends.cudnn
        before = cudnn.deterministic, cudnn.benchmark
        cudnn.deterministic, cudnn.benchmark = name == "deterministic", name == "search"
        fit(model, loss, data, how, seed="0", size=size.size)
        cudnn.deterministic, cudnn.benchmark = before
        flat = torch.cat([weight.detach().flatten() for weight in model.parameters()])
        seen.setdefault(name, []).append(flat.cpu())

    names = ("ours", "deterministic", "search")
    seconds = in_turn({name: Entry(partial(once, name)) for name in names}, setting)
    return Row(
        "cuDNN's algorithms",
        f"{size.backbone}, an epoch of {size.items} images, {size.size} px",
        seconds,
        facts={
            "deterministic_over_usual": ratio(seconds, "deterministic"),
            "search_over_usual": ratio(seconds, "search"),
            "weights_equal_in_all_rounds": {
                name: all(torch.equal(weights[0], other) for other in weights[1:])
                for name, weights in seen.items()
            },
        },
        peers=names[1:],
    )


def graphed(size: Size, setting: Setting) -> Row:
    """What a CUDA graph of the whole step would gain over launching each kernel: bare loops."""
    device = setting.device
    ours = recipe(device, batch_size=size.batch, augment=size.augment)
    model, loss = network(size.backbone, size.size, size.items, device)
    model.train()
    x = to_unit(pictures(size.batch, size.size)).to(device)
    x = x.contiguous(memory_format=torch.channels_last)
    index = torch.arange(size.batch, device=device)
    batch = x, one_hot(size.batch).float().to(device), index
    weights = [*model.parameters(), *loss.parameters()]
    optimizer = torch.optim.Adam(weights, lr=ours.lr, fused=True, capturable=device.type == "cuda")
    steps = size.items // size.batch

    def launched() -> None:
        plain = optimizer_of(model, loss, ours)
        for step in range(steps):
            step_of(model, loss, plain, batch, step, ours.precision)

    run, replayed = launched, launched
    if device.type == "cuda" and not setting.quick:
        graph = _capture(partial(step_of, model, loss, optimizer, batch, 1, ours.precision))

        def replayed() -> None:
            for _ in range(steps):
                graph.replay()

    seconds = in_turn({"ours": Entry(run), "graph": Entry(replayed)}, setting)
    return Row(
        "CUDA graph",
        f"{size.backbone}, {steps} bare steps of {size.batch}, {ours.precision}",
        seconds,
        facts={"launched_over_graph": 1 / ratio(seconds, "graph")},
        peers=["graph"],
    )


def _capture(step: "partial[torch.Tensor]") -> torch.cuda.CUDAGraph:
    side: Any = torch.cuda.Stream  # untyped
    side = side()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph


def measure_encoding(setting: Setting) -> Iterator[Row]:
    """The rows of encoding."""
    device = setting.device
    for backbone, size, count in (("cnn32", 32, 64),) if setting.quick else ENCODED:
        images = pictures(min(count, 4096), size)
        images = images.repeat(-(-count // len(images)), 1, 1, 1)[:count]
        ours = recipe(device)
        model, _ = network(backbone, size, 1, device)
        model.eval().requires_grad_(False)
        blueprint = Blueprint("hashnet", {}, BITS, CLASSES, size, backbone, False, None, ours, "0")
        batch = min(count, 1000 if size == 32 else 256)
        x = to_unit(images[:batch]).to(device, memory_format=torch.channels_last)
        encoded = partial(blueprint.codes, model, images, progress=silent, stage="encode")
        entries = {
            "ours": Entry(encoded),
            "bare": Entry(
                partial(bare, model, x, count // batch, ours.precision),
                count / (count // batch * batch),
            ),
        }
        with torch.inference_mode(), autocast(device, ours.precision):
            literal = model.code(to_unit(images[:64]).to(device)).cpu()
        same = float((encoded()[:64] == literal).double().mean())
        assert same > 0.99, f"{1 - same:.2%} of the bits differ"
        seconds = in_turn(entries, setting)
        least = multiply_adds(model.backbone, size) * count
        dtype = torch.bfloat16 if ours.precision == "bfloat16" else torch.float32
        rate = multiply_adds_a_second(setting, dtype)
        share = ratio(seconds, "bare")
        yield Row(
            "encoding",
            f"{count} images of {size} px, {backbone}, {ours.precision}",
            seconds,
            [Goal("share of a bare forward loop", share, 0.9)],
            equal=f"{same:.2%} of the bits equal those of one batch of 64",
            least=f"{images.nbytes / 1e6:.0f} MB to the GPU",
            ceiling=f"bare forward loop on a constant batch of {batch} on the GPU",
            share=share,
            facts={
                "images_per_second": count / min(seconds["ours"]),
                "share_of_matrix_rate": least / min(seconds["ours"]) / rate,
                "peak_memory_bytes": peak_bytes(encoded, device),
            },
        )
