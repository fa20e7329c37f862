import os
from pathlib import Path

import pytest
import torch

from hashbackdoor_bench import RunSpec, UserError
from hashbackdoor_bench.cli import main
from hashbackdoor_bench.stages.cache import READ_ONLY, Cache, open_cache
from hashbackdoor_bench.stages.pipeline import run


def build(work: Path):
    return {"x": torch.arange(3)}, {"n": 3}


def never(work: Path):
    pytest.fail("made again")


def state(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """All files of a folder with their times and content, and the times of its folders."""
    return {
        path.relative_to(folder).as_posix(): (
            path.stat().st_mtime_ns,
            path.stat().st_mode,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A cache with one artifact."""
    Cache(tmp_path / "other").make("stage", {}, build)
    return tmp_path / "other"


def test_an_artifact_of_another_cache_is_taken_from_there_and_nothing_is_written_there(
    other: Path, tmp_path: Path
):
    before = state(other)
    cache = Cache(tmp_path / "own", [other])
    found = cache.make("stage", {}, never)
    assert torch.equal(found.tensors["x"], torch.arange(3))
    assert cache.has("stage", found.key)
    assert cache.keys("stage") == {found.key}
    assert not list((tmp_path / "own").rglob("*.safetensors"))
    cache.make("stage", {"new": 1}, build)
    assert state(other) == before
    assert len(list((tmp_path / "own").rglob("*.safetensors"))) == 1


def test_the_own_artifact_comes_before_that_of_another_cache(other: Path, tmp_path: Path):
    own = Cache(tmp_path / "own")
    own.make("stage", {}, lambda work: ({"x": torch.zeros(1)}, {}))
    found = Cache(tmp_path / "own", [other]).make("stage", {}, never)
    assert found.tensors["x"].tolist() == [0]


@pytest.mark.parametrize("name", ["facts.json", "tensors.safetensors"])
def test_a_damaged_artifact_of_another_cache_is_ignored_and_made_in_the_own(
    other: Path, tmp_path: Path, name: str
):
    (path,) = other.rglob(name)
    path.write_bytes(path.read_bytes()[:-3])
    before = state(other)
    cache = Cache(tmp_path / "own", [other])
    with pytest.warns(UserWarning, match="is damaged .*: ignored") as told:
        made = cache.make("stage", {}, build)
    assert len(told) == 1
    assert torch.equal(made.tensors["x"], torch.arange(3))
    assert state(other) == before
    assert cache.pack("stage", made.key) == Cache(tmp_path / "own").pack("stage", made.key)


def test_a_damaged_own_artifact_is_replaced_by_that_of_another_cache(other: Path, tmp_path: Path):
    made = Cache(tmp_path / "own").make("stage", {}, build)
    path = tmp_path / "own/stage" / made.key / "facts.json"
    path.write_bytes(b"{")
    cache = Cache(tmp_path / "own", [other])
    with pytest.warns(UserWarning, match="made again"):
        assert cache.make("stage", {}, never).key == made.key
    assert not path.exists()


def test_the_next_cache_is_asked_where_one_is_damaged(other: Path, tmp_path: Path):
    Cache(tmp_path / "bad").make("stage", {}, build)
    (path,) = (tmp_path / "bad").rglob("tensors.safetensors")
    path.write_bytes(b"")
    with pytest.warns(UserWarning, match="bad is damaged"):
        Cache(tmp_path / "own", [tmp_path / "bad", other]).make("stage", {}, never)


def test_pruning_removes_nothing_of_another_cache(other: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv(READ_ONLY, str(other))
    Cache(tmp_path / "own").make("stage", {"own": 1}, build)
    before = state(other)
    assert main(["cache", "prune", "--cache-dir", str(tmp_path / "own"), "--keep", "0B"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[:2] == ["gone", "1"]
    assert state(other) == before


def test_the_list_says_which_artifacts_are_from_another_cache(
    other: Path, tmp_path: Path, monkeypatch, capsys
):
    monkeypatch.setenv(READ_ONLY, str(other))
    before = state(other)
    Cache(tmp_path / "own").make("mine", {}, build)
    assert main(["cache", "list", "--cache-dir", str(tmp_path / "own")]) == 0
    own, theirs = capsys.readouterr().out.split("\n\n")
    assert "mine " in own
    assert "stage " not in own
    assert "stage " in theirs
    assert f"in {other}, which is only read" in theirs
    assert state(other) == before


def test_several_folders_are_named_with_a_colon_between_them(tmp_path: Path, monkeypatch):
    folders = [tmp_path / name for name in ("a", "b", "own")]
    for folder in folders:
        folder.mkdir()
    monkeypatch.setenv(READ_ONLY, os.pathsep.join(map(str, folders)))
    assert open_cache(tmp_path / "own").others == tuple(folders[:2])
    monkeypatch.delenv(READ_ONLY)
    assert open_cache(tmp_path / "own").others == ()


def test_a_folder_that_is_none_is_refused_with_what_to_type(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv(READ_ONLY, str(tmp_path / "gone"))
    assert main(["cache", "list", "--cache-dir", str(tmp_path / "own")]) == 2
    assert "which is no folder: give folders of caches" in capsys.readouterr().err
    with pytest.raises(UserError):
        open_cache(tmp_path / "own")


def test_a_run_takes_all_its_stages_from_another_cache(tiny: Path, tmp_path: Path):
    spec = RunSpec(attack="badnets_clean", victim="csq", dataset="lists", lists=str(tiny),
                   root=str(tiny), size=16, top_k=20, bits=12, epochs=1, batch_size=16)  # fmt: skip
    first, *_ = run(spec, cache=Cache(tmp_path / "c"), results=tmp_path / "r", device="cpu")
    own = Cache(tmp_path / "own", [tmp_path / "c"])
    second, *_ = run(spec, cache=own, results=tmp_path / "s", device="cpu")
    assert second == first
    assert not list(own.stored())


def test_reproducing_a_record_asks_no_other_cache(tiny: Path, tmp_path: Path, monkeypatch, capsys):
    spec = RunSpec(attack="badnets_clean", victim="csq", dataset="lists", lists=str(tiny),
                   root=str(tiny), size=16, top_k=20, bits=12, epochs=1, batch_size=16)  # fmt: skip
    _, path, _ = run(spec, cache=Cache(tmp_path / "c"), results=tmp_path / "r", device="cpu")
    monkeypatch.setenv(READ_ONLY, str(tmp_path / "c"))
    again = tmp_path / "again"
    assert main(["reproduce", str(path), "--device", "cpu", "--cache-dir", str(again)]) == 0
    kinds = {kind for kind, *_ in Cache(again).stored()}
    assert {"train", "backdoor", "codes", "scores"} <= kinds
