"""What tests of listed images share: pictures of noise, and the set in the fixture ``tree``."""

import numpy as np
from PIL import Image

from hashbackdoor_bench import data

SIZES = {"train": 6, "test": 4, "database": 8}


def picture(seed, size=(40, 30)):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def where(tree):
    return {
        "cache": tree / "cache",
        "lists": tree / "lists",
        "root": tree / "images",
        "size": 32,
    }


def load(tree, name="lists", **options):
    return data.load(name, **{**where(tree), **options})


def verify(tree, **options):
    return data.verify("lists", **where(tree), **options)


def rewrite(tree, name, change):
    file = tree / "lists" / name
    file.write_text("\n".join(change(file.read_text().splitlines())) + "\n")
