"""List protocols on a small JPEG tree: what is read from the lists and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from listed_images import SIZES, load, rewrite
from PIL import Image

from hashbackdoor_bench import data
from hashbackdoor_bench.data import lists, writing
from hashbackdoor_bench.errors import UserError

CUT = "R is cut from 1000 to {}, the number of database images."


@pytest.mark.parametrize("chunk", [1, 4, 6, 64])
def test_images_and_labels_of_the_lists_stand_in_their_order(tree, monkeypatch, chunk):
    monkeypatch.setattr(writing, "CHUNK", chunk)
    found = load(tree)
    assert found.query.ids == ("test/0.jpg", "test/1.jpg", "test/2.jpg", "test/3.jpg")
    assert found.query.labels.tolist() == [[1, 0], [0, 1]] * 2
    assert found.classes == ("0", "1")
    assert found.top_k == 8
    assert load(tree, top_k=5).top_k == 5
    assert found.notes == (CUT.format(8),)
    assert load(tree, top_k=8).notes == ()
    for split in (found.train, found.query, found.database):
        assert split.images.dtype == torch.uint8
        for row, name in enumerate(split.ids):
            with Image.open(tree / "images" / name) as image:
                small = image.resize((32, 32), Image.Resampling.BICUBIC)
            assert np.array_equal(split.images[row].permute(1, 2, 0).numpy(), np.asarray(small))


def test_protocols_of_224_px_are_stored_at_256(tree):
    found = load(tree, size=None)
    assert found.train.images.shape == (6, 3, 256, 256)
    assert (found.size, found.recipe, found.backbone) == (224, "finetune224", "resnet50")
    small = load(tree)
    assert (small.size, small.recipe, small.backbone) == (32, "scratch32", "cnn32")


def test_query_txt_is_read_where_there_is_no_test_txt(tree):
    before = load(tree)
    (tree / "lists" / "test.txt").rename(tree / "lists" / "query.txt")
    assert load(tree).sha256 == before.sha256


def test_classes_txt_names_the_columns(tree):
    (tree / "lists" / "classes.txt").write_text("cat\nguide dog\n\n")
    assert load(tree).classes == ("cat", "guide dog")
    assert load(tree).class_index("Guide Dog") == 1
    for wrong in ("cat\n", "cat\ncat\n", "a\nb\nc\n"):
        (tree / "lists" / "classes.txt").write_text(wrong)
        with pytest.raises(UserError, match=r"classes\.txt has \d different names"):
            load(tree)


def test_paths_may_hold_spaces_dots_and_umlauts_and_columns_any_white_space(tree):
    old = tree / "images" / "test" / "0.jpg"
    (tree / "images" / "test" / "ein schöner Tag 7.5 .jpg").write_bytes(old.read_bytes())
    text = "test/ein schöner Tag 7.5 .jpg 1 0\r\n\n./test/1.jpg\t0  1  \r\n"
    (tree / "lists" / "test.txt").write_text("\ufeff" + text, newline="")
    found = load(tree)
    assert found.query.ids == ("test/ein schöner Tag 7.5 .jpg", "./test/1.jpg")
    assert found.query.labels.tolist() == [[1, 0], [0, 1]]


def test_a_list_of_single_spaces_is_read_at_once_and_as_in_plain_python(tmp_path, monkeypatch):
    monkeypatch.setattr(lists, "_parse", lambda *_: pytest.fail("read line by line"))
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (500, 21))
    lines = [f"a b/{i}.jpg {' '.join(map(str, row))}" for i, row in enumerate(labels)]
    (tmp_path / "l.txt").write_text("\n".join(lines))
    paths, found = lists.read_list(tmp_path / "l.txt")
    for line, path, row in zip(lines, paths, found.tolist(), strict=True):
        tokens = line.split(" ")
        assert path == " ".join(tokens[:-21])
        assert row == [int(t) for t in tokens[-21:]]


@pytest.mark.parametrize(
    "prefix", ["/home/caozhangjie/run-czj/dataset/coco/", "./data/nuswide_81/", "../data/"]
)
def test_the_authors_own_folders_in_a_list_are_left_away(tree, prefix):
    before = load(tree)
    for name in SIZES:
        rewrite(tree, f"{name}.txt", lambda rows: [prefix + row for row in rows])
    found = load(tree)
    assert found.pixels == before.pixels
    assert found.query.ids[0] == f"{prefix}test/0.jpg"


def test_a_list_has_the_same_hash_wherever_its_images_lie(tree):
    before = load(tree)
    (tree / "images").rename(tree / "moved")
    after = load(tree, root=tree / "moved")
    assert (after.sha256, after.pixels) == (before.sha256, before.pixels)
    assert len(list((tree / "cache" / "data").glob("lists-*/manifest.json"))) == 1


def test_unlabelled_queries_are_counted_and_left_out(tree):
    rewrite(tree, "test.txt", lambda rows: [rows[0], "test/1.jpg 0 0", *rows[2:]])
    rewrite(tree, "train.txt", lambda rows: [*rows[:4], "train/4.jpg 0 0", "train/5.jpg 0 0"])
    found = load(tree)
    assert found.query.ids == ("test/0.jpg", "test/2.jpg", "test/3.jpg")
    assert found.query.labels.tolist() == [[1, 0], [1, 0], [0, 1]]
    assert len(found.train) == 6
    assert found.unlabelled == {"train": 2, "query": 1, "database": 0}
    assert found.notes == (
        "2 of the 6 train images have no tag.",
        "1 of the 4 query images have no tag and are left out.",
        CUT.format(8),
    )
    rewrite(tree, "test.txt", lambda rows: [row[:-3] + "0 0" for row in rows])
    with pytest.raises(UserError, match=r"no line of .*test\.txt has a 1"):
        load(tree)


def test_queries_that_are_train_or_database_images_are_recorded(tree):
    rewrite(tree, "database.txt", lambda rows: [*rows, "test/0.jpg 1 0", "train/1.jpg 0 1"])
    rewrite(tree, "train.txt", lambda rows: [*rows, "test/1.jpg 0 1", "test/2.jpg 1 0"])
    assert load(tree).notes == (
        "2 query images are train images as well.",
        "1 query images are database images as well.",
        CUT.format(10),
    )


def test_a_repeated_line_keeps_its_place_under_an_id_of_its_own(tree):
    rewrite(tree, "database.txt", lambda rows: [*rows, rows[2], rows[2]])
    found = load(tree)
    assert found.database.ids[-2:] == ("database/2.jpg#2", "database/2.jpg#3")
    assert torch.equal(found.database.images[2], found.database.images[9])
    assert found.notes[0] == "2 lines of the database list repeat an image."
    assert "same pixels as another of their split: 2 (database/2.jpg#2, " in found.notes[1]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("train/2.jpg 1 0 0", "line 3: 3 label columns after the path, and the first line has 2"),
        ("train/2.jpg 1", "line 3: 1 label columns after the path, and the first line has 2"),
        ("train/2.jpg", "line 3: 0 label columns"),
        ("train/2.jpg 2 0", "line 3: the label '2' is neither 0 nor 1"),
        ("train/2.jpg 0 -1", "line 3: the label '-1' is neither 0 nor 1"),
        ("train/2.jpg 0.5 1", "line 3: the label '0.5' is neither 0 nor 1"),
        ("train/2.jpg 1 x", "line 3: 0 label columns"),
        ("train/2.jpg 1-0", "line 3: 0 label columns"),
        ("train/2.jpg1 0", "line 3: 1 label columns"),
        ("1 0", "line 3: 1 label columns"),
    ],
)
def test_a_malformed_line_is_named_by_file_and_number(tree, row, says):
    rewrite(tree, "train.txt", lambda rows: [*rows[:2], row, *rows[3:]])
    with pytest.raises(UserError, match=rf"train\.txt, {says}"):
        load(tree)


@pytest.mark.parametrize("row", ["train/0.jpg", "train/0.jpg 3", "train/0.jpg 1", "1 0"])
def test_a_first_line_without_columns_is_refused(tree, row):
    rewrite(tree, "train.txt", lambda rows: ["", row, *rows[1:]])
    with pytest.raises(UserError, match=r"train\.txt, line 2: .* does not end in 0/1 columns"):
        load(tree)


def test_lists_of_different_widths_are_refused(tree):
    rewrite(tree, "database.txt", lambda rows: [row + " 0" for row in rows])
    with pytest.raises(
        UserError, match=r"database\.txt has 3 label columns and .*train\.txt has 2"
    ):
        load(tree)


def test_an_empty_a_binary_and_a_missing_list_are_refused(tree):
    (tree / "lists" / "database.txt").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(UserError, match=r"database\.txt cannot be read .* save it as UTF-8"):
        load(tree)
    (tree / "lists" / "database.txt").write_text("\n \n")
    with pytest.raises(UserError, match=r"database\.txt is empty"):
        load(tree)
    (tree / "lists" / "database.txt").unlink()
    with pytest.raises(UserError, match=r"has no database\.txt: --lists must be"):
        load(tree)
    (tree / "lists" / "test.txt").unlink()
    with pytest.raises(UserError, match=r"has no test\.txt or query\.txt"):
        load(tree)


def test_missing_options_and_folders_are_named(tree):
    for options in ({"lists": None}, {"root": None}):
        with pytest.raises(UserError, match=r"--lists DIR, and .* --root DIR"):
            load(tree, **options)
    with pytest.raises(UserError, match="none is not a folder: --root"):
        load(tree, root=tree / "none")
    with pytest.raises(UserError, match=r"none of the first 6 images .* lies under .*train/0.jpg"):
        load(tree, root=tree / "lists")


def test_a_named_protocol_refuses_lists_of_other_counts_and_says_both(tree, monkeypatch):
    with pytest.raises(UserError, match="coco has 10000 train images, but here are 6"):
        load(tree, name="coco", size=None)
    ours = replace(data.PROTOCOLS["coco"], train=6, query=4, database=8)
    monkeypatch.setitem(data.PROTOCOLS, "coco", ours)
    with pytest.raises(UserError, match="coco has 80 classes, but here are 2"):
        load(tree, name="coco", size=None)
    monkeypatch.setitem(data.PROTOCOLS, "coco", replace(ours, classes=2, top_k=3, side=32))
    found = load(tree, name="coco", size=None)
    assert (found.name, found.top_k, found.size) == ("coco", 3, 224)
    named = replace(data.PROTOCOLS["coco"], class_names=("person", "bicycle"))
    monkeypatch.setitem(data.PROTOCOLS, "coco", named)
    assert load(tree, name="coco", size=None).classes == ("person", "bicycle")
    # The published counts include the queries without a tag, which are then left out.
    rewrite(tree, "test.txt", lambda rows: [*rows[:3], "test/3.jpg 0 0"])
    assert len(load(tree, name="coco", size=None).query) == 3
