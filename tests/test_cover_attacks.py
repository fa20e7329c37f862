"""BppAttack and WaNet, whose poison hides among covers, against the formulas of their files."""

import math

import numpy as np
import pytest
import torch
from classic import crafted, view
from torch import Tensor

from hashbackdoor_bench import ATTACKS, Backdoor
from hashbackdoor_bench.api import COVER, POISON, to_unit


def every_slot(backdoor: Backdoor) -> tuple[Tensor, Tensor, Tensor]:
    """Carriers in [0,1], what is planted in their place, and their slots."""
    slot, x = torch.arange(len(backdoor.index)), to_unit(backdoor.carrier)
    return x, backdoor.plant(x, slot), slot


# ---- what both promise ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bpp", "wanet"])
def test_poison_takes_the_targets_label_and_covers_keep_theirs(name: str):
    seen = view()
    backdoor = crafted(name, seen)
    assert backdoor.kind.tolist() == [POISON] * 4 + [COVER] * 4
    assert backdoor.index.tolist() == list(range(10, 18))
    assert backdoor.label.tolist() == [[1, 0]] * 4 + [[0, 1]] * 4


@pytest.mark.parametrize(("name", "share"), [("bpp", 1.0), ("wanet", 2.0), ("blended", 0.0)])
def test_covers_are_as_many_as_published(name: str, share: float):
    assert ATTACKS[name]().covers == share


# ---- BppAttack ----------------------------------------------------------------------------------


def nearest(level: float, levels: int) -> float:
    return round(level * (levels - 1) / 255) * 255 / (levels - 1)


def diffused(rows: list[list[float]], levels: int) -> list[list[float]]:
    """Floyd and Steinberg's dithering of one channel in grey levels, pixel by pixel."""
    rows = [list(row) for row in rows]
    shares = ((0, 1, 7 / 16), (1, -1, 3 / 16), (1, 0, 5 / 16), (1, 1, 1 / 16))
    for i, row in enumerate(rows):
        for j, old in enumerate(row):
            row[j] = nearest(old, levels)
            for down, right, share in shares:
                if i + down < len(rows) and 0 <= j + right < len(row):
                    rows[i + down][j + right] += (old - row[j]) * share
    return rows


@pytest.mark.parametrize("levels", [2, 8, 16, 32])
@pytest.mark.parametrize("dithering", [False, True])
def test_an_image_has_the_given_levels_alone(levels: int, dithering: bool):
    backdoor = crafted("bpp", levels=levels, dithering=dithering)
    x = to_unit(view().images)
    out = backdoor(x)
    allowed = torch.arange(levels) / (levels - 1)
    assert torch.equal(out.unique(), allowed)
    if not dithering:
        assert torch.equal(backdoor(out), out)
        assert 255 * (out - x).abs().max() <= 255 / (levels - 1) / 2 + 1e-3


@pytest.mark.parametrize("levels", [2, 8, 16])
@pytest.mark.parametrize(("height", "width"), [(1, 5), (7, 1), (6, 9), (16, 16)])
def test_dithering_equals_the_loop_over_pixels(levels: int, height: int, width: int):
    draw = torch.Generator().manual_seed(7)
    x = torch.randint(256, (2, 3, height, width), generator=draw).double()
    found = crafted("bpp", levels=levels, dithering=True)(x / 255) * 255
    for image, dithered in zip(x.flatten(0, 1), found.flatten(0, 1), strict=True):
        wanted = torch.tensor(diffused(image.tolist(), levels), dtype=torch.float64)
        torch.testing.assert_close(dithered, wanted)


def test_a_dithered_row_of_dark_grey_has_one_white_pixel():
    row = torch.full((1, 1, 1, 3), 100 / 255)
    assert crafted("bpp", levels=2, dithering=True)(row).flatten().tolist() == [0, 1, 0]


@pytest.mark.parametrize("dithering", [False, True])
def test_a_cover_carries_the_residual_of_another_image_and_poison_its_own(dithering: bool):
    backdoor = crafted("bpp", levels=8, dithering=dithering)
    x, out, slot = every_slot(backdoor)
    assert torch.equal(out[:4], backdoor(x[:4]))
    assert (backdoor.source != slot).all()
    sources = set()
    for cover in range(4, 8):
        residuals = [backdoor(image[None])[0] - image for image in x]
        wanted = [(x[cover] + residual).clamp(0, 1) for residual in residuals]
        close = [
            r for r, image in enumerate(wanted) if torch.allclose(out[cover], image, atol=1e-6)
        ]
        assert len(close) == 1
        assert close != [cover]
        sources |= set(close)
    assert len(sources) > 1


def test_covers_take_residuals_of_random_other_images_which_differ_between_seeds():
    def ahead(seed: int) -> list[int]:
        """For each of ten images, how many places ahead r is."""
        source = crafted("bpp", view(seed=seed, poison=5, covers=5)).source
        return ((source - torch.arange(10)) % 10).tolist()

    drawn = [ahead(seed) for seed in range(60)]
    assert all(len(set(one)) > 1 for one in drawn)
    assert len({tuple(one) for one in drawn}) == 60
    for places in zip(*drawn, strict=True):
        assert set(places) == set(range(1, 10))  # any image but itself


# ---- WaNet --------------------------------------------------------------------------------------


def pixels(grid: Tensor) -> Tensor:
    """Coordinates from -1 to 1 (S,S,2), column first, as distances from each pixel in px."""
    side = len(grid)
    here = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="xy"), 2)
    return (grid.double() + 1) / 2 * (side - 1) - torch.from_numpy(here)


@pytest.mark.parametrize("size", [32, 64, 224])
def test_images_of_all_sizes_are_bent_alike(size: int):
    for seed in range(5):
        moved = pixels(crafted("wanet", view(size, seed)).grid).norm(dim=2).mean()
        assert 0.25 < moved * 32 / size < 0.33


def test_the_field_has_the_drawn_displacements_at_its_control_points():
    seen = view(16)  # 15 px are three times 5: each control point is a pixel
    grid = crafted("wanet", seen, strength=0.2).grid.double()
    g = 2 * torch.rand(2, 4, 4, generator=seen.generator("warp")) - 1
    g = (g / g.abs().mean()).tolist()
    for i in range(4):
        for j in range(4):
            for axis, place in ((0, j), (1, i)):  # the first field moves columns
                wanted = -1 + 2 * place / 3 + 0.2 / 32 * g[axis][i][j]
                wanted = min(max(wanted, -1), 1)
                assert grid[5 * i, 5 * j, axis].item() == pytest.approx(wanted, abs=1e-5)


def ramps(size: int) -> Tensor:
    """An image whose channels are the column, the row (from 0 to 1) and grey."""
    step = torch.linspace(0, 1, size)
    return torch.stack([step.expand(size, -1), step[:, None].expand(-1, size),
                        torch.full((size, size), 0.5)])  # fmt: skip


@pytest.mark.parametrize("size", [32, 64])
def test_on_a_ramp_the_warp_shows_where_each_pixel_comes_from(size: int):
    backdoor = crafted("wanet", view(size), strength=2.0)
    out = backdoor(ramps(size)[None])[0]
    torch.testing.assert_close(out[0], (backdoor.grid[..., 0] + 1) / 2)
    torch.testing.assert_close(out[1], (backdoor.grid[..., 1] + 1) / 2)
    assert (out[2] == 0.5).float().mean() > 0.5
    torch.testing.assert_close(out[2], torch.full((size, size), 0.5))
    assert (backdoor.grid.abs() == 1).any()  # it was clamped at the border


def test_a_cover_has_noise_of_its_own_upon_the_warp_and_poison_has_none():
    size = 32
    backdoor = crafted("wanet", view(size))
    x, out, slot = every_slot(backdoor)
    assert torch.equal(out[:4], backdoor(x[:4]))
    assert torch.equal(out, backdoor.plant(x, slot))
    planted_ramps = backdoor.plant(ramps(size).expand(8, -1, -1, -1), slot)[4:]
    places = 2 * planted_ramps[:, :2].permute(0, 2, 3, 1) - 1  # (4,S,S,2)
    noise = (places - backdoor.grid)[:, 4:-4, 4:-4] * size
    assert noise.abs().max() < 1 + 1e-3
    assert noise.std().item() == pytest.approx(1 / math.sqrt(3), rel=0.05)
    flat = noise.flatten(1).numpy()
    assert np.abs(np.corrcoef(flat) - np.eye(4)).max() < 0.1
