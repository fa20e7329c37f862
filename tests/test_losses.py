"""OrthoHash, DPN, GreedyHash, DCH, DTSH and DSDH against their formulas, one pair at a time."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from formulas import (
    ALL_LABELS,
    CENTRES,
    CLASSIFIER,
    LABELS,
    SLOTS,
    TIE,
    UNTAGGED,
    Y1,
    Y2,
    Rows,
    Z,
    assert_is,
    assert_worked,
    cosine,
    dot,
    item_losses,
    make,
    mean,
    pair_loss,
    sign_of,
    softmax_loss,
    solved_codes,
    value,
)
from torch import Tensor

# --- the worked values of methods/victims-in-depth.md, section 4 ---------------------------------


@pytest.mark.parametrize(
    ("name", "settings", "one_tag", "several"),
    [
        ("dch", {}, 2.409654, 2.238694),
        ("dch", {"quantisation": 0.0}, 2.407972, 2.237012),
        ("greedyhash", {}, 0.348577, 1.393746),
        ("dpn", {}, 1.191667, 0.975000),
        ("dpn", {"reduction": "sum"}, 4.766667, 3.900000),
        ("orthohash", {}, 4.112573, 3.236698),
        ("dtsh", {}, 3.574569, None),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else None,
)
def test_a_loss_has_the_worked_value(
    name: str, settings: dict[str, Any], one_tag: float, several: float | None
) -> None:
    assert_worked(name, Y1, one_tag, **settings)
    if several is not None:
        assert_worked(name, Y2, several, **settings)


def test_the_parts_of_dch_have_the_worked_values() -> None:
    parts = [value(make("dch", Y1, quantisation=w), Z, Y1, SLOTS, 0).item() for w in (0.0, 1.0)]
    assert parts[1] - parts[0] == pytest.approx(0.016816, abs=6e-7)


def test_dtsh_with_the_triplets_of_the_authors_has_the_worked_value() -> None:
    assert_worked("dtsh", Y1, 3.547670, variant="authors", margin=2.0, quantisation=1.0)


def test_dsdh_with_given_codes_has_the_worked_value() -> None:
    loss: Any = make("dsdh", Y1, eta=1.0)
    loss.codes[:] = Z.new_tensor([[1, -1, 1, 1], [1, 1, -1, 1], [-1, 1, 1, 1]])
    assert value(loss, Z, Y1, SLOTS, 0).item() == pytest.approx(1.112580, abs=6e-7)


# --- every formula again, one pair, bit or triplet at a time -------------------------------------


@ALL_LABELS
@pytest.mark.parametrize(("scale", "margin"), [(8.0, 0.2), (3.0, 0.5)])
def test_orthohash_is_its_formula(y: Tensor, scale: float, margin: float) -> None:
    centres = CENTRES[-y.shape[1] :]

    def formula(z: Rows) -> float:
        terms = []
        for row, tags in zip(z, y.tolist(), strict=True):
            if sum(tags):
                logits = [
                    scale * (cosine(row, centre) - (margin if tag else 0))
                    for centre, tag in zip(centres, tags, strict=True)
                ]
                terms.append(softmax_loss(logits, tags))
        return mean(terms)

    assert_is(make("orthohash", y, scale=scale, margin=margin), formula, y, SLOTS)


@ALL_LABELS
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("margin", [0.9, 1.6])  # at 1, a bit of Z is at the kink
def test_dpn_is_its_formula(y: Tensor, reduction: str, margin: float) -> None:
    def formula(z: Rows) -> float:
        terms = []
        for row, tags in zip(z, y.tolist(), strict=True):
            hinges = []
            for k, number in enumerate(row):
                vote = sum(tag * o[k] for tag, o in zip(tags, CENTRES[-len(tags) :], strict=True))
                target = TIE[k] if vote == 0 else sign_of(vote)
                hinges.append(max(0, margin - target * number))
            if sum(tags):
                terms.append(sum(hinges) if reduction == "sum" else mean(hinges))
        return mean(terms)

    assert_is(make("dpn", y, margin=margin, reduction=reduction), formula, y, SLOTS)


@ALL_LABELS
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_dpn_of_the_authors_adds_up_the_hinges_of_all_labels(y: Tensor, reduction: str) -> None:
    def formula(z: Rows) -> float:
        terms = []
        for row, tags in zip(z, y.tolist(), strict=True):
            hinges = [
                max(0, 0.9 - centre[k] * number)
                for tag, centre in zip(tags, CENTRES[-len(tags) :], strict=True)
                for k, number in enumerate(row)
                if tag
            ]
            if sum(tags):
                terms.append(sum(hinges) / (4 if reduction == "mean" else 1))
        return mean(terms)

    assert_is(make("dpn", y, margin=0.9, reduction=reduction, multi="sum"), formula, y, SLOTS)


@ALL_LABELS
@pytest.mark.parametrize("alpha", [0.1, 1.0])
def test_greedyhash_is_its_formula_with_the_gradient_passed_through_the_sign(
    y: Tensor, alpha: float
) -> None:
    at = Z.tolist()

    def formula(z: Rows) -> float:
        """The formula near Z, where the code moves as z does: that is the rule for gradients."""
        terms, pulls = [], []
        for row, start, tags in zip(z, at, y.tolist(), strict=True):
            b = [sign_of(s) + number - s for number, s in zip(row, start, strict=True)]
            if sum(tags):
                logits = [dot(w, b) for w in CLASSIFIER[: len(tags)]]
                terms.append(softmax_loss(logits, tags))
            pulls += [abs(abs(number) - 1) ** 3 for number in row]
        return mean(terms) + alpha * mean(pulls)

    assert_is(make("greedyhash", y, alpha=alpha), formula, y, SLOTS)


def dch(
    z: Rows,
    y: Rows,
    gamma: float,
    weight: float,
    distance: Callable[[list[float], list[float]], float],
    pull: Callable[[list[float]], float],
    released: bool = False,
) -> float:
    """Pair by pair; ``released`` leaves out self-pairs and weights only the similar pairs."""
    kinds: dict[bool, list[float]] = {True: [], False: []}
    for i, j in itertools.product(range(len(z)), repeat=2):
        if not (released and i == j):
            d = distance(z[i], z[j])
            similar = dot(y[i], y[j]) > 0
            kinds[similar].append(math.log(1 + (d / gamma if similar else gamma / d)))
    pairs = len(kinds[True]) + len(kinds[False])
    weights = {kind: pairs / len(each) for kind, each in kinds.items() if each}
    if released:
        weights[False] = 1
    total = sum(weights[kind] * sum(each) for kind, each in kinds.items() if each)
    return total / pairs + weight * mean([pull(row) for row in z])


@LABELS
@pytest.mark.parametrize("clamp", ["cosine", "distance"])
@pytest.mark.parametrize(("gamma", "weight"), [(20.0, 0.1), (2.0, 0.7)])
def test_dch_is_its_formula(y: Tensor, clamp: str, gamma: float, weight: float) -> None:
    def distance(a: list[float], b: list[float]) -> float:
        if clamp == "cosine":
            return 4 / 2 * (1 - min(cosine(a, b), 0.99))
        return max(4 / 2 * (1 - cosine(a, b)), 0.001 * 4)

    def pull(row: list[float]) -> float:
        return math.log(1 + distance([abs(number) for number in row], [1.0] * 4) / gamma)

    def formula(z: Rows) -> float:
        return dch(z, y.tolist(), gamma, weight, distance, pull)

    loss = make("dch", y, gamma=gamma, quantisation=weight, clamp=clamp)
    assert_is(loss, formula, y, SLOTS)


@LABELS
@pytest.mark.parametrize(("gamma", "weight"), [(20.0, None), (2.0, 0.7)])
def test_dch_as_released_is_its_formula(y: Tensor, gamma: float, weight: float | None) -> None:
    def distance(a: list[float], b: list[float]) -> float:
        return sum((math.tanh(p) - math.tanh(q)) ** 2 for p, q in zip(a, b, strict=True)) + 0.001

    def pull(row: list[float]) -> float:
        return mean([(abs(math.tanh(number)) - 1) ** 2 for number in row])

    def formula(z: Rows) -> float:
        return dch(z, y.tolist(), gamma, weight or 0, distance, pull, released=True)

    loss = make("dch", y, gamma=gamma, quantisation=weight, variant="released")
    assert_is(loss, formula, y, SLOTS)


@pytest.mark.parametrize("y", [Y1, Y2, torch.eye(3).double()], ids=["one tag", "several", "lonely"])
@pytest.mark.parametrize(
    ("settings", "slope", "margin", "weight", "self_counts"),
    [
        ({}, 1, 5, 1, True),
        ({"margin": 1.5, "quantisation": 0.3}, 1, 1.5, 0.3, True),
        ({"variant": "authors"}, 0.5, 2, 100 * 4 / 22_500, False),
        ({"variant": "authors", "margin": 0.5, "quantisation": 0.0}, 0.5, 0.5, 0, False),
    ],
    ids=["deephash", "deephash, given", "authors", "authors, given"],
)
def test_dtsh_is_its_formula(
    y: Tensor,
    settings: dict[str, Any],
    slope: float,
    margin: float,
    weight: float,
    self_counts: bool,
) -> None:
    tags = y.tolist()

    def formula(z: Rows) -> float:
        rows = []
        for q in range(3):
            triplets = []
            for p, n in itertools.product(range(3), repeat=2):
                near = dot(tags[q], tags[p]) > 0 and (self_counts or p != q)
                if near and dot(tags[q], tags[n]) == 0:
                    gap = slope * (dot(z[q], z[p]) - dot(z[q], z[n])) - margin
                    triplets.append(math.log(1 + math.exp(-gap)))
            if triplets:
                rows.append(mean(triplets))
        pulls = [(number - sign_of(number)) ** 2 for row in z for number in row]
        return (mean(rows) if rows else 0) + weight * mean(pulls)

    assert_is(make("dtsh", y, **settings), formula, y, SLOTS)


def dsdh(z: Rows, y: Rows, u: Rows, u_tags: Rows, b: Rows, eta: float) -> float:
    """``b`` holds the codes of the batch; a row of zeros is no code."""
    pairs = [
        pair_loss(dot(z[i], u[j]) / 2, dot(y[i], u_tags[j]) > 0)
        for i in range(len(z))
        for j in range(len(u))
    ]
    pulls = [
        (number - code) ** 2 if code else 0.0
        for row, codes in zip(z, b, strict=True)
        for number, code in zip(row, codes, strict=True)
    ]
    return mean(pairs) + eta * mean(pulls)


@LABELS
@pytest.mark.parametrize(("eta", "mu", "nu"), [(0.01, 0.01, 1.0), (0.3, 2.0, 0.5)])
def test_dsdh_is_its_formula_with_codes_of_what_was_seen(
    y: Tensor, eta: float, mu: float, nu: float
) -> None:
    loss: Any = make("dsdh", y, items=6, eta=eta, mu=mu, nu=nu)
    u, tags, b = ([[0.0] * width for _ in range(6)] for width in (4, y.shape[1], 4))

    def see(z: Tensor, y: Tensor, slots: list[int]) -> None:
        for slot, row, row_tags in zip(slots, z.tolist(), y.tolist(), strict=True):
            u[slot], tags[slot] = row, row_tags

    def solve(slots: list[int]) -> None:
        start = [b[i] if any(b[i]) else [sign_of(number) for number in u[i]] for i in slots]
        found = solved_codes(
            [u[i] for i in slots], [tags[i] for i in slots], start, eta / mu, nu / mu
        )
        for slot, row in zip(slots, found, strict=True):
            b[slot] = row

    def formula(z: Rows) -> float:
        return dsdh(z, y.tolist(), u, tags, [b[4], b[3], b[0]], eta)

    loss.on_epoch(0)  # nothing was seen
    assert not loss.codes.any()
    earlier = 0.7 * Z[:2].flip(1)
    loss.remember(earlier, y[1:], torch.tensor([3, 5]), 0)
    see(earlier, y[1:], [3, 5])
    loss.on_epoch(1)
    solve([3, 5])
    assert loss.codes.tolist() == b
    see(Z, y, [4, 3, 0])
    assert_is(loss, formula, y, torch.tensor([4, 3, 0]))  # only item 3 has a code
    loss.on_epoch(2)
    solve([0, 3, 4, 5])
    assert loss.codes.tolist() == b
    assert all(any(b[slot]) for slot in (0, 3, 4))
    assert_is(loss, formula, y, torch.tensor([4, 3, 0]))


@LABELS
def test_dsdh_of_the_authors_solves_the_codes_of_each_batch(y: Tensor) -> None:
    loss: Any = make("dsdh", y, items=5, variant="authors", eta=0.4, nu=3.0)
    earlier = 0.7 * Z[:2].flip(1)
    loss.remember(earlier, y[1:], torch.tensor([3, 4]), 0)
    loss.on_epoch(1)  # which solves nothing
    signs = [[sign_of(number) for number in row] for row in earlier.tolist()]
    old = solved_codes(earlier.tolist(), y[1:].tolist(), signs, 0, 0.1)
    assert loss.codes[3:].tolist() == old
    u, tags = [[0.0] * 4 for _ in range(5)], [[0.0] * y.shape[1] for _ in range(5)]
    for slot, row, row_tags in zip((4, 0, 2), Z.tolist(), y.tolist(), strict=True):
        u[slot], tags[slot] = row, row_tags
    u[3], tags[3] = earlier[0].tolist(), y[1].tolist()
    signs = [[sign_of(number) for number in row] for row in Z.tolist()]
    b = solved_codes(Z.tolist(), y.tolist(), signs, 0, 0.1)

    def formula(z: Rows) -> float:
        return dsdh(z, y.tolist(), u, tags, b, 0.4)

    assert_is(loss, formula, y, torch.tensor([4, 0, 2]))


# --- the loss of each item -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["orthohash", "dpn"])
def test_an_item_without_labels_has_no_loss_and_the_others_have_more(name: str) -> None:
    both = make(name, UNTAGGED)
    alone = [both(Z[[i]], UNTAGGED[[i]], SLOTS[[i]], 0).item() for i in (0, 2)]
    expected = [3 / 2 * alone[0], 0, 3 / 2 * alone[1]]
    assert item_losses(name, UNTAGGED) == pytest.approx(expected)


def test_an_item_of_greedyhash_without_labels_has_only_its_pull() -> None:
    pulls = [mean([abs(abs(number) - 1) ** 3 for number in row]) for row in Z.tolist()]
    loss = make("greedyhash", UNTAGGED, alpha=0.0)
    alone = [loss(Z[[i]], UNTAGGED[[i]], SLOTS[[i]], 0).item() for i in (0, 2)]
    expected = [
        3 / 2 * alone[0] + 0.4 * pulls[0],
        0.4 * pulls[1],
        3 / 2 * alone[1] + 0.4 * pulls[2],
    ]
    assert item_losses("greedyhash", UNTAGGED, alpha=0.4) == pytest.approx(expected)


def test_an_item_of_dtsh_has_the_triplets_that_begin_with_it() -> None:
    z, weight = Z.tolist(), 0.3
    pulls = [mean([(number - sign_of(number)) ** 2 for number in row]) for row in z]

    def one(q: int, p: int, n: int) -> float:
        return math.log(1 + math.exp(5 - dot(z[q], z[p]) + dot(z[q], z[n])))

    triplets = [[(0, 0, 2), (0, 1, 2)], [], [(2, 1, 0), (2, 2, 0)]]  # item 1 is similar to all
    expected = [
        3 / 2 * mean([one(*t) for t in mine]) + weight * pull if mine else weight * pull
        for mine, pull in zip(triplets, pulls, strict=True)
    ]
    assert item_losses("dtsh", Y2, quantisation=weight) == pytest.approx(expected)


def test_an_item_of_dch_has_the_pairs_of_its_row() -> None:
    z, tags = Z.tolist(), Y2.tolist()
    similar = [[dot(a, b) > 0 for b in tags] for a in tags]
    alike = sum(map(sum, similar))
    expected = []
    for i in range(3):
        total = 0.0
        for j in range(3):
            d = 2 * (1 - min(cosine(z[i], z[j]), 0.99))
            term = math.log(1 + (d / 20 if similar[i][j] else 20 / d))
            total += 3 * term / (alike if similar[i][j] else 9 - alike)
        pull = math.log(1 + 2 * (1 - min(cosine([abs(v) for v in z[i]], [1.0] * 4), 0.99)) / 20)
        expected.append(total + 0.1 * pull)
    assert item_losses("dch", Y2) == pytest.approx(expected)


def test_an_item_of_dsdh_has_its_pairs_with_the_bank_and_its_pull() -> None:
    loss: Any = make("dsdh", Y2, eta=0.3)
    loss.remember(Z, Y2, SLOTS, 0)
    loss.on_epoch(1)
    z, tags, b = Z.tolist(), Y2.tolist(), loss.codes.tolist()
    expected = [dsdh([z[i]], [tags[i]], z, tags, [b[i]], 0.3) for i in range(3)]
    assert loss.items(Z, Y2, SLOTS, 3).tolist() == pytest.approx(expected)
