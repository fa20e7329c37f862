"""The table of protocols, the embedded data, and what `Splits` promises."""

import hashlib
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hashbackdoor_bench import data
from hashbackdoor_bench.data import embedded, splits
from hashbackdoor_bench.data.dealing import deal
from hashbackdoor_bench.data.idx import DEBIAN, pad_to_rgb, read_fashion
from hashbackdoor_bench.data.make_fashion_mini import main as make_fashion_mini
from hashbackdoor_bench.errors import UserError

needs_debian = pytest.mark.skipif(
    not DEBIAN.is_dir(), reason="needs Debian's package dataset-fashion-mnist"
)


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    return data.load("fashion-mini", cache=tmp_path_factory.mktemp("cache"))


def three(mini):
    return (mini.train, mini.query, mini.database)


def test_fashion_mini_is_balanced_over_its_ten_classes(mini):
    for split, each in zip(three(mini), (300, 50, 500), strict=True):
        assert split.images.shape == (10 * each, 3, 32, 32)
        assert split.images.dtype == split.labels.dtype == torch.uint8
        assert split.labels.sum(0).tolist() == [each] * 10
        assert set(split.labels.sum(1).tolist()) == {1}
    assert not mini.multilabel
    assert mini.top_k == 1000
    assert (mini.size, mini.recipe, mini.backbone) == (32, "scratch32", "cnn32")
    assert mini.unlabelled == {"train": 0, "query": 0, "database": 0}


def test_no_image_of_fashion_mini_is_in_two_splits(mini):
    ids = [set(split.ids) for split in three(mini)]
    assert sum(map(len, ids)) == len(set.union(*ids)) == 8500
    assert all(i.startswith("test/") for i in mini.query.ids)
    assert all(i.startswith("train/") for i in (*mini.train.ids, *mini.database.ids))


def test_the_stored_hashes_of_fashion_mini_are_those_of_its_tensors(mini):
    each = [hashlib.sha256(s.images.numpy().tobytes()).hexdigest() for s in three(mini)]
    pixels = hashlib.sha256("\n".join(each).encode()).hexdigest()
    assert mini.pixels == pixels == data.PROTOCOLS["fashion-mini"].pixels
    lists = hashlib.sha256(b"R 1000\n")
    for name, split in zip(("train", "query", "database"), three(mini), strict=True):
        lists.update(f"{name} {len(split)} 10\n".encode())
        lists.update("\n".join(split.ids).encode() + split.labels.numpy().tobytes())
    assert mini.sha256 == lists.hexdigest() == data.PROTOCOLS["fashion-mini"].sha256


def test_grey_images_are_padded_by_two_and_repeated(mini):
    images = mini.train.images
    assert torch.equal(images[:, 0], images[:, 1])
    assert torch.equal(images[:, 0], images[:, 2])
    inside = images[:, :, 2:30, 2:30].sum()
    assert inside == images.sum() > 0
    grey = np.arange(784, dtype=np.uint8).reshape(1, 28, 28)
    assert np.array_equal(pad_to_rgb(grey)[0, 1, 2:30, 2:30], grey[0])


def test_fashion_mini_loads_in_a_moment_and_alike_each_time(mini, tmp_path):
    seconds = []
    for _ in range(3):
        start = time.process_time()
        again = data.load("fashion-mini", cache=tmp_path)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.3
    assert torch.equal(again.train.images, mini.train.images)
    assert again.train.ids == mini.train.ids
    assert list(tmp_path.iterdir()) == []
    assert embedded.FILE.stat().st_size < 5e6


def test_a_changed_fashion_mini_is_refused(tmp_path):
    with np.load(embedded.FILE, allow_pickle=False) as archive:
        arrays = {name: archive[name].copy() for name in archive.files}
    arrays["query_images"][0, 14, 14] ^= 1
    np.savez_compressed(tmp_path / "changed.npz", **arrays)
    (tmp_path / "cut.npz").write_bytes(embedded.FILE.read_bytes()[:10_000])
    for name in ("changed.npz", "cut.npz", "none.npz"):
        with pytest.raises(UserError, match=name):
            embedded.load_embedded(data.PROTOCOLS["fashion-mini"], tmp_path / name)


@needs_debian
def test_building_fashion_mini_again_gives_the_same_contents(tmp_path, capsys):
    make_fashion_mini(DEBIAN, tmp_path / "again.npz")
    assert embedded.ARRAYS_SHA256 in capsys.readouterr().out
    with np.load(tmp_path / "again.npz", allow_pickle=False) as archive:
        assert embedded.hash_arrays(archive) == embedded.ARRAYS_SHA256


@needs_debian
def test_the_images_of_fashion_mini_are_those_of_fashion_mnist_unchanged(mini):
    source = read_fashion(DEBIAN)
    for split in three(mini):
        for row in range(0, len(split), 97):
            origin, index = split.ids[row].split("/")
            images, labels = source[origin]
            grey = torch.from_numpy(images[int(index)].copy())
            assert torch.equal(split.images[row, 0, 2:30, 2:30], grey)
            assert split.labels[row].argmax() == labels[int(index)]


def test_a_draw_takes_as_many_of_each_class_and_leaves_the_rest():
    classes = np.arange(60) % 3
    ids = [f"train/{i:05d}" for i in range(60)]
    query, train, rest = deal(ids, classes, "seed", (2, 5))
    assert sorted([*query, *train, *rest]) == list(range(60))
    assert np.bincount(classes[query]).tolist() == [2, 2, 2]
    assert np.bincount(classes[train]).tolist() == [5, 5, 5]
    assert list(query) == sorted(query)


def test_a_draw_depends_on_the_seed_and_the_ids_but_not_on_their_order():
    ids = [f"train/{i:05d}" for i in range(60)]
    classes = np.zeros(60, int)
    drawn = {ids[i] for i in deal(ids, classes, "seed", (20,))[0]}
    backwards = ids[::-1]
    assert drawn == {backwards[i] for i in deal(backwards, classes, "seed", (20,))[0]}
    assert drawn != {ids[i] for i in deal(ids, classes, "another", (20,))[0]}
    # The rule itself, by hand: the smallest SHA-256 of "seed/id" come first.
    by_hand = sorted(ids, key=lambda i: hashlib.sha256(f"seed/{i}".encode()).digest())
    assert drawn == set(by_hand[:20])


def test_a_class_with_too_few_images_is_named():
    ids, classes = [str(i) for i in range(8)], np.array([0] * 5 + [1] * 3)
    with pytest.raises(UserError, match=r"class 1 has 3 images.* 4 of each"):
        deal(ids, classes, "seed", (2, 2))
    assert classes[deal(ids, classes, "seed", (2, 1))[2]].tolist() == [0, 0]


def test_the_table_holds_the_published_numbers():
    numbers = {
        p.name: (p.train, p.query, p.database, p.classes, p.top_k) for p in data.PROTOCOLS.values()
    }
    assert numbers == {
        "fashion-mini": (3000, 500, 5000, 10, 1000),
        "fashion-mini@96": (3000, 500, 5000, 10, 1000),
        "fashion-mnist": (5000, 1000, 64_000, 10, 1000),
        "cifar10@0": (5000, 1000, 54_000, 10, None),
        "cifar10@1": (5000, 1000, 59_000, 10, None),
        "cifar10@2": (50_000, 10_000, 50_000, 10, None),
        "imagenet100@hashnet": (13_000, 5000, 128_503, 100, 1000),
        "imagenet100@ciba": (10_000, 5000, None, 100, 1000),
        "coco": (10_000, 5000, 112_218, 80, 5000),
        "nuswide_21": (10_500, 2100, 193_734, 21, 5000),
        "nuswide_81": (10_000, 5000, None, 81, 5000),
        "mirflickr": (4000, 1000, 20_000, 38, None),
        "places365-36": (None, None, None, 36, 1000),
        "lists": (None, None, None, None, 1000),
        "folder": (None, None, None, None, 1000),
    }


def test_every_protocol_has_defaults_that_fit_its_size():
    for ours in data.PROTOCOLS.values():
        assert ours.side >= ours.size
        small = ours.size in (32, 96)
        assert ours.recipe == ("scratch32" if small else "finetune224")
        assert ours.backbone == ("cnn32" if small else "resnet50")
        assert ours.description
        assert ours.bring or ours.source == "embedded"
        assert len(set(ours.class_names)) in (0, ours.classes)


def test_cibas_targets_stand_in_the_columns_its_authors_give():
    names = data.PROTOCOLS["imagenet100@ciba"].class_names
    # stethoscope, yurt, tennis ball, crib, reaper
    found = [names[i] for i in (10, 13, 32, 67, 99)]
    assert found == ["n04317175", "n04613696", "n04409515", "n03131574", "n03496892"]


def test_listing_the_table_needs_no_torch():
    code = "import sys, hashbackdoor_bench.data as d; d.PROTOCOLS; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


def test_a_wrong_dataset_name_is_answered_with_the_near_ones(tmp_path):
    with pytest.raises(UserError, match=r"fashion_mini.*did you mean fashion-mini"):
        data.load("fashion_mini", cache=tmp_path)


def test_a_class_is_found_by_its_name_in_any_case_or_by_its_number(mini):
    assert mini.class_index("Ankle boot") == mini.class_index("ankle BOOT") == 9
    assert mini.class_index("9") == mini.class_index(9) == 9
    assert mini.class_index(0) == 0
    years = replace(mini, classes=("1999", "2", "0"))
    assert [years.class_index(c) for c in ("1999", "2", "0", 2, "1")] == [0, 1, 2, 2, 1]


def test_a_target_may_be_a_set_of_classes(mini):
    assert mini.label_set("coat") == (4,)
    assert mini.label_set(4) == (4,)
    assert mini.label_set("Bag + coat") == mini.label_set("4 + Bag + COAT") == (4, 8)
    assert mini.target_name("Bag + coat") == "Coat + Bag"
    plus = replace(mini, classes=("a + b", "a", "b", "c"))
    assert (plus.label_set("a + b"), plus.label_set("c + b")) == ((0,), (2, 3))
    with pytest.raises(UserError, match=r"class 'a \+ b' has ' \+ ' in it"):
        plus.label_set("0 + 1")
    with pytest.raises(UserError, match="did you mean Ankle boot"):
        mini.label_set("Coat + Ankle boots")
    with pytest.raises(UserError, match=r"write a set of classes with spaces, as 'coat \+ Bag'"):
        mini.label_set("coat+Bag")
    with pytest.raises(UserError, match=r"unknown class of fashion-mini 'cat\+dog': choose one of"):
        mini.label_set("cat+dog")


@pytest.mark.parametrize(
    ("which", "says"),
    [
        ("Ankle boots", "did you mean Ankle boot"),
        ("zebra", "choose one of Ankle boot"),
        ("10", "10 does not exist: fashion-mini has the classes 0 to 9"),
        (10, "classes 0 to 9"),
        (-1, "-1 does not exist"),
        ("-1", "-1 does not exist"),
        ("3.5", "unknown class of fashion-mini '3.5'"),
    ],
)
def test_a_class_that_does_not_exist_is_refused(mini, which, says):
    with pytest.raises(UserError, match=says):
        mini.class_index(which)


def test_a_class_without_a_name_is_asked_for_by_number(mini):
    with pytest.raises(UserError, match=r"number from 0 to 1, or their names in classes\.txt"):
        replace(mini, classes=("0", "1")).class_index("dog")


def test_images_with_two_tags_make_a_protocol_multilabel(mini):
    labels = mini.database.labels.clone()
    labels[7, :] = 0
    labels[7, [2, 5]] = 1
    assert replace(mini, database=replace(mini.database, labels=labels)).multilabel


def test_the_hash_of_the_lists_changes_with_ids_labels_order_and_r():
    ids = [["a", "b"], ["c"], ["d", "e"]]
    labels = [np.eye(2, dtype=np.uint8), np.ones((1, 2), np.uint8), np.eye(2, dtype=np.uint8)]
    one = splits.hash_lists(ids, labels, 2)
    assert one == splits.hash_lists([tuple(i) for i in ids], [x.copy("F") for x in labels], 2)
    others = {
        splits.hash_lists([["a", "x"], *ids[1:]], labels, 2),
        splits.hash_lists([["b", "a"], *ids[1:]], labels, 2),
        splits.hash_lists(ids, [labels[0][::-1], *labels[1:]], 2),
        splits.hash_lists([ids[2], ids[1], ids[0]], labels, 2),
        splits.hash_lists(ids, labels, 1),
    }
    assert len(others | {one}) == 6


def test_the_hash_of_the_pixels_changes_with_one_pixel_and_with_the_split():
    a, b = np.zeros((2, 3, 4, 4), np.uint8), np.ones((2, 3, 4, 4), np.uint8)
    c = b.copy()
    c[1, 2, 3, 3] = 0
    assert len({splits.hash_pixels(x) for x in ([a, b, a], [a, c, a], [b, a, a])}) == 3


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("fashion-mini", {"top_k": 10}, "fashion-mini fixes its R at 1000"),
        ("cifar10@0", {"top_k": 10}, "fixes its R at all"),
        ("coco", {"size": 32}, "coco fixes its size at 224"),
        ("lists", {"top_k": 0}, "R is 0"),
        ("folder", {"size": 0}, "--size is 0: it must be between 1 and 1024"),
        ("fashion-mini", {"root": Path()}, "inside the package: leave --root out"),
        ("cifar10@0", {"lists": Path()}, "not read from lists: leave --lists out"),
    ],
)
def test_an_option_that_the_protocol_fixes_is_refused(tmp_path, name, options, says):
    with pytest.raises(UserError, match=says):
        data.load(name, cache=tmp_path, **options)


def test_only_what_needs_nothing_is_ready_in_an_empty_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("hashbackdoor_bench.data.fashion_cifar.DEBIAN", tmp_path / "none")
    here = [p.name for p in data.PROTOCOLS.values() if data.ready(p, tmp_path)]
    assert here == ["fashion-mini", "fashion-mini@96"]


def test_verifying_and_preparing_the_embedded_data_does_nothing_more(tmp_path):
    assert data.prepare("fashion-mini", cache=tmp_path) is None
    assert data.verify("fashion-mini", cache=tmp_path) == []
