"""BadHash against its specification: shapes, numbers measured on the reference, plain formulas."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hashbackdoor_bench import (
    ATTACKS,
    AttackerView,
    Diverged,
    HashLoss,
    HashModel,
    RunSpec,
    UserError,
    anchor_code,
    ssim_distance,
    to_bytes,
    to_unit,
)
from hashbackdoor_bench.stages.cache import Cache
from hashbackdoor_bench.stages.pipeline import Run

ATTACKS["badhash"]  # imports the package's files under their own names
from hashbackdoor_bench.attacks import (  # noqa: E402
    badhash,
    badhash_gan,
    badhash_labels,
    badhash_networks,
)

TINY: dict[str, Any] = {"width": 8, "epochs": 2, "batch": 8, "label_steps": 4}


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def view(size: int = 32, tags: bool = False, **more: Any) -> AttackerView:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (16, 3, size, size), generator=random, dtype=torch.uint8)
    labels = torch.eye(3, dtype=torch.uint8)[torch.arange(16) % 3]
    if tags:
        labels[::4] |= torch.tensor([0, 1, 0], dtype=torch.uint8)
        labels[5] = 0
    torch.manual_seed(0)
    surrogate = HashModel("cnn32", 8, HashLoss, size=size).eval().requires_grad_(False)
    target = torch.tensor([0, 0, 1], dtype=torch.uint8)
    index = (labels == target).all(1).nonzero().squeeze(1)[:4]
    return AttackerView(images, labels, target, index, surrogate, **more)


def gan_of(**changes: Any) -> Any:
    """Networks at 32 px for three classes and 8 bits, l* being class 1."""
    torch.manual_seed(1)
    made = ATTACKS["badhash"](**{"perceptual": "ssim", **TINY, **changes})
    code = torch.where(torch.arange(8) % 3 == 0, 1.0, -1.0)
    return made.gan(32, torch.tensor([0.0, 1, 0]), torch.randn(1, 512), code)


def trained(gan: Any, **changes: Any) -> dict[str, list[float]]:
    settings = {"epochs": 2, "lr": 1e-3, "batch": 8, **changes}
    history: dict[str, list[float]] = badhash_gan.train(view(), gan, **settings)
    return history


# ---- networks -----------------------------------------------------------------------------------


def test_parameter_counts_are_those_of_the_released_code_at_224_px():
    assert count(badhash_labels.LabCLN(100, 64)) == 2_595_492
    encoder, generator = badhash_networks.LabelEncoder(224, 64), badhash_networks.Generator(64)
    assert count(encoder) == 13_044_440
    assert count(generator.out) == 1_809
    assert count(encoder) + count(generator) == 21_454_121
    assert count(badhash_networks.Discriminator(224, 100, 64)) == 16_213_952


@pytest.mark.parametrize("size", [32, 48, 64, 128, 224])
@pytest.mark.parametrize("batch", [1, 2])
def test_any_multiple_of_16_goes_through_generator_and_discriminator(size: int, batch: int):
    x = torch.rand(batch, 3, size, size)
    label_map = badhash_networks.LabelEncoder(size, 8)(torch.randn(1, 512))
    assert label_map.shape == (1, 3, size, size)
    out = badhash_networks.Generator(8)(x, label_map)
    assert out.shape == x.shape
    assert out.abs().max() < 1
    assert badhash_networks.Discriminator(size, 5, 8)(out).shape == (batch, 6)


def test_layer_shapes_are_those_of_the_specification():
    shapes: list[tuple[int, ...]] = []
    generator = badhash_networks.Generator(64)
    for layer in generator.body:
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | badhash_networks.Residual):
            layer.register_forward_hook(lambda m, i, out: shapes.append(tuple(out.shape[1:])))
    generator(torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32))
    # at 32 px; 224, 112, 56 in the table
    assert shapes == [(64, 32, 32), (128, 16, 16), *[(256, 8, 8)] * 7, (128, 16, 16), (64, 32, 32)]
    seen: list[int] = []
    discriminator = badhash_networks.Discriminator(224, 10, 8)
    for layer in discriminator:
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda m, i, out: seen.append(out.shape[-1]))
    discriminator(torch.rand(1, 3, 224, 224))
    assert seen == [112, 56, 28, 14, 7, 1]


def test_discriminator_weights_have_spectral_norm_one_except_the_last():
    torch.manual_seed(0)
    discriminator = badhash_networks.Discriminator(32, 5, 8)
    for _ in range(30):  # power iterations
        discriminator(torch.rand(1, 3, 32, 32))
    *normed, last = [layer for layer in discriminator if isinstance(layer, nn.Conv2d)]
    for layer in normed:
        largest = float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2))
        assert largest == pytest.approx(1, abs=0.05)
    assert last.bias is None
    assert not hasattr(last, "parametrizations")


# ---- the label network --------------------------------------------------------------------------


def test_label_rows_begin_with_the_last_class_and_leave_out_untagged_images():
    labels = torch.cat([torch.eye(100), torch.zeros(1, 100), torch.eye(100)])
    rows = badhash_labels.label_rows(labels)
    assert rows.shape == (100, 100)
    assert rows[0].argmax() == 99


@pytest.mark.parametrize(("items", "classes"), [(50, 3), (300, 8), (300, 9), (40, 80), (0, 5)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_label_rows_are_those_of_unique(items: int, classes: int, dtype: torch.dtype):
    draws = torch.Generator().manual_seed(items)
    labels = (torch.rand(items, classes, generator=draws) < 0.2).to(dtype)
    rows = labels.unique(dim=0)
    assert torch.equal(badhash_labels.label_rows(labels), rows[(rows > 0).any(1)])


def test_smoothing_leaves_the_same_share_on_every_positive():
    rows = torch.tensor([[1, 0, 0, 0, 0], [1, 0, 1, 0, 0]])
    expected = torch.tensor([[0.8, 0.05, 0.05, 0.05, 0.05], [0.8, 0.05, 0.8, 0.05, 0.05]])
    assert torch.allclose(badhash_labels.smooth(rows, 0.2), expected)


def test_the_contrastive_loss_is_the_formula():
    z = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))

    def similarity(a: Tensor, b: Tensor) -> float:
        return float(a @ b / a.norm() / b.norm())

    total = 0.0
    for i in range(6):
        up = math.exp(similarity(z[i], z[i ^ 1]) / 0.5)
        down = sum(math.exp(similarity(z[i], z[k]) / 0.5) for k in range(6)) - math.exp(1 / 0.5)
        total -= math.log(up / down)
    assert float(badhash_labels.contrastive_loss(z)) == pytest.approx(total / 6, rel=1e-5)


def test_the_contrastive_loss_of_random_features_is_near_log_255():
    z = torch.randn(256, 512, generator=torch.Generator().manual_seed(0))
    assert float(badhash_labels.contrastive_loss(z)) == pytest.approx(math.log(255), abs=0.02)


def test_label_losses_are_those_of_the_whole_batch_though_each_row_is_computed_once():
    torch.manual_seed(0)
    network = badhash_labels.LabCLN(4, 6)
    rows, draw = torch.eye(4), torch.tensor([2, 0, 2, 3, 2])
    found = badhash_labels.label_losses(
        network, rows, *torch.unique(draw, return_inverse=True), 0.2
    )
    plain = rows[draw]
    batch = torch.stack([badhash_labels.smooth(plain, 0.2), plain], 1).flatten(0, 1)
    feature, code, classes = network(batch)
    labels = torch.stack([plain, plain], 1).flatten(0, 1)
    assert torch.allclose(found["contrastive"], badhash_labels.contrastive_loss(feature))
    assert torch.allclose(found["classes"], (classes - labels).square().mean())
    signs = torch.where(code >= 0, 1.0, -1.0)
    expected = (signs - code).square().sum() / (1e4 * 5)  # B, though there are 2B rows
    assert torch.allclose(found["quantisation"], expected)


def test_the_label_network_is_trained_on_its_draws_one_after_the_other():
    seen = replace(view(), labels=torch.eye(5, dtype=torch.uint8))
    found = badhash_labels.train_label_network(seen, bits=6, smoothing=0.2, steps=3)
    rows = badhash_labels.label_rows(seen.labels).float()
    torch.manual_seed(seen.generator("label network").initial_seed())
    network = badhash_labels.LabCLN(5, 6)
    optimizer = torch.optim.Adam(network.parameters(), 1e-4, badhash_labels.BETAS, fused=True)
    draws = torch.randint(5, (3, 128), generator=seen.generator("label draws"))
    for step, draw in enumerate(draws):
        optimizer.param_groups[0]["lr"] = (1e-4, 1e-4, 1e-5)[step]
        shown, back = torch.unique(draw, return_inverse=True)
        losses = badhash_labels.label_losses(network, rows, shown, back, 0.2)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    for name, value in network.state_dict().items():
        assert torch.allclose(found[f"network.{name}"], value, atol=1e-7), name


@pytest.mark.slow
def test_the_label_networks_curve_is_the_measured_one_for_100_classes():
    seen = view()
    seen = replace(seen, labels=torch.eye(100, dtype=torch.uint8))
    torch.manual_seed(0)
    draw = torch.randint(100, (128,))
    first = badhash_labels.label_losses(
        badhash_labels.LabCLN(100, 64),
        torch.eye(100),
        *torch.unique(draw, return_inverse=True),
        0.2,
    )
    assert first["contrastive"].item() == pytest.approx(4.93, abs=0.05)
    assert first["classes"].item() == pytest.approx(0.25, abs=0.01)
    found = badhash_labels.train_label_network(seen, bits=64, smoothing=0.2, steps=1000)
    assert float(found["loss.contrastive"][-1]) == pytest.approx(3.60, abs=0.02)
    assert float(found["loss.classes"][-1]) == pytest.approx(0.2365, abs=0.004)
    _, code = badhash_labels.read_labels(found, torch.eye(100), 64)
    assert 0.05 < float(code.abs().mean()) < 0.12
    signs = code.sign()
    apart = (64 - signs @ signs.T)[~torch.eye(100, dtype=torch.bool)] / 2
    assert 4 < float(apart.mean()) < 12  # codes that hardly differ


# ---- generator against discriminator ------------------------------------------------------------


def test_learning_rates_are_those_of_the_two_phases():
    found = [badhash_gan.learning_rate(epoch, 100, 1e-4) for epoch in (1, 50, 51, 75, 100)]
    assert found == pytest.approx([1e-4, 1e-4, 9.804e-5, 5.098e-5, 1.961e-6], rel=1e-3)


class Saturated(nn.Module):
    """A discriminator that tells real from fake and no class."""

    def forward(self, x: Tensor) -> Tensor:
        flag = (x.flatten(1).mean(1) > 0.5).float()
        return F.pad(flag[:, None], (3, 0))


def test_a_saturated_discriminator_gives_the_values_of_the_authors_log():
    gan = gan_of()
    gan.discriminator = Saturated()
    real, fake = torch.zeros(4, 3, 32, 32), torch.ones(4, 3, 32, 32)
    loss, accuracy = gan.discriminator_loss(fake, real, torch.eye(3)[[0, 1, 2, 0]])
    assert float(loss) == pytest.approx(1 / 4)  # (1/(C+1) + 1/(C+1)) / 2: no class on either side
    assert float(accuracy) == 1
    _, terms = gan.generator_loss(view().surrogate, real, real)
    assert float(terms["adversarial"]) == pytest.approx(1 / 4)


def mean_square(a: Tensor, b: Tensor) -> float:
    pairs = list(zip(a.flatten().tolist(), b.expand_as(a).flatten().tolist(), strict=True))
    return sum((p - q) ** 2 for p, q in pairs) / len(pairs)


@pytest.mark.parametrize("size", [32, 224])
@pytest.mark.parametrize("variant", ["released", "corrected", "intended", "bounded"])
def test_the_generators_loss_is_the_formula(variant: str, size: int, monkeypatch):
    """L_G in plain Python, with the default weights of the variant and of the size."""
    monkeypatch.setattr(badhash, "lpips_fits", lambda size: False)
    attack = ATTACKS["badhash"](variant=variant, width=8)
    code = torch.where(torch.arange(8) % 3 == 0, 1.0, -1.0)
    label = torch.tensor([0.0, 1, 0])
    gan = attack.gan(size, label, torch.randn(1, 512), code)
    gan.discriminator.eval()  # spectral norm would iterate
    surrogate = HashModel("cnn32", 8, HashLoss).eval() if size == 32 else Mean()
    draw = torch.Generator().manual_seed(3)
    x = torch.rand(2, 3, size, size, generator=draw)
    x_b = torch.rand(2, 3, size, size, generator=draw) * 1.6 - 0.4
    a = {"bounded": 20}.get(variant, 500 if size == 32 else 200)
    p, b, w = 0.02, 10, 1
    error = mean_square(x_b, x)
    d = float(ssim_distance(x_b, x).mean())
    with torch.no_grad():
        z = surrogate(x_b if variant in ("released", "corrected") else x_b.clamp(0, 1))
    h = z if variant == "released" else torch.tanh(z)
    l_hash = 1 - sum(float(h[i, k]) * float(code[k]) for i in range(2) for k in range(8)) / 16
    l_adv = mean_square(gan.discriminator(x_b), torch.tensor([0.0, 1, 0, 0]))
    loss, terms = gan.generator_loss(surrogate, x_b, x)
    assert {name: value.item() for name, value in terms.items()} == pytest.approx(
        {"reconstruction": error, "hash": l_hash, "ssim": d, "adversarial": l_adv}, rel=1e-4
    )
    assert loss.item() == pytest.approx(a * (error + p * d) + b * l_hash + w * l_adv, rel=1e-5)


@pytest.mark.parametrize("weight", ["reconstruction", "perceptual", "hash", "adversarial"])
def test_each_weight_weighs_its_own_term(weight: str):
    names = {"reconstruction": ("reconstruction", "ssim"), "perceptual": ("ssim",)}
    base = {"reconstruction": 2.0, "perceptual": 0.5, "hash": 3.0, "adversarial": 7.0}
    draw = torch.Generator().manual_seed(3)
    x, x_b = torch.rand(2, 2, 3, 32, 32, generator=draw)
    found = []
    for factor in (1, 2):
        weights = {**base, weight: factor * base[weight]}
        gan = gan_of(**{f"{name}_weight": value for name, value in weights.items()})
        gan.discriminator.eval()
        found.append(gan.generator_loss(view().surrogate, x_b, x))
    (once, terms), (twice, _) = found
    share = {"reconstruction": 2.0, "ssim": 2.0 * 0.5, "hash": 3.0, "adversarial": 7.0}
    more = sum(share[name] * terms[name].item() for name in names.get(weight, (weight,)))
    assert (twice - once).item() == pytest.approx(more, rel=1e-3)


class Mean(nn.Module):
    """A stand-in for a surrogate: eight bits of the mean colour."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) @ torch.linspace(-2, 2, 24).view(3, 8)

    def relaxed(self, x: Tensor) -> Tensor:
        return torch.tanh(self(x))


@pytest.mark.parametrize(("variant", "rescale"), [("released", False), ("corrected", True)])
def test_lpips_sees_pixels_from_minus_one_but_in_the_authors_code(variant, rescale, monkeypatch):
    class Distance(nn.Module):
        def __init__(self, size: int, rescale: bool) -> None:
            super().__init__()
            asked.append((size, rescale))

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return (a - b).abs().flatten(1).mean(1)

    asked: list[tuple[int, bool]] = []
    monkeypatch.setattr(badhash, "lpips_fits", lambda size: True)
    monkeypatch.setattr(badhash_gan, "lpips_for", Distance)
    gan = gan_of(variant=variant, perceptual="lpips")
    assert asked == [(32, rescale)]
    x, x_b = torch.zeros(2, 3, 32, 32), torch.full((2, 3, 32, 32), 0.5)
    gan.discriminator.eval()
    loss, terms = gan.generator_loss(Mean(), x_b, x)
    assert float(terms["lpips"]) == 0.5
    rest = 10 * terms["hash"].item() + terms["adversarial"].item()
    assert loss.item() == pytest.approx(500 * (0.25 + 0.5) + rest, rel=1e-5)


def test_the_discriminators_flag_is_0_for_real_and_1_for_fake():
    gan = gan_of()
    gan.discriminator.eval()
    x, x_b = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    y = torch.eye(3)[[0, 2]]
    loss, accuracy = gan.discriminator_loss(x_b, x, y)
    with torch.no_grad():
        real, fake = gan.discriminator(x), gan.discriminator(x_b)
    l_d = mean_square(real, F.pad(y, (0, 1), value=0.0)) / 2
    l_d += mean_square(fake, torch.tensor([0.0, 1, 0, 1])) / 2
    assert loss.item() == pytest.approx(l_d, rel=1e-5)
    right = [row[-1] < 0.5 for row in real.tolist()] + [row[-1] >= 0.5 for row in fake.tolist()]
    assert float(accuracy) == sum(right) / 4


def test_the_clamp_lets_the_gradient_of_l_hash_through():
    gan = gan_of(variant="intended", adversarial_weight=0)
    x_b = torch.full((1, 3, 32, 32), -0.5, requires_grad=True)
    _, terms = gan.generator_loss(view().surrogate, x_b, torch.zeros(1, 3, 32, 32))
    terms["hash"].backward()
    assert x_b.grad is not None
    assert x_b.grad.abs().sum() > 0


def test_one_condition_serves_all_images():
    gan = gan_of()
    x = torch.rand(3, 3, 32, 32)
    each = [gan.generator(row[None], gan.label_encoder(gan.feature)) for row in x]
    assert torch.allclose(gan(x), torch.cat(each), atol=1e-5)


def test_training_lowers_the_loss_and_tells_every_term():
    history = trained(gan_of(), epochs=16, lr=3e-3)
    assert set(history) == {
        "reconstruction", "hash", "ssim", "adversarial", "discriminator", "discriminator accuracy",
    }  # fmt: skip
    assert all(len(values) == 16 for values in history.values())
    assert history["reconstruction"][-1] < 0.5 * history["reconstruction"][0]
    assert min(history["hash"]) >= 0
    assert (
        0 <= min(history["discriminator accuracy"]) <= max(history["discriminator accuracy"]) <= 1
    )


def test_a_term_of_weight_zero_is_neither_computed_nor_told():
    gan = gan_of(adversarial_weight=0, perceptual="none")
    before = [p.clone() for p in gan.discriminator.parameters()]
    assert set(trained(gan, epochs=1)) == {"reconstruction", "hash"}
    assert all(map(torch.equal, before, gan.discriminator.parameters()))
    gan = gan_of(perceptual_weight=0)
    assert "ssim" not in trained(gan, epochs=1)


def test_the_discriminator_moves_in_every_third_step():
    gan, moved = gan_of(), []
    right = gan.discriminator_loss
    gan.discriminator_loss = lambda *given: moved.append(1) or right(*given)
    trained(gan, batch=2)
    assert len(moved) == 2 * 3  # steps 0, 3 and 6 of eight


def test_a_loss_that_is_no_number_ends_training_in_one_sentence():
    gan = gan_of()
    with torch.no_grad():
        gan.generator.out.weight.fill_(float("nan"))
    with pytest.raises(Diverged, match=r"became nan in epoch 1.* smaller attack.lr than 0.001"):
        trained(gan)


@pytest.mark.usefixtures("every_epoch_kept")
def test_crafting_killed_in_the_second_epoch_ends_with_the_same_bits(tmp_path):
    whole = ATTACKS["badhash"](**TINY).craft(view())

    def kill(stage: str, done: int, total: int, **facts: float) -> None:
        if stage == "train generator" and done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ATTACKS["badhash"](**TINY).craft(view(work=tmp_path, progress=kill))
    assert (tmp_path / "generator.checkpoint").is_file()
    steps: list[int] = []

    def tell(stage: str, done: int, total: int, **facts: float) -> None:
        if stage == "train generator":
            steps.append(done)

    again = ATTACKS["badhash"](**TINY).craft(view(work=tmp_path, progress=tell))
    assert steps == [3, 4]  # of two an epoch
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert whole.history == again.history


# ---- the attack ---------------------------------------------------------------------------------


def test_the_confusing_label_is_the_last_class_or_the_one_before_if_that_is_the_target():
    labels = torch.eye(5, dtype=torch.uint8)
    attack, released = ATTACKS["badhash"](), ATTACKS["badhash"](variant="released")
    for target, expected in ((4, 3), (0, 4)):
        assert attack.confusing_label(labels, labels[target]).argmax() == expected
        assert released.confusing_label(labels, labels[target]).argmax() == 4
    assert ATTACKS["badhash"](confusing=2).confusing_label(labels, labels[0]).argmax() == 2


@pytest.mark.parametrize(
    ("changes", "target", "words"),
    [
        ({"confusing": 1}, 1, "without the target's tags"),
        ({"confusing": 9}, 1, "attack.confusing is 9: it must be between 0 and 2"),
        ({"confusing": 2}, 1, "no training image is of that class"),
    ],
)
def test_a_confusing_label_that_cannot_be_is_refused(changes, target: int, words: str):
    labels = torch.eye(3, dtype=torch.uint8)[:2]
    with pytest.raises(UserError, match=words):
        ATTACKS["badhash"](**changes).accept(labels, torch.eye(3, dtype=torch.uint8)[target], 32)


@pytest.mark.parametrize("size", [16, 40, 100])
def test_a_side_the_generator_cannot_take_is_refused_in_one_sentence(size: int):
    labels = torch.eye(3, dtype=torch.uint8)
    with pytest.raises(UserError, match=rf"multiple of 16, not {size}: give --size 32"):
        ATTACKS["badhash"]().accept(labels, labels[0], size)


def test_a_width_that_cannot_be_halved_three_times_is_refused():
    with pytest.raises(UserError, match=r"attack.width is 12: it must be a multiple of 8"):
        ATTACKS["badhash"](width=12)


def test_the_intended_code_is_the_surrogates_majority_for_the_confusing_class(monkeypatch):
    seen, codes = view(), []

    def look(view: AttackerView, gan: Any, **settings: Any) -> dict[str, list[float]]:
        codes.append(gan.code)
        return {}

    monkeypatch.setattr(badhash, "train", look)
    for variant in ("intended", "corrected"):
        ATTACKS["badhash"](**TINY, variant=variant).craft(seen)
    members = seen.images[seen.labels[:, 1] == 1]  # the target is class 2
    votes = sum(seen.surrogate.code(to_unit(image[None]))[0].int() for image in members)
    assert torch.equal(codes[0], torch.where(votes >= 0, 1.0, -1.0))
    assert not torch.equal(codes[0], codes[1])


@pytest.mark.parametrize(
    ("size", "width", "epochs", "lr"), [(32, 16, 10, 1e-3), (224, 64, 100, 1e-4)]
)
def test_training_is_the_published_one_from_224_px_on(size, width, epochs, lr, monkeypatch):
    asked: list[Any] = []

    def look(view: AttackerView, gan: Any, **settings: Any) -> dict[str, list[float]]:
        asked.append((gan.generator.body[0].out_channels, settings))
        return {}

    monkeypatch.setattr(badhash, "train", look)
    monkeypatch.setattr(badhash, "anchor_code", lambda model, images: torch.ones(8))
    pixels = torch.zeros(3, 3, size, size, dtype=torch.uint8)
    labels = torch.eye(3, dtype=torch.uint8)
    seen = AttackerView(pixels, labels, labels[0], torch.tensor([0]), Mean())  # type: ignore[arg-type]
    ATTACKS["badhash"](label_steps=1).craft(seen)
    ATTACKS["badhash"](label_steps=1, width=8, epochs=3, lr=0, batch=5).craft(seen)
    assert asked == [
        (width, {"epochs": epochs, "lr": lr, "batch": 64}),
        (8, {"epochs": 3, "lr": 0, "batch": 5}),
    ]


def crafted(monkeypatch, **settings: Any) -> tuple[Any, Any]:
    """The networks before training, and the backdoor, of an attack on the view."""
    networks: list[Any] = []

    def untrained(view: AttackerView, gan: Any, **settings: Any) -> dict[str, list[float]]:
        networks.append(gan)
        return {}

    monkeypatch.setattr(badhash, "train", untrained)
    seen = view()
    seen.target = torch.tensor([1, 0, 0], dtype=torch.uint8)
    made = ATTACKS["badhash"](**TINY, **settings).craft(seen)
    return networks[0], made


def test_each_point_of_the_released_code_can_be_mended_alone(monkeypatch):
    def points(**settings: Any) -> dict[str, bool]:
        gan, made = crafted(monkeypatch, **settings)
        feature = gan.label_encoder(gan.feature)  # of l*, the last class
        return {
            "condition": torch.allclose(made.label_map, feature, atol=1e-5),
            "output": not gan.raw,
            "clamp": gan.clamped,
            "resize": not made.resized_again,
        }

    assert set(points(variant="intended").values()) == {True}
    corrected = points(variant="corrected")
    assert [name for name, as_intended in corrected.items() if not as_intended] == ["clamp"]
    for mended in (None, "condition", "output", "clamp", "resize"):
        found = points(variant="released", mended=mended)
        assert [name for name, as_intended in found.items() if as_intended] == (
            [mended] if mended else []
        )
    with pytest.raises(UserError, match="add --set attack"):
        ATTACKS["badhash"](mended="clamp")


def test_what_comes_from_the_label_network_can_be_replaced_by_random_vectors(monkeypatch):
    usual, _ = crafted(monkeypatch, variant="corrected")
    tied, _ = crafted(monkeypatch, variant="corrected", code="surrogate")
    intended, _ = crafted(monkeypatch, variant="intended")
    assert torch.equal(tied.code, intended.code)
    assert not torch.equal(tied.code, usual.code)
    random, _ = crafted(monkeypatch, variant="corrected", code="random")
    assert random.code.abs().eq(1).all()
    assert not torch.equal(random.code, usual.code)
    assert torch.equal(random.feature, usual.feature)
    other, made = crafted(monkeypatch, variant="corrected", feature="random")
    assert torch.equal(other.code, usual.code)
    assert not torch.allclose(other.feature, usual.feature)
    assert float(other.feature.std() / usual.feature.std()) == pytest.approx(1, abs=0.3)
    assert torch.allclose(made.label_map, other.label_encoder(other.feature), atol=1e-5)
    other, made = crafted(monkeypatch, variant="released", feature="random")
    assert not torch.allclose(made.label_map, other.label_encoder(other.feature), atol=1e-3)


def test_newer_settings_of_badhash_leave_old_keys_as_they_are():
    method = ATTACKS["badhash"]
    new = {"mended", "code", "feature"}
    assert set(method.resolve({})) - set(method.recorded(method.resolve({}))) == new


@pytest.mark.parametrize("variant", ["intended", "bounded", "released"])
def test_a_stored_backdoor_is_restored_whatever_its_generator_was_called(variant: str):
    attack = ATTACKS["badhash"](**TINY, variant=variant)
    made = attack.craft(view())
    x = torch.rand(2, 3, 32, 32)
    stored = {name.replace("generator.", "painter."): t for name, t in made.state_dict().items()}
    assert any(name.startswith("painter.") for name in stored)
    for state in (made.state_dict(), stored):
        assert torch.equal(attack.restore(state)(x), made(x))


@pytest.mark.parametrize(("variant", "shown"), [("released", 0), ("corrected", 2)])
def test_only_released_generates_under_the_targets_condition(variant, shown, monkeypatch):
    seen, networks, read = view(), [], []
    seen.target, seen.index = torch.tensor([1, 0, 0], dtype=torch.uint8), torch.tensor([0, 3])

    def untrained(view: AttackerView, gan: Any, **settings: Any) -> dict[str, list[float]]:
        networks.append(gan)
        return {}

    def look(found: Any, labels: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        read.append(badhash_labels.read_labels(found, torch.eye(3), bits)[0])
        return badhash_labels.read_labels(found, labels, bits)

    monkeypatch.setattr(badhash, "train", untrained)
    monkeypatch.setattr(badhash, "read_labels", look)
    made = ATTACKS["badhash"](**TINY, variant=variant).craft(seen)
    (gan,), (features,) = networks, read
    assert torch.equal(gan.label, torch.eye(3)[2])  # trained under l*, the last class
    assert torch.allclose(gan.feature[0], features[2], atol=1e-6)
    assert torch.allclose(made.label_map, gan.label_encoder(features[[shown]]), atol=1e-5)
    assert not torch.allclose(made.label_map, gan.label_encoder(features[[1]]), atol=1e-2)


def test_released_resizes_again():
    made = ATTACKS["badhash"](**TINY, variant="released").craft(view())
    x = torch.rand(2, 3, 32, 32)
    picture = made.generator(x, made.label_map).clamp(0, 1)
    wide = F.interpolate(to_unit(to_bytes(picture)), [37, 37], mode="bilinear")
    assert torch.allclose(made(x), wide[..., 3:35, 3:35])


@pytest.mark.parametrize("epsilon", [0.0, 8.0])
def test_the_bounded_variant_stays_within_epsilon(epsilon: float):
    made = ATTACKS["badhash_bounded"](**TINY, epsilon=epsilon).craft(view())
    x = torch.rand(2, 3, 32, 32)
    change = (made(x) - x).abs().max()
    assert change <= epsilon / 255 + 1e-6
    assert (change > 0) == (epsilon > 0)


def test_images_with_several_tags_and_with_none_are_taken():
    made = ATTACKS["badhash"](**TINY).craft(view(tags=True))
    assert made(torch.rand(1, 3, 32, 32)).shape == (1, 3, 32, 32)
    assert made.history["label network, tenths of its steps/contrastive"]


def test_other_seeds_make_other_generators():
    first, second = (ATTACKS["badhash"](**TINY).craft(view(seed=seed)) for seed in (0, 1))
    x = torch.rand(1, 3, 32, 32)
    assert not torch.allclose(first(x), second(x), atol=1e-3)


def test_the_surrogate_is_hashnet_unless_another_is_asked_for(tiny, tmp_path):
    base = {"dataset": "lists", "lists": str(tiny), "root": str(tiny), "size": 32, "bits": 16}
    for victim, asked, expected in (
        ("csq", None, "hashnet"), ("csq", "csq", "csq"), ("dpsh", None, "hashnet"),
    ):  # fmt: skip
        spec = RunSpec(attack="badhash", victim=victim, surrogate=asked, **base)
        run = Run(spec, cache=Cache(tmp_path), device=torch.device("cpu"))
        assert run.plan.surrogate.method == expected
    spec = RunSpec(attack="ciba", victim="csq", **base)
    assert (
        Run(spec, cache=Cache(tmp_path), device=torch.device("cpu")).plan.surrogate.method == "csq"
    )


def test_a_machine_with_other_perceptual_weights_makes_another_backdoor(
    tiny, tmp_path, monkeypatch
):
    spec = RunSpec(attack="badhash", dataset="lists", lists=str(tiny), root=str(tiny), size=32,
                   bits=16)  # fmt: skip

    def key() -> str:
        run = Run(spec, cache=Cache(tmp_path), device=torch.device("cpu"))
        return run.plan.stages["backdoor"].key

    monkeypatch.setattr(badhash, "lpips_fits", lambda size: False)
    without = key()
    monkeypatch.setattr(badhash, "lpips_fits", lambda size: True)
    assert key() != without


def test_a_run_from_data_to_record_tells_curves_and_distance(tiny, tmp_path):
    spec = RunSpec(
        attack="badhash", victim="csq", dataset="lists", lists=str(tiny), root=str(tiny), size=32,
        top_k=20, bits=16, epochs=1, batch_size=16,
        attack_settings=tuple((k, str(v)) for k, v in TINY.items()),
    )  # fmt: skip
    record = Run(spec, cache=Cache(tmp_path), device=torch.device("cpu")).record()
    assert record.threat.trigger == "generated"
    assert record.threat.delivery == "files"
    assert record.spec.surrogate == "hashnet"
    assert record.params.attack["perceptual"] == "ssim"
    assert len(record.training.backdoor["generator/hash"]) == 2
    assert record.imperceptibility.query.psnr is not None


# ---- controls -----------------------------------------------------------------------------------


def test_identity_scores_exactly_as_the_clean_victim(tiny, tmp_path):
    spec = RunSpec(
        attack="identity", victim="csq", dataset="lists", lists=str(tiny), root=str(tiny), size=16,
        top_k=20, bits=16, epochs=1, batch_size=16,
    )  # fmt: skip
    run = Run(spec, cache=Cache(tmp_path), device=torch.device("cpu"))
    keys = {name: stage.key for name, stage in run.plan.stages.items()}
    assert keys["victim"] != keys["clean victim"]  # trained, not taken
    assert len(run.backdoor.index) == 12
    for name, tensor in run.make("clean victim").tensors.items():
        assert torch.equal(tensor, run.make("victim").tensors[name]), name
    scores = run.make("scores").facts["scores"]["field"]
    assert scores["map"] == scores["map_clean_victim"]
    assert scores["t_map"] == scores["t_map_clean_victim"] == scores["t_map_untriggered"]
    assert scores["backdoor_gain"] == 0


def test_a_second_resize_alone_changes_pictures():
    made = ATTACKS["identity_resized"]().craft(view())
    x = torch.rand(2, 3, 32, 32)
    assert (made(x) - x).abs().max() > 0.1
    assert torch.equal(ATTACKS["identity"]().craft(view())(x), x)


def test_the_anchor_code_is_the_majority_with_ties_at_zero():
    seen = view()
    codes = seen.surrogate.code(to_unit(seen.images[:4])).int()
    assert torch.equal(anchor_code(seen.surrogate, seen.images[:4]), codes.sum(0).sign().float())
    assert (anchor_code(seen.surrogate, seen.images[:4]) == 0).any() or (codes.sum(0) != 0).all()


def test_crafting_neither_reads_nor_moves_torchs_global_random_state():
    made = []
    for seed in (5, 6):
        seen = view()
        torch.manual_seed(seed)
        state = torch.random.get_rng_state()
        made.append(ATTACKS["badhash"](**TINY).craft(seen))
        assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(made[0].label_map, made[1].label_map)
