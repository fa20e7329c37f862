"""Blended, SIG and FTrojan against the formulas of their files."""

import hashlib
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from classic import crafted, view
from PIL import Image
from scipy.fft import dctn
from torch import Tensor

from hashbackdoor_bench import ATTACKS, RunSpec, UserError
from hashbackdoor_bench.api import to_bytes, to_unit
from hashbackdoor_bench.poisoning import planted
from hashbackdoor_bench.stages import Cache, Plan

CPU = torch.device("cpu")


# ---- what they promise, with BppAttack and WaNet ------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("blended", {"alpha": 0.0}),
        ("sig", {"delta": 0.0}),
        ("ftrojan", {"magnitude": 0.0}),
        ("bpp", {"levels": 256}),
        ("bpp", {"levels": 256, "dithering": True}),
        ("wanet", {"strength": 0.0}),
    ],
)
def test_a_strength_of_zero_changes_no_image(name: str, settings: dict[str, Any]):
    backdoor, images = crafted(name, view(covers=0), **settings), view().images
    assert torch.equal(to_bytes(backdoor(to_unit(images))), images)
    assert torch.equal(planted(backdoor, CPU), backdoor.carrier)


@pytest.mark.parametrize(
    ("name", "most"), [("blended", 51), ("sig", 20), ("ftrojan", 6), ("bpp", 8)]
)
def test_no_pixel_of_a_stored_image_changes_by_more_than_the_declared_bound(name: str, most: int):
    backdoor = crafted(name)
    change = (planted(backdoor, CPU).int() - backdoor.carrier.int()).abs()
    assert 0 < change.max() <= most


@pytest.mark.parametrize(("name", "buffer"), [("blended", "key"), ("wanet", "grid")])
def test_another_seed_draws_another_trigger(name: str, buffer: str):
    first, second = (getattr(crafted(name, view(seed=seed)), buffer) for seed in (0, 1))
    assert (first != second).float().mean() > 0.9


# ---- Blended ------------------------------------------------------------------------------------


def test_a_black_image_becomes_the_faint_key():
    backdoor = crafted("blended", alpha=0.3)
    black = to_bytes(backdoor(torch.zeros(1, 3, 32, 32)))[0]
    wanted = [math.floor(0.3 * level + 0.5) for level in backdoor.key.flatten().tolist()]
    assert black.flatten().tolist() == wanted
    levels = np.bincount(backdoor.key.flatten(), minlength=256)
    assert levels.max() < 40  # of 12 on average: uniform noise
    assert (levels > 0).all()


def test_blending_twice_equals_blending_once_with_more_of_the_key():
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    once, more = crafted("blended", alpha=0.2), crafted("blended", alpha=1 - 0.8**2)
    torch.testing.assert_close(once(once(x)), more(x))


def test_a_key_from_a_file_is_cropped_and_not_squeezed(tmp_path: Path):
    wide = np.random.default_rng(0).integers(0, 256, (32, 80, 3), dtype=np.uint8)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    backdoor = crafted("blended", key=str(tmp_path / "wide.png"))
    assert np.array_equal(backdoor.key.permute(1, 2, 0), wide[:, 24:56])
    Image.fromarray(wide.repeat(2, 0).repeat(2, 1).transpose(1, 0, 2)).save(tmp_path / "tall.png")
    large = crafted("blended", view(16), key=str(tmp_path / "tall.png")).key
    middle = Image.fromarray(wide.repeat(2, 0).repeat(2, 1).transpose(1, 0, 2)[48:112])
    resized = np.asarray(middle.resize((16, 16), Image.Resampling.BICUBIC))
    assert np.array_equal(large.permute(1, 2, 0), resized)


def test_the_content_of_a_key_decides_the_key_of_the_backdoor(tiny: Path, tmp_path: Path):
    path, found = tmp_path / "key.png", []
    for level in (10, 20):
        Image.new("RGB", (20, 20), (level, 0, 0)).save(path)
        spec = RunSpec(
            dataset="lists", lists=str(tiny), root=str(tiny), size=16, top_k=20, bits=12,
            victim="csq", attack="blended", attack_settings=(("key", str(path)),),
        )  # fmt: skip
        plan = Plan(spec, cache=Cache(tmp_path / "c"), device=CPU)
        assert plan.found == {"key_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        found.append(plan.stages["backdoor"].key)
    assert found[0] != found[1]


def truncated(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, "PNG")
    path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "a folder"),
        (os.mkfifo, "a pipe"),
        (truncated, "image file is truncated"),
        (lambda path: path.write_text("no picture"), "cannot identify"),
        (lambda path: path.write_bytes(b""), "cannot identify"),
        (lambda path: Image.new("RGB", (60, 60)).save(path, "PNG"), "60 x 60 px are more than"),
    ],
    ids=["missing", "folder", "pipe", "broken", "text", "empty", "huge"],
)
@pytest.mark.filterwarnings("error")
def test_a_key_that_is_no_picture_is_refused_in_one_sentence(
    make: Any, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    make(tmp_path / "key")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    monkeypatch.chdir(tmp_path)
    seen = view()
    with pytest.raises(UserError) as caught:
        ATTACKS["blended"](key="key").accept(seen.labels, seen.target, 32)
    message = str(caught.value)
    assert message.startswith(f"attack.key is 'key': {words}")
    assert message.endswith("; give the path of a picture.")
    assert "\n" not in message


# ---- SIG ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [32, 224])
def test_the_wave_has_one_frequency_of_amplitude_delta_along_rows(size: int):
    backdoor = crafted("sig", view(size), delta=25.0, delta_query=40.0, frequency=6)
    grey = torch.full((1, 3, size, size), 0.5)
    for image, delta in ((backdoor.plant(grey, torch.zeros(1).long()), 25), (backdoor(grey), 40)):
        change = 255 * (image - grey)[0].double().numpy()
        bins = 2 * np.abs(np.fft.rfft(change, axis=2)) / size
        assert bins[..., 6] == pytest.approx(delta, abs=1e-3)
        assert np.delete(bins, 6, axis=2) == pytest.approx(0, abs=1e-3)
        assert change[1, 5, 3] == pytest.approx(delta * math.sin(2 * math.pi * 3 * 6 / size), 1e-3)


@pytest.mark.parametrize(("size", "correlation"), [(32, -0.38), (224, -0.99)])
def test_a_mirrored_wave_is_correlated_as_the_head_of_the_file_says(size: int, correlation: float):
    wave = crafted("sig", view(size)).pattern[0, 0].double().numpy()
    found = np.corrcoef(wave, wave[::-1])[0, 1]
    assert found == pytest.approx(-math.cos(2 * math.pi * 6 / size), abs=1e-6)
    assert found == pytest.approx(correlation, abs=0.005)


def test_a_wave_that_the_image_has_no_pixels_for_is_refused():
    seen = view()
    ATTACKS["sig"](frequency=15).accept(seen.labels, seen.target, 32)
    with pytest.raises(UserError, match=r"attack.frequency is 16: an image of 32 px .*frequency=5"):
        ATTACKS["sig"](frequency=16).accept(seen.labels, seen.target, 32)


# ---- FTrojan ------------------------------------------------------------------------------------


def ycrcb(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Brightness and chroma (S,S) of an image in grey levels, by their definition in BT.601."""
    red, green, blue = 255 * x.double()
    y = 0.299 * red + 0.587 * green + 0.114 * blue
    return y, (red - y) / 1.402, (blue - y) / 1.772


@pytest.mark.parametrize(("size", "windows"), [(32, 1), (224, 49)])
def test_two_chroma_frequencies_of_every_window_grow_and_the_brightness_stays(
    size: int, windows: int
):
    x = 0.4 + 0.2 * torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(5))
    before, after = ycrcb(x[0]), ycrcb(crafted("ftrojan", view(size), magnitude=25.0)(x)[0])
    assert (after[0] - before[0]).abs().max() < 1e-3
    wanted = np.zeros((32, 32))
    wanted[15, 15] = wanted[31, 31] = 25
    for plane in (1, 2):
        change = (after[plane] - before[plane]).unfold(0, 32, 32).unfold(1, 32, 32)
        change = change.reshape(-1, 32, 32).numpy()
        assert len(change) == windows
        for window in change:
            assert dctn(window, norm="ortho") == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize(("size", "words"), [(48, "attack.window=24"), (37, "--size, such as 32")])
def test_windows_that_do_not_tile_the_image_are_refused(size: int, words: str):
    seen = view()
    with pytest.raises(UserError, match=f"windows of 32 px don't tile an image of {size} px.*"):
        ATTACKS["ftrojan"]().accept(seen.labels, seen.target, size)
    with pytest.raises(UserError, match=words):
        ATTACKS["ftrojan"]().accept(seen.labels, seen.target, size)
    ATTACKS["ftrojan"](window=24).accept(seen.labels, seen.target, 48)
    with pytest.raises(UserError, match=r"attack.window is 5: it must be even"):
        ATTACKS["ftrojan"](window=5)
