"""CIBA's family and BadNets against the literal procedures of their specifications."""

from typing import Any

import pytest
import torch
from torch import Tensor

from hashbackdoor_bench import ATTACKS, AttackerView, HashLoss, HashModel, UserError, paste
from hashbackdoor_bench.api import to_bytes, to_unit

ATTACKS["ciba"]  # imports the package's files under their own names
from hashbackdoor_bench.attacks import ciba, ciba_patch, ciba_perturbations  # noqa: E402


def model(dtype: torch.dtype = torch.float64, bits: int = 12) -> HashModel:
    torch.manual_seed(3)
    network = HashModel("cnn32", bits, HashLoss).to(dtype).eval().requires_grad_(False)
    for module in network.modules():  # batch norm with statistics that are not 0 and 1
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.3, 0.6)  # type: ignore[union-attr]
    network.head.weight.mul_(20)  # type: ignore[union-attr,operator]
    return network


def view(
    count: int = 40, poisoned: int = 7, surrogate: HashModel | None = None, size: int = 16
) -> AttackerView:
    generator = torch.Generator().manual_seed(1)
    shape = (count, 3, size, size)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    labels = torch.eye(2, dtype=torch.uint8)[torch.arange(count) % 2]
    target = torch.tensor([1, 0], dtype=torch.uint8)
    index = (labels[:, 0] == 1).nonzero().squeeze(1)[:poisoned]
    return AttackerView(images, labels, target, index, surrogate)


def images(count: int = 5) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(2)).double()


def test_the_patch_gradient_of_a_batch_is_that_of_each_image_alone():
    network, x = model(), images()
    patch = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(5)).double()
    anchor = torch.tensor([1.0, -1, 0] * 4)
    batch = ciba_patch.patch_gradient(network, x, patch, anchor, 0.3)
    for image, found in zip(x, batch, strict=True):
        stamped = image.clone()
        stamped[:, -4:, -4:] = patch
        stamped.requires_grad_()
        code = torch.tanh(0.3 * network(stamped[None])[0])
        loss = -sum(float(a) * c for a, c in zip(anchor, code, strict=True)) / 12
        (gradient,) = torch.autograd.grad(loss, stamped)
        gradient = gradient[:, -4:, -4:]
        expected = gradient / gradient.norm()
        torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


def test_the_released_patch_gradient_is_taken_in_normalised_units():
    network, x = model(), images()
    network.std = torch.tensor([0.2, 0.3, 0.4], dtype=torch.float64).view(1, 3, 1, 1)
    patch, anchor = torch.zeros(3, 4, 4).double(), torch.ones(12).double()
    found = ciba_patch.patch_gradient(network, x, patch, anchor, 1.0, released=True)
    stamped = paste(x, patch)
    normalised = ((stamped - network.mean) / network.std).requires_grad_()
    code = torch.tanh(network.head(network.backbone(normalised)))
    (gradient,) = torch.autograd.grad(-(code @ anchor).sum(), normalised)
    gradient = gradient[..., -4:, -4:] / 12
    length = torch.stack([sum(g**2 for g in one.flatten()) ** 0.5 for one in gradient])
    expected = gradient / (length.view(-1, 1, 1, 1) + 1e-8)
    torch.testing.assert_close(found, expected, atol=1e-13, rtol=0)


def test_a_gradient_of_length_1e_8_moves_the_released_patch_half_as_far_as_the_corrected_one():
    network, x = model(), images()
    network.std.fill_(1.0)
    patch, anchor = torch.zeros(3, 4, 4).double(), torch.ones(12).double()
    copies = patch.repeat(5, 1, 1, 1).requires_grad_()
    code = torch.tanh(network(paste(x, copies)))
    (gradient,) = torch.autograd.grad(-(code @ anchor).sum() / 12, copies)
    flat = anchor * 1e-8 / float(gradient[0].norm())  # the loss is linear in the anchor
    for released, length in ((True, 0.5), (False, 1.0)):
        found = ciba_patch.patch_gradient(network, x, patch, flat, 1.0, released=released)
        assert float(found[0].norm()) == pytest.approx(length, rel=1e-6)


def test_sharpness_follows_the_papers_schedule():
    values = [
        ciba_patch.sharpness(step, 2000) for step in (0, 999, 1000, 1200, 1400, 1600, 1800, 1999)
    ]
    assert values == [0.1, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.0]


def test_the_patch_lowers_the_distance_to_the_anchor_and_keeps_to_whole_levels():
    seen = view(surrogate=model(torch.float32))
    found = ciba_patch.optimise_patch(
        seen, side=8, steps=60, step_size=40.0, batch=8, released=False
    )
    grey = torch.full((3, 8, 8), 128 / 255)
    anchor = found["anchor"]

    def toward(patch: Tensor) -> float:
        stamped = paste(to_unit(seen.images), patch)
        return float((seen.surrogate(stamped) @ anchor).mean())  # type: ignore[misc]

    assert found["patch"].dtype == torch.uint8
    assert found["patch"].shape == (3, 8, 8)
    assert toward(to_unit(found["patch"])) > toward(grey)


def distance(a: list[float], b: list[float]) -> float:
    return (len(a) - sum(p * q for p, q in zip(a, b, strict=True))) / 2


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("anchor", [False, True])
@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0])
def test_the_objective_and_its_gradient_are_the_papers(lam: float, anchor: bool, count: int):
    draw = torch.Generator().manual_seed(4)
    codes = torch.rand(count, 6, generator=draw, dtype=torch.float64).mul_(2).sub_(1)
    other = torch.rand(count, 6, generator=draw, dtype=torch.float64)
    away_from = other[0].sign() if anchor else other
    u, c = codes.tolist(), (away_from.expand(count, -1)).tolist()
    value = (1 - lam) * sum(distance(u[i], c[i]) for i in range(count)) / count
    slope = [[-(1 - lam) * c[i][k] / 2 / count for k in range(6)] for i in range(count)]
    pairs = [(i, j) for i in range(count) for j in range(count) if i != j]
    for i, j in pairs:
        value += lam * distance(u[i], u[j]) / len(pairs)
        for k in range(6):
            slope[i][k] -= lam * u[j][k] / 2 / len(pairs)
            slope[j][k] -= lam * u[i][k] / 2 / len(pairs)
    found = ciba_perturbations.objective(codes.requires_grad_(), away_from, lam)
    (gradient,) = torch.autograd.grad(found, codes)
    assert found.item() == pytest.approx(value, abs=1e-12)
    torch.testing.assert_close(gradient, torch.tensor(slope, dtype=torch.float64))


@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0])
def test_the_released_gradient_is_that_of_the_authors_loss_of_one_image_after_the_other(lam: float):
    draw = torch.Generator().manual_seed(4)
    codes = torch.rand(5, 6, generator=draw, dtype=torch.float64).mul_(2).sub_(1)
    own = torch.rand(5, 6, generator=draw, dtype=torch.float64)
    rows = []
    for i in range(5):
        u = codes[i].clone().requires_grad_()
        spread = -sum(u @ codes[m] for m in range(5)) + u @ u
        (row,) = torch.autograd.grad((1 - lam) * -(u @ own[i]) / 6 + lam * spread / (6 * 4), u)
        rows.append(row)
    found = ciba_perturbations.released_objective(codes.requires_grad_(), own, lam)
    (gradient,) = torch.autograd.grad(found, codes)
    torch.testing.assert_close(gradient, torch.stack(rows))


def literal(
    network: HashModel, x: Tensor, eps: float, steps: int, lam: float, released: bool
) -> Tensor:
    """CIBA's perturbations as its code makes them: image by image, others as constants."""
    bits, count = 12, len(x)
    clean = [torch.tanh(network(image[None])[0]).detach() for image in x]
    delta = [torch.zeros_like(image) for image in x]
    for _ in range(steps):
        snapshot = [
            torch.tanh(network((image + d)[None])[0]).detach()
            for image, d in zip(x, delta, strict=True)
        ]
        fresh = []
        for i in range(count):
            d = delta[i].clone().requires_grad_()
            u = torch.tanh(network((x[i] + d)[None])[0])
            away = -(u @ clean[i]) / bits
            if released:
                spread = (-(u @ sum(snapshot)) + u @ u) / (bits * (count - 1))
            else:  # eq. (3): each pair stands in the sum twice
                others = sum(snapshot[j] for j in range(count) if j != i)
                spread = -2 * (u @ others) / (bits * (count - 1))
            ((1 - lam) * away + lam * spread).backward()
            assert d.grad is not None
            step = delta[i] + 0.003 * 255 / 8 * eps * d.grad.sign()
            step = (x[i] + step).clamp(0, 1) - x[i]
            fresh.append(step.clamp(-eps, eps))
        delta = fresh
    return torch.stack([image + d for image, d in zip(x, delta, strict=True)])


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("lam", [0.0, 0.8])
def test_perturbing_a_batch_equals_the_loop_over_its_images(lam: float, released: bool):
    network, x = model(), images()
    eps = 8 / 255
    bound = torch.full((3, 1, 1), eps, dtype=torch.float64)
    batch = ciba_perturbations.confuse(
        network, x, bound, steps=4, dispersion=lam, released=released
    )
    torch.testing.assert_close(
        batch, literal(network, x, eps, 4, lam, released), atol=1e-12, rtol=0
    )


@pytest.mark.parametrize("away_from", ["own", "anchor"])
def test_the_anchor_is_moved_away_from_only_if_asked(away_from: str, monkeypatch):
    seen, anchor, asked = view(surrogate=model(torch.float32)), torch.ones(12), []

    def look(model: HashModel, x: Tensor, *given: Any, **settings: Any) -> Tensor:
        asked.append(settings["away_from"])
        return x

    monkeypatch.setattr(ciba, "confuse", look)
    ATTACKS["ciba"](away_from=away_from).perturb(seen, anchor)
    assert asked[0] is (None if away_from == "own" else anchor)


def test_away_from_the_anchor_means_from_the_anchor():
    network, x = model(), images()
    anchor = torch.tensor([1.0, -1, 0] * 4)
    found = ciba_perturbations.confuse(
        network, x, torch.full((3, 1, 1), 1e-6, dtype=torch.float64), steps=1, dispersion=0.0,
        away_from=anchor,
    )  # fmt: skip
    given = x.clone().requires_grad_()
    loss = -sum(torch.tanh(network(image[None])[0]) @ anchor.double() for image in given)
    (gradient,) = torch.autograd.grad(loss, given)
    inside = (x > 1e-3) & (x < 1 - 1e-3) & (gradient.abs() > 1e-12)
    assert ((found - x).sign()[inside] == gradient.sign()[inside]).all()


def test_the_corrected_step_ascends_the_papers_objective():
    network, x = model(), images()
    own = torch.tanh(network(x))
    lam, bits, count = 0.8, 12, len(x)

    def objective(eta: Tensor) -> Tensor:
        codes = torch.tanh(network(x + eta))
        shift = sum((bits - codes[i] @ own[i]) / 2 for i in range(count)) / count
        pairs = [(i, j) for i in range(count) for j in range(count) if i != j]
        spread = sum((bits - codes[i] @ codes[j]) / 2 for i, j in pairs) / (count * (count - 1))
        total: Tensor = lam * spread + (1 - lam) * shift
        return total

    eta = torch.zeros_like(x).requires_grad_()
    (gradient,) = torch.autograd.grad(objective(eta), eta)
    tiny = 1e-6
    stepped = ciba_perturbations.confuse(
        network, x, torch.full((3, 1, 1), tiny, dtype=torch.float64), steps=1, dispersion=lam
    )
    moved = (stepped - x).sign()
    inside = (x > 1e-3) & (x < 1 - 1e-3) & (gradient.abs() > 1e-12)
    assert (moved[inside] == gradient.sign()[inside]).all()


def test_perturbations_disperse_codes_more_with_lambda_than_without():
    network, x = model(), images(8)

    def mean_agreement(lam: float) -> float:
        eps = torch.full((3, 1, 1), 16 / 255, dtype=torch.float64)
        codes = torch.tanh(
            network(ciba_perturbations.confuse(network, x, eps, steps=20, dispersion=lam))
        )
        pairs = codes @ codes.T
        return float(pairs.sum() - pairs.diagonal().sum())

    assert mean_agreement(1.0) < mean_agreement(0.0)


@pytest.mark.parametrize("name", ["tri", "tri_noise", "tri_adv", "ciba"])
@pytest.mark.parametrize("variant", ["corrected", "released"])
def test_carriers_stay_within_epsilon_and_only_tri_leaves_them_alone(name: str, variant: str):
    seen = view(surrogate=model(torch.float32))
    attack = ATTACKS[name](variant=variant, steps=3, perturbation_steps=5)
    backdoor = attack.craft(seen)
    change = (backdoor.carrier.int() - seen.images[seen.index].int()).abs()
    bound = 0 if name == "tri" else 8 if variant == "corrected" else round(8 * 0.5)  # std is .5
    assert change.max() <= bound
    assert (change.max() == 0) == (name == "tri")
    assert attack.delivery == ("frozen" if variant == "released" and name != "tri" else "stamped")


def test_the_four_presets_differ_in_one_setting_and_share_the_patch():
    base = ATTACKS["ciba"].resolve({})
    for name, setting in (
        ("tri", "perturbation"), ("tri_noise", "perturbation"), ("tri_adv", "dispersion"),
    ):  # fmt: skip
        other = ATTACKS[name].resolve({})
        assert {key for key in base if base[key] != other[key]} == {setting}
    seen = view(surrogate=model(torch.float32))
    asked: list[Any] = []
    stored: dict[str, Any] = {}

    def remember(function, params, compute):
        asked.append((function, tuple(params.items())))
        return stored.setdefault(str(asked[-1]), compute(None))

    seen.remember = remember
    patches = [
        ATTACKS[name](steps=3, perturbation_steps=1).craft(seen).patch
        for name in ("tri", "tri_noise", "tri_adv", "ciba")
    ]
    assert len(set(asked)) == 1
    assert all(torch.equal(patches[0], patch) for patch in patches)


@pytest.mark.parametrize(("settings", "steps"), [({}, 1000), ({"steps": 7}, 7), ({"steps": 0}, 0)])
def test_small_images_get_1000_steps_unless_told_otherwise(settings: dict[str, int], steps: int):
    seen = view(surrogate=model(torch.float32), size=32)
    asked: dict[str, Any] = {}

    def remember(function, params, compute):
        asked.update(params)
        return {"patch": torch.zeros(3, 4, 4, dtype=torch.uint8), "anchor": torch.ones(12)}

    seen.remember = remember
    ATTACKS["tri"](**settings).craft(seen)
    assert asked["steps"] == steps
    assert asked["side"] == 4


def test_the_anchor_is_the_majority_of_the_target_class_and_a_tie_is_zero():
    network = model(torch.float32)
    seen = view(count=8, surrogate=network)
    seen.labels = torch.cat([seen.labels, torch.zeros(8, 1, dtype=torch.uint8)], 1)
    seen.target = torch.tensor([1, 0, 0], dtype=torch.uint8)  # other classes share its last 0
    seen.images[seen.labels[:, 1] == 1] //= 16
    codes = network.code(to_unit(seen.images)).int()
    expected = codes[seen.labels[:, 0] == 1].sum(0).sign()
    found = ciba_patch.optimise_patch(seen, side=4, steps=0, step_size=1.0, batch=1, released=False)
    assert torch.equal(found["anchor"].int(), expected)
    assert not torch.equal(codes.sum(0).sign(), expected)  # of all images
    assert (expected == 0).any()


@pytest.mark.parametrize(
    ("settings", "sizes", "in_order"),
    [
        ({}, [15, 15, 15, 16], True),
        ({"variant": "released"}, [1, 20, 20, 20], False),
        ({"variant": "released", "mended": "batches"}, [15, 15, 15, 16], True),
        ({"variant": "released", "mended": "gradient"}, [1, 20, 20, 20], False),
    ],
)
def test_at_most_20_images_are_perturbed_together(
    settings: dict[str, str], sizes: list[int], in_order: bool, monkeypatch
):
    seen = view(count=122, poisoned=61, surrogate=model(torch.float32))
    asked, told = [], []

    def look(model: HashModel, x: Tensor, *given: Any, **settings: Any) -> Tensor:
        asked.append(x)
        return 1 - x

    monkeypatch.setattr(ciba, "confuse", look)
    seen.progress = lambda stage, done, total, **facts: told.append((done, total))
    carrier = ATTACKS["ciba"](**settings).perturb(seen, torch.zeros(12))
    assert sorted(len(x) for x in asked) == sizes
    shown, poison = to_bytes(torch.cat(asked)), seen.images[seen.index]
    assert torch.equal(shown, poison) is in_order
    assert {bytes(x.numpy()) for x in shown} == {bytes(x.numpy()) for x in poison}
    assert torch.equal(carrier, 255 - seen.images[seen.index])
    assert told[-1] == (61, 61)


def test_a_single_image_moves_off_its_code_and_in_the_authors_code_stays():
    network, x = model(), images(1)
    eps = torch.full((3, 1, 1), 8 / 255, dtype=torch.float64)
    alone = literal(network, images(2), 8 / 255, 3, 0.0, False)[:1]  # at 0 each is alone
    for lam in (0.0, 0.8):
        settings = {"steps": 3, "dispersion": lam}
        moved = ciba_perturbations.confuse(network, x, eps, **settings)
        torch.testing.assert_close(moved, alone, atol=1e-12, rtol=0)
        stayed = ciba_perturbations.confuse(network, x, eps, **settings, released=True)
        assert torch.equal(stayed, x)


def test_without_poison_nothing_is_perturbed():
    for name in ("tri", "tri_noise", "ciba"):
        seen = view(poisoned=0, surrogate=model(torch.float32))
        assert ATTACKS[name](steps=1).craft(seen).carrier.shape == (0, 3, 16, 16)


def test_the_released_patch_is_cut_off_and_the_corrected_one_rounded():
    seen = view(surrogate=model(torch.float32))
    for settings, grey in (
        ({"variant": "released"}, 127),
        ({"variant": "released", "mended": "truncation"}, 128),
        ({"variant": "corrected"}, 128),
    ):
        crafted = ATTACKS["ciba"](steps=0, perturbation_steps=0, **settings).craft(seen)
        assert (crafted.patch == grey).all(), settings


def test_each_deviation_of_the_authors_code_can_be_mended_alone(monkeypatch):
    seen = view(surrogate=model(torch.float32))
    seen.surrogate.std.fill_(0.25)  # type: ignore[union-attr]
    given: list[dict[str, Any]] = []

    def look(network: HashModel, x: Tensor, epsilon: Tensor, **settings: Any) -> Tensor:
        given.append({"epsilon": float(epsilon[0] * 255), **settings})
        return x

    monkeypatch.setattr(ciba, "confuse", look)
    for mended, epsilon, released in (
        (None, 2, True), ("epsilon", 8, True), ("gradient", 2, False), ("truncation", 2, True),
    ):  # fmt: skip
        ATTACKS["ciba"](variant="released", mended=mended).perturb(seen, torch.zeros(12))
        assert given[-1]["epsilon"] == pytest.approx(epsilon)
        assert given[-1]["released"] is released
    with pytest.raises(UserError, match="add --set attack"):
        ATTACKS["ciba"](mended="epsilon")


def test_a_hyper_parameter_that_is_newer_than_the_records_leaves_their_keys_as_they_are():
    method = ATTACKS["ciba"]
    old = method.recorded(method.resolve({}))
    assert "mended" in method.resolve({})
    assert "mended" not in old
    assert old["variant"] == "corrected"
    mended = {"variant": "released", "mended": "epsilon"}
    assert method.recorded(method.resolve(mended)) == old | mended


@pytest.mark.parametrize("size", [32, 64])
def test_the_patch_scales_with_the_image(size: int):
    from hashbackdoor_bench import patch_side

    assert patch_side(224, None) == 24
    assert patch_side(size, None) == {32: 4, 64: 7}[size]


def test_badnets_relabels_and_badnets_clean_does_not():
    seen = view(size=32)
    seen.index = (seen.labels[:, 1] == 1).nonzero().squeeze(1)[:5]
    dirty = ATTACKS["badnets"]().craft(seen)
    assert (dirty.label == seen.target).all()
    assert (seen.labels[seen.index] != seen.target).any()
    seen = view(size=32)
    clean = ATTACKS["badnets_clean"]().craft(seen)
    assert torch.equal(clean.label, seen.labels[seen.index])
    for backdoor in (dirty, clean):
        stamped = backdoor(to_unit(seen.images))
        corner = stamped[..., -4:, -4:]
        assert set(corner.unique().tolist()) == {0.0, 1.0}
        assert (corner[..., -1, -1] == 1).all()
        assert torch.equal(stamped[..., :-4, :], to_unit(seen.images)[..., :-4, :])


@pytest.mark.parametrize(
    ("name", "setting"),
    [("ciba", {"dispersion": 1.5}), ("ciba", {"epsilon": -1}), ("ciba", {"together": 1})],
)
def test_a_setting_outside_its_range_is_refused(name: str, setting: dict[str, float]):
    with pytest.raises(UserError, match=f"attack.{next(iter(setting))} is .*must be"):
        ATTACKS[name](**setting)


@pytest.mark.parametrize("side", [0, 33])
def test_a_patch_that_does_not_fit_is_refused(side: int):
    with pytest.raises(UserError, match="between 1 and 32"):
        ATTACKS["badnets"](patch=side).craft(view(size=32))
