"""List and folder protocols on small JPEG trees, and what `prepare` and `verify` do with them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from hashbackdoor_bench import data
from hashbackdoor_bench.data import content, lists, manifest, prepared, writing
from hashbackdoor_bench.data import decode as decoding
from hashbackdoor_bench.errors import UserError

SIZES = {"train": 6, "test": 4, "database": 8}
CUT = "R is cut from 1000 to {}, the number of database images."


def picture(seed, size=(40, 30)):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


@pytest.fixture
def tree(tmp_path):
    """18 JPEG images under images/, three lists of two tags under lists/; row i has tag i % 2."""
    (tmp_path / "lists").mkdir()
    number = 0
    for name, count in SIZES.items():
        folder = tmp_path / "images" / name
        folder.mkdir(parents=True)
        rows = []
        for i in range(count):
            picture(number).save(folder / f"{i}.jpg", quality=95)
            rows.append(f"{name}/{i}.jpg {int(i % 2 == 0)} {int(i % 2 == 1)}")
            number += 1
        (tmp_path / "lists" / f"{name}.txt").write_text("\n".join(rows) + "\n")
    return tmp_path


def where(tree):
    return {
        "cache": tree / "cache",
        "lists": tree / "lists",
        "root": tree / "images",
        "size": 32,
    }


def load(tree, name="lists", **options):
    return data.load(name, **{**where(tree), **options})


def verify(tree, **options):
    return data.verify("lists", **where(tree), **options)


@pytest.fixture
def folder(tree):
    """The prepared folder of the tree."""
    return data.prepare("lists", **where(tree))


def rewrite(tree, name, change):
    file = tree / "lists" / name
    file.write_text("\n".join(change(file.read_text().splitlines())) + "\n")


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


def test_loading_again_decodes_nothing_and_gives_the_same(tree, monkeypatch):
    first = load(tree)
    monkeypatch.setattr(writing, "decode", lambda *_: pytest.fail("decoded again"))
    again = load(tree)
    assert (again.sha256, again.pixels) == (first.sha256, first.pixels)
    assert torch.equal(again.database.images, first.database.images)


def test_a_changed_image_is_decoded_anew_and_changes_the_pixel_hash_only(tree):
    first = load(tree)
    time.sleep(0.01)
    picture(99).save(tree / "images" / "train" / "0.jpg", quality=95)
    second = load(tree)
    assert second.pixels != first.pixels
    assert second.sha256 == first.sha256
    assert not torch.equal(second.train.images[0], first.train.images[0])


def test_images_of_equal_size_and_time_are_told_apart_by_their_ids(tree):
    for i in range(2):
        file = tree / "images" / "train" / f"{i}.bmp"
        picture(i).save(file)
        os.utime(file, (0, 0))
    rewrite(tree, "train.txt", lambda rows: ["train/0.bmp 1 0", "train/1.bmp 0 1"])
    first = load(tree)
    rewrite(tree, "train.txt", lambda rows: rows[::-1])
    assert torch.equal(load(tree).train.images, first.train.images.flip(0))


def test_writing_to_the_images_of_a_split_never_reaches_the_file(tree):
    found = load(tree)
    found.train.images[:] = 7
    assert verify(tree) == []
    assert not torch.equal(load(tree).train.images, found.train.images)


def test_a_map_larger_than_the_memory_can_be_opened(tmp_path):
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with (tmp_path / "large.u8").open("wb") as out:
        out.truncate(
            (memory * 2 // (3 * 1024**2)) * 3 * 1024**2
        )  # sparse: takes no room on the disk
    images = manifest.map_pixels(tmp_path / "large.u8", 1024)
    assert images[len(images) - 1, 2, 1023, 1023] == 0


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


def test_an_image_of_several_splits_is_decoded_once(tree, monkeypatch):
    rewrite(tree, "database.txt", lambda rows: ["train/3.jpg 0 1", *rows])
    decoded = []
    own = writing.decode
    monkeypatch.setattr(writing, "decode", lambda f, s: decoded.append(f) or own(f, s))
    found = load(tree)
    assert len(decoded) == len(set(decoded)) == 18
    assert torch.equal(found.database.images[0], found.train.images[3])


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


def test_progress_goes_from_zero_to_all_images(tree):
    said = []
    load(tree, progress=lambda *a, **_: said.append(a))
    assert said[0] == ("read lists", 0, 18)
    assert said[1] == ("read lists", 18, 18)
    assert said[2] == ("prepare lists", 0, 18)
    assert said[-1] == ("prepare lists", 18, 18)
    said.clear()
    verify(tree, progress=lambda *a, **_: said.append(a))
    assert said[-1] == ("verify lists", 18, 18)


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(tree, monkeypatch):
    monkeypatch.setattr(
        prepared.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1_000})()
    )
    with pytest.raises(UserError, match=r"lists takes 0\.0 GB .*--cache-dir"):
        load(tree)


def test_verify_finds_one_flipped_bit_and_names_the_image(tree, folder):
    assert verify(tree) == []
    content = bytearray((folder / "database.u8").read_bytes())
    content[3 * 3072 + 17] ^= 1
    (folder / "database.u8").write_bytes(content)
    (found,) = verify(tree)
    content[5 * 3072] ^= 1
    (folder / "database.u8").write_bytes(content)
    assert verify(tree) == [found]
    assert found.endswith(
        "database.u8 is not as it was written, first at the image database/3.jpg."
    )
    (folder / "train.u8").unlink()
    assert len(verify(tree)) == 2


def test_verify_asks_for_preparation_first(tree):
    with pytest.raises(UserError, match="type bench data prepare lists"):
        verify(tree)


def damage_size(folder):
    os.truncate(folder / "train.u8", 100)


def damage_zeros(folder):
    with (folder / "train.u8").open("r+b") as file:
        file.write(bytes(5000))


def damage_missing(folder):
    (folder / "query.u8").unlink()


def damage_folder(folder):
    (folder / "query.u8").unlink()
    (folder / "query.u8").mkdir()


def damage_link(folder):
    (folder / "query.u8").unlink()
    (folder / "query.u8").symlink_to(folder / "nowhere")


def damage_all(folder):
    shutil.rmtree(folder)
    folder.write_text("a file in place of the folder")


def damage_manifest(change):
    def damage(folder):
        file = folder / "manifest.json"
        content = json.loads(file.read_text())
        file.write_text(change(content) or json.dumps(content))

    return damage


DAMAGES = {
    "size": damage_size,
    "zeros": damage_zeros,
    "missing": damage_missing,
    "folder": damage_folder,
    "link": damage_link,
    "all": damage_all,
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "empty": damage_manifest(lambda m: " "),
    "list": damage_manifest(lambda m: "[]"),
    "cut": damage_manifest(lambda m: json.dumps(m)[:-3]),
    "deep": damage_manifest(lambda m: "[" * 100_000),
    "count": damage_manifest(lambda m: m["query"].update(count=5)),
    "name": damage_manifest(lambda m: m["query"]["images"].reverse()),
    "hash": damage_manifest(lambda m: m["query"].update(sha256="0" * 64)),
    "row": damage_manifest(lambda m: m["query"].update(left_out=[{"row": "one"}])),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_prepared_images_are_named_and_made_again(tree, folder, damage):
    whole = load(tree)
    train, query = whole.train.images.clone(), whole.query.images.clone()  # no longer the file
    DAMAGES[damage](folder)
    with pytest.warns(UserWarning, match=r"prepared images in .* are damaged .*: made again"):
        found = load(tree)
    assert torch.equal(found.train.images, train)
    assert torch.equal(found.query.images, query)
    assert found.pixels == whole.pixels
    assert verify(tree) == []


def test_prepared_images_of_another_set_in_this_ones_folder_are_found(tree, folder):
    whole = load(tree)
    picture(77).save(tree / "images" / "train" / "0.jpg", quality=95)
    other = data.prepare("lists", **where(tree))
    assert other != folder
    (other).rename(tree / "aside")
    folder.rename(other)
    (tree / "aside").rename(folder)
    with pytest.warns(UserWarning, match="belongs to other images"):
        found = load(tree)
    assert not torch.equal(found.train.images[0], whole.train.images[0])
    assert torch.equal(found.train.images[1:], whole.train.images[1:])


def test_pixels_are_hashed_again_only_after_a_change(tree, folder, monkeypatch):
    monkeypatch.setattr(content, "MARGIN", -1e9)  # as if all files were old
    load(tree)
    hashed = []
    own = manifest.sha256_of
    monkeypatch.setattr(manifest, "sha256_of", lambda path: hashed.append(path.name) or own(path))
    load(tree)
    assert hashed == []
    seen = (folder / "train.u8").stat()
    with (folder / "train.u8").open("r+b") as file:
        file.write(bytes(99))
    os.utime(folder / "train.u8", ns=(seen.st_atime_ns, seen.st_mtime_ns))
    with pytest.warns(UserWarning, match=r"train\.u8 not as written"):
        load(tree)
    assert hashed[:3] == ["train.u8", "query.u8", "database.u8"]


SLOW_PREPARE = """
    import sys, time
    from pathlib import Path
    from hashbackdoor_bench import data
    from hashbackdoor_bench.data import writing

    tree, own, decoded = Path(sys.argv[1]), writing.decode, []

    def slow(file, side):
        time.sleep(float(sys.argv[2]))
        decoded.append(file)
        return own(file, side)

    writing.decode = slow
    print("started", flush=True)
    folder = data.prepare("lists", cache=tree / "cache", lists=tree / "lists",
                          root=tree / "images", size=32)
    print(len(decoded), folder, flush=True)
"""


def start(tree, seconds):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SLOW_PREPARE), str(tree), str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_killed_prepare_leaves_no_folder_and_the_next_one_goes_through(tree):
    run = start(tree, 60)
    parts = tree / "cache" / "data"
    for _ in range(500):
        if parts.is_dir() and list(parts.glob("*.part/query.u8")):
            break
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    assert [p.suffix for p in sorted(parts.iterdir())] == [".lock", ".held", ".part"]
    assert not data.ready(data.PROTOCOLS["lists"], tree / "cache")
    assert len(load(tree).database) == 8
    assert verify(tree) == []
    assert not list(parts.glob("*.part"))
    assert data.ready(data.PROTOCOLS["lists"], tree / "cache")


def test_two_prepares_at_once_decode_each_image_once(tree):
    runs = [start(tree, 0.02) for _ in range(2)]
    answers = [run.communicate()[0].split() for run in runs]
    assert sorted(a[1] for a in answers) == ["0", "18"]
    assert answers[0][2] == answers[1][2]
    assert verify(tree) == []


@pytest.fixture
def classes(tmp_path):
    """Two class folders, cats 20 images and dogs 10, one of them deeper."""
    for name, count in (("cats", 20), ("dogs", 10)):
        (tmp_path / "root" / name / "deep").mkdir(parents=True)
        for i in range(count):
            where = tmp_path / "root" / name / ("deep" if i == 3 else "")
            picture(i + 100 * (name == "dogs")).save(
                where / f"{i:02d}.{'PNG' if i % 2 else 'jpeg'}"
            )
    (tmp_path / "root" / "cats" / "notes.txt").write_text("no image")
    (tmp_path / "root" / ".git").mkdir()
    return tmp_path


def test_a_folder_is_split_in_each_class_by_the_named_shares(classes):
    found = data.load("folder", root=classes / "root", cache=classes / "cache", size=32)
    assert found.classes == ("cats", "dogs")
    assert found.query.labels.sum(0).tolist() == [2, 1]
    assert found.train.labels.sum(0).tolist() == [6, 3]
    assert found.database.labels.sum(0).tolist() == [12, 6]
    ids = [*found.train.ids, *found.query.ids, *found.database.ids]
    assert len(set(ids)) == 30
    assert "dogs/deep/03.PNG" in ids
    for split in (found.train, found.query, found.database):
        for name, row in zip(split.ids, split.labels, strict=True):
            assert found.classes[row.argmax()] == name.split("/")[0]


def test_a_folder_is_split_alike_wherever_it_lies(classes):
    first = data.load("folder", root=classes / "root", cache=classes / "cache", size=32)
    (classes / "root").rename(classes / "elsewhere")
    again = data.load("folder", root=classes / "elsewhere", cache=classes / "cache", size=32)
    assert (again.sha256, again.pixels) == (first.sha256, first.pixels)


def test_a_class_folder_with_two_images_is_refused_and_three_are_enough(classes):
    for i in (4, 5, 6, 7, 8, 9):
        next((classes / "root" / "dogs").glob(f"{i:02d}.*")).unlink()
    for i in (0, 1):
        next((classes / "root" / "dogs").glob(f"{i:02d}.*")).unlink()
    with pytest.raises(UserError, match=r"dogs holds 2 images .* at least three"):
        data.load("folder", root=classes / "root", cache=classes / "cache", size=32)
    picture(1).save(classes / "root" / "dogs" / "x.jpg")
    found = data.load("folder", root=classes / "root", cache=classes / "cache", size=32)
    splits = (found.train, found.query, found.database)
    assert [int(s.labels[:, 1].sum()) for s in splits] == [1, 1, 1]


def test_a_root_without_class_folders_is_refused(classes):
    for root, says in (
        (None, "folder is not a folder"),
        (classes / "none", "none is not a folder"),
        (classes / "root" / "dogs", "holds 1 folders"),
    ):
        with pytest.raises(UserError, match=says):
            data.load("folder", root=root, cache=classes / "cache")
