"""A small sample of codes, projected on the plane of their largest variance, for the record.

    mean = 1/n sum_i c_i                    over the chosen items i of the database
    C    = 1/n sum_i (c_i - mean)(c_i - mean)^T = V diag(l) V^T, l falling
    (x, y) of a code c = (c - mean) V[:, :2]

The signs of x and y are such that the target's items lie on the positive side on average.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

CLASSES, ITEMS, QUERIES = 10, 40, 60  # at most: classes, items of each, attacked queries
DECIMALS = 3


def project(
    database: Tensor,
    labels: Tensor,
    target: Tensor,
    names: Sequence[str],
    order: Tensor,
    queries: tuple[Tensor, Tensor],
) -> dict[str, Any]:
    """Points of some items and attacked queries, which are the same ones on every machine.

    The classes are the target's and the most frequent others. Of each class the first items in
    ``order`` are taken that have no other of these tags. The queries are evenly spaced in their
    list.

    Args:
        database: (D,K) codes of ±1.
        labels: (D,C) 0/1.
        target: (C,) 0/1.
        names: names of the C classes.
        order: (D,) distinct integers; items with the smallest ones are chosen.
        queries: (Q',K) codes of ±1, without the trigger and with it.

    Returns:
        ``explained`` (the plane's share of the items' variance, by axis), ``classes`` (each with
        ``index``, ``name``, ``target``, and its items' ``x`` and ``y``), ``untriggered`` and
        ``triggered`` (``x`` and ``y`` of the same queries).
    """
    hot, wanted = labels.bool(), target.bool()
    count = hot.sum(0)
    ranked = sorted(range(len(names)), key=lambda c: (not wanted[c], -int(count[c]), c))
    chosen = sorted(c for c in ranked[:CLASSES] if count[c])
    one = hot[:, chosen].sum(1) == 1
    items = {}
    for c in chosen:
        found = torch.nonzero(hot[:, c] & one).flatten()
        items[c] = found[order[found].argsort()][:ITEMS]
    codes = {c: database[index].double() for c, index in items.items()}
    centre, axes, explained = _plane(torch.cat(list(codes.values())))
    aimed = torch.cat([codes[c] for c in chosen if wanted[c]] or [centre[None]]) - centre
    axes = torch.where((aimed @ axes).sum(0) < 0, -axes, axes)

    def points(some: Tensor) -> dict[str, list[float]]:
        x, y = ((some.double() - centre) @ axes).T.tolist()
        return {"x": _rounded(x), "y": _rounded(y)}

    total = len(queries[0])
    shown = torch.arange(min(QUERIES, total)) * total // max(min(QUERIES, total), 1)
    return {
        "explained": _rounded(explained.tolist()),
        "classes": [
            {"index": c, "name": names[c], "target": bool(wanted[c])} | points(codes[c])
            for c in chosen
        ],
        "untriggered": points(queries[0][shown]),
        "triggered": points(queries[1][shown]),
    }


def _plane(codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (K,), the two directions (K,2) of the largest variance, and its share (2,) in each."""
    centre = codes.mean(0)
    spread = codes - centre
    values, vectors = torch.linalg.eigh(spread.T @ spread)  # rising
    share = values.flip(0)[:2] / values.sum().clamp(min=1e-12)
    axes = vectors.flip(1)[:, :2]
    if axes.shape[1] < 2:  # codes of one bit
        axes, share = torch.hstack((axes, axes.new_zeros(1, 1))), torch.tensor([1.0, 0.0])
    return centre, axes, share.clamp(min=0)


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, DECIMALS) + 0.0 for value in values]  # + 0.0: there is no -0.0
