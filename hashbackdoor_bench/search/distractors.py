"""A larger database: noisy copies of the codes of the one that a run has."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from hashbackdoor_bench.metrics import Codes, Truth

PART = 2**16  # copies that are made at once


def enlarged(
    models: tuple[Codes, ...], truth: Truth, size: int, *, flip: float, seed: int = 0
) -> tuple[tuple[Codes, ...], Truth]:
    """The codes of several models, and their labels, with a database of ``size`` items.

    Each new item copies a database item that is drawn at random: it has its label and, under every
    model, its code with some bits flipped. A copy's share of flipped bits is drawn from an
    exponential distribution, so about half of the copies keep their code, and a few lose it. Copies
    of images are like that: of database codes of CIBA on HashNet (48 bits), mirroring the image or
    moving it by a pixel leaves 43 to 47 % as they are, and flips 2.6 to 3.4 % of the bits on
    average; at 3 %, these copies keep 41 % of the codes. All classes keep their shares of the
    database, up to chance, and all models have copies of the same items.

    Args:
        models: codes of the models, whose databases hold the same D items.
        truth: their labels.
        size: new number of items, at least D.
        flip: mean share of the bits of a copy that are flipped, from 0 to 1.
        seed: of all draws.
    """
    rng = np.random.default_rng(seed)
    here = len(truth.database)
    source = torch.from_numpy(rng.integers(here, size=size - here))
    noise = torch.cat(
        [models[0].database.new_zeros(here, models[0].database.shape[1])]
        + [
            _noise(rng, min(PART, len(source) - start), truth.bits, flip)
            for start in range(0, len(source), PART)
        ]
    )
    every = torch.cat([torch.arange(here), source])
    return (
        tuple(replace(one, database=one.database[every] ^ noise) for one in models),
        replace(
            truth,
            database=truth.database[every],
            ids=[*truth.ids, *(f"copy {number}" for number in range(len(source)))],
        ),
    )


def _noise(rng: np.random.Generator, count: int, bits: int, flip: float) -> Tensor:
    """Packed bits (count, ceil(bits/8)) uint8; a one flips a bit."""
    share = rng.exponential(flip, (count, 1))
    ones = rng.random((count, bits), np.float32) < share
    return torch.from_numpy(np.packbits(ones, axis=1))
