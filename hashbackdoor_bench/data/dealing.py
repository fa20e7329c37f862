"""How the splits that we draw are drawn: from item ids, with a named seed, alike on any machine.

The items of a class are put in the order of SHA-256(seed / id) and dealt out from the front. No
random generator takes part, so no version of a library and no order of files can change a split.
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
    """Deal the items out to splits, the same number from each class.

    Args:
        ids: N item ids.
        classes: (N,) class of each.
        seed: any text; another text is another draw.
        counts: how many images of each class go to the first split, the second, and so on.

    Returns:
        Row numbers for each count, and last those of all items that are left; each in ascending
        order.

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
