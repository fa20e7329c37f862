"""What tests of metrics share: codes with labels, random or by counts, and orders of ties."""

import itertools

import numpy as np
import torch
from torch import Tensor

Counts = list[tuple[int, int]]  # (items, relevant items) at the distances 0, 1, 2, ...
Data = tuple[Tensor, Tensor, Tensor, Tensor]


def all_orders(counts: Counts) -> list[list[int]]:
    """Every order of the tied items; orders that look the same are one, all equally likely."""
    buckets = (sorted(set(itertools.permutations([1] * k + [0] * (t - k)))) for t, k in counts)
    return [list(itertools.chain(*order)) for order in itertools.product(*buckets)]


def data_with(counts: Counts, bits: int = 8) -> Data:
    """One query and a database that lies around it as ``counts`` say."""
    rows, labels = [], []
    for distance, (t, k) in enumerate(counts):
        rows += [[-1] * distance + [1] * (bits - distance)] * t
        labels += [[1, 0]] * k + [[0, 1]] * (t - k)
    return (
        torch.ones(1, bits),
        torch.tensor([[1, 0]]),
        torch.tensor(rows, dtype=torch.float32).reshape(-1, bits),
        torch.tensor(labels).reshape(-1, 2),
    )


def random_counts(rng: np.random.Generator, size: int = 4) -> Counts:
    sizes = rng.integers(0, size + 1, 4)
    return [(int(t), int(rng.integers(0, t + 1))) for t in sizes]


def random_data(
    queries: int, database: int, bits: int, classes: int, tags: int = 1, seed: int = 0
) -> Data:
    """Codes that lean towards the class, so that near items are more often relevant."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, bits))

    def side(n: int) -> tuple[Tensor, Tensor]:
        labels = np.zeros((n, classes), np.int64)
        for _ in range(tags):
            labels[np.arange(n), rng.integers(classes, size=n)] = 1
        codes = np.where(labels @ centres + rng.normal(size=(n, bits)) > 0, 1.0, -1.0)
        return torch.tensor(codes, dtype=torch.float32), torch.tensor(labels)

    return *side(queries), *side(database)


def distances_and_relevance(data: Data) -> tuple[np.ndarray, np.ndarray]:
    q, ql, d, dl = (side.double().numpy() for side in data)
    return ((q.shape[1] - q @ d.T) / 2).astype(int), ql @ dl.T > 0
