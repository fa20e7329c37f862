"""Refool: reflections by the formulas in plain loops, their draws, and the pictures of leaves."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from attack_views import change, craft, seen
from torch import Tensor

from hashbackdoor_bench import ATTACKS
from hashbackdoor_bench.api import to_unit

ATTACKS["refool"]  # imports the package's files under their own names
from hashbackdoor_bench.attacks.refool_reflection import draws, leaves, reflect  # noqa: E402

GHOST = {"ghost": 1.0, "down": 1.0, "right": 1.0, "g": 0.3, "sigma": 1.0, "u": 1.1}
FOCUS = {**GHOST, "ghost": 0.0}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", [GHOST, FOCUS])
@pytest.mark.parametrize("alpha", [0.4, 0.75, 1.0])
def test_a_black_reflection_only_darkens(kind: dict[str, float], alpha: float):
    x = random(3, 9, 9)
    out = reflect(x, torch.zeros(3, 11, 11), alpha=alpha, **kind)
    torch.testing.assert_close(out, x * alpha ** (1 / 2.2))


def test_a_ghost_in_its_place_is_a_mixture_of_light():
    x, r = random(3, 9, 9), random(3, 9, 9, seed=1)
    settings = {**GHOST, "down": 0.0, "right": 0.0, "g": 0.5}
    expected = (0.3 * r**2.2 + 0.7 * x**2.2) ** (1 / 2.2)
    torch.testing.assert_close(reflect(x, r, alpha=0.7, **settings), expected)


def test_a_ghost_is_two_copies_pixel_by_pixel():
    x, r = random(3, 5, 5), random(3, 9, 9, seed=1)
    settings = {**GHOST, "down": 2.0, "right": 3.0}
    out = reflect(x, r, alpha=0.6, **settings)
    for c, i, j in [(c, i, j) for c in range(3) for i in range(5) for j in range(5)]:
        first, second = float(r[c, i, j]), float(r[c, i + 2, j + 3])
        light = 0.4 * (0.3 * first**2.2 + 0.7 * second**2.2) + 0.6 * float(x[c, i, j]) ** 2.2
        assert float(out[c, i, j]) == pytest.approx(min(1.0, light) ** (1 / 2.2), abs=1e-5)


def out_of_focus(x: Any, r: Any, alpha: float, sigma: float, u: float) -> Any:
    """The second branch in NumPy: Gaussian weights one by one, a mirrored border, math.erf."""
    half, size = math.ceil(2 * sigma), x.shape[-1]
    weights = [math.exp(-(k**2) / (2 * sigma**2)) for k in range(-half, half + 1)]
    weights = [w / sum(weights) for w in weights]
    light = np.pad(r**2.2, ((0, 0), (half, half), (half, half)), mode="reflect")
    blurred, t = np.zeros_like(x), x**2.2
    for i in range(size):
        for j in range(size):
            for a, wa in enumerate(weights):
                for b, wb in enumerate(weights):
                    blurred[:, i, j] += wa * wb * light[:, i + a, j + b]
    for c in range(3):
        both = blurred[c] + t[c]
        mean = max(1.0, both[both > 1].mean()) if (both > 1).any() else 1.0
        blurred[c] = np.clip(blurred[c] - u * (mean - 1), 0, 1)
    edges = [-3 + 6 * k / size for k in range(size + 1)]
    mass = [(math.erf(b / 2**0.5) - math.erf(a / 2**0.5)) / 2 for a, b in pairwise(edges)]
    window = np.sqrt(np.outer(mass, mass))
    window /= window.max()
    return np.clip((1 - alpha / 2) * window * blurred + alpha * t, 0, 1) ** (1 / 2.2)


@pytest.mark.parametrize("sigma", [0.5, 1.3])
@pytest.mark.parametrize("bright", [0.2, 1.0])
def test_a_reflection_out_of_focus_is_blurred_dimmed_and_brightest_in_the_middle(
    sigma: float, bright: float
):
    x, r = random(3, 9, 9), bright * random(3, 12, 12, seed=1)
    found = reflect(x, r, alpha=0.7, **{**FOCUS, "sigma": sigma, "u": 1.15})
    expected = out_of_focus(x.double().numpy(), r.double().numpy(), 0.7, sigma, 1.15)
    torch.testing.assert_close(found.double(), torch.from_numpy(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", [GHOST, FOCUS])
def test_white_on_white_stays_in_range(kind: dict[str, float]):
    out = reflect(torch.ones(3, 9, 9), torch.ones(3, 12, 12), alpha=0.95, **kind)
    assert float(out.min()) >= 0.9
    assert float(out.max()) <= 1


@pytest.mark.parametrize("size", [16, 32, 224, 560])
def test_draws_are_the_published_ones_at_the_authors_size_and_scaled_elsewhere(size: int):
    rows = draws(4000, size, 0.55, 0.95, torch.Generator().manual_seed(0))
    ghost, alpha, down, right, g, sigma, u = rows.unbind(1)
    assert float(ghost.mean()) == pytest.approx(0.49, abs=0.03)
    assert set(ghost.tolist()) == {0.0, 1.0}
    lengths = {max(1, round(n * size / 560)) for n in range(3, 9)}
    assert set(down.tolist()) == set(right.tolist()) == lengths
    for values, low, high in [
        (alpha, 0.55, 0.95),
        (torch.minimum(g, 1 - g), 0.15, 0.5),
        (sigma, max(0.5, size / 560), max(0.5, 5 * size / 560)),
        (u, 1.08, 1.18),
    ]:
        assert low - 1e-6 <= float(values.min()) <= low + 0.02 * (high - low) + 1e-6
        assert high - 0.02 * (high - low) - 1e-6 <= float(values.max()) <= high + 1e-6
    assert float((g < 0.5).float().mean()) == pytest.approx(0.5, abs=0.03)
    if len(lengths) > 1:
        assert not torch.equal(down, right)
    # nothing that is drawn reaches beyond the reflected picture
    assert leaves(0, size, torch.Generator()).shape[-1] >= size + int(max(lengths))


def test_pictures_of_leaves_are_drawn_from_the_seed_and_have_many_colours_and_all_differ():
    pictures = leaves(6, 64, torch.Generator().manual_seed(0))
    assert pictures.shape == (6, 3, 65, 65)
    assert len(torch.unique(pictures.flatten(1), dim=0)) == 6
    again = leaves(6, 64, torch.Generator().manual_seed(0))
    assert torch.equal(pictures, again)
    for picture in pictures:
        colours, counts = torch.unique(picture.flatten(1), dim=1, return_counts=True)
        assert colours.shape[1] > 20
        assert int(counts.max()) < 0.6 * 65**2


def test_leaves_leave_less_than_a_hundredth_of_the_background_uncovered_on_average(
    monkeypatch: pytest.MonkeyPatch,
):
    pictures = leaves(200, 32, torch.Generator().manual_seed(0))
    monkeypatch.setattr(f"{leaves.__module__}.LEAVES", 0)  # the background is what is drawn first
    background = leaves(200, 32, torch.Generator().manual_seed(0))
    assert torch.equal(background.amin((2, 3)), background.amax((2, 3)))
    uncovered = (pictures == background).all(1).float().mean((1, 2))  # (200,)
    assert 0 < float(uncovered.mean()) < 0.01
    assert float(uncovered.max()) < 0.1


def test_the_power_of_leaves_falls_with_the_frequency_as_that_of_photographs():
    """Photographs fall by about the square of the frequency; white noise doesn't fall."""
    grey = leaves(20, 128, torch.Generator().manual_seed(0)).double().mean(1)[:, :128, :128].numpy()
    window = np.outer(np.hanning(128), np.hanning(128))
    grey = (grey - grey.mean((1, 2), keepdims=True)) * window
    power = (np.abs(np.fft.fft2(grey)) ** 2).mean(0)
    row = np.minimum(np.arange(128), 128 - np.arange(128))
    radius = np.round(np.hypot(row[:, None], row)).astype(int)
    at = np.arange(3, 60)
    mean = [power[radius == k].mean() for k in at]
    slope = np.polyfit(np.log(at), np.log(mean), 1)[0]
    assert -3.2 < slope < -1.7


def test_poison_number_i_carries_reflection_i_modulo_r_with_its_own_draw():
    backdoor = craft("refool", seen(8), reflections=3)
    x = to_unit(backdoor.carrier)
    planted = backdoor.plant(x, torch.arange(8))
    for i in range(8):
        expected = reflect(
            x[i], to_unit(backdoor.reflections[i % 3]), *backdoor.planted[i].tolist()
        )
        torch.testing.assert_close(planted[i], expected)
    assert len(torch.unique(backdoor.planted, dim=0)) == 8


def test_a_query_chooses_its_draw_by_its_pixels():
    backdoor = craft("refool", seen())
    x = to_unit(seen().images)
    for image, out in zip(x, backdoor(x), strict=True):
        row = int((image * 255).round().sum()) % 256
        expected = reflect(
            image, to_unit(backdoor.reflections[row % 20]), *backdoor.queried[row].tolist()
        )
        torch.testing.assert_close(out, expected)
    assert backdoor.queried.shape == (256, 7)


def test_without_reflections_only_alpha_darkens_and_with_alpha_one_nothing_changes():
    view = seen(6)
    control = craft("refool", view, reflections=0, alpha_low=0.4, alpha_high=0.4)
    x = to_unit(view.images[:6])
    torch.testing.assert_close(control(x), x * 0.4 ** (1 / 2.2))
    torch.testing.assert_close(control.plant(x, torch.arange(6)), x * 0.4 ** (1 / 2.2))
    still = craft("refool", view, reflections=0, alpha_low=1, alpha_high=1)
    assert not change(still).any()
    torch.testing.assert_close(still(x), x)


@pytest.mark.parametrize(("name", "label"), [("refool", "clean"), ("refool_dirty", "dirty")])
def test_labels_change_in_the_dirty_preset_only(name: str, label: str):
    view = seen(6, label=label)
    attack: Any = ATTACKS[name](**ATTACKS[name].preset)
    assert attack.threat.label == label
    assert not attack.threat.universal
    backdoor = craft(name, view)
    assert (backdoor.label == view.target).all()
    assert bool((backdoor.label != view.labels[view.index]).any()) == (label == "dirty")
    assert torch.equal(backdoor.carrier, view.images[view.index])
