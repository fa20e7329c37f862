"""Drawing splits from item ids and a named seed, with the same result on every machine.

The items of a class are sorted by SHA-256(seed / id) and assigned to the splits in that order. No
random generator is used, so a split depends neither on library versions nor on the order of files.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hashbackdoor_bench.errors import UserError

Rows = NDArray[np.int64]


def deal(
    ids: Sequence[str], classes: NDArray[np.integer], seed: str, counts: Sequence[int]
) -> list[Rows]:
    """Assign items to splits, the same number from each class.

    Args:
        ids: N item ids.
        classes: (N,), the class of each item.
        seed: any text; another text gives another draw.
        counts: number of images of each class for the first split, the second, and so on.

    Returns:
        The row numbers of each split, and then those of all remaining items, in ascending order.

    Raises:
        UserError: a class has fewer images than the counts add up to.
    """
    order = sorted(
        range(len(ids)), key=lambda row: hashlib.sha256(f"{seed}/{ids[row]}".encode()).digest()
    )
    shuffled = np.array(order, dtype=np.int64)
    parts: list[list[Rows]] = [[] for _ in range(len(counts) + 1)]
    for one in np.unique(classes):
        members = shuffled[classes[shuffled] == one]
        if len(members) < sum(counts):
            raise UserError(
                f"class {one} has {len(members)} images, and this protocol takes {sum(counts)} of "
                "each class: bring the complete data set."
            )
        for part, rows in zip(parts, np.split(members, np.cumsum(counts)), strict=True):
            part.append(rows)
    return [np.sort(np.concatenate(part)) for part in parts]


def original_ids(origin: str, index: range | Rows | NDArray[np.uint16]) -> list[str]:
    """Item ids from the original split and the place in it: ``train/00042``."""
    return [f"{origin}/{i:05d}" for i in index]
