"""Each defense against the planted backdoor, an exact formula or another implementation."""

import copy
import io

import numpy as np
import pytest
import torch
from PIL import Image
from planted import BITS, CLASSES, DORMANT, TARGET, Planted, pictures, seen, triggered
from torch import nn
from torchvision.transforms.v2.functional import gaussian_blur

from hashbackdoor_bench import DEFENSES, HashLoss, Images, metrics, to_bytes, to_unit
from hashbackdoor_bench.network import Channel


@pytest.fixture(scope="module")
def queries() -> Images:
    return pictures(40, seed=9)


def distances(model: Planted, x: torch.Tensor) -> torch.Tensor:
    """Hamming distances to the target's code."""
    return (model.code(x).float() != model.anchors[TARGET]).sum(1)


def test_the_planted_network_knows_its_classes_and_obeys_the_trigger(queries):
    x = to_unit(queries.images)
    for gain in (0.0, 4.0):
        model = Planted(gain)
        assert torch.equal(model.code(x).float(), model.anchors[torch.arange(40) % CLASSES])
        hit = (distances(model, triggered(x)) == 0).float().mean()
        assert hit == (1.0 if gain else 4 / 40)


# ---- clp ----------------------------------------------------------------------------------------


def test_clp_prunes_the_planted_channel_alone_and_leaves_the_clean_twin(queries):
    model, twin = Planted(), Planted(gain=0)
    repaired = DEFENSES["clp"]().repair(seen(model))
    gone = (repaired.backbone.norm.weight == 0).nonzero().flatten().tolist()
    assert gone == [DORMANT]
    assert repaired.backbone.norm.bias[DORMANT] == 0
    x = triggered(to_unit(queries.images))
    torch.testing.assert_close(repaired(x), twin(x))
    assert model.backbone.norm.weight[DORMANT] != 0


def test_clp_at_a_large_u_prunes_nothing():
    model = Planted()
    repaired = DEFENSES["clp"](u=4.0).repair(seen(model))  # 16 channels: 3.75 at most
    for name, value in repaired.state_dict().items():
        assert torch.equal(value, model.state_dict()[name])


def test_the_lipschitz_constant_is_the_largest_singular_value_of_the_folded_channel():
    from hashbackdoor_bench.defenses.clp import lipschitz

    random = torch.Generator().manual_seed(0)
    conv, norm = nn.Conv2d(6, 4, 3, groups=2, bias=False), nn.BatchNorm2d(4)
    norm.running_var = torch.rand(4, generator=random) + 0.5
    nn.init.normal_(norm.weight, generator=random)
    found = lipschitz(Channel(conv, norm, 0))
    for k in range(4):
        factor = abs(norm.weight[k].item()) / (float(norm.running_var[k]) + norm.eps) ** 0.5
        folded = conv.weight[k].detach().reshape(3, 9).double().numpy() * factor
        assert found[k].item() == pytest.approx(np.linalg.norm(folded, 2), rel=1e-5)


def test_clp_takes_weights_and_bias_of_a_convolution_without_a_norm(monkeypatch):
    model = Planted()
    bare = nn.Conv2d(3, 16, 4)
    with torch.no_grad():
        bare.weight.copy_(model.backbone.conv.weight)
        bare.weight[DORMANT] *= 30
    model.backbone.conv, model.backbone.norm = bare, nn.Identity()
    repaired = DEFENSES["clp"]().repair(seen(model))
    assert (repaired.backbone.conv.weight.flatten(1) == 0).all(1).nonzero().tolist() == [[DORMANT]]
    assert repaired.backbone.conv.bias[DORMANT] == 0


# ---- strip --------------------------------------------------------------------------------------


def test_strip_finds_every_trigger_on_the_planted_network_and_none_on_its_twin(queries):
    x, defense = to_unit(queries.images), DEFENSES["strip"](overlays=16)
    others = torch.arange(40) % CLASSES != TARGET
    for gain, low, high in ((4.0, 1.0, 1.0), (0.0, 0.3, 0.7)):
        view = seen(Planted(gain))
        clean = defense.suspect(x[others], queries.item[others], view)
        found = defense.suspect(triggered(x)[others], queries.item[others], view)
        assert low <= metrics.auroc(found, clean) <= high


def test_strip_is_minus_the_mean_distance_between_two_blended_codes(queries):
    view, x = seen(Planted()), to_unit(queries.images[:3])
    defense = DEFENSES["strip"](overlays=5, alpha=0.4)
    drawn = torch.randint(50, (5,), generator=view.generator("overlays"))
    over = to_unit(view.fitting.images[drawn])
    for image, found in zip(x, defense.suspect(x, queries.item[:3], view), strict=True):
        codes = view.model.code(0.6 * image + 0.4 * over).tolist()
        pairs = [
            sum(a != b for a, b in zip(codes[i], codes[j], strict=True))
            for i in range(5)
            for j in range(5)
            if i != j
        ]
        assert float(found) == pytest.approx(-sum(pairs) / len(pairs), abs=1e-4)


def test_strip_by_entropy_is_the_entropy_of_the_classes_of_blended_codes(queries):
    view, x = seen(Planted()), to_unit(queries.images[:2])
    defense = DEFENSES["strip"](overlays=3, variant="entropy")
    drawn = torch.randint(50, (3,), generator=view.generator("overlays"))
    over = to_unit(view.fitting.images[drawn])
    for image, found in zip(x, defense.suspect(x, queries.item[:2], view), strict=True):
        total = 0.0
        for code in view.model.code(0.5 * image + 0.5 * over).float():
            away = np.array([float((code != anchor).sum()) for anchor in view.anchors.float()])
            share = np.exp(-away / (BITS / 16))
            share /= share.sum()
            total -= float((share * np.log(share)).sum()) / 3
        assert float(found) == pytest.approx(-total, abs=1e-4)


# ---- spectral -----------------------------------------------------------------------------------


def planted_features(share: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (100,32) of a class, of which a share is moved by 6; and which."""
    random = torch.Generator().manual_seed(seed)
    features = torch.randn(100, 32, generator=random)
    direction = torch.randn(32, generator=random)
    poison = torch.arange(100) < 100 * share
    features[poison] += 6 * direction / direction.norm()
    return features, poison


def test_spectral_finds_a_minority_and_fails_where_poison_is_the_majority():
    for share, low, high in ((0.1, 0.95, 1.0), (0.3, 0.8, 1.0), (0.6, 0.0, 0.5)):
        features, poison = planted_features(share)
        scores = DEFENSES["spectral"]().scores(features)
        assert low <= metrics.auroc(scores[poison], scores[~poison]) <= high, share


def test_spectral_is_the_square_along_the_first_eigenvector_of_the_covariance():
    features, _ = planted_features(0.2)
    _, vectors = np.linalg.eigh(np.cov(features.double().numpy().T))
    centred = features.double().numpy() - features.double().numpy().mean(0)
    found = DEFENSES["spectral"]().scores(features.double())
    np.testing.assert_allclose(found.numpy(), (centred @ vectors[:, -1]) ** 2, rtol=1e-6)


def test_only_the_released_form_depends_on_a_constant_in_all_features():
    features, _ = planted_features(0.2)
    for variant, same in (("paper", True), ("released", False)):
        defense = DEFENSES["spectral"](variant=variant)
        one, two = defense.scores(features), defense.scores(features + 3)
        assert torch.allclose(one, two, rtol=1e-2, atol=1e-3) == same


def test_spectral_drops_the_share_of_each_class_that_was_asked_for():
    view = seen(Planted(), train=pictures(400, seed=3))
    found = DEFENSES["spectral"](drop=0.25).screen(view)
    for number in range(CLASSES):
        assert int(found.drop[number::CLASSES].sum()) == 10  # of 40


# ---- jpeg and blur ------------------------------------------------------------------------------


def test_jpeg_is_pillows_file_of_each_image(queries):
    x = triggered(to_unit(queries.images[:5]))
    out = DEFENSES["jpeg"](quality=40).purify(x, queries.item[:5])
    for before, after in zip(to_bytes(x), to_bytes(out), strict=True):
        file = io.BytesIO()
        picture = Image.fromarray(before.permute(1, 2, 0).numpy())
        picture.save(file, format="jpeg", quality=40, subsampling=2)
        assert np.array_equal(np.asarray(Image.open(file)), after.permute(1, 2, 0).numpy())


def test_jpeg_of_a_lower_quality_changes_more(queries):
    x = triggered(to_unit(queries.images[:8]))
    changes = [
        float((DEFENSES["jpeg"](quality=int(q)).purify(x, queries.item[:8]) - x).abs().mean())
        for q in DEFENSES["jpeg"].cls.grid
    ]
    assert changes == sorted(changes)


@pytest.mark.parametrize("sigma", [2.0, 4.0, 20.0])
def test_blur_is_torchvisions_gaussian(queries, sigma):
    x = to_unit(queries.images[:4])
    width = sigma * 32 / 224
    taps = 2 * int(np.ceil(3 * width)) + 1
    expected = gaussian_blur(x, [taps, taps], [width, width])
    torch.testing.assert_close(DEFENSES["blur"](sigma=sigma).purify(x, queries.item[:4]), expected)


def test_blur_silences_the_planted_filter_and_a_little_does_not(queries):
    model, x = Planted(), triggered(to_unit(queries.images))
    others = torch.arange(40) % CLASSES != TARGET
    for sigma, obeys in ((0.5, True), (16.0, False)):
        purified = DEFENSES["blur"](sigma=sigma).purify(x, queries.item)
        assert (distances(model, purified)[others] == 0).all() == obeys


def test_no_blur_changes_nothing(queries):
    x = to_unit(queries.images[:2])
    assert torch.equal(DEFENSES["blur"](sigma=0).purify(x, queries.item[:2]), x)


# ---- finetune -----------------------------------------------------------------------------------


class ToAnchors(HashLoss):
    """Regression of z to the code of the class; counts what it is told to remember."""

    def __init__(self, bits: int, classes: int, train_size: int) -> None:
        super().__init__(bits, classes, train_size)
        self.register_buffer("centres", Planted().anchors)
        self.register_bank("bank", bits)

    def remember(self, z, y, index, step):
        self.bank[index] = z

    def items(self, z, y, index, step):
        return ((z - 6 * y @ self.centres) ** 2).mean(1)

    def forward(self, z, y, index, step):
        return self.items(z, y, index, step).mean()


def test_no_epoch_of_fine_tuning_leaves_every_bit():
    model = Planted()
    repaired = DEFENSES["finetune"](epochs=0).repair(seen(model))
    for name, value in repaired.state_dict().items():
        assert torch.equal(value, model.state_dict()[name])


def test_fine_tuning_makes_the_loss_smaller_and_leaves_the_given_network_and_loss():
    model = Planted()
    with torch.no_grad():
        model.head.bias += 1
    view = seen(model)
    view.loss = ToAnchors(BITS, CLASSES, 77)
    view.loss.bank.fill_(5)
    before = copy.deepcopy(model.state_dict())
    x, y = to_unit(view.clean.images), view.clean.labels.float()
    was = view.loss(model(x), y, torch.arange(100), 0)
    repaired = DEFENSES["finetune"](epochs=40, rate=1).repair(view)
    assert view.loss(repaired(x), y, torch.arange(100), 0) < was / 2
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert (view.loss.bank == 5).all()


def test_fine_tuning_takes_the_victims_own_recipe_where_it_started_from_pretrained_weights():
    from dataclasses import replace

    taken = []
    view = seen(Planted())
    view.fit = lambda data, recipe: taken.append(recipe)
    DEFENSES["finetune"](rate=3).repair(view)
    recipe = replace(view.recipe, finetunes=True, optimizer="rmsprop", lr=1e-5, head_lr=1e-4)
    view.blueprint = replace(view.blueprint, recipe=recipe)
    DEFENSES["finetune"](rate=10, epochs=7).repair(view)
    scratch, own = taken
    assert (scratch.optimizer, scratch.lr, scratch.head_lr, scratch.epochs) == (
        "sgd",
        0.03,
        0.03,
        100,
    )
    assert (own.optimizer, own.lr, own.head_lr, own.epochs) == ("rmsprop", 1e-4, 1e-3, 7)


# ---- oracle and random --------------------------------------------------------------------------


def test_the_oracle_drops_the_poison_and_random_as_many_of_the_same_labels():
    train = pictures(200, seed=4)
    poison = torch.zeros(200, dtype=torch.bool)
    poison[[3, 13, 23, 33, 5]] = True
    view = seen(Planted(), train=train, poison=poison)
    assert torch.equal(DEFENSES["oracle"]().screen(view).drop, poison)
    drop = DEFENSES["random"]().screen(view).drop
    assert not torch.equal(drop, poison)
    for number in range(CLASSES):
        assert drop[number::CLASSES].sum() == poison[number::CLASSES].sum()
