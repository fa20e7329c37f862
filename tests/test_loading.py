"""What a run asks for before it reads data, and that data is loaded once per question."""

import numpy as np
import pytest
from PIL import Image

from hashbackdoor_bench import RunSpec, UserError
from hashbackdoor_bench.data import writing
from hashbackdoor_bench.stages import Cache, LoadedSets, load_data


@pytest.fixture
def spec(tmp_path):
    """A run on a folder of 2 x 20 images, of which one of cat can't be read."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(20):
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.png")
    (tmp_path / "images" / "cat" / "3.png").write_bytes(b"no image")
    return lambda **fields: RunSpec(dataset="folder", root=str(tmp_path / "images"), **fields)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"size": 3}, "'cnn32' can't take images of 3 px"),
        ({"size": 32, "backbone": "alexnet"}, "'alexnet' can't take images of 32 px"),
        ({"size": 32, "surrogate_backbone": "alexnet"}, "'alexnet' can't take images of 32 px"),
        ({"size": 224, "backbone": "cnn32"}, "cnn32 is for small images, up to 192 px and not 224"),
        ({"size": 96, "backbone": "resnet19"}, "unknown backbone 'resnet19'"),
        ({"size": 5000}, "--size is 5000: it must be at most 1024"),
    ],
)
def test_a_size_that_a_backbone_cannot_take_is_refused_before_images_are_decoded(
    spec, tmp_path, monkeypatch, fields, says
):
    monkeypatch.setattr(writing, "decode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(UserError, match=says):
        load_data(spec(**fields), Cache(tmp_path / "cache"))


def test_a_run_leaves_out_as_many_unreadable_images_as_it_tolerates(spec, tmp_path):
    cache = Cache(tmp_path / "cache")
    with pytest.raises(UserError, match=r"--tolerance 0\.\d+\.$"):
        load_data(spec(size=32), cache)
    splits = load_data(spec(size=32, tolerance=0.3), cache)
    assert sum(map(len, (splits.train, splits.query, splits.database))) == 39


def test_runs_of_different_tolerance_do_not_share_loaded_data(spec, tmp_path):
    sets = LoadedSets(Cache(tmp_path / "cache"))
    assert sets(spec(size=32, tolerance=0.3)) is sets(spec(size=32, tolerance=0.3, seed=1))
    with pytest.raises(UserError, match="cannot be read"):
        sets(spec(size=32))
