"""Draws the small pictures of the cards: what each attack and each filter of queries changes.

    python docs/making/pictures.py [NAME ...]

crafts every attack of the registry, or those that are named, with its default settings on
``fashion-mini`` against HashNet with 48 bits, and writes ``docs/pictures/attack-NAME.png``. It
takes half an hour on one core, so the pictures are kept in the repository. Each holds images in
their own 32 px, as a grid of 8 columns: originals, changed images, and the difference times 4 on
mid-grey. The upper three rows are poisoned training images, the lower three are queries with the
trigger. Defenses that change queries have a picture of three rows, and data sets one row per class.
"""

import os
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from hashbackdoor_bench import ATTACKS, DEFENSES, ModelAttack, RunSpec, to_bytes, to_unit
from hashbackdoor_bench.data import load
from hashbackdoor_bench.poisoning import planted
from hashbackdoor_bench.stages import Cache, Run

PICTURES = Path(__file__).parents[1] / "pictures"
CACHE = Path(os.environ.get("HASHBACKDOOR_CACHE", "~/.cache/hashbackdoor_bench")).expanduser()
COLUMNS, GAP, AMPLIFY = 8, 2, 4


def grid(rows: list[Tensor]) -> Image.Image:
    """Rows of images (N,3,S,S) uint8 on a transparent ground, with a gap of 2 px between them."""
    side = rows[0].shape[-1] + GAP
    shape = (len(rows) * side - GAP, COLUMNS * side - GAP, 4)
    sheet: NDArray[np.uint8] = np.zeros(shape, np.uint8)
    for i, row in enumerate(rows):
        for j, image in enumerate(row[:COLUMNS]):
            place = sheet[i * side :, j * side :][: side - GAP, : side - GAP]
            place[..., :3] = image.permute(1, 2, 0).numpy()
            place[..., 3] = 255
    return Image.fromarray(sheet)


def changed(before: Tensor, after: Tensor) -> list[Tensor]:
    """Three rows: originals, changed images, and the amplified difference on mid-grey."""
    difference = AMPLIFY * (after.int() - before.int()) + 128
    return [before, after, difference.clamp(0, 255).to(torch.uint8)]


def of_attack(name: str) -> Image.Image | None:
    """What an attack changes in training images and in queries; None if it changes nothing."""
    threat = ATTACKS[name]().threat
    if threat.trigger == "none" and not threat.chosen:
        return None
    run = crafted(name)
    splits, backdoor = run.plan.splits, run.backdoor
    attacked = run.plan.truth.attacked.nonzero().squeeze(1)
    labels = splits.query.labels[attacked].argmax(1)
    first = [int((labels == c).nonzero()[0]) for c in labels.unique()]
    rows = torch.tensor((first + list(range(len(labels))))[:COLUMNS])
    queries = splits.query.images[attacked[rows]].clone()
    parts = [changed(queries, run.trigger(queries))] if threat.trigger != "none" else []
    poison = (backdoor.kind.cpu() == 0).nonzero().squeeze(1)[:COLUMNS]
    if len(poison):
        before = splits.train.images[backdoor.index.cpu()[poison]].clone()
        parts.insert(0, changed(before, planted(backdoor, run.device)[poison]))
    return grid([row for part in parts for row in part])


def crafted(name: str) -> Run:
    """A run whose backdoor is made: on its own surrogate, else on HashNet."""
    spec = RunSpec(attack=name, victim="hashnet", bits=48, dataset="fashion-mini")
    run = Run(spec, cache=Cache(CACHE), device=torch.device("cpu"), progress=tell)
    run.make("tamper" if issubclass(ATTACKS[name].cls, ModelAttack) else "backdoor")
    return run


def of_defense(name: str) -> Image.Image | None:
    """CIBA's triggered queries before and after a filter of queries; None for other defenses."""
    if "purify" not in DEFENSES[name].cls.hooks():
        return None
    run = crafted("ciba")
    attacked = run.plan.truth.attacked.nonzero().squeeze(1)[:COLUMNS]
    queries = run.trigger(run.plan.splits.query.images[attacked].clone())
    item = torch.arange(len(queries))
    return grid(changed(queries, to_bytes(DEFENSES[name]().purify(to_unit(queries), item))))


def of_data(name: str) -> Image.Image:
    """Eight training images of each class."""
    splits = load(name, cache=CACHE)
    classes = splits.train.labels.argmax(1)
    return grid(
        [
            splits.train.images[(classes == c).nonzero().squeeze(1)[:COLUMNS]]
            for c in range(len(splits.classes))
        ]
    )


def tell(stage: str, done: int, total: int, **facts: object) -> None:
    """Print each finished stage."""
    if done == total:
        print(f"  {stage}", flush=True)


def main(names: list[str]) -> None:
    """Draw the pictures that are named, or all."""
    makers = {f"attack-{name}": (of_attack, name) for name in ATTACKS}
    makers |= {f"defense-{name}": (of_defense, name) for name in DEFENSES}
    makers |= {"data-fashion-mini": (of_data, "fashion-mini")}
    PICTURES.mkdir(exist_ok=True)
    for title, (make, name) in makers.items():
        if names and title not in names:
            continue
        print(title, flush=True)
        picture = make(name)
        if picture is not None:
            picture.save(PICTURES / f"{title}.png", optimize=True)


if __name__ == "__main__":
    main(sys.argv[1:])
