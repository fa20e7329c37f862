"""The clean images that a defender holds, drawn once for each protocol, seed and number.

They come from the database without the training images, balanced over classes, and they stay in the
database. Where every database image is a training image, they are training images that are not
poisoned; a defender could not know which these are, so the record says ``oracle_clean``.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hashbackdoor_bench.api import derive_seed, generator
from hashbackdoor_bench.data import Split, Splits
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.network import Images, centre_crop
from hashbackdoor_bench.spec import digest


@dataclass(frozen=True)
class CleanImages:
    """Which images are the defender's.

    Attributes:
        rows: (m,) long, their positions in the database, or in the training split.
        oracle: whether they are training images that are known not to be poisoned.
    """

    rows: Tensor
    oracle: bool = False

    def inputs(self, splits: Splits) -> dict[str, Any]:
        """What the key of a stage holds of them; nothing if there are none."""
        if not len(self.rows):
            return {}
        ids = split_of(self, splits).ids
        return {"clean": digest([ids[row] for row in self.rows.tolist()])}


def split_of(clean: CleanImages, splits: Splits) -> Split:
    """The split that the defender's images are from."""
    return splits.train if clean.oracle else splits.database


def draw_clean(splits: Splits, poisoned: Tensor, count: int, seed: int) -> CleanImages:
    """Draw the defender's clean images.

    Args:
        splits: the data.
        poisoned: (P,) long, the training items that are poisoned or covers.
        count: m.
        seed: seed of the run.

    Raises:
        UserError: there are not so many.
    """
    if not count:
        return CleanImages(torch.empty(0, dtype=torch.long))
    free = torch.from_numpy(splits.untrained).clone()
    oracle = not free.any()
    split = splits.train if oracle else splits.database
    if oracle:
        free = torch.ones(len(split), dtype=torch.bool)
        free[poisoned] = False
    free &= split.labels.bool().any(1)
    pool = free.nonzero().flatten()
    if count > len(pool):
        raise UserError(
            f"the defender is to have {count} clean images and there are {len(pool)}: give a "
            "smaller --clean-share."
        )
    pool = pool[torch.randperm(len(pool), generator=generator(seed, "clean images"))]
    if not splits.multilabel:  # one of each class, then a second of each, …
        label = split.labels[pool].int().argmax(1)
        one_hot = torch.nn.functional.one_hot(label, split.labels.shape[1])
        number = one_hot.cumsum(0)[torch.arange(len(pool)), label]
        pool = pool[(number * split.labels.shape[1] + label).argsort(stable=True)]
    return CleanImages(pool[:count], oracle)


def images_of(split: Split, rows: Tensor, size: int, seed: int) -> Images:
    """Some images of a split as a defender sees them.

    Args:
        split: the split.
        rows: (n,) long.
        size: S.
        seed: seed of the run.
    """
    return Images(
        centre_crop(split.images[rows], size), split.labels[rows], numbers_of(split, rows, seed)
    )


def numbers_of(split: Split, rows: Tensor, seed: int) -> Tensor:
    """(n,) int64: the number of each image, from which a defense draws; see `Defense.purify`."""
    ids = split.ids
    return torch.tensor([derive_seed(seed, "item", ids[row]) for row in rows.tolist()]).long()
