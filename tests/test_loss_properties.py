"""What the formulas of OrthoHash, DPN, GreedyHash, DCH and DSDH imply."""

import itertools
import math
from typing import Any, Literal

import pytest
import torch
from formulas import (
    CLASSIFIER,
    SLOTS,
    Y1,
    Y2,
    Rows,
    Z,
    make,
    mean,
    softmax_loss,
    solved_codes,
    value,
)
from hashbackdoor_bench.victims import dsdh
from torch import Tensor

from hashbackdoor_bench import VICTIMS, HashLoss, HashModel, UserError, hash_centres
from hashbackdoor_bench.network.training import fit
from hashbackdoor_bench.network.training_set import TrainingSet
from hashbackdoor_bench.spec import Recipe


@pytest.mark.parametrize(("classes", "floor"), [(10, 0.0148), (100, 0.152)])
def test_orthohash_at_its_centres_has_the_least_loss_at_any_scale(
    classes: int, floor: float
) -> None:
    loss: Any = VICTIMS["orthohash"](128, classes, 1)
    y = torch.eye(classes)
    exact = math.log(1 + (classes - 1) * math.exp(-8 * (1 - 0.2)))
    for scale in (1e-3, 1, 1e4):
        found = value(loss, scale * loss.centres, y, torch.arange(classes), 0).item()
        assert found == pytest.approx(exact, rel=1e-5)
    assert exact == pytest.approx(floor, rel=4e-3)
    nowhere = loss(torch.zeros(classes, 128), y, torch.arange(classes), 0).item()
    assert nowhere == pytest.approx(math.log(1 + (classes - 1) * math.exp(8 * 0.2)), rel=1e-5)


def test_orthohash_does_not_depend_on_the_length_of_an_output() -> None:
    loss = make("orthohash", Y2)
    scaled = Z * Z.new_tensor([[0.1], [3], [50]])
    assert value(loss, scaled, Y2, SLOTS, 0).item() == pytest.approx(loss(Z, Y2, SLOTS, 0).item())


@pytest.mark.parametrize(
    ("name", "settings"), [("orthohash", {}), ("dpn", {}), ("dpn", {"reduction": "sum"})]
)
def test_centres_are_signed_rows_and_as_released_coin_tosses(
    name: str, settings: dict[str, Any]
) -> None:
    signed: Any = VICTIMS[name](48, 10, 1, centre_seed=3, **settings)
    assert torch.equal(signed.centres, hash_centres(10, 48, seed=3))
    released: Any = VICTIMS[name](48, 10, 1, centre_seed=3, centres="released", **settings)
    assert torch.equal(released.centres, hash_centres(10, 48, rows="coins", seed=3))
    assert not torch.equal(released.centres, signed.centres)


@pytest.mark.parametrize("multi", ["vote", "sum"])
def test_dpn_leaves_alone_a_bit_that_is_right_by_more_than_the_margin(multi: str) -> None:
    loss: Any = make("dpn", Y1, margin=0.9, multi=multi)
    z = Z.clone().requires_grad_()
    loss(z, Y1, SLOTS, 0).backward()
    right = loss.centres[Y1.argmax(1)] * Z > 0.9
    assert 0 < right.sum() < Z.numel()
    assert torch.equal(z.grad == 0, right)


def test_the_head_of_a_method_is_as_its_authors_have_it() -> None:
    for name, bias, norm, std in (
        ("orthohash", False, "batch", None),
        ("dpn", False, "none", 0.01),
        ("dsdh", True, "none", 0.01),
        ("greedyhash", True, "none", None),
    ):
        loss = VICTIMS[name](8, 3, 12)
        assert (loss.head_bias, loss.head_norm, loss.head_init_std) == (bias, norm, std)


def train_shortly(loss: HashLoss, precision: Literal["float32", "bfloat16"]) -> None:
    """Two steps on twelve images of three classes."""
    torch.manual_seed(0)
    images = torch.randint(256, (12, 3, 16, 16), dtype=torch.uint8)
    labels = torch.eye(3, dtype=torch.uint8)[torch.arange(12) % 3]
    items = TrainingSet(images, labels, torch.full((12,), -1))
    recipe = Recipe(1, 6, "sgd", 0.01, 0.1, augment="none", precision=precision)
    fit(HashModel("cnn32", 8, loss, size=16), loss, items, recipe, seed="s", size=16)


def test_training_moves_the_classifier_of_greedyhash() -> None:
    loss: Any = VICTIMS["greedyhash"](8, 3, 12)
    before = loss.classify.weight.detach().clone()
    train_shortly(loss, "float32")
    assert ((loss.classify.weight - before).abs() > 1e-6).all()


@pytest.mark.parametrize("name", [name for name in VICTIMS if VICTIMS[name].cls.trained])
def test_a_loss_is_computed_in_float32_behind_a_network_in_bfloat16(name: str) -> None:
    loss, seen = VICTIMS[name](8, 3, 12), []

    def look(module: Any, given: tuple[Any, ...], out: Tensor) -> None:
        seen.append((given[0].dtype, out.dtype, torch.is_autocast_enabled("cpu")))

    loss.register_forward_hook(look)
    train_shortly(loss, "bfloat16")
    assert set(seen) == {(torch.float32, torch.float32, False)}
    kept = [*loss.buffers(), *loss.parameters()]
    assert all(tensor.dtype == torch.float32 for tensor in kept if tensor.is_floating_point())


def test_a_tag_of_greedyhash_has_its_share_of_the_probability() -> None:
    loss = make("greedyhash", Y2, alpha=0.0)
    both = loss(Z[:1], Z.new_tensor([[1, 1, 0]]), SLOTS[:1], 0)
    single = [loss(Z[:1], torch.eye(3).double()[[c]], SLOTS[:1], 0) for c in (0, 1)]
    assert both.item() == pytest.approx((single[0].item() + single[1].item()) / 2)


@pytest.mark.parametrize("clamp", ["cosine", "distance"])
def test_dch_of_equal_outputs_is_finite_and_counts_them_at_the_least_distance(clamp: str) -> None:
    z = Z[:1].repeat(2, 1).requires_grad_()
    loss = make("dch", Y1, quantisation=0.0, gamma=20.0, clamp=clamp)
    least = 4 / 2 * 0.01 if clamp == "cosine" else 0.001 * 4
    out = loss(z, torch.eye(2).double(), SLOTS[:2], 0)
    out.backward()
    # Two pairs of an image with itself, and two dissimilar ones, weigh two each, of four.
    expected = math.log(1 + least / 20) + math.log(1 + 20 / least)
    assert out.item() == pytest.approx(expected)
    assert z.grad.abs().max() < 1e-9


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("settings", [{}, {"clamp": "distance"}, {"variant": "released"}], ids=str)
def test_dch_of_nearly_equal_outputs_in_float32_is_that_in_float64(
    settings: dict[str, Any], scale: float
) -> None:
    draw = torch.Generator().manual_seed(0)
    base = torch.randn(1, 48, generator=draw, dtype=torch.float64)
    grades = {}
    for near in (1e-1, 1e-3, 1e-7):
        z = (
            scale * (base + near * torch.randn(6, 48, generator=draw, dtype=torch.float64))
        ).float()
        y = torch.eye(3)[torch.arange(6) % 3]
        for dtype in (torch.float32, torch.float64):
            loss = VICTIMS["dch"](48, 3, 6, **settings).to(dtype)
            given = z.clone().to(dtype).detach().requires_grad_()
            out = loss(given, y.to(dtype), torch.arange(6), 0)
            out.backward()
            grades[dtype] = out.item(), given.grad.double()
        (single, one), (double, two) = grades[torch.float32], grades[torch.float64]
        assert single == pytest.approx(double, rel=2e-5)
        assert torch.isfinite(one).all()
        if near > 1e-6:  # at 1e-7 neither has a gradient beyond rounding
            torch.testing.assert_close(one, two, rtol=2e-2, atol=2e-3 / scale)


def test_a_dissimilar_pair_of_dch_is_pulled_apart_up_to_the_cosine_of_its_clamp() -> None:
    for clamp, moves in (("cosine", (False, False)), ("distance", (True, False))):
        for near, moved in zip((0.995, 0.999), moves, strict=True):
            z = Z.new_tensor([[1, 0, 0, 0], [near, math.sqrt(1 - near**2), 0, 0]]).requires_grad_()
            loss = make("dch", Y1, quantisation=0.0, clamp=clamp)
            loss(z, torch.eye(2).double(), SLOTS[:2], 0).backward()
            assert bool(z.grad.abs().max() > 1e-6) == moved


def test_relax_of_dch_divides_by_the_mean_size_of_recent_outputs() -> None:
    loss = make("dch", Y1)
    size = 0.0
    for step, scale in enumerate((1.0, 40.0, 0.5)):
        value(loss, scale * Z, Y1, SLOTS, step)
        now = scale * sum(abs(number) for row in Z.tolist() for number in row) / 12
        size = now if step == 0 else 0.9 * size + 0.1 * now
    torch.testing.assert_close(loss.relax(Z), torch.tanh(Z / size), rtol=1e-6, atol=0)
    torch.testing.assert_close(loss.renewed(9).relax(Z), loss.relax(Z))
    released = make("dch", Y1, variant="released")
    value(released, 40 * Z, Y1, SLOTS, 0)
    torch.testing.assert_close(released.relax(Z), torch.tanh(Z))


def objective(y: Tensor, b: Tensor, w: Tensor, u: Tensor, pull: float, ridge: float) -> float:
    """What DSDH minimises over W (K,C) and B (T,K), divided by mu."""
    terms = ((y - b @ w).square().sum(), ridge * w.square().sum(), pull * (b - u).square().sum())
    return sum(term.item() for term in terms)


def ridge_regression(y: Tensor, b: Tensor, ridge: float) -> Tensor:
    """W by least squares on B with sqrt(ridge) times the unit matrix below it."""
    below = math.sqrt(ridge) * torch.eye(b.shape[1], dtype=b.dtype)
    rows = torch.cat([y, y.new_zeros(b.shape[1], y.shape[1])])
    return torch.linalg.lstsq(torch.cat([b, below]), rows).solution


@pytest.mark.parametrize("pull", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("ridge", [0.1, 100.0])
def test_the_objective_of_dsdh_never_rises(
    monkeypatch: pytest.MonkeyPatch, pull: float, ridge: float
) -> None:
    monkeypatch.setattr(dsdh, "SWEEPS", 1)
    fell = 0
    for seed in range(10):
        draw = torch.Generator().manual_seed(seed)
        u = torch.randn(30, 6, generator=draw, dtype=torch.float64)
        y = torch.eye(4, dtype=torch.float64)[torch.randint(4, (30,), generator=draw)]
        b, w = u.sign(), torch.randn(6, 4, generator=draw, dtype=torch.float64)
        last = objective(y, b, w, u, pull, ridge)
        for _ in range(5):
            w = ridge_regression(y, b, ridge)
            after_w = objective(y, b, w, u, pull, ridge)
            b = dsdh.solved(u, y, b, pull, ridge)
            after_b = objective(y, b, w, u, pull, ridge)
            assert after_b <= after_w + 1e-9
            assert after_w <= last + 1e-9
            fell += after_b < after_w - 1e-9
            last = after_b
    assert fell


@pytest.mark.parametrize("pull", [0.01, 0.3])
def test_each_bit_of_dsdh_is_the_best_of_all_its_columns(
    monkeypatch: pytest.MonkeyPatch, pull: float
) -> None:
    """Two bits of three items: each step is compared with all eight columns."""
    monkeypatch.setattr(dsdh, "SWEEPS", 1)
    changed = 0
    for seed in range(40):
        draw = torch.Generator().manual_seed(seed)
        u = torch.randn(3, 2, generator=draw, dtype=torch.float64)
        y = torch.eye(2, dtype=torch.float64)[torch.randint(2, (3,), generator=draw)]
        start = 2.0 * torch.randint(2, (3, 2), generator=draw).double() - 1
        w, best = ridge_regression(y, start, 0.1), start.clone()
        for k in range(2):
            found = {}
            for column in itertools.product((-1.0, 1.0), repeat=3):
                tried = best.clone()
                tried[:, k] = torch.tensor(column)
                found[column] = objective(y, tried, w, u, pull, 0.1)
            best[:, k] = torch.tensor(min(found, key=found.__getitem__))
        assert torch.equal(dsdh.solved(u, y, start, pull, 0.1), best)
        changed += not torch.equal(best, start)
    assert changed > 20


def test_dsdh_sweeps_until_nothing_changes_and_leaves_its_start_as_it_is() -> None:
    draw = torch.Generator().manual_seed(0)
    u = torch.randn(60, 8, generator=draw, dtype=torch.float64)
    y = torch.eye(5, dtype=torch.float64)[torch.randint(5, (60,), generator=draw)]
    start = u.sign()
    found = dsdh.solved(u, y, start, 0.001, 0.1)
    assert found.tolist() == solved_codes(u.tolist(), y.tolist(), start.tolist(), 0.001, 0.1)
    assert torch.equal(start, u.sign())
    assert not torch.equal(found, start)


@pytest.mark.parametrize("variant", ["epoch", "authors"])
def test_the_search_for_codes_of_dsdh_starts_where_it_should(variant: str) -> None:
    """At the codes of the epoch before, with the eta term; by the authors at the signs, without."""
    draw = torch.Generator().manual_seed(3)
    loss: Any = VICTIMS["dsdh"](8, 4, 40, variant=variant, eta=1e-4).double()
    y = torch.eye(4, dtype=torch.float64)[torch.randint(4, (40,), generator=draw)]
    first, second = torch.randn(2, 40, 8, generator=draw, dtype=torch.float64)

    def search(u: Tensor, start: Tensor, pull: float, ridge: float) -> Rows:
        return solved_codes(u.tolist(), y.tolist(), start.tolist(), pull, ridge)

    loss.remember(first, y, torch.arange(40), 0)
    loss.on_epoch(1)
    before = loss.codes.clone()
    loss.remember(second, y, torch.arange(40), 1)
    loss.on_epoch(2)
    from_signs = search(second, second.sign(), 0, 0.1)
    from_codes = search(second, before, 0.01, 100)
    if variant == "authors":
        assert before.tolist() == search(first, first.sign(), 0, 0.1)
        assert loss.codes.tolist() == from_signs
        assert from_signs != search(second, second.sign(), 1, 0.1)
    else:
        assert before.tolist() == search(first, first.sign(), 0.01, 100)
        assert loss.codes.tolist() == from_codes
        assert from_codes != search(second, second.sign(), 0.01, 100)


def test_the_gradient_of_dsdh_changes_with_its_codes_and_without_them_it_is_dpsh() -> None:
    def gradient(name: str, flip: bool = False, **settings: Any) -> Tensor:
        loss: Any = make(name, Y2, **settings)
        loss.remember(Z, Y2, SLOTS, 0)
        loss.on_epoch(1)
        if flip:
            loss.codes.neg_()
        z = Z.clone().requires_grad_()
        value(loss, z, Y2, SLOTS, 3).backward()
        return z.grad

    plain = gradient("dpsh", quantisation=0.0)
    for variant in ("epoch", "authors"):
        without = gradient("dsdh", eta=0.0, variant=variant)
        torch.testing.assert_close(without, plain, rtol=1e-12, atol=0)
        assert not torch.allclose(gradient("dsdh", variant=variant), plain, atol=1e-4)
    assert not torch.allclose(gradient("dsdh", flip=True), gradient("dsdh"), atol=1e-4)


@pytest.mark.parametrize("variant", ["deephash", "authors"])
def test_dtsh_pulls_zero_to_plus_one(variant: str) -> None:
    z = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
    loss = make("dtsh", Y1, variant=variant, quantisation=1.0)
    out = loss(z, torch.zeros_like(Y1), SLOTS, 0)  # without labels only the pull is left
    out.backward()
    assert out.item() == pytest.approx(1)
    assert (z.grad < 0).all()  # torch.sign would leave it where it is


def test_a_zero_is_the_code_plus_one_in_greedyhash_and_dsdh() -> None:
    z = torch.zeros(3, 4, dtype=torch.float64)
    out = make("greedyhash", Y1, alpha=0.0)(z, Y1, SLOTS, 0).item()
    logits = [sum(row) for row in CLASSIFIER[:2]]
    assert out == pytest.approx(mean([softmax_loss(logits, tags) for tags in Y1.tolist()]))
    loss: Any = make("dsdh", Y1, variant="authors")
    loss.remember(z, torch.zeros_like(Y1), SLOTS, 0)
    assert torch.equal(loss.codes, torch.ones_like(z))


@pytest.mark.parametrize(
    ("name", "setting", "wrong"),
    [
        ("orthohash", "scale", -1.0),
        ("orthohash", "margin", 2.5),
        ("dpn", "margin", -0.1),
        ("greedyhash", "alpha", -0.1),
        ("dch", "gamma", 0.0),
        ("dtsh", "margin", -1.0),
        ("dsdh", "eta", -0.1),
        ("dsdh", "mu", 0.0),
        ("dsdh", "nu", 0.0),
    ],
)
def test_a_value_out_of_range_is_refused(name: str, setting: str, wrong: float) -> None:
    with pytest.raises(UserError, match=rf"victim\.{setting} is"):
        VICTIMS[name](4, 2, 3, **{setting: wrong})
