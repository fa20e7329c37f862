"""Hash centres: exact distances of Hadamard rows, and what happens where there are none."""

import pytest
import torch
from torch import Tensor

from hashbackdoor_bench import UserError, hash_centres, tie_vector, voted_centre
from hashbackdoor_bench.network.centres import hadamard


def distances(centres: Tensor) -> list[int]:
    """Every pair counted bit by bit."""
    rows = centres.tolist()
    return [
        sum(p != q for p, q in zip(a, b, strict=True)) for i, a in enumerate(rows) for b in rows[:i]
    ]


def constant_bits(centres: Tensor) -> int:
    return sum(len(set(bit)) == 1 for bit in centres.T.tolist())


def distinct_bits(centres: Tensor) -> int:
    """Bits that cut the classes into two in different ways."""
    bits = [tuple(bit) for bit in centres.T.int().tolist()]
    return len({min(bit, tuple(-value for value in bit)) for bit in bits})


@pytest.mark.parametrize("order", [1, 2, 4, 12, 16, 20, 24, 40, 44, 48, 64, 96, 128])
def test_rows_of_a_hadamard_matrix_are_orthogonal(order: int) -> None:
    matrix = hadamard(order)
    assert matrix is not None
    assert set(matrix.flatten().tolist()) <= {-1.0, 1.0}
    assert torch.equal(matrix @ matrix.T, order * torch.eye(order))


@pytest.mark.parametrize("order", [3, 6, 10, 36, 92])
def test_an_order_out_of_reach_gives_none(order: int) -> None:
    assert hadamard(order) is None


def test_a_power_of_two_is_sylvesters_matrix() -> None:
    expected = [[(-1.0) ** bin(i & j).count("1") for j in range(64)] for i in range(64)]
    assert torch.equal(hadamard(64), torch.tensor(expected))


def test_other_orders_are_paleys_matrix() -> None:
    squares = {pow(a, 2, 47) for a in range(1, 47)}
    matrix = hadamard(48)
    assert matrix is not None
    core = matrix[1:, 1:] - torch.eye(47)
    for i in range(47):
        for j in range(47):
            square = (i - j) % 47 in squares
            assert core[i, j] == (0 if i == j else 1 if square else -1)


@pytest.mark.parametrize("bits", [12, 16, 24, 32, 48, 64, 128])
def test_ten_classes_are_half_the_bits_apart_and_waste_no_bit(bits: int) -> None:
    for seed in range(10):
        centres = hash_centres(10, bits, seed=seed)
        assert set(distances(centres)) == {bits // 2}
        assert constant_bits(centres) == 0
        assert distinct_bits(centres) == bits


@pytest.mark.parametrize(("bits", "constant", "distinct"), [(32, 2, 16), (64, 4, 16), (128, 8, 16)])
def test_the_first_rows_of_sylvester_repeat_sixteen_bits(
    bits: int, constant: int, distinct: int
) -> None:
    centres = hash_centres(10, bits, rows="first")
    assert torch.equal(centres, hadamard(bits)[:10])
    assert constant_bits(centres) == constant
    assert distinct_bits(centres) == distinct


def test_more_classes_than_bits_take_the_negative_rows() -> None:
    matrix = hadamard(16)
    assert torch.equal(hash_centres(20, 16, rows="first"), torch.cat([matrix, -matrix[:4]]))
    assert set(distances(hash_centres(32, 16))) == {8, 16}


@pytest.mark.parametrize("bits", range(4, 70))
def test_any_number_of_bits_keeps_the_stated_distance(bits: int) -> None:
    order = next(n for n in range(bits, 2 * bits + 1) if hadamard(n) is not None)
    for rows in ("random", "first"):
        centres = hash_centres(8, bits, rows=rows, seed=bits)
        assert centres.shape == (8, bits)
        assert set(centres.flatten().tolist()) == {-1.0, 1.0}
        assert min(distances(centres)) >= bits - order // 2


@pytest.mark.parametrize(
    ("classes", "bits", "apart"),
    [(10, 7, 3), (16, 7, 3), (100, 7, 1), (100, 16, 5), (100, 48, 18), (100, 64, 32)],
)
def test_many_classes_keep_a_minimum_distance(classes: int, bits: int, apart: int) -> None:
    for seed in range(3):
        assert min(distances(hash_centres(classes, bits, seed=seed))) >= apart


def test_a_thousand_classes_are_22_of_64_bits_apart() -> None:
    centres = hash_centres(1000, 64)
    assert (64 - (centres @ centres.T - 65 * torch.eye(1000))).min() / 2 >= 22
    assert min(distances(hash_centres(150, 64, rows="first"))) >= 22


def test_a_seed_fixes_the_centres() -> None:
    for classes, bits, rows in ((10, 48, "random"), (100, 16, "random"), (100, 16, "first")):
        one, again, other = (hash_centres(classes, bits, rows=rows, seed=n) for n in (3, 3, 4))
        assert torch.equal(one, again)
        assert not torch.equal(one, other)


def test_coin_tosses_are_balanced_distinct_and_as_near_as_stated() -> None:
    assert torch.equal(hash_centres(10, 48, rows="coins"), hash_centres(10, 48, rows="coins"))
    assert abs(hash_centres(100, 1000, rows="coins").mean()) < 0.01
    for bits, least, most in ((24, 2, 5), (48, 9, 13)):
        for seed in range(4):
            assert least <= min(distances(hash_centres(100, bits, rows="coins", seed=seed))) <= most
    drawn = torch.stack([hash_centres(2, 64, rows="coins", seed=n) for n in range(5)])
    assert len(drawn.flatten(1).unique(dim=0)) == 5


def test_two_equal_coin_tosses_are_refused() -> None:
    words = []
    for seed in range(20):
        try:
            assert min(distances(hash_centres(4, 3, rows="coins", seed=seed))) > 0
        except UserError as error:
            words.append(str(error))
    assert 5 < len(words) < 19  # two of four are equal in 1 - 7/8 6/8 5/8 = .59 of all draws
    assert all("--bits 3: two of 4 classes drew the same random centre" in said for said in words)
    with pytest.raises(UserError, match=r"--set victim\.centre_seed=8, or --set victim\.centres=s"):
        hash_centres(9, 3, rows="coins", seed=7)


def test_the_vector_for_ties_is_that_of_its_seed() -> None:
    drawn = [tie_vector(48, seed).tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert set(drawn[0]) == {-1.0, 1.0}
    assert abs(tie_vector(10_000, 3).mean()) < 0.04


def test_labels_vote_bit_by_bit_and_ties_take_the_given_bits() -> None:
    draw = torch.Generator().manual_seed(0)
    y = torch.randint(2, (40, 5), generator=draw).float()
    centres, tie = hash_centres(5, 12), tie_vector(12, 1)
    found, tied = voted_centre(y, centres, tie), 0
    for i, tags in enumerate(y.tolist()):
        for k in range(12):
            votes = [centres[c, k].item() for c, tag in enumerate(tags) if tag]
            pro, contra = votes.count(1.0), votes.count(-1.0)
            tied += pro == contra
            assert found[i, k] == (tie[k] if pro == contra else 1 if pro > contra else -1)
    assert tied > 20


def test_too_few_bits_for_the_classes_is_said() -> None:
    assert len(set(map(tuple, hash_centres(8, 3).tolist()))) == 8
    with pytest.raises(UserError, match=r"--bits 3 can't tell 10 classes apart"):
        hash_centres(10, 3)
