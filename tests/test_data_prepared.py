"""Prepared images: when they are decoded anew, and what `prepare` and `verify` do with damage."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import torch
from listed_images import load, picture, rewrite, verify, where

from hashbackdoor_bench import data
from hashbackdoor_bench.data import content, manifest, prepared, writing
from hashbackdoor_bench.errors import UserError


@pytest.fixture
def folder(tree):
    """The prepared folder of the tree."""
    return data.prepare("lists", **where(tree))


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


def test_an_image_of_several_splits_is_decoded_once(tree, monkeypatch):
    rewrite(tree, "database.txt", lambda rows: ["train/3.jpg 0 1", *rows])
    decoded = []
    own = writing.decode
    monkeypatch.setattr(writing, "decode", lambda f, s: decoded.append(f) or own(f, s))
    found = load(tree)
    assert len(decoded) == len(set(decoded)) == 18
    assert torch.equal(found.database.images[0], found.train.images[3])


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
