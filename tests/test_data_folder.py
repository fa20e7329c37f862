"""The folder protocol: class folders are split by the named shares."""

import pytest
from listed_images import picture

from hashbackdoor_bench import data
from hashbackdoor_bench.errors import UserError


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
