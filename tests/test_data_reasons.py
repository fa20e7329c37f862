"""Every file of a folder or list is an image of the set or is counted: finding and decoding."""

import os
import socket
import warnings
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from hashbackdoor_bench import data
from hashbackdoor_bench.data.decode import endings
from hashbackdoor_bench.data.folder import find_images
from hashbackdoor_bench.data.reasons import Reason
from hashbackdoor_bench.errors import UserError


def picture(seed, size=(40, 30)):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


@pytest.fixture
def root(tmp_path):
    """Class folders cat and dog with ten different images each."""
    for number, name in enumerate(("cat", "dog")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(10):
            picture(10 * number + i).save(tmp_path / "images" / name / f"{i}.png")
    return tmp_path / "images"


def load(root, **options):
    return data.load(
        "folder", **{"root": root, "cache": root.parent / "cache", "size": 32} | options
    )


def ids_of(found):
    return [*found.train.ids, *found.query.ids, *found.database.ids]


def counted(root):
    return {reason: sorted(names) for reason, names in find_images(root).reasons.names.items()}


def test_hidden_files_and_folders_are_counted_and_not_read(root):
    (root / "cat" / ".ipynb_checkpoints").mkdir()
    for name in ("cat/.ipynb_checkpoints/0-checkpoint.png", "cat/._1.png", "dog/Thumbs.db"):
        (root / name).write_bytes((root / "cat" / "0.png").read_bytes())
    (root / "__MACOSX" / "cat").mkdir(parents=True)
    (root / ".DS_Store").write_text("x")
    assert counted(root) == {
        Reason.HIDDEN: [
            ".DS_Store", "__MACOSX/", "cat/._1.png", "cat/.ipynb_checkpoints/", "dog/Thumbs.db",
        ]
    }  # fmt: skip
    found = load(root)
    assert found.classes == ("cat", "dog")
    assert len(ids_of(found)) == 20
    assert any("hidden files and folders: 5 (" in note for note in found.notes)


def test_files_that_are_no_images_of_a_class_are_counted_with_the_reason(root):
    for name in ("cat/notes.txt", "cat/a.npz", "dog/paper.pdf", "dog/plot.eps", "dog/noending"):
        (root / name).write_bytes(b"x")
    picture(99).save(root / "loose.png")
    (root / "readme.md").write_text("x")
    assert counted(root) == {
        Reason.OTHER_TYPE: [
            "cat/a.npz", "cat/notes.txt", "dog/noending", "dog/paper.pdf", "dog/plot.eps",
            "readme.md",
        ],
        Reason.OUTSIDE: ["loose.png"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        ("jfif", "JPEG"), ("jpe", "JPEG"), ("JPG", "JPEG"), ("avif", "AVIF"), ("jp2", "JPEG2000"),
        ("webp", "WEBP"), ("TIF", "TIFF"), ("bmp", "BMP"), ("gif", "GIF"), ("tga", "TGA"),
        ("ico", "ICO"), ("pcx", "PCX"), ("qoi", "QOI"), ("pgm", "PPM"),
    ],
)  # fmt: skip
def test_all_that_pillow_reads_is_an_image_by_its_ending(root, ending, kind):
    picture(99).save(root / "cat" / f"z.{ending}", kind)
    assert f"cat/z.{ending}" in ids_of(load(root))


def test_formats_that_pillow_passes_to_other_programs_are_no_images():
    assert {".png", ".avif", ".jp2", ".jfif"} <= endings()
    assert not {".eps", ".ps", ".wmf", ".emf", ".pdf", ".mpg", ".h5"} & endings()


def test_linked_folders_are_followed_once_and_never_in_a_circle(root):
    disk = root.parent / "disk" / "part"
    disk.mkdir(parents=True)
    picture(50).save(disk / "l.png")
    (root / "cat" / "part").symlink_to(disk)
    (disk / "back").symlink_to(root / "cat")  # back into the class
    (disk / "up").symlink_to(root.parent)  # above the root
    (disk / "self").symlink_to(disk)
    (root / "dog" / "a-twin").symlink_to(root / "cat")  # would make every cat a dog
    (root / "cat" / "loop").symlink_to("loop")
    (root / "cat" / "gone.png").symlink_to("nowhere.png")
    assert counted(root) == {
        Reason.LINK: ["cat/part/back/", "cat/part/self/", "cat/part/up/", "dog/a-twin/"],
        Reason.BROKEN_LINK: ["cat/gone.png", "cat/loop"],
        Reason.FOLLOWED: ["cat/part/"],
    }
    found = load(root)
    assert "cat/part/l.png" in ids_of(found)
    assert len(ids_of(found)) == 21
    assert any("dog/a-twin/" in note for note in found.notes)


def test_a_linked_image_and_a_linked_class_folder_are_read(root):
    other = root.parent / "elsewhere"
    (root / "dog").rename(other)
    (root / "dog").symlink_to(other)
    picture(51).save(root.parent / "single.png")
    (root / "cat" / "x.png").symlink_to(root.parent / "single.png")
    assert {"cat/x.png", "dog/3.png"} <= set(ids_of(load(root)))
    assert counted(root) == {Reason.FOLLOWED: ["dog/"]}


def test_a_class_that_is_a_link_to_what_is_read_anyway_is_refused_with_the_reason(root):
    for target in (root / "cat", root, root.parent):
        (root / "elk").symlink_to(target)
        with pytest.raises(UserError, match=r"elk holds 0 images.*holds this one: 1 \(elk/\)"):
            load(root)
        (root / "elk").unlink()


def test_pipes_sockets_and_devices_among_images_are_counted_and_never_opened(root):
    os.mkfifo(root / "cat" / "pipe.png")
    (root / "cat" / "link.png").symlink_to("pipe.png")
    (root / "cat" / "zero.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as one:
        here = os.getcwd()
        os.chdir(root / "cat")  # a socket's address is short
        one.bind("s.png")
        os.chdir(here)
    names = ["cat/link.png", "cat/pipe.png", "cat/s.png", "cat/zero.png"]
    assert counted(root) == {Reason.NOT_REGULAR: names}
    assert len(ids_of(load(root))) == 20


def test_a_pipe_in_a_list_is_unreadable(tmp_path):
    rows = []
    for i in range(9):
        picture(i).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png {i % 2} {(i + 1) % 2}\n")
    (tmp_path / "5.png").unlink()
    os.mkfifo(tmp_path / "5.png")
    for name, part in (("train", rows[:3]), ("database", rows[3:6]), ("test", rows[6:])):
        (tmp_path / f"{name}.txt").write_text("".join(part))
    with pytest.raises(UserError, match=r"1 of the 3 database images .*5\.png \(a pipe, device"):
        data.load("lists", cache=tmp_path, lists=tmp_path, root=tmp_path, size=32)


def test_names_that_are_not_utf_8_are_read_and_spelled(root):
    for folder, name in ((b"cat", b"\xff\xfe.png"), (b"cat", b"\xfc.txt")):
        where = os.path.join(os.fsencode(root), folder, name)
        picture(70).save(os.fsdecode(where), "PNG")
    os.mkdir(os.path.join(os.fsencode(root), b"\xe9t\xe9"))
    for i in range(3):
        picture(80 + i).save(
            os.fsdecode(os.path.join(os.fsencode(root), b"\xe9t\xe9", b"%d.png" % i))
        )
    found = load(root)
    assert r"cat/\xff\xfe.png" in ids_of(found)
    assert found.classes == ("cat", "dog", r"\xe9t\xe9")
    assert any(r"cat/\udcfc.txt" in note for note in found.notes)
    "\n".join(found.notes).encode()  # every note can be written anywhere


def test_copies_in_two_splits_are_left_out_and_named(root):
    for i in range(10):
        Image.open(root / "cat" / f"{i}.png").save(root / "cat" / f"copy of {i}.bmp")
    found = load(root)
    seen = Counter()
    for split in (found.train, found.query, found.database):
        seen.update({image.numpy().tobytes() for image in split.images})
    assert set(seen.values()) == {1}
    assert len(seen) == 20
    beside = 30 - len(ids_of(found))
    (note,) = [note for note in found.notes if "as an image of another split" in note]
    assert f": {beside} (cat/" in note
    manifest = data.prepare("folder", root=root, cache=root.parent / "cache", size=32)
    assert "copy of" in (manifest / "manifest.json").read_text()


def test_a_set_of_which_nothing_is_left_is_refused(root):
    for file in root.rglob("*.png"):
        picture(0).save(file)
    with pytest.raises(UserError, match=r"no train image of folder is left .*same pixels"):
        load(root)


def test_a_class_that_lost_its_last_image_of_a_split_is_named(root):
    first = load(root)
    dogs = [name for name in first.train.ids if name.startswith("dog")]
    for name in dogs:  # all dogs of train become the query that is a dog
        picture(77).save(root / name)
    (query,) = [name for name in first.query.ids if name.startswith("dog")]
    picture(77).save(root / query)
    found = load(root)
    assert found.query.ids == first.query.ids
    assert not any(name.startswith("dog") for name in found.train.ids)
    assert "No train image is left of 1 classes (dog)." in found.notes


def test_lists_keep_their_copies_and_count_the_queries_among_them(tmp_path):
    names = ["a", "b", "c", "d", "e", "f"]
    for i, name in enumerate(names):
        picture(i).save(tmp_path / f"{name}.png")
    picture(2).save(tmp_path / "f.png")  # as c
    for name, part in (("train", "ab"), ("test", "cd"), ("database", "ef")):
        (tmp_path / f"{name}.txt").write_text("".join(f"{one}.png 1 0\n" for one in part))
    found = data.load("lists", cache=tmp_path / "k", lists=tmp_path, root=tmp_path, size=32)
    assert len(found.database) == 2
    assert any(note.endswith("a train or database image: 1 (c.png).") for note in found.notes)


def test_how_a_folder_is_split_stands_in_the_notes(root):
    first = load(root).notes[0]
    assert "30% of the images were drawn for train, 10% for query" in first
    assert "6 train, 2 query, 12 database images" in first
    assert load(root).notes[-1].startswith("R is cut from 1000 to 12")


def test_images_of_one_colour_are_kept_and_counted(root):
    Image.new("RGB", (9, 9), "teal").save(root / "cat" / "flat.png")
    assert any("single colour: 1 (cat/flat.png)" in note for note in load(root).notes)


def classes(root, *names):
    for folder in list(root.iterdir()):
        folder.rename(root.parent / folder.name)
    for number, name in enumerate(names):
        (root / name).mkdir()
        for i in range(4):
            picture(1000 * number + i).save(root / name / f"{i}.png")
    return load(root)


def test_a_class_is_meant_exactly_or_else_uniquely(root):
    found = classes(root, "Crane", "crane", "Dog", "caf\u00e9")
    assert found.classes == ("Crane", "Dog", "caf\u00e9", "crane")
    assert [found.class_index(name) for name in ("Crane", "crane", "dog", "DOG")] == [0, 3, 1, 1]
    assert found.class_index("cafe\u0301") == found.class_index("CAF\u00c9") == 2
    with pytest.raises(UserError, match=r"'CRANE' is not unique.*'Crane' \(number 0\) or 'crane'"):
        found.class_index("CRANE")


def test_classes_in_two_unicode_forms_are_told_apart(root):
    found = classes(root, "caf\u00e9", "cafe\u0301")
    for name in found.classes:
        assert found.classes[found.class_index(name)] == name
    with pytest.raises(UserError, match=r"'cafe\\u0301' \(number 0\) or 'caf\\xe9' \(number 1\)"):
        found.class_index("CAF\u00c9")


@pytest.mark.parametrize("prefix", ["", "C:\\Users\\me\\data\\", ".\\"])
def test_lists_with_backslashes_are_read(tmp_path, prefix):
    (tmp_path / "cat").mkdir()
    for i in range(6):
        picture(i).save(tmp_path / "cat" / f"{i}.png")
    for name, part in (("train", (0, 1)), ("test", (2, 3)), ("database", (4, 5))):
        rows = "".join(f"{prefix}cat\\{i}.png {i % 2} {1 - i % 2}\r\n" for i in part)
        (tmp_path / f"{name}.txt").write_text(rows)
    found = data.load("lists", cache=tmp_path / "k", lists=tmp_path, root=tmp_path, size=32)
    assert found.query.ids[0] == f"{prefix}cat\\2.png"
    small = picture(2).resize((32, 32), Image.Resampling.BICUBIC)
    assert np.array_equal(found.query.images[0].permute(1, 2, 0), np.asarray(small))


@pytest.mark.parametrize(("size", "side"), [(20, 20), (64, 64), (96, 110), (128, 146), (224, 256)])
def test_images_of_any_size_are_stored_with_a_border_if_they_are_large(root, size, side):
    found = load(root, size=size)
    assert found.train.images.shape[-2:] == (side, side)
    assert found.size == size
    assert found.backbone == ("cnn32" if size <= 192 else "resnet50")


def test_unreadable_images_are_named_up_to_twenty(root):
    for i in range(30):
        (root / "cat" / f"bad{i:02d}.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"of the \d+ \w+ images cannot be read.*--tolerance 0\."):
        load(root)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        data.prepare("folder", root=root, cache=root.parent / "cache", size=32, tolerance=0.9)
    (note,) = [str(one.message) for one in said if "can't be read" in str(one.message)]
    assert "images that can't be read: 30 (" in note
    assert note.count("bad") == 20
    assert note.endswith("and 10 more).")


@pytest.mark.parametrize("tolerance", [-0.1, 1.5, float("nan")])
def test_a_tolerance_that_is_no_share_is_refused(root, tolerance):
    with pytest.raises(UserError, match=r"--tolerance is .*between 0 and 1"):
        load(root, tolerance=tolerance)
