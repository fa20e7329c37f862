"""Images of a list: what becomes of each mode, and of those that cannot be read."""

import json

import numpy as np
import pytest
import torch
from listed_images import load, picture, where
from PIL import Image

from hashbackdoor_bench import data
from hashbackdoor_bench.data import decode as decoding
from hashbackdoor_bench.data import writing
from hashbackdoor_bench.errors import UserError


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("L", "a.jpg"),
        ("CMYK", "a.jpg"),
        ("P", "a.png"),
        ("RGBA", "a.png"),
        ("LA", "a.png"),
        ("1", "a.png"),
        ("RGB", "a.webp"),
        ("RGB", "a.bmp"),
    ],
)
def test_every_8_bit_mode_becomes_rgb(tmp_path, mode, name):
    file = tmp_path / name
    picture(0).convert(mode).save(file)
    pixels, reasons = decoding.decode(str(file), 16)
    assert reasons == ()
    assert pixels.shape == (3, 16, 16)
    assert pixels.dtype == np.uint8
    with Image.open(file) as image:
        expected = np.asarray(image.convert("RGB").resize((16, 16), Image.Resampling.BICUBIC))
    assert np.array_equal(pixels, expected.transpose(2, 0, 1))
    if mode in ("L", "LA", "1"):
        assert np.array_equal(pixels[0], pixels[2])


def test_red_stays_red_and_left_stays_left(tmp_path):
    image = Image.new("RGB", (64, 64), (0, 0, 0))
    image.paste((255, 0, 0), (0, 0, 32, 64))
    image.convert("CMYK").save(tmp_path / "a.tif")
    image.save(tmp_path / "b.jpg", quality=95)
    for name in ("a.tif", "b.jpg"):
        red, green, blue = decoding.decode(str(tmp_path / name), 32).pixels.astype(int)
        assert red[:, :14].min() > 245
        assert red[:, 18:].max() < 10
        assert max(green.max(), blue.max()) < 40


def test_an_image_of_the_right_size_is_not_resampled(tmp_path):
    picture(0, (32, 32)).save(tmp_path / "a.png")
    expected = np.asarray(picture(0, (32, 32))).transpose(2, 0, 1)
    assert np.array_equal(decoding.decode(str(tmp_path / "a.png"), 32).pixels, expected)


def spoil(file, how):
    if how == "truncated":
        file.write_bytes(file.read_bytes()[:-200])
    elif how == "text":
        file.write_text("<html>404</html>")
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "deep":
        Image.fromarray(np.full((30, 40), 0.5, np.float32)).save(file, "TIFF")
    elif how == "png":
        picture(0).save(file, "PNG")
        file.write_bytes(file.read_bytes()[:60] + b"garbage" + file.read_bytes()[67:])
    else:
        file.unlink()


HOWS = {
    "truncated": "truncated",
    "text": "cannot identify image file",
    "empty": "cannot identify image file",
    "deep": "mode F, whose range is unknown",
    "png": r"\w+",
    "missing": "no such file",
}


@pytest.mark.parametrize("how", HOWS)
def test_one_unreadable_image_of_few_is_one_sentence_with_its_path(tree, how):
    spoil(tree / "images" / "database" / "5.jpg", how)
    says = rf"1 of the 8 database images cannot be read.* 1% .*database/5\.jpg \(.*{HOWS[how]}"
    with pytest.raises(UserError, match=says) as error:
        load(tree)
    assert "\n" not in str(error.value)
    assert list((tree / "cache").rglob("*.u8")) == []


@pytest.mark.parametrize("how", HOWS)
def test_unreadable_images_under_the_threshold_are_left_out_and_named(tree, how):
    whole = load(tree)
    for name in ("0.jpg", "5.jpg"):
        spoil(tree / "images" / "database" / name, how)
    found = load(tree, tolerance=0.25)
    keep = [1, 2, 3, 4, 6, 7]
    assert found.database.ids == tuple(f"database/{i}.jpg" for i in keep)
    assert torch.equal(found.database.images, whole.database.images[keep])
    assert torch.equal(found.database.labels, whole.database.labels[keep])
    assert found.sha256 != whole.sha256
    assert found.notes[0] == (
        "Left out, images that can't be read: 2 (database/0.jpg, database/5.jpg)."
    )
    folder = data.prepare("lists", tolerance=0.25, **where(tree))
    left_out = json.loads((folder / "manifest.json").read_text())["database"]["left_out"]
    assert [one["row"] for one in left_out] == [0, 5]
    assert left_out[1]["file"].endswith("database/5.jpg")
    for size in (32, None):  # prepared before, and not
        with pytest.raises(UserError, match=r"2 of the 8 .* most 24%.*--tolerance 0\.25\."):
            load(tree, tolerance=0.24, size=size)


def test_a_wrong_root_is_refused_before_anything_is_decoded(tree, monkeypatch):
    for i in range(1, 8):
        (tree / "images" / "database" / f"{i}.jpg").unlink()
    monkeypatch.setattr(writing, "decode", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr(writing, "NAMED_UNREADABLE", 5)
    with pytest.raises(UserError, match=r"7 of the 8 .*5\.jpg \(no such file\) and 2 more; bring"):
        load(tree)
