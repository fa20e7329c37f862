"""Scores of what an approximate index finds, by the same counts and kernels as exact scores.

An index returns some items of the database with their exact Hamming distances, and says nothing of
the others. Its ranking is that of the items which it found: AP@R is the AP of their R nearest, with
tied items in expectation over all of their orders, as in `ranking`. An item that was not found
takes no place in the ranking, so a list shorter than R simply ends. What becomes of relevant items
that were not found depends on the normaliser:

    retrieved    they are as if the database did not hold them, and AP can rise when hits are lost
    ideal        each is a hit with precision 0: the sum is divided by min(R, relevant items in the
                 whole database), so losing an item never raises AP if the item was relevant

Whether an index finds the right items at all is its `recall`.
"""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashbackdoor_bench.metrics.code_words import Words, check_classes, tag_words
from hashbackdoor_bench.metrics.ranking import Ranking

Found = tuple[int, NDArray[np.int64], NDArray[np.int64]]  # query, items, their distances


def rank_found(
    query_labels: Tensor, database_labels: Tensor, found: Iterable[Found], bits: int
) -> Ranking:
    """The ranking of the items that an index found, for `score` with any order of ties but seeded.

    Args:
        query_labels: (Q, C) of 0 and 1.
        database_labels: (D, C) of 0 and 1.
        found: for every query its number 0..Q-1, the positions (n,) of the items found for it in
            the database, each once, and their Hamming distances (n,) in bits. A query that is not
            named has found nothing.
        bits: K.

    Raises:
        ValueError: a label is not 0 or 1, or the two sides have different numbers of classes.
    """
    check_classes(query_labels, database_labels)
    wanted, _ = tag_words("query_labels", query_labels)
    tags, _ = tag_words("database_labels", database_labels)
    items = np.zeros((len(wanted), bits + 1), np.int32)
    relevant = np.zeros_like(items)
    for query, positions, distances in found:
        hit = _shares_tag(tags[positions], wanted[query])
        items[query] = np.bincount(distances, minlength=bits + 1)
        relevant[query] = np.bincount(distances[hit], minlength=bits + 1)
    rows, row_of = np.unique(wanted, axis=0, return_inverse=True)
    totals = np.array([_shares_tag(tags, row).sum() for row in rows], np.int64)
    counts = torch.from_numpy(items), torch.from_numpy(relevant)
    return Ranking(*counts, torch.from_numpy(totals[row_of.reshape(-1)]), len(tags), None)


def recall(found: Ranking, exact: Ranking, top_k: int) -> Tensor:
    """Share (Q,) float64 of the ``top_k`` (R) nearest items of the database that an index found.

    Of the items at the distance of number R, any will do that fill the places which nearer items
    leave; but they don't make up for a nearer item that was not found.

    Args:
        found: from `rank_found`.
        exact: from `rank`, of the same queries and database.
        top_k: R, from 1 to the number of items.
    """
    first = torch.cat(
        [exact.items.new_zeros(len(exact.items), 1), exact.items.cumsum(1)[:, :-1]], 1
    )
    places = (top_k - first).clamp(min=0).minimum(exact.items)  # (Q, K+1), of the R at a distance
    return found.items.minimum(places).sum(1).double() / top_k


def _shares_tag(tags: Words, row: Words) -> NDArray[np.bool_]:
    """Mask (N,) of the label rows (N, T) that share a tag with one row (T,), all in words."""
    return np.asarray((tags & row).any(axis=1))
