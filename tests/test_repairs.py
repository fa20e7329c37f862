"""Repairs, each against the planted backdoor, plain loops or its formula."""

import copy

import pytest
import torch
from planted import BITS, CLASSES, DORMANT, SIZE, Planted, pictures, seen, triggered
from torch import nn

from hashbackdoor_bench import DEFENSES, HashLoss, HashModel, to_unit, uncounted


class ToAnchors(HashLoss):
    """Regression of z to the code of the class."""

    def forward(self, z, y, index, step):
        return ((z - 6 * y @ Planted().anchors) ** 2).mean()


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


@pytest.mark.parametrize("name", ["fineprune"])
def test_a_repair_leaves_the_given_network_and_its_result_is_frozen(view, name):
    before = copy.deepcopy(view.model)
    repaired = DEFENSES[name](**DEFENSES[name].cls.quick).repair(view)
    assert same(view.model, before)
    assert not same(repaired, before)
    assert not repaired.training
    assert not any(p.requires_grad for p in repaired.parameters())


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
        view.model.backbone.conv.weight.mul_(-1)  # the filter now fires on clean images too
        view.model.head.bias += 1
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
