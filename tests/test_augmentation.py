from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from hashbackdoor_bench.api import to_bytes, to_unit
from hashbackdoor_bench.network import Blueprint, centre_crop
from hashbackdoor_bench.network.augmentation import augment, crop_boxes, draws_of
from hashbackdoor_bench.spec import RECIPES


def pictures(count: int, side: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (count, 3, side, side)
    return torch.randint(0, 200, shape, generator=generator, dtype=torch.uint8)


def blueprint(augmented: str) -> Blueprint:
    recipe = replace(RECIPES["scratch32"][1], augment=augmented)  # type: ignore[arg-type]
    return Blueprint("hashnet", {}, 8, 2, 32, "cnn32", False, None, recipe, "0")


def test_a_padded_crop_is_the_slice_that_its_draws_say():
    images = pictures(5, 32)
    draws = torch.rand(5, 5, generator=torch.Generator().manual_seed(1))
    out = to_bytes(augment(images, draws, "crop", 32))
    padded = nn.functional.pad(images, (2,) * 4)
    for image, draw, shown in zip(padded, draws, out, strict=True):
        top, left = int(draw[0] * 5), int(draw[1] * 5)
        expected = image[:, top : top + 32, left : left + 32]
        assert torch.equal(shown, expected.flip(2) if draw[2] < 0.5 else expected)


def test_a_crop_of_a_larger_stored_image_is_not_padded():
    images = pictures(4, 40) + 1
    out = augment(images, torch.full((4, 5), 0.999), "crop", 32)
    assert torch.equal(to_bytes(out), images[:, :, 8:, 8:])


def test_no_augmentation_is_the_centre_crop():
    images = pictures(2, 40)
    assert torch.equal(to_bytes(augment(images, torch.rand(2, 5), "none", 32)),
                       images[:, :, 4:36, 4:36])  # fmt: skip


def test_centre_crop_of_256_is_rows_16_to_239():
    image = torch.arange(256).view(1, 1, 256, 1).expand(1, 3, 256, 256)
    assert centre_crop(image, 224)[0, 0, :, 0].tolist() == list(range(16, 240))


def resized(**first: float) -> Tensor:
    """Random numbers of a resized crop whose first box is given; the others don't fit."""
    draws = torch.tensor([[0.99] * 10 + [0.0] * 10 + [0.9, 0.5, 0.5]])
    for place, name in ((0, "area"), (10, "ratio"), (20, "flip"), (21, "left"), (22, "top")):
        draws[0, place] = first.get(name, draws[0, place])
    return draws


def test_a_resized_crop_of_the_whole_area_is_the_image():
    images = pictures(3, 32)
    draws = resized(area=1.0, ratio=0.5).expand(3, -1)
    torch.testing.assert_close(
        augment(images, draws, "rrc", 32), to_unit(images), atol=1e-5, rtol=0
    )


def test_a_resized_crop_agrees_with_torchvision_inside_its_box():
    from torchvision.transforms.functional import resized_crop

    image = torch.arange(64).float().view(1, 1, 1, 64) + torch.arange(64).float().view(1, 1, 64, 1)
    image = image.expand(1, 3, 64, 64)
    for flip in (0.9, 0.1):
        draws = resized(area=(0.25 - 0.08) / 0.92, ratio=0.75, left=0.3, top=0.8, flip=flip)
        left, top, wide, high = (int(side) for side in crop_boxes(draws, 64, 64))
        assert (wide, high) == (34, 30)
        expected = resized_crop(image, top, left, high, wide, [64, 64], antialias=False)
        expected = expected.flip(-1) if flip < 0.5 else expected
        out = augment(image.to(torch.uint8), draws, "rrc", 64) * 255
        inside = (slice(2, -2), slice(2, -2))
        torch.testing.assert_close(out[..., *inside], expected[..., *inside], atol=1e-2, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (32, 64), (90, 32)])
def test_boxes_of_resized_crops_are_those_of_torchvision_from_the_same_random_numbers(
    height: int, width: int, monkeypatch
):
    from torchvision.transforms import transforms

    draws = torch.rand(300, 23, generator=torch.Generator().manual_seed(0))
    draws[:3, :20] = torch.tensor([0.999] * 10 + [0.001] * 10)  # too wide or high, ten times
    image, given_up = torch.zeros(3, height, width), 0
    for row, box in zip(draws, zip(*crop_boxes(draws, height, width), strict=True), strict=True):
        boxes = [value for pair in zip(row[:10], row[10:20], strict=True) for value in pair]
        places = [row[22], row[21]]  # torchvision draws the top first

        class Told:
            def uniform_(self, low, high, boxes=boxes):
                return low + (high - low) * boxes.pop(0)

        def whole(low, high, size, places=places):
            return (places.pop(0) * high).floor().int()

        told = SimpleNamespace(
            empty=lambda count: Told(), randint=whole, log=torch.log, exp=torch.exp,
            tensor=torch.tensor,
        )  # fmt: skip
        monkeypatch.setattr(transforms, "torch", told)
        top, left, high, wide = transforms.RandomResizedCrop.get_params(
            image, [0.08, 1.0], [3 / 4, 4 / 3]
        )
        monkeypatch.setattr(transforms, "torch", torch)
        given_up += len(places) == 2
        assert [int(side) for side in box] == [left, top, wide, high]
    assert given_up >= 3


def test_resized_crops_have_the_areas_and_ratios_of_torchvisions_and_half_are_flipped():
    from scipy.stats import ks_2samp
    from torchvision.transforms import RandomResizedCrop

    count, side = 4000, 256
    draws = torch.rand(count, draws_of("rrc"), generator=torch.Generator().manual_seed(0))
    _, _, wide, high = crop_boxes(draws, side, side)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        image = torch.zeros(3, side, side)
        pairs = [
            RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3])[2:]
            for _ in range(count)
        ]
    theirs = torch.tensor(pairs)  # heights, widths
    area, their_area = wide * high / side**2, theirs.prod(1) / side**2
    assert float(area.mean()) == pytest.approx(0.477, abs=0.01)  # cut sides would make it .54
    assert float(their_area.mean()) == pytest.approx(0.477, abs=0.01)
    for ours, other in ((area, their_area), (wide / high, theirs[:, 1] / theirs[:, 0])):
        assert ks_2samp(ours.numpy(), other.numpy()).pvalue > 0.01
    ramp = torch.arange(32).float().div(31).mul(255).to(torch.uint8).view(1, 1, 1, 32)
    out = augment(ramp.expand(count, 3, 32, 32), draws, "rrc", 32)
    falling = out[:, 0, 16, -1] < out[:, 0, 16, 0]
    assert 0.47 < falling.float().mean() < 0.53


def test_only_networks_with_resized_crops_have_a_new_key():
    inputs = {kind: blueprint(kind).inputs for kind in ("rrc", "crop", "flip", "none")}
    assert inputs["rrc"].pop("augmentation") == 2
    for kind, values in inputs.items():
        assert "augmentation" not in values
        assert values["recipe"]["augment"] == kind
