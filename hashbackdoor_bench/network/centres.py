"""Hash centres: one code of ±1 for each class, far apart, for any number of bits; anchor codes.

The rows of a Hadamard matrix H of order n (H H' = n I) differ from each other in exactly n/2
places, and from the rows of -H in n/2 or n. Here H comes from Sylvester's doubling for powers of
two and from the first construction of Paley (J. Math. Phys. 12, 1933) where n - 1 is a prime 3 mod
4 (12, 20, 24, 48, ...), doubled where needed (40, 96, ...).
"""

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from hashbackdoor_bench.api import generator, to_unit
from hashbackdoor_bench.errors import UserError

if TYPE_CHECKING:
    from hashbackdoor_bench.network.model import HashModel


@torch.no_grad()
def anchor_code(model: "HashModel", images: Tensor) -> Tensor:
    """The majority code of images (n,3,S,S) uint8, bit by bit: (K,) in {-1, 0, +1}, 0 if tied."""
    device = next(model.parameters()).device
    votes = [model.code(to_unit(part.to(device))).sum(0) for part in torch.split(images, 250)]
    return torch.stack(votes).sum(0).sign().float()


def hash_centres(
    classes: int, bits: int, *, rows: Literal["random", "first", "coins"] = "random", seed: int = 0
) -> Tensor:
    """One centre for each class, (C,K) of ±1; no two are equal.

    They are rows of the smallest matrix H that can be constructed here with n >= K, cut to K
    columns. So up to 2n classes are at least K - n/2 bits apart: K/2 where n = K, as for 12, 16,
    24, 32, 48 and 64 bits. For more classes further rows are added one by one, each the random row
    farthest from all earlier ones: 100 classes are 5 bits apart at 16 bits and 18 at 48, 1000
    classes 22 at 64 bits.

    Args:
        classes: C.
        bits: K.
        rows: ``random`` rows and columns, each row with a random sign; or the ``first`` rows of H,
            then of -H: there bit 0 is the same for all classes if C <= K, and 10 classes at 64 bits
            have 4 such bits and 16 distinct ones. ``coins`` takes no matrix: each bit of each class
            is a coin toss, and the nearest two of 100 classes are 1 or 2 bits apart at 16 bits, 9
            to 13 at 48.
        seed: seed of all random choices.

    Raises:
        UserError: K bits can't tell C classes apart, or two classes drew the same coins.
    """
    if rows == "coins":
        centres = 2.0 * torch.randint(2, (classes, bits), generator=generator(seed, "coins")) - 1
        if (_distance(centres, centres) == 0).sum() > classes:
            raise UserError(
                f"--bits {bits}: two of {classes} classes drew the same random centre: give more "
                f"bits, --set victim.centre_seed={seed + 1}, or --set victim.centres=signed."
            )
        return centres
    order = bits
    while (matrix := hadamard(order)) is None:
        order += 1
    if rows == "first":
        centres = torch.cat([matrix, -matrix])[:classes, :bits]
    else:
        centres = _signed(matrix, classes, bits, generator(seed, "centres"))
    return _extend(centres, classes, generator(seed, "centres", "more"))


def voted_centre(y: Tensor, centres: Tensor, tie: Tensor) -> Tensor:
    """The centre of each image by the vote of its labels: (N,C) -> (N,K) of ±1.

    Args:
        y: (N,C), 0/1 labels.
        centres: (C,K) of ±1.
        tie: (K,) of ±1, the bits of a centre where its labels disagree.
    """
    votes = y @ centres
    return torch.where(votes == 0, tie, votes.sign())


def tie_vector(bits: int, seed: int) -> Tensor:
    """(K,) of random ±1, for `voted_centre`."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(2, (bits,), generator=draw).mul(2).sub(1).float()


def hadamard(order: int) -> Tensor | None:
    """(n,n) of ±1 with orthogonal rows, for order n; None if neither construction gives one."""
    if order == 1:
        return torch.ones(1, 1)
    if order % 4 == 0 and order & (order - 1) and _is_prime(order - 1):
        return _paley(order - 1)
    half = hadamard(order // 2) if order % 2 == 0 else None
    return None if half is None else torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), half)


def _paley(q: int) -> Tensor:
    """Paley's first Hadamard matrix, of order q + 1, for a prime q = 3 mod 4."""
    number = torch.arange(q)
    character = torch.full((q,), -1.0)  # 1 for the squares modulo q, 0 for 0, -1 for the rest
    character[number**2 % q] = 1
    character[0] = 0
    matrix = torch.eye(q + 1)
    matrix[0, 1:], matrix[1:, 0] = 1, -1
    matrix[1:, 1:] += character[(number[:, None] - number) % q]
    return matrix


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % factor for factor in range(2, int(number**0.5) + 1))


def _signed(matrix: Tensor, classes: int, bits: int, draw: torch.Generator) -> Tensor:
    """Random rows of matrix (n,n) with random signs, then their negatives: (min(C,2n), K).

    The best of at most 100 draws: farthest apart, then with the fewest bits that are the same for
    all classes (10 classes at 64 bits have one in every eighth draw), then with the most distinct.
    """
    order = len(matrix)
    best, best_score = matrix, (-1, 0, 0)
    for _ in range(100):
        rows = matrix[torch.randperm(order, generator=draw)]
        rows = rows[:, torch.randperm(order, generator=draw)[:bits]]
        rows = rows * (2.0 * torch.randint(2, (order, 1), generator=draw) - 1)
        centres = torch.cat([rows, -rows])[:classes]
        apart = _distance(centres, centres).fill_diagonal_(bits)
        constant = int((centres.sum(0).abs() == len(centres)).sum())
        # A bit and its negative split the classes in the same way; this product makes them equal.
        distinct = torch.unique(centres * centres[0], dim=1).shape[1]
        score = (int(apart.min()), -constant, distinct)
        if score > best_score:
            best, best_score = centres, score
        if score >= (bits // 2, 0, bits):
            break
    return best


def _extend(centres: Tensor, classes: int, draw: torch.Generator) -> Tensor:
    """Centres (c,K) and C - c more rows, each the one of a pool that is farthest from all before.

    The pool is every row of up to 14 bits, else 16 384 random ones and four for each class.
    """
    bits = centres.shape[1]
    if len(centres) == classes:
        return centres
    if bits <= 14:
        number = torch.randperm(2**bits, generator=draw)
        pool = 2.0 * (number[:, None] >> torch.arange(bits) & 1) - 1
    else:
        pool = 2.0 * torch.randint(2, (2**14 + 4 * classes, bits), generator=draw) - 1
    nearest = _distance(pool, centres).amin(1)
    more: list[Tensor] = []
    while len(centres) + len(more) < classes:
        at = int(nearest.argmax())
        if nearest[at] < 1:
            raise UserError(f"--bits {bits} can't tell {classes} classes apart: give more bits.")
        more.append(pool[at])
        nearest = torch.minimum(nearest, _distance(pool, pool[at : at + 1])[:, 0])
    return torch.cat([centres, torch.stack(more)])


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """Hamming distances in bits: a (A,K), b (B,K) of ±1 -> (A,B)."""
    return (a.shape[1] - a @ b.T) / 2
