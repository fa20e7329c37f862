"""Repairs, each against the planted backdoor, plain loops or its formula."""

import copy

import pytest
import torch
from planted import BITS, CLASSES, DORMANT, SIZE, Planted, pictures, seen, triggered
from torch import nn

from hashbackdoor_bench import (
    DEFENSES,
    HashLoss,
    HashModel,
    TrainStep,
    plain_backward,
    to_unit,
    tuning_recipe,
    uncounted,
)


class ToAnchors(HashLoss):
    """Regression of z to the code of the class, with gradients that suit the planted weights."""

    def forward(self, z, y, index, step):
        return 1e-4 * ((z - 6 * y @ Planted().anchors) ** 2).mean()


@pytest.fixture
def view():
    made = seen(Planted())
    made.loss = ToAnchors(BITS, CLASSES, 100)
    return made


def same(one: nn.Module, other: nn.Module) -> bool:
    """Whether all tensors of two networks are equal bit for bit."""
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_batch_leaves_no_trace_in_uncounted_batch_norms_and_is_normalised_as_before():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4).eval())
    network.train()
    network[2].eval()
    before, x = copy.deepcopy(network), torch.rand(5, 3, 8, 8)
    with uncounted(network):
        out = network(x)
    assert same(network, before)
    assert torch.equal(out, network(x))  # the third layer by its statistics, which stay in use
    assert not same(network, before)


@pytest.mark.parametrize("name", ["fineprune", "nad", "ft_sam", "fst"])
def test_a_repair_leaves_the_given_network_and_its_result_is_frozen(view, name):
    before = copy.deepcopy(view.model)
    repaired = DEFENSES[name](**DEFENSES[name].cls.quick).repair(view)
    assert same(view.model, before)
    assert not same(repaired, before)
    assert not repaired.training
    assert not any(p.requires_grad for p in repaired.parameters())


def test_a_repairs_batches_have_two_or_more_images_of_each_of_their_classes(view):
    seen_batches = []

    def backward(step):
        seen_batches.append(step.y.sum(0))
        return plain_backward(step)

    view.fit(view.clean, tuning_recipe(view.recipe, epochs=2), backward=backward)
    assert len(seen_batches) == 8
    for counts in seen_batches:
        assert not (counts == 1).any()
    for counts in seen_batches[:3] + seen_batches[4:7]:
        assert counts.max() - counts.min() <= 2


# ---- fineprune ----------------------------------------------------------------------------------


def fineprune(**settings):
    return DEFENSES["fineprune"](**settings)


def test_activity_is_the_mean_of_what_passes_the_relu(view):
    from hashbackdoor_bench.defenses.fineprune import activity, last_layer

    assert last_layer(view.model) == "backbone.norm"
    found = activity(view, "backbone.norm")
    x, network = to_unit(view.clean.images), view.model.backbone
    for k in range(16):
        out = network.norm(network.conv(x))[:, k]
        assert float(found[k]) == pytest.approx(float(out.clamp(min=0).sum() / out.numel()), 1e-4)
    assert found[DORMANT] == 0
    assert found.max() > 0


def test_fineprune_prunes_the_planted_channel_and_leaves_the_clean_twin(view):
    model = fineprune(step=1 / 16, epochs=0, tolerance=0).repair(view)
    assert model.backbone.norm.weight[DORMANT] == model.backbone.norm.bias[DORMANT] == 0
    x = triggered(to_unit(pictures(40, seed=9).images))
    assert torch.equal(model.code(x), Planted(gain=0).code(x))


def test_channels_are_pruned_in_the_order_of_their_activity(view, monkeypatch):
    from hashbackdoor_bench.defenses.fineprune import activity

    answers = iter([0.8] * 7 + [0.1])
    monkeypatch.setattr(type(view), "map", lambda self, model=None: next(answers))
    _, gone = fineprune(step=1 / 16).pruned(view)
    found = activity(view, "backbone.norm")
    assert len(gone) == 6
    rest = [k for k in range(16) if k not in gone.tolist()]
    assert found[gone].max() <= found[rest].min()


@pytest.mark.parametrize(("maps", "tolerance", "step", "kept"), [
    ([0.8, 0.79, 0.73, 0.71, 0.9], 0.1, 0.125, 4),  # limit .72: the third step breaks it
    ([0.8, 0.9, 0.79, 0.8, 0.8], 0.0, 0.125, 2),  # an improvement is none
    ([0.8, 0.1, 0.8], 0.1, 0.125, 0),
    ([0.8, float("nan")], 0.1, 0.125, 0),
    ([0.8] * 99, 0.1, 0.125, 14),  # the last two of 16 channels stay
    ([0.8] * 99, 0.1, 0.001, 15),
])  # fmt: skip
def test_pruning_stops_before_the_step_that_costs_too_much(
    view, monkeypatch, maps, tolerance, step, kept
):
    answers = iter(maps)
    monkeypatch.setattr(type(view), "map", lambda self, model=None: next(answers))
    _, gone = fineprune(tolerance=tolerance, step=step).pruned(view)
    assert len(gone) == kept


def test_pruned_channels_stay_zero_while_the_others_are_tuned(view):
    with torch.no_grad():
        view.model.head.weight[:, 16:] += 0.1
    view.model.backbone.act = nn.Identity()  # a ReLU would pass no gradient to a dead channel
    _, gone = fineprune(step=0.25).pruned(view)
    model = fineprune(step=0.25, epochs=2).repair(view)
    norm = model.backbone.norm
    assert len(gone)
    assert (norm.weight[gone] == 0).all()
    assert (norm.bias[gone] == 0).all()
    rest = [k for k in range(16) if k not in gone.tolist()]
    assert (norm.weight[rest] != 0).all()
    assert not torch.equal(model.head.bias, view.model.head.bias)


@pytest.mark.parametrize(("backbone", "layer"), [
    ("cnn32", "backbone.18"), ("resnet18", "backbone.layer4.1.bn2"),
    ("alexnet", "backbone.features.10"), ("vgg11_bn", "backbone.features.26"),
])  # fmt: skip
def test_the_last_layer_is_that_of_the_last_stage(backbone, layer):
    from hashbackdoor_bench.defenses.fineprune import last_layer

    size = {"cnn32": SIZE, "resnet18": 64}.get(backbone, 224)
    with torch.device("meta" if backbone == "vgg11_bn" else "cpu"):
        model = HashModel(backbone, 4, HashLoss, size=size)
    assert last_layer(model.to_empty(device="cpu") if backbone == "vgg11_bn" else model) == layer


# ---- nad ----------------------------------------------------------------------------------------


def test_the_attention_distance_is_that_of_plain_loops():
    from hashbackdoor_bench.defenses.nad import distance

    chance = torch.Generator().manual_seed(0)
    shapes = [(2, 3, 6, 6), (2, 3, 4, 2), (2, 4, 2, 2), (2, 5, 1, 2), (2, 6, 1, 1)]
    student, teacher = (
        [torch.randn(shape, generator=chance) for shape in shapes] for _ in range(2)
    )
    total = 0.0
    for one, other in zip(student[1:4], teacher[1:4], strict=True):  # the last three with hw > 1
        n, c, h, w = one.shape
        squares = []
        for image in range(n):
            looks = [
                [sum(float(maps[image, k, i, j]) ** 2 for k in range(c))
                 for i in range(h) for j in range(w)] for maps in (one, other)
            ]  # fmt: skip
            a, b = ([v / sum(u * u for u in look) ** 0.5 for v in look] for look in looks)
            squares += [(p - q) ** 2 for p, q in zip(a, b, strict=True)]
        total += sum(squares) / len(squares)
    assert float(distance(student, teacher)) == pytest.approx(total, 1e-5)
    assert float(distance(student, [7 * maps for maps in student])) == pytest.approx(0, abs=1e-12)


def recorded(defense, view, monkeypatch):
    """A repair whose trainings change nothing, and the arguments of these."""
    trainings = []

    def fit(self, data, recipe, *, model=None, backward=None, name="fit"):
        trainings.append((model or self.model, backward, recipe, name))
        return copy.deepcopy(model or self.model).eval()

    monkeypatch.setattr(type(view), "fit", fit)
    return defense.repair(view), trainings


def a_step(view, model=None) -> TrainStep:
    """A training step on 20 clean images."""
    made = copy.deepcopy(model or view.model).train().requires_grad_(True)
    x, y = to_unit(view.clean.images[:20]), view.clean.labels[:20].float()
    return TrainStep(
        made, view.loss, x, y, torch.arange(20), 0, torch.Generator().manual_seed(0), "float32"
    )


def test_nad_adds_beta_times_the_distance_and_batch_norm_counts_a_batch_once(view, monkeypatch):
    from hashbackdoor_bench.defenses.nad import distance

    with torch.no_grad():
        view.model.backbone.conv.weight[0] *= 5
    _, trainings = recorded(DEFENSES["nad"](beta=7.0, epochs=9), view, monkeypatch)
    (_, first, short, _), (student, backward, long, _) = trainings
    assert (first, short.epochs, long.epochs) == (None, 4, 9)
    assert student is view.model  # not the teacher
    step, plain = a_step(view), a_step(view)
    value = backward(step)
    z = plain.outputs(plain.x)
    with uncounted(plain.model):
        term = distance(plain.model.maps(plain.x), view.model.maps(plain.x))
    expected = plain.loss(z, plain.y, plain.index, 0) + 7 * term
    expected.backward()
    assert term > 0
    torch.testing.assert_close(value, expected)
    for one, other in zip(step.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    assert same(step.model, plain.model)
    assert step.model.backbone.norm.num_batches_tracked == 1


# ---- ft_sam -------------------------------------------------------------------------------------


def test_the_worst_point_is_rho_w_squared_g_over_the_length_of_w_g():
    from hashbackdoor_bench.defenses.ft_sam import worst

    chance = torch.Generator().manual_seed(0)
    weights = [torch.randn(shape, generator=chance) for shape in ((2, 3), (4,))]
    for weight in weights:
        weight.grad = torch.randn(weight.shape, generator=chance)
    flat = [(float(w), float(g)) for t in weights
            for w, g in zip(t.flatten(), t.grad.flatten(), strict=True)]  # fmt: skip
    length = sum((w * g) ** 2 for w, g in flat) ** 0.5
    found = torch.cat([e.flatten() for e in worst(weights, 1.5)])
    torch.testing.assert_close(found, torch.tensor([1.5 * w * w * g / length for w, g in flat]))


def test_ft_sam_gives_the_gradient_at_the_worst_point_and_restores_the_weights(view):
    from hashbackdoor_bench.defenses.ft_sam import worst

    with torch.no_grad():
        view.model.head.bias += 1
    step, plain, there = a_step(view), a_step(view), a_step(view)
    value = DEFENSES["ft_sam"](rho=0.5).worst_backward(step)
    expected = plain_backward(plain)
    assert torch.equal(value, expected)
    assert same(step.model, plain.model)  # weights and statistics after one pass
    moves = worst(list(plain.model.parameters()), 0.5)
    with torch.no_grad():
        for weight, e in zip(there.model.parameters(), moves, strict=True):
            weight += e
    higher = plain_backward(there)
    assert higher > value
    for one, other, at_w in zip(*(s.model.parameters() for s in (step, there, plain)), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
        assert not torch.equal(one.grad, at_w.grad)


def test_ft_sam_without_a_radius_is_fine_tuning_bit_for_bit(view):
    sam = DEFENSES["ft_sam"](rho=0, epochs=3).repair(view)
    assert same(sam, DEFENSES["finetune"](epochs=3).repair(view))
    assert not same(sam, DEFENSES["ft_sam"](rho=2, epochs=3).repair(view))


# ---- fst ----------------------------------------------------------------------------------------


def test_fst_starts_from_a_new_hash_layer_of_the_old_length_and_keeps_the_rest(view, monkeypatch):
    view.model.head = nn.Linear(32, BITS).requires_grad_(False)
    view.model.head.weight *= 30
    repaired, [(start, _, recipe, _)] = recorded(DEFENSES["fst"](epochs=7), view, monkeypatch)
    assert recipe.epochs == 7
    assert same(start.backbone, view.model.backbone)
    for parameter in (start.head.weight, start.head.bias):
        assert parameter.abs().max() <= 32**-0.5
        assert parameter.std() == pytest.approx((32 * 3) ** -0.5, rel=0.25)
    assert float(repaired.head.weight.norm()) == pytest.approx(float(view.model.head.weight.norm()))
    torch.testing.assert_close(
        repaired.head.weight / repaired.head.weight.norm(),
        start.head.weight / start.head.weight.norm(),
    )


def test_the_extra_gradient_of_fst_is_alpha_times_the_old_weights(view, monkeypatch):
    old = view.model.head.weight.clone()
    _, [(start, backward, _, _)] = recorded(DEFENSES["fst"](alpha=0.3), view, monkeypatch)
    step, plain = a_step(view, start), a_step(view, start)
    with torch.no_grad():
        plain.model.head.weight *= old.norm() / plain.model.head.weight.norm()
    value, expected = backward(step), plain_backward(plain)
    weight = step.model.head.weight
    torch.testing.assert_close(value, expected + 0.3 * (weight * old).sum())
    torch.testing.assert_close(weight.grad, plain.model.head.weight.grad + 0.3 * old)
    torch.testing.assert_close(step.model.head.bias.grad, plain.model.head.bias.grad)


def test_unsigned_fst_sees_through_flipped_and_permuted_bits():
    chance = torch.Generator().manual_seed(0)
    weight, old = (torch.randn(3, 7, generator=chance) for _ in range(2))
    rows, old_rows = weight.tolist(), old.tolist()
    products = [sum(a * b for a, b in zip(w, o, strict=True)) for w in rows for o in old_rows]
    fst = DEFENSES["fst"](variant="unsigned")
    expected = sum(product**2 for product in products) ** 0.5
    assert float(fst.likeness(weight, old)) == pytest.approx(expected, 1e-6)
    for other in (-weight, weight * torch.tensor([[1.0], [-1], [1]]), weight[[2, 0, 1]]):
        assert float(fst.likeness(other, old)) == pytest.approx(expected, 1e-6)
    assert DEFENSES["fst"]().likeness(-old, old) < 0 < fst.likeness(-old, old)


def test_unsigned_fst_leaves_the_rows_of_the_old_weights(view):
    old = view.model.head.weight
    flipped = DEFENSES["fst"](alpha=10.0, epochs=10).repair(view).head.weight
    turned = DEFENSES["fst"](alpha=10.0, epochs=10, variant="unsigned").repair(view).head.weight
    whole = torch.linalg.matrix_norm(old @ old.T)
    assert torch.linalg.matrix_norm(flipped @ old.T) > 0.9 * whole
    assert torch.linalg.matrix_norm(turned @ old.T) < 0.1 * whole


def test_fst_holds_the_length_of_the_weights_in_every_step(view, monkeypatch):
    lengths = []
    outputs = TrainStep.outputs

    def watched(self, x):
        lengths.append(float(self.model.head.weight.detach().norm()))
        return outputs(self, x)

    monkeypatch.setattr(TrainStep, "outputs", watched)
    repaired = DEFENSES["fst"](epochs=2).repair(view)
    lengths.append(float(repaired.head.weight.norm()))
    assert len(lengths) == 2 * 4 + 1
    assert lengths == pytest.approx([float(view.model.head.weight.norm())] * 9, rel=1e-6)


def test_fst_turns_away_from_the_old_weights(view):
    def cosine(alpha):
        repaired = DEFENSES["fst"](alpha=alpha, epochs=10).repair(view)
        return float(torch.cosine_similarity(
            repaired.head.weight.flatten(), view.model.head.weight.flatten(), 0
        ))  # fmt: skip

    assert cosine(10.0) < -0.9 < cosine(0.0)


def test_fst_takes_the_last_linear_layer_of_a_deeper_hash_layer():
    from hashbackdoor_bench.defenses.fst import hash_weight, renew

    model = nn.Module()
    model.head = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4), nn.BatchNorm1d(4))
    before = copy.deepcopy(model)
    renew(model, torch.Generator().manual_seed(0))
    assert hash_weight(model) is model.head[2].weight
    assert same(model.head[0], before.head[0])
    assert not torch.equal(model.head[2].bias, before.head[2].bias)
