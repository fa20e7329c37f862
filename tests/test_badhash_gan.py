"""BadHash's generator against discriminator: the losses in plain formulas, and training."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from badhash_view import TINY, Mean, view
from torch import Tensor, nn

from hashbackdoor_bench import ATTACKS, Diverged, HashLoss, HashModel, ssim_distance

ATTACKS["badhash"]  # imports the package's files under their own names
from hashbackdoor_bench.attacks import badhash, badhash_gan  # noqa: E402


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
