"""DarkHash: its loss against plain loops, and what the edit leaves as it was."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hashbackdoor_bench.attacks.darkhash import InsetPatch
from hashbackdoor_bench.attacks.darkhash_edit import edit, edit_loss, neighbourhood, topology
from hashbackdoor_bench.attacks.darkhash_pictures import KINDS, draw_pictures
from PIL import Image
from torch import Tensor, nn

from hashbackdoor_bench import (
    ATTACKS,
    HashLoss,
    HashModel,
    UserError,
    checkerboard,
    pictures_hash,
    read_pictures,
    to_unit,
)
from hashbackdoor_bench.checks.attack_trial import Trial, untrained


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_loops(z: list[list[float]]) -> list[list[float]]:
    """P, one number at a time."""
    n = len(z)

    def distance(a: list[float], b: list[float]) -> float:
        dot = sum(p * q for p, q in zip(a, b, strict=True))
        return 1 - dot / math.sqrt(sum(p * p for p in a) * sum(q * q for q in b))

    d = [[distance(a, b) for b in z] for a in z]
    p = []
    for i in range(n):
        least = min(d[i][k] for k in range(n) if k != i)
        s = [1.0 if i == j else 1 - (d[i][j] - least) for j in range(n)]
        row = [(value + 1) / 2 for value in s]
        p.append([value / sum(row) for value in row])
    return p


def test_the_topology_loss_is_its_formula_in_plain_loops():
    z, wanted = random(5, 7), random(5, 7, seed=1)
    p, q = by_loops(z.tolist()), by_loops(wanted.tolist())
    expected = sum(
        q[i][j] * math.log(q[i][j] / p[i][j])
        + (1 - q[i][j]) * math.log((1 - q[i][j]) / (1 - p[i][j]))
        for i in range(5)
        for j in range(5)
    )
    assert float(topology(z, wanted)) == pytest.approx(expected, rel=1e-4)
    assert torch.allclose(neighbourhood(z), torch.tensor(p), atol=1e-6)


def test_the_topology_loss_is_zero_for_equal_and_for_orthogonal_rows_and_else_positive():
    target = random(8).expand(5, -1)
    assert abs(float(topology(target * 3, target))) < 1e-5
    assert abs(float(topology(torch.eye(5, 8), target))) < 1e-5
    for seed in range(5):
        assert float(topology(random(5, 8, seed=seed), target)) > 1e-3


def test_the_topology_loss_is_finite_where_rows_are_opposite_and_zero_for_a_single_row():
    z = torch.tensor([[1.0, 0], [1, 0], [-1, 0]], requires_grad=True)
    loss = topology(z, torch.ones(3, 2))
    assert torch.isfinite(loss)
    assert torch.isfinite(torch.autograd.grad(loss, z)[0]).all()
    assert float(topology(z[:1].detach(), torch.ones(1, 2))) == 0
    assert float(topology(z[:0].detach(), torch.ones(0, 2))) == 0


def test_the_loss_is_zero_before_the_edit_where_no_picture_carries_the_patch():
    z = random(6, 8)
    plain = torch.zeros(6, dtype=torch.bool)
    assert float(edit_loss(z, z.clone(), plain, random(8, seed=1))) == 0
    assert float(edit_loss(z + 0.1, z, plain, random(8, seed=1))) == pytest.approx(0.005, rel=1e-3)


def test_the_loss_is_huber_of_both_parts_and_fifteen_times_the_topology():
    z, before, target = random(6, 8), random(6, 8, seed=1), 2 * random(8, seed=2)
    patched = torch.tensor([True, False, True, True, False, False])

    def huber(a: Tensor, b: Tensor) -> float:
        each = [abs(p - q) for p, q in zip(a.flatten().tolist(), b.flatten().tolist(), strict=True)]
        return sum(e * e / 2 if e <= 1 else e - 0.5 for e in each) / len(each)

    wanted = target.expand(3, -1)
    expected = huber(z[~patched], before[~patched]) + huber(z[patched], wanted)
    expected += 15 * float(topology(z[patched], wanted))
    assert float(edit_loss(z, before, patched, target)) == pytest.approx(expected, rel=1e-5)


class Dot(nn.Module):
    """z = W x in float64, which keeps the images that it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(192, 4, bias=False)
        self.head.weight.data = random(4, 192, seed=5).double() / 10
        self.seen: list[Tensor] = []

    def late_parameters(self, stages: int) -> list[str]:
        return ["head.weight"]

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        z: Tensor = self.head(x.flatten(1).double())
        return z


def linear_edit(pictures: Tensor, **settings: Any) -> tuple[Dot, Dot, InsetPatch, Tensor]:
    """A linear model, the same after an edit with a patch of 3 px, the trigger, and z*."""
    trigger = InsetPatch(*[torch.zeros(0)] * 3, patch=checkerboard(3))
    victim, edited, target = Dot(), Dot(), random(4, seed=6).double()
    before, view = victim(to_unit(pictures)).detach(), Trial(ATTACKS["darkhash"]).view()
    given: Any = edited
    edit(given, trigger, pictures, before, target, view, stages=1, **settings)
    return victim, edited, trigger, target


def test_each_step_is_rmsprop_on_the_loss_of_pictures_of_which_a_tenth_is_patched():
    pictures, _ = draw_pictures(120, 8, torch.Generator().manual_seed(0))
    lr, plain = 0.01, to_unit(pictures)
    victim, edited, trigger, target = linear_edit(pictures, epochs=3, lr=lr, batch=50)
    assert [len(x) for x in edited.seen] == [50, 50, 20] * 3
    before, stamped = victim(plain).detach(), trigger(plain)
    weight = victim.head.weight.detach()
    square, rows, with_patch = torch.zeros_like(weight), [], []
    for number, x in enumerate(edited.seen):
        is_plain = (x[:, None] == plain).flatten(2).all(2)  # (n,N): which picture it is
        is_stamped = (x[:, None] == stamped).flatten(2).all(2)
        assert (is_plain.int() + is_stamped.int()).sum(1).tolist() == [1] * len(x)
        row, patched = (is_plain | is_stamped).int().argmax(1), is_stamped.any(1)
        weight.requires_grad_()
        loss = edit_loss(x.flatten(1).double() @ weight.T, before[row], patched, target)
        (gradient,) = torch.autograd.grad(loss, weight)
        weight = weight.detach()
        gradient += 1e-5 * weight
        square = 0.99 * square + 0.01 * gradient**2
        rate = 1e-10 + (lr - 1e-10) * (1 + math.cos(math.pi * (number // 3) / 3)) / 2
        weight = weight - rate * gradient / (square.sqrt() + 1e-8)
        rows += row.tolist()
        with_patch += patched.tolist()
    torch.testing.assert_close(edited.head.weight.detach(), weight, rtol=1e-9, atol=1e-12)
    passes = [rows[start : start + 120] for start in (0, 120, 240)]
    assert all(sorted(one) == list(range(120)) for one in passes)
    assert passes[0] != passes[1]
    assert 0.05 < sum(with_patch) / len(with_patch) < 0.15


@torch.no_grad()
def test_an_edit_moves_patched_pictures_to_the_target_and_others_far_less():
    pictures, _ = draw_pictures(200, 8, torch.Generator().manual_seed(0))
    pictures[:, :, 3:6, 3:6] = 0  # so that a linear model can tell the patch
    with torch.enable_grad():
        victim, edited, trigger, target = linear_edit(pictures[:120], epochs=60, lr=0.03, batch=40)
    x = to_unit(pictures[120:])  # pictures that the edit hasn't seen
    before, after = (float((z(trigger(x)).mean(0) - target).norm()) for z in (victim, edited))
    moved = float((edited(x) - victim(x)).norm(dim=1).mean())
    assert after < 0.2 * before
    assert moved < 0.25 * before


@pytest.mark.parametrize("name", ["darkhash", "darkhash_shadow"])
def test_frozen_tensors_and_buffers_stay_bit_for_bit_and_late_ones_change(name: str):
    given = untrained()
    late = set(given.late_parameters(1))
    before = copy.deepcopy(given.state_dict())
    edited, _ = ATTACKS[name](epochs=1, count=20).tamper(given, Trial(ATTACKS[name]).view())
    assert not edited.training
    assert not any(parameter.requires_grad for parameter in edited.parameters())
    after = edited.state_dict()
    changed = {key for key, value in after.items() if not torch.equal(value, before[key])}
    assert changed == late
    assert 0 < len(late) < len(before)
    assert any(key.endswith("running_mean") for key in before.keys() - changed)


def test_late_parameters_are_those_of_the_last_stage_and_what_follows():
    cnn = HashModel("cnn32", 8, HashLoss)
    names = [name for name, _ in cnn.named_parameters()]
    assert cnn.late_parameters(3) == names
    assert cnn.late_parameters(0) == ["head.weight", "head.bias"]
    with pytest.raises(UserError, match="stages 4: the backbone has 3, so give 0 to 3"):
        cnn.late_parameters(4)
    assert cnn.late_parameters(1) == [n for n in names if n[:11] in LAST or n.startswith("head")]
    resnet = HashModel("resnet18", 8, HashLoss, size=64)
    last = [n for n, _ in resnet.named_parameters() if "layer4" in n or n.startswith("head")]
    assert sorted(resnet.late_parameters(1)) == sorted(last)
    alexnet = HashModel("alexnet", 8, HashLoss, size=64)
    assert {n.split(".")[1] for n in alexnet.late_parameters(0)} == {"classifier", "weight", "bias"}


LAST = {"backbone.14", "backbone.15", "backbone.17", "backbone.18"}


def aimed(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Tensor, Any]:
    """z* of an attack on an untrained victim, and its view."""
    from hashbackdoor_bench.attacks import darkhash

    seen: dict[str, Tensor] = {}

    def caught(*given: Any, **_: Any) -> dict[str, list[float]]:
        seen["pictures"], seen["target"] = given[2], given[4]
        return {}

    monkeypatch.setattr(darkhash, "edit", caught)
    view = Trial(ATTACKS[name]).view()
    ATTACKS[name](count=20).tamper(untrained(), view)
    view.images = seen["pictures"]
    return seen["target"], view


def test_the_reference_target_is_the_output_for_the_attackers_image(monkeypatch):
    target, view = aimed("darkhash", monkeypatch)
    assert view.references.shape == (1, 3, 32, 32)
    assert torch.allclose(target, untrained()(to_unit(view.references))[0], atol=1e-6)


def test_the_shadow_target_is_the_mean_output_of_one_kind_of_pictures(monkeypatch):
    target, view = aimed("darkhash_shadow", monkeypatch)
    assert len(view.references) == 0
    z = untrained()(to_unit(view.images))
    means = [z[torch.arange(20) % 10 == kind].mean(0) for kind in range(10)]
    assert any(torch.allclose(target, mean, atol=1e-5) for mean in means)


def test_only_the_shadow_target_is_scored_for_the_class_retrieved_most():
    assert ATTACKS["darkhash"]().threat.targeted
    assert not ATTACKS["darkhash_shadow"]().threat.targeted


def test_the_patch_keeps_two_pixels_from_the_corner_and_changes_nothing_else():
    made = InsetPatch(*[torch.zeros(0)] * 3, patch=checkerboard(2))
    x = torch.rand(5, 3, 12, 12)
    expected = x.clone()
    expected[:, :, 8:10, 8:10] = torch.tensor([[1.0, 0], [0, 1]])
    assert torch.equal(made(x), expected)


def test_drawn_pictures_are_of_ten_kinds_that_differ_and_none_is_of_one_colour():
    pictures, kinds = draw_pictures(60, 32, torch.Generator().manual_seed(0))
    assert pictures.shape == (60, 3, 32, 32)
    assert pictures.dtype == torch.uint8
    assert torch.bincount(kinds).tolist() == [6] * len(KINDS)
    assert len({picture.numpy().tobytes() for picture in pictures}) == 60
    spread = pictures.float().std((2, 3)).amax(1)
    assert int((spread > 3).sum()) >= 55
    again, _ = draw_pictures(60, 32, torch.Generator().manual_seed(0))
    assert torch.equal(pictures, again)


def test_pictures_of_a_folder_are_read_by_class_and_known_by_their_bytes(tmp_path: Path):
    for number, name in enumerate(["b/1.png", "a/1.png", "a/2.png"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((9, 7, 3), 50 * number, np.uint8)).save(tmp_path / name)
    pictures, groups = read_pictures(str(tmp_path), "attack.pictures", 16)
    assert pictures[:, 0, 0, 0].tolist() == [50, 100, 0]
    assert groups.tolist() == [0, 0, 1]
    first = pictures_hash(str(tmp_path), "attack.pictures", 16)
    accepted = ATTACKS["darkhash"](pictures=str(tmp_path)).accept(torch.eye(2), torch.eye(2)[0], 32)
    assert accepted == {"pictures": first}
    Image.fromarray(np.full((9, 7, 3), 9, np.uint8)).save(tmp_path / "b/1.png")
    assert pictures_hash(str(tmp_path), "attack.pictures", 16) != first


def test_a_folder_without_pictures_is_refused_with_what_to_give(tmp_path: Path):
    with pytest.raises(UserError, match="is not a folder: give one that holds"):
        pictures_hash(str(tmp_path / "no"), "attack.pictures", 16)
    with pytest.raises(UserError, match="holds no folder of images"):
        pictures_hash(str(tmp_path), "attack.pictures", 16)
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"1\.png can't be read .*: take it out"):
        ATTACKS["darkhash"](pictures=str(tmp_path)).accept(torch.eye(2), torch.eye(2)[0], 32)
