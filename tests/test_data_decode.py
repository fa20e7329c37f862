"""Decoding image files: modes, transparency, orientation, frames, and damage of any kind."""

import warnings
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageDraw

from hashbackdoor_bench.data.decode import UNDECODABLE, decode
from hashbackdoor_bench.data.reasons import Reason


def picture(seed, size=(40, 30)):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def ink(mode, background):
    """A black square on a background."""
    image = Image.new(mode, (32, 32), background)
    ImageDraw.Draw(image).rectangle((8, 8, 23, 23), fill=(0, 0, 0, 255) if mode == "RGBA" else 0)
    return image


def test_transparency_is_laid_on_white_in_every_mode_that_has_it(tmp_path):
    rgba = ink("RGBA", (0, 0, 0, 0))
    grey = Image.merge("LA", (Image.new("L", (32, 32)), rgba.getchannel("A")))
    palette = Image.new("P", (32, 32), 1)
    palette.putpalette([0, 0, 0, 9, 9, 9])
    palette.paste(0, (8, 8, 24, 24))
    rgb = Image.new("RGB", (32, 32), (9, 9, 9))
    rgb.paste((0, 0, 0), (8, 8, 24, 24))
    saved = {
        "rgba.png": (rgba, {}),
        "la.png": (grey, {}),
        "rgba.webp": (rgba, {"lossless": True}),
        "rgba.tif": (rgba, {}),
        "p.png": (palette, {"transparency": 1}),
        "p.gif": (palette, {"transparency": 1}),
        "rgb.png": (rgb, {"transparency": (9, 9, 9)}),
    }
    for name, (image, options) in saved.items():
        image.save(tmp_path / name, **options)
        pixels, reasons = decode(str(tmp_path / name), 32)
        assert reasons == (Reason.TRANSPARENT,), name
        assert (pixels[:, :8] == 255).all(), name
        assert (pixels[:, 8:24, 8:24] == 0).all(), name


def test_half_transparent_pixels_are_mixed_with_white(tmp_path):
    Image.new("RGBA", (8, 8), (100, 0, 200, 51)).save(tmp_path / "a.png")
    pixels, _ = decode(str(tmp_path / "a.png"), 8)
    by_hand = [round((c * 51 + 255 * 204) / 255) for c in (100, 0, 200)]
    assert pixels[:, 3, 3].tolist() == pytest.approx(by_hand, abs=1)


def test_an_alpha_channel_without_transparency_changes_nothing(tmp_path):
    solid = picture(3, (32, 32)).convert("RGBA")
    solid.save(tmp_path / "a.png")
    pixels, reasons = decode(str(tmp_path / "a.png"), 32)
    assert reasons == ()
    assert np.array_equal(pixels.transpose(1, 2, 0), np.asarray(picture(3, (32, 32))))


UPRIGHT = {  # EXIF orientation: where a red top left corner of the stored image is to be shown
    1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("turned", UPRIGHT)
def test_images_are_turned_as_their_exif_data_says(tmp_path, kind, turned):
    image = Image.new("RGB", (32, 32))
    image.paste((255, 0, 0), (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = turned
    image.save(tmp_path / f"a.{kind}", exif=exif, **({"quality": 95} if kind == "jpg" else {}))
    pixels, reasons = decode(str(tmp_path / f"a.{kind}"), 32)
    down, right = UPRIGHT[turned]
    red = pixels[0].astype(int)[16 * down : 16 * down + 16, 16 * right : 16 * right + 16]
    assert red[2:14, 2:14].min() > 200
    assert pixels[0].sum() < 16 * 16 * 255 * 1.3
    assert (Reason.TURNED in reasons) == (turned > 1)


def test_the_first_of_several_frames_is_taken_and_counted(tmp_path):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
    for name in ("a.gif", "a.png", "a.webp", "a.tif"):
        more = {"lossless": True} if name == "a.webp" else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **more)
        pixels, reasons = decode(str(tmp_path / name), 16)
        assert pixels[:, 5, 5].tolist() == [255, 0, 0]
        assert Reason.FRAMES in reasons


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_the_upper_8_of_16_bits_are_taken_and_counted(tmp_path, name):
    deep = np.linspace(0, 65_535, 1024).astype(np.uint16).reshape(32, 32)
    Image.fromarray(deep).save(tmp_path / name)
    pixels, reasons = decode(str(tmp_path / name), 32)
    assert reasons == (Reason.DEEP,)
    assert np.array_equal(pixels[1], deep >> 8)


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    picture(0).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1199)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
        assert (
            decode(str(tmp_path / "a.png"), 8) == "40 x 30 px are more than Pillow's limit of 1199"
        )


def test_no_damage_of_any_format_is_a_traceback(tmp_path):
    """300 damages in each format: `decode` returns pixels of the right shape, or a reason."""
    rng = np.random.default_rng(0)
    outcomes = Counter()
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "AVIF", "JPEG2000", "BMP", "ICO", "QOI"):
        picture(1, (24, 24)).save(tmp_path / "whole", kind)
        whole = (tmp_path / "whole").read_bytes()
        for number in range(300):
            damaged = bytearray(whole)
            for at in rng.integers(0, len(whole), 1 + number % 4):
                damaged[at] = rng.integers(256)
            if number % 10 == 0:
                del damaged[rng.integers(len(whole)) :]
            (tmp_path / "damaged").write_bytes(damaged)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = decode(str(tmp_path / "damaged"), 8)
            outcomes[type(found).__name__] += 1
            assert isinstance(found, str) or found.pixels.shape == (3, 8, 8)
    assert outcomes["str"] > 300
    assert RuntimeError in UNDECODABLE  # an AVIF file of one wrong byte
