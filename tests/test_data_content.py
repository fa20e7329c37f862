"""Prepared images are found by the content of their files, which is hashed once after a change."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from hashbackdoor_bench import data
from hashbackdoor_bench.data import content


def picture(seed):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))


def load(root):
    return data.load("folder", root=root, cache=root.parent / "cache", size=32)


@pytest.fixture
def root(tmp_path):
    """Class folders cat and dog with ten different images each."""
    for number, name in enumerate(("cat", "dog")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(10):
            picture(10 * number + i).save(tmp_path / "images" / name / f"{i}.png")
    return tmp_path / "images"


def test_other_images_of_equal_names_sizes_and_times_are_told_apart(tmp_path):
    for name, shade in (("a", 40), ("b", 200)):
        for one in ("cat", "dog"):
            (tmp_path / name / one).mkdir(parents=True)
            for i in range(6):
                file = tmp_path / name / one / f"{i}.bmp"
                Image.new("RGB", (32, 32), (shade, i, 10 * len(one) + (one == "dog"))).save(file)
                os.utime(file, (0, 0))
    means = [load(tmp_path / name).train.images[:, 0].float().mean().item() for name in ("a", "b")]
    assert means == [40, 200]


@pytest.mark.parametrize("place", ["moved over", "in place"])
def test_an_image_replaced_under_its_old_size_and_time_is_seen(root, monkeypatch, place):
    """Also if what was hashed is remembered, as it is when files are older than some seconds."""
    monkeypatch.setattr(content, "MARGIN", -1e9)
    for file in root.rglob("*.png"):
        picture(int(file.stem) + 10 * (file.parent.name == "dog")).save(file, "BMP")
        os.utime(file, (0, 0))
    first = load(root)
    assert list((root.parent / "cache" / "data").glob("folder-*.json"))
    victim = root / first.train.ids[0]
    new = victim if place == "in place" else root.parent / "new"
    picture(500).save(new, "BMP")
    os.utime(new, (0, 0))
    os.replace(new, victim)
    second = load(root)
    assert second.sha256 == first.sha256
    assert not torch.equal(second.train.images[0], first.train.images[0])


def test_files_are_hashed_once_while_nothing_changes(root, monkeypatch):
    monkeypatch.setattr(content, "MARGIN", -1e9)
    first = load(root)
    monkeypatch.setattr(content, "sha256_of", lambda path: pytest.fail("hashed again"))
    assert load(root).pixels == first.pixels


def test_a_file_changed_a_moment_ago_is_not_remembered(root):
    load(root)
    assert not list((root.parent / "cache" / "data").glob("folder-*.json"))
