"""The label network of BadHash against plain formulas and numbers measured on the reference."""

import math
from dataclasses import replace

import pytest
import torch
from badhash_view import view
from torch import Tensor

from hashbackdoor_bench import ATTACKS

ATTACKS["badhash"]  # imports the package's files under their own names
from hashbackdoor_bench.attacks import badhash_labels  # noqa: E402


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
