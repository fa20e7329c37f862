"""Hashing losses against their formulas in plain Python loops, and what every victim promises."""

import math
from typing import Any

import pytest
import torch
from formulas import (
    ALL_LABELS,
    LABELS,
    SLOTS,
    Y1,
    Y2,
    Rows,
    Z,
    assert_is,
    assert_worked,
    dot,
    item_losses,
    make,
    pair_loss,
    sign_of,
    value,
)
from torch import Tensor

from hashbackdoor_bench import VICTIMS, HashLoss, HashModel, UserError, voted_centre
from hashbackdoor_bench.checks import check_victim

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in VICTIMS if VICTIMS[name].cls.trained),
    ("hashnet", {"variant": "bank"}),
    ("hashnet", {"variant": "paper"}),
    ("hashnet", {"variant": "authors"}),
    ("hashnet", {"exclude_self": True}),
    ("hashnet", {"variant": "bank", "exclude_self": True}),
    ("csq", {"centres": "released"}),
    ("dhta_l2", {"scale": "bits", "clip": True, "quantisation": 1e-3}),
    ("orthohash", {"centres": "released"}),
    ("dpn", {"centres": "released", "reduction": "sum", "multi": "sum"}),
    ("dch", {"variant": "released", "quantisation": 0.1}),
    ("dch", {"clamp": "distance"}),
    ("dtsh", {"variant": "authors"}),
    ("dsdh", {"variant": "authors"}),
    ("dsdh", {"eta": 1.0, "nu": 0.1}),
]
EVERY = pytest.mark.parametrize(
    ("name", "settings"),
    VARIANTS,
    ids=["-".join([name, *map(str, settings.values())]) for name, settings in VARIANTS],
)


# --- the worked values of methods/victims-in-depth.md, section 4 ---------------------------------


@pytest.mark.parametrize(
    ("name", "y", "expected"),
    [
        ("dpsh", Y1, 0.696788),
        ("dpsh", Y2, 0.634010),
        ("hashnet", Y1, 1.335373),
        ("hashnet", Y2, 1.329578),
        ("csq", Y1, 1.236106),
        ("csq", Y2, 1.019440),
    ],
)
def test_a_loss_has_the_worked_value(name: str, y: Tensor, expected: float) -> None:
    assert_worked(name, y, expected)


def test_the_parts_of_dpsh_have_the_worked_values() -> None:
    likelihood = value(make("dpsh", Y1, quantisation=0.0), Z, Y1, SLOTS, 0).item()
    assert likelihood == pytest.approx(0.657996, abs=6e-7)
    whole = value(make("dpsh", Y1, quantisation=1.0), Z, Y1, SLOTS, 0).item()
    assert whole - likelihood == pytest.approx(0.387917, abs=6e-7)


@pytest.mark.parametrize("variant", ["deephash", "bank"])
def test_hashnet_at_beta_two_has_the_worked_value(variant: str) -> None:
    loss = make("hashnet", Y1, variant=variant)
    loss.on_epoch(60)
    assert value(loss, Z, Y1, SLOTS, 0).item() == pytest.approx(1.283768, abs=6e-7)


# --- every formula again, one pair at a time -----------------------------------------------------


def dpsh(z: Rows, y: Rows, u: Rows, u_labels: Rows, eta: float) -> float:
    pairs = [
        pair_loss(dot(z[i], u[j]) / 2, dot(y[i], u_labels[j]) > 0)
        for i in range(len(z))
        for j in range(len(u))
    ]
    pulls = [(value - sign_of(value)) ** 2 for row in z for value in row]
    return sum(pairs) / len(pairs) + eta * sum(pulls) / len(pulls)


@LABELS
def test_dpsh_is_its_formula_over_all_items(y: Tensor) -> None:
    loss = make("dpsh", y, items=5)
    earlier = 0.7 * Z[:2].flip(1)
    loss.remember(earlier, y[1:], torch.tensor([3, 4]), 0)
    u, u_labels = torch.zeros(5, 4), torch.zeros(5, y.shape[1])
    u[[4, 0, 2]], u_labels[[4, 0, 2]] = Z.float(), y.float()  # item 1 was not seen yet
    u[3], u_labels[3] = earlier[0].float(), y[1].float()
    u = u.double()
    u[[4, 0, 2]], u[3] = Z, earlier[0]

    def formula(z: Rows) -> float:
        return dpsh(z, y.tolist(), u.tolist(), u_labels.tolist(), 0.1)

    assert_is(loss, formula, y, torch.tensor([4, 0, 2]))


def hashnet(
    z: Rows,
    y: Rows,
    beta: float,
    alpha: float,
    bank: tuple[Rows, Rows, list[int]] | None = None,
    exclude_self: bool = False,
    authors_weight: float | None = None,
) -> float:
    """Pair by pair; ``bank`` holds codes, labels and the slots of the batch."""
    h = [[math.tanh(beta * value) for value in row] for row in z]
    slots = list(range(len(z))) if bank is None else bank[2]
    v, v_labels = (h, y) if bank is None else bank[:2]
    rows, columns = range(len(h)), range(len(v))
    if authors_weight is not None:
        half = (len(h) + 1) // 2
        rows, columns = range(half), range(half, len(h))
    kinds: dict[bool, list[float]] = {True: [], False: []}
    for i in rows:
        for j in columns:
            if not (exclude_self and slots[i] == j):
                similar = dot(y[i], v_labels[j]) > 0
                kinds[similar].append(pair_loss(alpha * dot(h[i], v[j]), similar))
    if authors_weight is not None:
        weights = authors_weight * len(kinds[True]) + len(kinds[False])
        return (authors_weight * sum(kinds[True]) + sum(kinds[False])) / weights
    pairs = len(kinds[True]) + len(kinds[False])
    return sum(pairs / len(kind) * sum(kind) for kind in kinds.values() if kind) / pairs


EXCLUDE = pytest.mark.parametrize("exclude_self", [False, True], ids=["all pairs", "no self-pairs"])


@LABELS
@EXCLUDE
@pytest.mark.parametrize(
    ("epoch", "beta"), [(0, 1), (19, 1), (20, math.sqrt(2)), (149, math.sqrt(8))]
)
def test_hashnet_of_deephash_is_its_formula(
    y: Tensor, exclude_self: bool, epoch: int, beta: float
) -> None:
    loss = make("hashnet", y, exclude_self=exclude_self)
    loss.on_epoch(epoch)

    def formula(z: Rows) -> float:
        return hashnet(z, y.tolist(), beta, 0.1, exclude_self=exclude_self)

    assert_is(loss, formula, y, torch.tensor([2, 0, 1]), step=1000)
    torch.testing.assert_close(loss.relax(Z), torch.tanh(beta * Z), rtol=1e-6, atol=0)


@LABELS
@EXCLUDE
def test_hashnet_with_a_bank_is_its_formula_over_all_items(y: Tensor, exclude_self: bool) -> None:
    loss = make("hashnet", y, items=5, variant="bank", exclude_self=exclude_self)
    loss.on_epoch(0)
    earlier = 0.7 * Z[:2].flip(1)
    loss.remember(earlier, y[1:], torch.tensor([3, 4]), 0)
    loss.on_epoch(60)
    v = torch.zeros(5, 4, dtype=torch.float64)
    v[[4, 0, 2]], v[3] = torch.tanh(2 * Z), torch.tanh(earlier[0])  # stored with the old beta
    v_labels = torch.zeros(5, y.shape[1])
    v_labels[[4, 0, 2]], v_labels[3] = y.float(), y[1].float()
    bank = (v.tolist(), v_labels.tolist(), [4, 0, 2])

    def formula(z: Rows) -> float:
        return hashnet(z, y.tolist(), 2, 0.1, bank, exclude_self)

    assert_is(loss, formula, y, torch.tensor([4, 0, 2]), step=7)


@LABELS
@EXCLUDE
@pytest.mark.parametrize(
    ("step", "squared"), [(0, 1), (199, 1), (200, 2), (1000, 6), (1399, 7)], ids=str
)
def test_hashnet_of_the_paper_is_its_formula(
    y: Tensor, exclude_self: bool, step: int, squared: float
) -> None:
    loss = make("hashnet", y, variant="paper", exclude_self=exclude_self)
    loss.on_epoch(60)

    def formula(z: Rows) -> float:
        return hashnet(z, y.tolist(), math.sqrt(squared), 10 / 4, exclude_self=exclude_self)

    assert_is(loss, formula, y, SLOTS, step)
    torch.testing.assert_close(loss.relax(Z), torch.tanh(math.sqrt(squared) * Z))


@LABELS
@pytest.mark.parametrize("weight", [1.0, 5.0])
@pytest.mark.parametrize(("step", "squared"), [(0, 1), (1000, 6)])
def test_hashnet_of_the_authors_pairs_two_halves(
    y: Tensor, weight: float, step: int, squared: float
) -> None:
    loss = make("hashnet", y, variant="authors", positive_weight=weight)

    def formula(z: Rows) -> float:
        beta = math.sqrt(squared)
        return hashnet(z, y.tolist(), beta, 10 / 4, authors_weight=weight)

    assert_is(loss, formula, y, SLOTS, step)


def test_alpha_and_gamma_of_hashnet_are_used() -> None:
    loss = make("hashnet", Y1, variant="paper", alpha=0.3, gamma=0.02)
    expected = hashnet(Z.tolist(), Y1.tolist(), math.sqrt(1 + 0.02 * 400), 0.3)
    assert value(loss, Z, Y1, SLOTS, 555).item() == pytest.approx(expected, rel=1e-12)


def csq(z: Rows, y: Rows, centres: Rows, tie: list[float], weight: float) -> float:
    terms, pulls = [], []
    for row, labels in zip(z, y, strict=True):
        for k, number in enumerate(row):
            vote = sum(label * centre[k] for label, centre in zip(labels, centres, strict=True))
            centre = (vote > 0) - (vote < 0) or tie[k]
            p, t = (math.tanh(number) + 1) / 2, (centre + 1) / 2
            if sum(labels):
                terms.append(-t * math.log(p) - (1 - t) * math.log(1 - p))
            pulls.append((abs(math.tanh(number)) - 1) ** 2)
    return sum(terms) / len(terms) + weight * sum(pulls) / len(pulls)


@ALL_LABELS
@pytest.mark.parametrize("weight", [1e-4, 0.5])
def test_csq_is_its_formula(y: Tensor, weight: float) -> None:
    loss: Any = make("csq", y, quantisation=weight)

    def formula(z: Rows) -> float:
        return csq(z, y.tolist(), loss.centres.tolist(), loss.tie.tolist(), weight)

    assert_is(loss, formula, y, SLOTS)


def dhta(z: Rows, y: Rows, scale: float, clip: bool, weight: float) -> float:
    h = [[math.tanh(value) for value in row] for row in z]
    errors = []
    for i in range(len(z)):
        for j in range(len(z)):
            shared = dot(y[i], y[j])
            wanted = 2 * (min(shared, 1) if clip else shared) - 1
            errors.append((dot(h[i], h[j]) / scale - wanted) ** 2)
    pull = sum((sign_of(value) - value) ** 2 for row in h for value in row)
    return sum(errors) / len(errors) + weight * pull


@LABELS
@pytest.mark.parametrize(("scale", "size"), [("batch", 3), ("bits", 4)])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_dhta_l2_is_its_formula(
    y: Tensor, scale: str, size: int, clip: bool, weight: float
) -> None:
    loss = make("dhta_l2", y, scale=scale, clip=clip, quantisation=weight)
    assert_is(loss, lambda z: dhta(z, y.tolist(), size, clip, weight), y, SLOTS)


def test_dhta_l2_asks_for_more_than_one_where_two_labels_are_shared() -> None:
    y = torch.ones(3, 2, dtype=torch.float64)
    released, clipped = make("dhta_l2", y), make("dhta_l2", y, clip=True)
    assert released(Z, y, SLOTS, 0) > clipped(Z, y, SLOTS, 0)


# --- the loss of each item ------------------------------------------------------------------------


@LABELS
def test_an_item_of_dpsh_has_its_pairs_with_the_bank(y: Tensor) -> None:
    u, labels = [*Z.tolist(), [0.0] * 4], [*y.tolist(), [0.0] * y.shape[1]]  # one not yet seen
    expected = [
        dpsh([row], [tags], u, labels, 0.1)
        for row, tags in zip(Z.tolist(), y.tolist(), strict=True)
    ]
    assert item_losses("dpsh", y, 4) == pytest.approx(expected, rel=1e-6)


@LABELS
@EXCLUDE
@pytest.mark.parametrize("variant", ["deephash", "bank", "paper"])
def test_an_item_of_hashnet_has_the_pairs_of_its_row(
    y: Tensor, exclude_self: bool, variant: str
) -> None:
    alpha = 10 / 4 if variant == "paper" else 0.1
    h, tags = torch.tanh(Z).tolist(), y.tolist()
    pairs = [(i, j) for i in range(3) for j in range(3) if not (exclude_self and i == j)]
    similar = {(i, j): dot(tags[i], tags[j]) > 0 for i, j in pairs}
    alike = sum(similar.values())
    expected = [0.0, 0.0, 0.0]
    for i, j in pairs:
        count = alike if similar[i, j] else len(pairs) - alike
        expected[i] += 3 * pair_loss(alpha * dot(h[i], h[j]), similar[i, j]) / count
    found = item_losses("hashnet", y, variant=variant, exclude_self=exclude_self)
    assert found == pytest.approx(expected, rel=1e-6)


@LABELS
def test_two_items_of_hashnet_of_the_authors_share_the_loss_of_their_pair(y: Tensor) -> None:
    h, tags = torch.tanh(Z).tolist(), y.tolist()
    one, two = (
        pair_loss(10 / 4 * dot(h[i], h[2]), dot(tags[i], tags[2]) > 0) / 2 for i in (0, 1)
    )  # the halves are items 0 and 1, and item 2: two pairs
    expected = [3 * one / 2, 3 * two / 2, 3 * (one + two) / 2]
    assert item_losses("hashnet", y, variant="authors") == pytest.approx(expected, rel=1e-6)


def test_an_item_of_csq_without_labels_has_only_its_pull() -> None:
    y = Y1 * torch.tensor([[1], [0], [1]])
    loss: Any = make("csq", y)
    centres, tie = loss.centres.tolist(), loss.tie.tolist()
    pulls = [sum((abs(math.tanh(v)) - 1) ** 2 for v in row) / 4 for row in Z.tolist()]
    bits = [csq([Z[i].tolist()], [y[i].tolist()], centres, tie, 0.0) for i in (0, 2)]
    central = [3 / 2 * bits[0], 0, 3 / 2 * bits[1]]  # the mean is over the two with labels
    expected = [c + 0.3 * p for c, p in zip(central, pulls, strict=True)]
    assert item_losses("csq", y, quantisation=0.3) == pytest.approx(expected, rel=1e-6)


def test_an_item_of_dhta_l2_has_the_errors_of_its_row_and_its_pull() -> None:
    h = torch.tanh(Z).tolist()
    expected = []
    for i in range(3):
        wanted = [2 * dot(Y2[i].tolist(), tags) - 1 for tags in Y2.tolist()]
        errors = [(dot(h[i], h[j]) / 3 - wanted[j]) ** 2 for j in range(3)]
        pull = sum((sign_of(value) - value) ** 2 for value in h[i])
        expected.append(sum(errors) / 3 + 3 * 0.2 * pull)
    assert item_losses("dhta_l2", Y2, quantisation=0.2) == pytest.approx(expected, rel=1e-6)


# --- the sign of zero, the vote, the banks -------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [("dpsh", {"quantisation": 1.0}, math.log(2) + 1), ("dhta_l2", {"quantisation": 1.0}, 1 + 12)],
)
def test_zero_is_pulled_to_plus_one(name: str, settings: dict[str, Any], expected: float) -> None:
    z = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
    out = value(make(name, Y1, **settings), z, Y1, SLOTS, 0)
    out.backward()
    assert out.item() == pytest.approx(expected)
    assert (z.grad < 0).all()  # torch.sign would leave it where it is


def test_two_labels_vote_and_the_stored_vector_breaks_ties() -> None:
    loss: Any = VICTIMS["csq"](48, 6, 1, centre_seed=2)
    y = torch.tensor([[1.0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 1, 0], [1, 1, 1, 0, 0, 0]])
    first, second, third = voted_centre(y, loss.centres, loss.tie)
    assert torch.equal(first, loss.centres[0])
    agree = loss.centres[1] == loss.centres[4]
    assert torch.equal(second, torch.where(agree, loss.centres[1], loss.tie))
    assert 0 < agree.sum() < 48
    assert torch.equal(third, loss.centres[:3].median(0).values)
    assert set(loss.tie.tolist()) == {-1.0, 1.0}


def test_the_centre_seed_fixes_centres_and_ties() -> None:
    def state(seed: int) -> dict[str, Tensor]:
        return VICTIMS["csq"](48, 10, 1, centre_seed=seed).state_dict()

    assert all(torch.equal(state(1)[key], state(1)[key]) for key in ("centres", "tie"))
    assert not any(torch.equal(state(1)[key], state(2)[key]) for key in ("centres", "tie"))


@pytest.mark.parametrize(("bits", "classes"), [(7, 10), (48, 10), (48, 80), (16, 100), (64, 100)])
def test_csq_takes_any_bits_and_classes(bits: int, classes: int) -> None:
    loss: Any = VICTIMS["csq"](bits, classes, 1)
    assert loss.centres.shape == (classes, bits)
    assert len({tuple(row) for row in loss.centres.tolist()}) == classes


def test_released_centres_are_the_first_sylvester_rows_or_one_clear_error() -> None:
    loss: Any = VICTIMS["csq"](8, 10, 1, centres="released")
    rows = [[(-1.0) ** bin(i & j).count("1") for j in range(8)] for i in range(8)]
    assert loss.centres[:8].tolist() == rows
    assert torch.equal(loss.centres[8:], -loss.centres[:2])
    with pytest.raises(UserError, match=r"--bits 32 or 64, or --set victim\.centres=signed"):
        VICTIMS["csq"](48, 10, 1, centres="released")


BANKS = pytest.mark.parametrize(
    ("name", "settings"),
    [("dpsh", {}), ("hashnet", {"variant": "bank"}), ("dsdh", {})],
    ids=["dpsh", "hashnet", "dsdh"],
)


@BANKS
def test_a_bank_is_indexed_by_slot(name: str, settings: dict[str, Any]) -> None:
    order = torch.tensor([2, 0, 1])
    index = torch.tensor([5, 1, 3])
    straight, mixed = make(name, Y2, 6, **settings), make(name, Y2, 6, **settings)
    out = value(straight, Z, Y2, index, 0).item()
    assert value(mixed, Z[order], Y2[order], index[order], 0).item() == pytest.approx(out)
    for key, stored in straight.state_dict().items():
        assert torch.equal(stored, mixed.state_dict()[key])
    kept: Any = straight
    assert torch.equal(kept.bank_labels[index], Y2)
    assert not kept.bank[[0, 2, 4]].any()
    assert torch.equal(kept.bank[index], torch.tanh(Z) if name == "hashnet" else Z)


@BANKS
def test_a_renewed_loss_starts_with_an_empty_bank_of_its_own(
    name: str, settings: dict[str, Any]
) -> None:
    old = make(name, Y2, 6, **settings)
    old.on_epoch(60)
    old.remember(Z, Y2, SLOTS, 0)
    new: Any = old.renewed(9)
    assert new.bank.shape == (9, 4)
    assert new.bank_labels.shape == (9, 3)
    assert not new.bank.any()
    assert new.bank.dtype == torch.float64  # of the old one, as its device is
    assert new.relax(Z).equal(old.relax(Z))
    new.remember(Z, Y2, SLOTS + 6, 0)
    stored: Any = old
    assert not stored.bank[3:].any()
    assert new.renewed(2).bank.shape == (2, 4)


@pytest.mark.parametrize("settings", [{"alpha": -1.0}, {"gamma": -0.1}, {"positive_weight": 0.0}])
def test_hashnet_refuses_a_value_out_of_range(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=rf"victim\.{next(iter(settings))}"):
        VICTIMS["hashnet"](4, 2, 3, **settings)


@pytest.mark.parametrize("name", ["dpsh", "csq", "dhta_l2", "dch", "dtsh"])
def test_a_negative_quantisation_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"victim\.quantisation"):
        VICTIMS[name](4, 2, 3, quantisation=-1)


# --- every variant: the promises of `hashbackdoor_bench.checks`, and beyond -----------------------


def batch(n: int = 6, bits: int = 8, classes: int = 3, seed: int = 0) -> tuple[Tensor, ...]:
    """z (N,K) float32 with a gradient, y (N,C) with one or two tags, index (N,) of 12 slots."""
    draw = torch.Generator().manual_seed(seed)
    z = torch.randn(n, bits, generator=draw).requires_grad_()
    y = torch.eye(classes)[torch.arange(n) % classes]
    y[0, 1] = 1
    return z, y, torch.randperm(12, generator=draw)[:n]


def steps(loss: HashLoss, first: int, last: int) -> list[float]:
    """Losses of steps first..last, each an epoch of 15, as the training loop calls them."""
    values = []
    for step in range(first, last):
        loss.on_epoch(15 * step)
        z, y, index = batch(seed=step)
        values.append(value(loss, z, y, index, 150 * step).item())
    return values


@EVERY
def test_every_variant_keeps_what_every_victim_promises(
    name: str, settings: dict[str, Any]
) -> None:
    assert check_victim(VICTIMS[name], settings) == []


@EVERY
def test_a_resumed_loss_goes_on_as_the_undisturbed_one(name: str, settings: dict[str, Any]) -> None:
    undisturbed = VICTIMS[name](8, 3, 12, **settings)
    start = {k: v.clone() for k, v in undisturbed.state_dict().items()}
    expected = steps(undisturbed, 0, 6)
    stopped = VICTIMS[name](8, 3, 12, **settings)
    stopped.load_state_dict(start)  # a loss may have random parameters
    steps(stopped, 0, 3)
    resumed = VICTIMS[name](8, 3, 12, **settings)
    if "centre_seed" in VICTIMS[name].parameters:  # centres come from the state, not the seed
        resumed = VICTIMS[name](8, 3, 12, **settings, centre_seed=9)
    resumed.load_state_dict({k: v.clone() for k, v in stopped.state_dict().items()})
    z = batch()[0]
    assert torch.equal(resumed.relax(z), stopped.relax(z))
    assert steps(resumed, 3, 6) == expected[3:]


@EVERY
def test_two_losses_may_share_one_backward_pass(name: str, settings: dict[str, Any]) -> None:
    loss = VICTIMS[name](8, 3, 12, **settings)
    z, y, index = batch()
    out = 0.3 * value(loss, z, y, index, 0) + 0.7 * loss(z, y.flip(0), index, 0)
    out.backward()
    assert torch.isfinite(z.grad).all()


def test_dpsh_bn_is_dpsh_on_outputs_that_a_batch_norm_has_centred():
    torch.manual_seed(0)
    plain, normed = (VICTIMS[name](16, 2, 8) for name in ("dpsh", "dpsh_bn"))
    x = torch.rand(8, 3, 32, 32)
    z = HashModel("cnn32", 16, normed).train()(x)
    assert z.mean(0).abs().max() < 1e-5
    assert HashModel("cnn32", 16, plain).train()(x).mean(0).abs().max() > 1e-3
    y = torch.eye(2).repeat(4, 1)
    index = torch.arange(8)
    assert torch.equal(value(normed, z, y, index, 0), value(plain, z, y, index, 0))
