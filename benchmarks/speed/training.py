"""The training loop around forward, backward and step, against a bare loop on a constant batch.

The literal procedure and the peer are the same here: a ``DataLoader`` that makes each image a
Pillow image, crops, flips and normalises it, as released code does, but from memory instead of
files.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hashbackdoor_bench.api import HashLoss, generator, to_unit
from hashbackdoor_bench.network.augmentation import centre_crop
from hashbackdoor_bench.network.model import HashModel
from hashbackdoor_bench.network.training import fit
from hashbackdoor_bench.network.training_set import TrainingSet
from hashbackdoor_bench.network.training_step import autocast
from hashbackdoor_bench.spec import Recipe

from .ceilings import multiply_adds, multiply_adds_a_second
from .clock import Entry, Goal, Row, Setting, in_turn, peak_bytes, ratio, samples_of
from .networks import network, one_hot, pictures, recipe


@dataclass(frozen=True)
class Size:
    """The size of a training.

    Attributes:
        backbone: see `HashModel`.
        items: T, images per epoch.
        stored: side of the stored images, px.
        size: S.
        batch: N.
        augment: see `Recipe`.
    """

    backbone: str
    items: int
    stored: int
    size: int
    batch: int
    augment: str


SMALL = Size("cnn32", 3000, 32, 32, 32, "flip")
LARGE = Size("resnet18", 320, 256, 224, 16, "crop")
LARGE_GPU = Size("resnet50", 6400, 256, 224, 128, "crop")
TINY = Size("cnn32", 24, 32, 32, 8, "flip")


def measure(setting: Setting) -> Iterator[Row]:
    """The rows of this part."""
    large = LARGE_GPU if setting.device.type == "cuda" else LARGE
    for size in (TINY,) if setting.quick else (SMALL, large):
        yield trained(size, setting)


class Pictures(Dataset[tuple[Tensor, int]]):
    """Images one by one through torchvision's transforms of Pillow pictures.

    Args:
        images: (T,3,h,w) uint8.
        size: S.
        augment: see `Recipe`.
    """

    def __init__(self, images: Tensor, size: int, augment: str) -> None:
        from torchvision import transforms as T  # late: seconds

        self.images = images.permute(0, 2, 3, 1).contiguous().numpy()
        crop = T.RandomCrop(size) if augment == "crop" else T.CenterCrop(size)
        self.transform = T.Compose([crop, T.RandomHorizontalFlip(), T.ToTensor()])

    def __len__(self) -> int:
        """T."""
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """The image (3,S,S) in [0,1], and its index."""
        image: Tensor = self.transform(Image.fromarray(np.asarray(self.images[index])))
        return image, index


def optimizer_of(model: HashModel, loss: HashLoss, ours: Recipe) -> torch.optim.Optimizer:
    """Adam over all parameters, with the values of ``scratch32``; fused on a GPU, as in `fit`."""
    weights = [*model.parameters(), *loss.parameters()]
    return torch.optim.Adam(weights, lr=ours.lr, fused=weights[0].device.type == "cuda")


def step_of(
    model: HashModel,
    loss: HashLoss,
    optimizer: torch.optim.Optimizer,
    batch: tuple[Tensor, Tensor, Tensor],
    step: int,
    precision: str,
) -> Tensor:
    """Forward, backward and step on one batch: x (N,3,S,S), labels (N,C), index (N,).

    This is not the code of `fit`, because the ceiling must not change when `fit` does.
    """
    x, labels, index = batch
    with autocast(x.device, precision):
        z = model(x)
    value: Tensor = loss(z.float(), labels, index, step)
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(value)
    optimizer.step()
    return value.detach()


def trained(size: Size, setting: Setting, *, loader: bool = True) -> Row:
    """The row of one training.

    Args:
        size: what is trained.
        setting: number of rounds, and device.
        loader: whether the ``DataLoader`` is among the contestants.
    """
    device = setting.device
    images, labels = pictures(size.items, size.stored), one_hot(size.items)
    data = TrainingSet(images, labels, torch.full((size.items,), -1))
    ours = recipe(device, batch_size=size.batch, augment=size.augment)
    model, loss = network(size.backbone, size.size, size.items, device)
    steps = size.items // size.batch
    x = to_unit(centre_crop(images[: size.batch], size.size)).to(device)
    x = x.contiguous(memory_format=torch.channels_last)
    hot = labels.float().to(device)
    first = torch.arange(size.batch, device=device)

    def loop() -> None:
        place = setting.work / "checkpoint"
        place.unlink(missing_ok=True)
        fit(model, loss, data, ours, seed="0", size=size.size, checkpoint=place)

    def bare() -> None:
        model.train()
        optimizer = optimizer_of(model, loss, ours)
        for step in range(steps):
            step_of(model, loss, optimizer, (x, hot[first], first), step, ours.precision)

    pictures_one_by_one = DataLoader(
        Pictures(images, size.size, size.augment),
        batch_size=size.batch,
        shuffle=True,
        drop_last=True,
        num_workers=0 if setting.quick else torch.get_num_threads(),
    )

    def loaded() -> None:
        model.train()
        optimizer = optimizer_of(model, loss, ours)
        for step, (part, index) in enumerate(pictures_one_by_one):
            given = part.to(device).contiguous(memory_format=torch.channels_last)
            places = index.to(device)
            step_of(model, loss, optimizer, (given, hot[places], places), step, ours.precision)

    entries = {"ours": Entry(loop), "bare": Entry(bare)}
    if loader:
        entries["DataLoader"] = Entry(loaded)
    off = weights_differ(size, setting)
    seconds = in_turn(entries, setting)
    over = 1 / ratio(seconds, "bare")
    least = 3 * multiply_adds(model.backbone, size.size) * steps * size.batch
    dtype = torch.bfloat16 if ours.precision == "bfloat16" else torch.float32
    return Row(
        "training",
        f"{size.backbone}, an epoch of {steps} steps of {size.batch}, {size.stored} → {size.size} "
        f"px, {size.augment}, {ours.precision}",
        seconds,
        [Goal("ours / bare loop", over, 1.05, most=True)],
        samples_of(entries),
        f"weights of plain steps, one image at a time from the list: {off:.0e} off in float32",
        f"{least / 1e9:.0f} G multiply-adds: a forward pass and twice that backwards",
        "bare loop of forward, backward and step on a constant batch",
        1 / over,
        {
            "multiply_adds_per_second": least / min(seconds["ours"]),
            "matmul_multiply_adds_per_second": multiply_adds_a_second(setting, dtype),
            "images_per_second": steps * size.batch / min(seconds["ours"]),
            **({"peak_memory_bytes": peak} if (peak := peak_bytes(loop, device)) else {}),
        },
        ["DataLoader"] if loader else [],
    )


def weights_differ(size: Size, setting: Setting) -> float:
    """Largest difference of weights after two steps of `fit` and of plain code, in float32.

    By SGD, since Adam would make a whole step of a gradient that is only a rounding error.

    Raises:
        AssertionError: the difference is larger than rounding errors; on a GPU those of TF32.
    """
    device, items, batch = setting.device, 8, 4
    images, labels = pictures(items, size.stored), one_hot(items)
    ours = recipe(
        device, batch_size=batch, augment="none", precision="float32", schedule="constant", lr=1e-2,
        head_lr=1e-2, optimizer="sgd", momentum=0.0, weight_decay=0.0,
    )  # fmt: skip
    one, its_loss = network(size.backbone, size.size, items, device)
    data = TrainingSet(images, labels, torch.full((items,), -1))
    fit(one, its_loss, data, ours, seed="0", size=size.size)
    other, loss = network(size.backbone, size.size, items, device)
    weights = [*other.train().parameters(), *loss.parameters()]
    optimizer = torch.optim.SGD(weights, lr=ours.lr)
    edge = (size.stored - size.size + 1) // 2
    order = torch.randperm(items, generator=generator("0", "order", 0))
    for step, index in enumerate(torch.split(order, batch)):
        cropped = [images[n, :, edge : edge + size.size, edge : edge + size.size] for n in index]
        x = torch.stack([image / 255 for image in cropped]).to(device)
        given = x.contiguous(memory_format=torch.channels_last)
        rows = labels[index].float().to(device)
        step_of(other, loss, optimizer, (given, rows, index.to(device)), step, "float32")
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    off = max(float((a - b).detach().abs().max()) for a, b in pairs)
    assert off < (1e-5 if device.type == "cpu" else 1e-3), (
        f"the loop's weights are {off} off the plain ones"
    )
    return off
