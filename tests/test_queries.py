"""Defenses of queries, `shrinkpad` and `drift`, against Pillow, plain loops and the planted net."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from planted import CLASSES, TARGET, Planted, pictures, seen, triggered
from torchvision.transforms.v2.functional import gaussian_blur

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


# ---- drift --------------------------------------------------------------------------------------

KINDS = {
    "noise": [0.08, 0.12, 0.18, 0.26, 0.38],
    "blur": [1, 2, 3, 4, 6],
    "brightness": [0.1, 0.2, 0.3, 0.4, 0.5],
    "contrast": [0.4, 0.3, 0.2, 0.1, 0.05],
    "jpeg": [25, 18, 15, 10, 7],
}


def corrupted(x: torch.Tensor, number: int) -> dict[str, list[torch.Tensor]]:
    """One image (3,S,S) under all corruptions, 8-bit, by numpy, Pillow and torchvision."""
    pixels = x.permute(1, 2, 0).double().numpy()
    noise = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(number))
    mean = pixels.mean((0, 1))
    out: dict[str, list[torch.Tensor]] = {}
    for kind, values in KINDS.items():
        out[kind] = []
        for t in values:
            if kind == "noise":
                made = pixels + t * noise.permute(1, 2, 0).numpy()
            elif kind == "brightness":
                made = pixels + t
            elif kind == "contrast":
                made = mean + t * (pixels - mean)
            elif kind == "blur":
                reach = min(math.ceil(3 * t * 32 / 224), 31)
                made = gaussian_blur(x, [2 * reach + 1] * 2, [t * 32 / 224] * 2)
                made = made.permute(1, 2, 0).double().numpy()
            else:
                file = io.BytesIO()
                whole = Image.fromarray(np.rint(255 * pixels).astype(np.uint8))
                whole.save(file, "JPEG", quality=t, subsampling="4:2:0")
                made = np.asarray(Image.open(file)) / 255
            made = np.floor(255 * made.clip(0, 1) + 0.5) / 255
            out[kind].append(torch.tensor(made, dtype=torch.float32).permute(2, 0, 1))
    return out


class Soft(Planted):
    """The planted network behind a random hash layer, whose bits flip one by one."""

    def __init__(self) -> None:
        super().__init__()
        chance = torch.Generator().manual_seed(3)
        with torch.no_grad():
            weight = torch.randn(self.head.weight.shape, generator=chance)
            self.head.weight.copy_(weight)
            self.head.bias.copy_(-0.5 * weight[:, :16].sum(1))


@pytest.mark.parametrize("variant", ["drift", "teco", "jpeg"])
def test_drift_is_that_of_plain_loops_over_corruptions_by_other_libraries(queries, variant):
    x, view = triggered(to_unit(queries.images[:9])), seen(Soft())
    x[5:] = to_unit(queries.images[5:9])
    found = DEFENSES["drift"](variant=variant).suspect(x, queries.item[:9], view)
    expected = []
    for image, number in zip(x, queries.item[:9].tolist(), strict=True):
        own = view.model.code(image[None])[0]
        figures = {}
        for kind, images in corrupted(image, number).items():
            codes = [view.model.code(one[None])[0] for one in images]
            if variant == "teco":
                near = []
                for code in (own, *codes):
                    apart = [int((code != anchor).sum()) for anchor in view.anchors]
                    near.append(apart.index(min(apart)))
                figures[kind] = next((s for s in range(1, 6) if near[s] != near[0]), 6)
            else:
                figures[kind] = sum(int((code != own).sum()) for code in codes) / 5 / len(own)
        values = list(figures.values())
        mean = sum(values) / 5
        spread = (sum((value - mean) ** 2 for value in values) / 5) ** 0.5
        expected.append(-figures["jpeg"] if variant == "jpeg" else spread)
    assert len(set(expected)) > 2
    # a bit may flip where two libraries round a pixel differently
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=0.004)


class Steady(Planted):
    """The planted network, whose class part looks at cells less their mean, not at brightness."""

    def __init__(self, gain: float) -> None:
        super().__init__(gain)
        with torch.no_grad():
            cells = self.head.weight[:, :16]
            cells -= cells.mean(1, keepdim=True)
            self.head.bias.zero_()


def test_drift_tells_a_planted_trigger_from_the_same_image_and_not_on_the_twin():
    clean = pictures(40, seed=9)
    others = torch.arange(40) % CLASSES != TARGET
    x, item = to_unit(clean.images[others]), clean.item[others]
    for variant in ("drift", "teco"):
        defense = DEFENSES["drift"](variant=variant)
        for gain in (4.0, 0.0):
            view = seen(Steady(gain))
            marked = defense.suspect(triggered(x), item, view)
            plain = defense.suspect(x, item, view)
            if gain:
                assert marked.min() > plain.max()
            else:
                torch.testing.assert_close(marked, plain, rtol=0, atol=0.01)


def test_a_suspicion_depends_on_the_image_and_its_number_alone(queries):
    x, view, defense = to_unit(queries.images[:6]), seen(Soft()), DEFENSES["drift"]()
    found = defense.suspect(x, queries.item[:6], view)
    torch.testing.assert_close(
        defense.suspect(x.flip(0), queries.item[:6].flip(0), view).flip(0), found
    )
    torch.testing.assert_close(defense.suspect(x[2:3], queries.item[2:3], view), found[2:3])
    assert defense.suspect(x[:0], queries.item[:0], view).shape == (0,)
