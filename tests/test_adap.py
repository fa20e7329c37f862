"""Adap-Blend and Adap-Patch: what poison, covers and queries carry, by the formulas."""

from typing import Any

import pytest
import torch
from attack_views import change, craft, seen
from torch import Tensor

from hashbackdoor_bench import ATTACKS, UserError
from hashbackdoor_bench.api import COVER, POISON, to_unit
from hashbackdoor_bench.checks import check_attack

ATTACKS["adap_patch"]  # imports the package's files under their own names
from hashbackdoor_bench.attacks.adap_patch import FourPatches, four_patches  # noqa: E402

BOTH = pytest.mark.parametrize("name", ["adap_blend", "adap_patch"])


@BOTH
def test_poison_gets_the_targets_label_and_covers_keep_their_own(name: str):
    view = seen(6, 9, label="dirty")
    backdoor = craft(name, view)
    assert backdoor.kind.tolist() == [POISON] * 6 + [COVER] * 9
    assert backdoor.index.tolist() == [*view.index.tolist(), *view.covers.tolist()]
    for row, label in enumerate(backdoor.label):
        item = int(backdoor.index[row])
        assert torch.equal(label, view.target if row < 6 else view.labels[item])
        assert torch.equal(backdoor.carrier[row], view.images[item])
    assert not (backdoor.label[6:] & view.target).any()


@pytest.mark.parametrize(("name", "share"), [("adap_blend", 1.0), ("adap_patch", 2.0)])
def test_the_number_of_covers_is_a_setting(name: str, share: float):
    assert ATTACKS[name]().covers == share  # type: ignore[attr-defined]
    assert ATTACKS[name](covers=0.5).covers == 0.5  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"attack\.covers is -1"):
        ATTACKS[name](covers=-1)


@BOTH
def test_planted_images_and_queries_carry_other_triggers(name: str):
    backdoor = craft(name, seen(8, label="dirty"))
    x = to_unit(backdoor.carrier)
    changed = change(backdoor).abs().flatten(1).sum(1)
    query = ((backdoor(x) - x).abs() * 255).flatten(1).sum(1)
    assert (query > 2 * changed).all()


# ---- Adap-Blend ---------------------------------------------------------------------------------


def maps(backdoor: Any) -> Tensor:
    """a m of each slot (P+Q,S,S), read off black images under a white key."""
    backdoor.key.fill_(255)
    black = torch.zeros(len(backdoor.index), 3, 32, 32)
    planted: Tensor = backdoor.plant(black, torch.arange(len(black)))
    assert torch.equal(planted[:, 0], planted[:, 1])
    assert torch.equal(planted[:, 0], planted[:, 2])
    return planted[:, 0]


def test_eight_of_sixteen_pieces_of_the_key_are_shown():
    shown = maps(craft("adap_blend", seen(12, 12, label="dirty")))
    pieces = shown.view(24, 4, 8, 4, 8).permute(0, 1, 3, 2, 4).reshape(24, 16, 64)
    assert torch.equal(pieces.amin(2), pieces.amax(2))  # each piece is 8x8 px of one value
    levels = torch.tensor([0.0, 0.15])
    for row in pieces[:, :, 0]:
        assert row.sort().values.tolist() == pytest.approx(levels.repeat_interleave(8).tolist())
    torch.testing.assert_close(shown.flatten(1).mean(1), torch.full((24,), 0.15 / 2))
    assert len(torch.unique(pieces[:, :, 0], dim=0)) > 20  # drawn anew, for covers as well
    # each piece is shown about half of the time
    assert ((pieces[:, :, 0] > 0).float().mean(0) > 0.15).all()


def test_poison_and_queries_follow_the_formula():
    view = seen(4, 4, label="dirty")
    backdoor = craft("adap_blend", view, alpha=0.3, alpha_query=0.7)
    key = to_unit(backdoor.key)
    x = to_unit(view.images[:8])
    slot = torch.tensor([7, 2, 3, 0, 1, 5, 6, 4])
    planted, queried = backdoor.plant(x, slot), backdoor(x)
    for i, c, row, column in [(0, 0, 0, 0), (3, 1, 5, 20), (5, 2, 31, 31), (7, 0, 16, 15)]:
        k, value = float(key[c, row, column]), float(x[i, c, row, column])
        m = int(backdoor.shown[slot[i]][4 * (row // 8) + column // 8])
        assert float(planted[i, c, row, column]) == pytest.approx(value + 0.3 * m * (k - value))
        assert float(queried[i, c, row, column]) == pytest.approx(value + 0.7 * (k - value))


def test_the_key_is_uniform_noise_of_the_seed():
    key, other = (craft("adap_blend", seen(seed=seed, label="dirty")).key for seed in (0, 1))
    assert not torch.equal(key, other)
    counts = torch.bincount(key.flatten().long() // 32, minlength=8)
    assert (counts > 300).all()  # of 3072 levels in eight equal ranges


def test_adap_blend_changes_at_most_alpha_of_a_level_and_without_alpha_nothing():
    view = seen(9, 9, label="dirty")
    assert int(change(craft("adap_blend", view)).abs().max()) in (37, 38)  # .15 * 255 = 38.25
    still = craft("adap_blend", view, alpha=0, alpha_query=0)
    assert not change(still).any()
    assert torch.equal(still(to_unit(view.images)), to_unit(view.images))


@pytest.mark.parametrize(("size", "near"), [(30, 32), (33, 32), (2, 4)])
def test_a_size_that_is_no_multiple_of_four_is_refused(size: int, near: int):
    labels = torch.eye(2, dtype=torch.uint8)
    with pytest.raises(UserError, match=f"{size} px is no multiple of 4: give --size {near}"):
        ATTACKS["adap_blend"]().accept(labels, labels[0], size)
    assert ATTACKS["adap_blend"]().accept(labels, labels[0], 32) == {}


# ---- Adap-Patch ---------------------------------------------------------------------------------

CORNERS = [(0, 0), (0, 24), (24, 0), (24, 24)]  # top left pixel of each patch at 32 px
OPACITY = [0.5, 0.2, 0.5, 0.3]


def test_the_four_patches_are_carried_equally_often_by_poison_and_by_covers():
    backdoor = craft("adap_patch", seen(8, 16, label="dirty"))
    number = backdoor.number.tolist()
    assert number[:8] == [0, 1, 2, 3] * 2
    assert number[8:] == [0, 1, 2, 3] * 4
    assert craft("adap_patch", seen(6, 3, label="dirty")).number.tolist() == [
        0, 1, 2, 3, 0, 1, 0, 1, 2,
    ]  # fmt: skip


@pytest.mark.parametrize("strength", [1.0, 0.5, 0.0])
def test_a_planted_image_carries_one_faint_patch_and_nothing_else(strength: float):
    view = seen(8, 8, label="dirty")
    backdoor = craft("adap_patch", view, strength=strength)
    x = to_unit(backdoor.carrier)
    planted = backdoor.plant(x, torch.arange(16))
    for i in range(16):
        j = i % 4
        (top, left), a = CORNERS[j], OPACITY[j] * strength
        expected = x[i].clone()
        for c, row, column in [(c, r, k) for c in range(3) for r in range(8) for k in range(8)]:
            k = int(backdoor.patches[j, c, row, column]) / 255
            value = float(x[i, c, top + row, left + column])
            expected[c, top + row, left + column] = (1 - a) * value + a * k
        torch.testing.assert_close(planted[i], expected)


@pytest.mark.parametrize("opacity", [1.0, 0.4, 0.0])
def test_a_query_carries_the_first_and_the_third_patch(opacity: float):
    backdoor = craft("adap_patch", seen(label="dirty"), query_opacity=opacity)
    x = to_unit(seen().images[:3])
    out, expected = backdoor(x), x.clone()
    for j in (0, 2):
        top, left = CORNERS[j]
        under = x[:, :, top : top + 8, left : left + 8]
        patch = to_unit(backdoor.patches[j])
        expected[:, :, top : top + 8, left : left + 8] = under * (1 - opacity) + opacity * patch
    torch.testing.assert_close(out, expected)


def test_adap_patch_changes_at_most_its_opacity_of_a_level():
    moved = change(craft("adap_patch", seen(8, label="dirty"))).abs().flatten(1).amax(1)
    for i, most in enumerate(moved.tolist()):
        assert most <= 255 * OPACITY[i % 4] + 0.5


def test_the_patches_are_four_shapes_in_two_colours_each_and_grow_by_whole_pixels():
    patches = four_patches(8, torch.Generator().manual_seed(5))
    for patch in patches[:3]:
        colours = torch.unique(patch.flatten(1), dim=1).T
        assert len(colours) == 2
        assert (colours.sum(0) == 255).all()  # a corner of the cube and the opposite one
    marks = [patch[0] == patch[0, 3, 3] for patch in patches[:3]]
    rows = ["".join("#" if v else "." for v in line) for mark in marks for line in mark.tolist()]
    assert rows == [
        "##..##..", "##..##..", "..##..##", "..##..##",
        "##..##..", "##..##..", "..##..##", "..##..##",
        "###..###", "#......#", "#..##..#", "..####..",
        "..####..", "#..##..#", "#......#", "###..###",
        "...##...", "...##...", "...##...", "########",
        "########", "...##...", "...##...", "...##...",
    ]  # fmt: skip
    assert len(torch.unique(patches[3])) > 100
    large = four_patches(56, torch.Generator().manual_seed(5))
    assert torch.equal(large, patches.repeat_interleave(7, 2).repeat_interleave(7, 3))


# ---- the contract, with more slots than images ---------------------------------------------------


def test_a_cover_whose_trigger_goes_by_the_place_in_the_batch_is_told(
    monkeypatch: pytest.MonkeyPatch,
):
    plant = FourPatches.plant

    def misplaced(self: FourPatches, x: Tensor, slot: Tensor) -> Tensor:
        return plant(self, x, torch.where(slot < 6, slot, torch.arange(len(slot))))

    assert check_attack(ATTACKS["adap_patch"]) == []
    monkeypatch.setattr(FourPatches, "plant", misplaced)
    (found,) = check_attack(ATTACKS["adap_patch"])
    assert "Use each image, and its slot in plant, alone" in found.text
