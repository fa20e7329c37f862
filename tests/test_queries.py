"""Defenses of queries, `shrinkpad` and `drift`, against Pillow, plain loops and the planted net."""

import numpy as np
import pytest
import torch
from PIL import Image
from planted import Planted, pictures, triggered

from hashbackdoor_bench import DEFENSES, Images, to_bytes, to_unit


@pytest.fixture(scope="module")
def queries() -> Images:
    return pictures(40, seed=9)


# ---- shrinkpad ----------------------------------------------------------------------------------


def test_shrinkpad_is_pillows_smaller_image_at_a_place_of_its_own():
    x = torch.rand(100, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    x = to_unit(to_bytes(x))
    out = DEFENSES["shrinkpad"](pad=0.25).purify(x, pictures(100).item)
    places = set()
    for image, made in zip(to_bytes(x), out, strict=True):
        rows = made.amax((0, 2)).nonzero().flatten()
        columns = made.amax((0, 1)).nonzero().flatten()
        assert (len(rows), len(columns)) == (24, 24)
        top, left = int(rows[0]), int(columns[0])
        places.add((top, left))
        assert 0 <= min(top, left) <= max(top, left) <= 8
        pixels = Image.fromarray(image.permute(1, 2, 0).numpy())
        small = np.asarray(pixels.resize((24, 24), Image.Resampling.BILINEAR)).astype(float)
        inner = 255 * made[:, top : top + 24, left : left + 24].permute(1, 2, 0).numpy()
        assert abs(inner - small).max() < 1.01  # Pillow rounds after each of the two directions
    assert len(places) > 40
    assert {row for row, _ in places} >= {0, 8}  # both ends
    assert {column for _, column in places} >= {0, 8}


def test_the_place_depends_on_the_images_number_alone(queries):
    x, defense = to_unit(queries.images), DEFENSES["shrinkpad"]()
    out = defense.purify(x, queries.item)
    again = defense.purify(x.flip(0), queries.item.flip(0)).flip(0)
    assert torch.equal(out, again)
    assert torch.equal(defense.purify(x[7:8], queries.item[7:8]), out[7:8])
    assert not torch.equal(defense.purify(x[7:8], queries.item[8:9]), out[7:8])


def test_shrinkpad_without_ground_or_images_changes_nothing(queries):
    x = to_unit(queries.images[:2])
    out = DEFENSES["shrinkpad"](pad=0.015).purify(x, queries.item[:2])  # half a pixel is none
    assert torch.equal(out, x)
    assert out.data_ptr() != x.data_ptr()
    assert DEFENSES["shrinkpad"]().purify(x[:0], queries.item[:0]).shape == (0, 3, 32, 32)


def test_shrinkpad_silences_the_planted_filter():
    x = triggered(to_unit(pictures(40, seed=9).images))
    model, item = Planted(), pictures(40, seed=9).item
    fired = model.features(x)[:, -1]
    shrunk = model.features(DEFENSES["shrinkpad"]().purify(x, item))[:, -1]
    assert fired.min() > 11
    assert shrunk.max() < 0.3 * fired.min()
