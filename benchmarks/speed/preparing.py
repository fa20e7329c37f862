"""Decoding JPEGs into a prepared map, and reading an epoch from it instead of from the files.

The literal procedure decodes, resizes and crops every image again in each epoch. The peer does the
same with torchvision's ``ImageFolder`` and a ``DataLoader`` with as many workers as threads.
"""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from hashbackdoor_bench.data.decode import decode
from hashbackdoor_bench.data.prepared import open_prepared, prepare_items
from hashbackdoor_bench.data.protocols import protocol
from hashbackdoor_bench.data.splits import Bytes, Items
from hashbackdoor_bench.network.training_set import TrainingSet
from hashbackdoor_bench.progress import silent

from .ceilings import bytes_a_second
from .clock import Entry, Goal, Row, Setting, in_turn, ratio, samples_of

STORED, SIZE, BATCH = 256, 224, 32
WIDTH, HEIGHT = 500, 375  # px, a common size of ImageNet's files


def make_files(folder: Path, count: int) -> list[str]:
    """JPEGs of quality 90 with edges and texture, in two class folders; about 70 KB each."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    files = []
    for number in range(count):
        angle, phase = rng.uniform(0, 3, 2)
        wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) / rng.uniform(4, 40) + phase)
        noise = rng.normal(scale=8, size=(HEIGHT, WIDTH, 1))
        plane = 128 + 80 * wave[..., None] * rng.uniform(0.3, 1, 3) + noise
        path = folder / f"class{number % 2}" / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(plane.clip(0, 255).astype(np.uint8)).save(path, quality=90)
        files.append(str(path))
    return files


def measure(setting: Setting) -> Iterator[Row]:
    """The rows of this part."""
    count = 24 if setting.quick else 2000
    root = setting.work / "images"
    files = make_files(root, count)
    items = items_of(files)
    yield _decoding(items, setting)
    yield _epoch(root, items, setting)


def items_of(files: list[str]) -> Items:
    """A protocol's lists with all files in the training split."""
    ids = tuple(Path(file).stem for file in files)
    labels = np.eye(2, dtype=np.uint8)[np.arange(len(files)) % 2]
    none = np.zeros((0, 2), np.uint8)
    return Items((tuple(files), (), ()), (ids, (), ()), (labels, none, none), ("0", "1"), {}, ())


def _pixels(file: str) -> Bytes:
    found = decode(file, STORED)
    assert not isinstance(found, str), found
    return found.pixels


def _decoding(items: Items, setting: Setting) -> Row:
    files = items.files[0]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    busy: list[float] = []

    def prepared(threads: int | None) -> Path:
        cache = setting.work / "anew"
        shutil.rmtree(cache, ignore_errors=True)  # a hundredth of the time; ten copies take 4 GB
        start, cpu = time.perf_counter(), time.process_time()
        made = prepare_items(
            protocol("folder"), items, cache, tolerance=0, progress=silent, threads=threads
        ).folder
        if threads is None:
            busy.append((time.process_time() - cpu) / (time.perf_counter() - start))
        return made.folder

    few = files[: max(1, len(files) // 10)]

    def literal() -> list[Any]:
        return [_pixels(file) for file in few]

    pixels = np.fromfile(prepared(None) / "train.u8", np.uint8).reshape(-1, 3, STORED, STORED)
    assert all(np.array_equal(a, b) for a, b in zip(literal(), pixels, strict=False))
    entries = {
        "ours": Entry(lambda: prepared(None)),
        "one thread": Entry(lambda: prepared(1)),
        "literal": Entry(literal, len(files) / len(few), f"{len(few)} images, decoded one by one"),
    }
    seconds = in_turn(entries, setting, warm=False)
    share = ratio(seconds, "literal") / (cores or 1)
    size = sum(os.path.getsize(file) for file in files)
    return Row(
        "preparing",
        f"{len(files)} JPEGs of {WIDTH} × {HEIGHT} → {STORED} px",
        seconds,
        [Goal(f"cores busy, of {cores}", float(np.median(busy)), 0.9 * (cores or 1))],
        samples_of(entries),
        f"{len(few)} images equal those decoded one by one",
        f"{size / 1e6:.0f} MB of JPEG decoded, {pixels.nbytes / 1e6:.0f} MB written and hashed",
        f"bare decoding one by one, divided by {cores} cores",
        share,
        {"images_per_second": len(files) / min(seconds["ours"]), "cores": cores},
    )


def _epoch(root: Path, items: Items, setting: Setting) -> Row:
    from torchvision import transforms as T  # late: seconds
    from torchvision.datasets import ImageFolder

    ours_of = protocol("folder")
    folder = prepare_items(ours_of, items, setting.work / "cache", tolerance=0, progress=silent)
    train = open_prepared(ours_of, items, folder).train
    listed = TrainingSet(train.images, train.labels, torch.full((len(train),), -1))
    few = items.files[0][: max(2, len(train) // 10)]
    draws = torch.Generator().manual_seed(0)

    def ours() -> Tensor:
        total = torch.zeros((), dtype=torch.long)
        for index in torch.split(torch.randperm(len(train), generator=draws), BATCH):
            total += listed.gather(index, *listed.poisoned(index))[0, 0, 0, 0]
        return total

    def literal() -> list[Any]:
        return [_pixels(file) for file in few]

    transform = T.Compose([T.Resize((STORED, STORED)), T.RandomCrop(SIZE), T.ToTensor()])
    loader = DataLoader(
        ImageFolder(str(root), transform),
        batch_size=BATCH,
        shuffle=True,
        num_workers=0 if setting.quick else torch.get_num_threads(),
    )

    def peer() -> int:
        return sum(len(x) for x, _ in loader)

    for row, pixels in enumerate(literal()):
        assert np.array_equal(train.images[row].numpy(), pixels), few[row]
    entries = {
        "ours": Entry(ours),
        "literal": Entry(literal, len(train) / len(few), f"{len(few)} images, one process"),
        "DataLoader": Entry(peer),
    }
    seconds = in_turn(entries, setting)
    moved = 2 * train.images.nbytes
    rate = bytes_a_second(setting)
    return Row(
        "an epoch's images",
        f"{len(train)} images of {STORED} px in random batches of {BATCH}",
        seconds,
        [
            Goal("decoding again / reading the map", ratio(seconds, "literal"), 20),
            Goal("DataLoader / reading the map", ratio(seconds, "DataLoader"), 20),
        ],
        samples_of(entries),
        f"{len(few)} images of the map equal those decoded",
        f"{moved / 1e6:.0f} MB: every pixel read and written once",
        f"memory bandwidth, {rate / 1e9:.1f} GB/s by a streaming sum",
        moved / rate / min(seconds["ours"]),
        {"bytes_per_second": moved / min(seconds["ours"])},
        ["DataLoader"],
    )
