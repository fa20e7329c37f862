"""What a cache holds, and that pruning takes nothing that is used or named."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from hashbackdoor_bench import RunSpec, UserError
from hashbackdoor_bench.cli import main
from hashbackdoor_bench.spec import canonical, digest
from hashbackdoor_bench.stages.artifact import Damaged
from hashbackdoor_bench.stages.cache import Cache
from hashbackdoor_bench.stages.cache_users import in_use, keys_in_use, no_new_users
from hashbackdoor_bench.stages.pipeline import run
from hashbackdoor_bench.stages.pruning import CHECKPOINT, entries, prune, referenced

DAY = 86400.0


def filled(
    tmp_path: Path, ages: dict[str, float], kind: str = "train"
) -> tuple[Cache, dict[str, str]]:
    """A cache with an artifact of about 8 kB for each name, last used so many days ago."""
    cache, keys = Cache(tmp_path / "c"), {}
    for name, age in ages.items():
        inputs = {"name": name}
        made = cache.make(kind, inputs, lambda work: ({"x": torch.zeros(2000)}, {}))
        keys[name] = made.key
        then = time.time() - age * DAY
        folder = cache.root / kind / made.key
        for path in (*folder.iterdir(), folder):
            os.utime(path, (then, then))
    return cache, keys


def left(cache: Cache) -> set[str]:
    return {key for _, key, _ in cache.stored()}


def test_entries_have_size_and_age_the_oldest_first(tmp_path):
    cache, keys = filled(tmp_path, {"new": 1, "old": 9})
    found = entries(cache)
    assert [entry.key for entry in found] == [keys["old"], keys["new"]]
    assert found[0].age == pytest.approx(9 * DAY, abs=60)
    assert all(8000 < entry.size < 12000 for entry in found)
    cache.find("train", keys["old"])
    assert entries(cache)[-1].key == keys["old"]  # reading it is using it


def test_pruning_by_age_takes_what_is_older(tmp_path):
    cache, keys = filled(tmp_path, {"a": 1, "b": 29, "c": 31})
    assert [e.key for e in prune(cache, older_than=30 * DAY, dry_run=True)] == [keys["c"]]
    assert left(cache) == set(keys.values())
    assert [e.key for e in prune(cache, older_than=30 * DAY)] == [keys["c"]]
    assert left(cache) == {keys["a"], keys["b"]}


def test_pruning_by_size_takes_the_oldest_until_the_rest_fits(tmp_path):
    cache, keys = filled(tmp_path, {"a": 3, "b": 2, "c": 1})
    size = entries(cache)[0].size
    assert not prune(cache, keep=3 * size + 100)
    assert [entry.key for entry in prune(cache, keep=2 * size + 100)] == [keys["a"]]
    assert left(cache) == {keys["b"], keys["c"]}
    prune(cache, keep=0)
    assert not left(cache)


def test_conditions_hold_together(tmp_path):
    cache, keys = filled(tmp_path, {"a": 3, "b": 2, "c": 1})
    gone = prune(cache, older_than=1.5 * DAY, keep=2 * entries(cache)[0].size + 100)
    assert [entry.key for entry in gone] == [keys["a"]]
    assert len(prune(cache, older_than=1.5 * DAY, keep=0)) == 1


def test_what_a_running_process_uses_stays(tmp_path):
    cache, keys = filled(tmp_path, {"a": 3, "b": 2})
    with in_use(cache.root, [keys["a"]]):
        assert [entry.key for entry in prune(cache, keep=0)] == [keys["b"]]
    assert [entry.key for entry in prune(cache, keep=0)] == [keys["a"]]
    assert not list((cache.root / "users").iterdir())


def test_a_use_ends_with_its_process_however_that_ends(tmp_path):
    cache, keys = filled(tmp_path, {"a": 3})
    code = (
        "import sys, time\nfrom pathlib import Path\n"
        "from hashbackdoor_bench.stages.cache_users import in_use\n"
        "with in_use(Path(sys.argv[1]), [sys.argv[2]]): print(1, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(cache.root), keys["a"]], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    assert keys_in_use(cache.root) == {keys["a"]}
    assert not prune(cache, keep=0)
    process.kill()
    process.wait()
    (cache.root / "users" / "killed-before-its-keys-were-written.lock").touch()
    assert keys_in_use(cache.root) == set()
    assert not list((cache.root / "users").iterdir())
    assert len(prune(cache, keep=0)) == 1


def test_no_user_appears_while_the_cache_is_pruned(tmp_path):
    import threading

    began, using = threading.Event(), threading.Event()

    def start() -> None:
        began.set()
        with in_use(tmp_path, ["k"]):
            using.set()

    thread = threading.Thread(target=start)
    with no_new_users(tmp_path):
        thread.start()
        began.wait(5)
        assert not using.wait(0.3)
    assert using.wait(5)
    thread.join()


def test_a_checkpoint_goes_unless_its_stage_is_being_made_or_used(tmp_path):
    cache, seen = Cache(tmp_path), []

    def build(work: Path):
        (work / "checkpoint").write_text("epoch 3")
        seen.extend(prune(cache, keep=0))
        assert (work / "checkpoint").exists()
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        cache.make("train", {}, build)
    assert not seen
    key = cache.key("train", {})
    with in_use(cache.root, [key]):
        assert not prune(cache, keep=0)
    (gone,) = prune(cache, keep=0)
    assert (gone.kind, gone.key) == (CHECKPOINT, key)
    assert not list((tmp_path / "work").iterdir())


def test_what_records_name_stays_and_what_its_backdoors_share(tiny, tmp_path):
    spec = {
        "dataset": "lists", "lists": str(tiny), "root": str(tiny), "size": 16, "top_k": 20,
        "bits": 12, "epochs": 1, "batch_size": 16, "attack": "tri", "victim": "csq",
        "attack_settings": (("steps", 2),),
    }  # fmt: skip
    cache, results = Cache(tmp_path / "c"), tmp_path / "r"
    record, _, _ = run(RunSpec(**spec), cache=cache, results=results)
    _, second, _ = run(RunSpec(**spec, seed=1), cache=cache, results=results)
    kinds = {kind for kind, _, _ in cache.stored()}
    assert "shared" in kinds
    assert not prune(cache, unreferenced=results)
    second.unlink()
    gone = prune(cache, unreferenced=results)
    assert {entry.kind for entry in gone} == kinds
    assert len(gone) == len(entries(cache))
    assert set(record.artifacts.values()) <= left(cache)
    before = left(cache)
    run(RunSpec(**spec), cache=cache, results=results)
    assert left(cache) == before


def test_without_a_readable_record_nothing_is_unreferenced(tmp_path):
    cache, keys = filled(tmp_path, {"a": 3})
    results = tmp_path / "r"
    results.mkdir()
    with pytest.raises(UserError, match="holds no record, so everything would be removed"):
        prune(cache, unreferenced=results)
    (results / "old.json").write_text(json.dumps({"schema": 0, "artifacts": {"v": keys["a"]}}))
    (results / "other.json").write_text("[1]")
    assert referenced(results) == {keys["a"]}
    assert not prune(cache, unreferenced=results)
    (results / "half.json").write_text("{")
    with pytest.raises(UserError, match=r"half.json can't be read"):
        prune(cache, unreferenced=results)


def test_the_command_lists_and_prunes(tmp_path, capsys):
    cache, _ = filled(tmp_path, {"a": 40, "b": 2})
    filled(tmp_path, {"c": 0}, kind="codes")
    where = ["--cache-dir", str(cache.root)]
    assert main(["cache", "list", *where]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split()[:2] == ["train", "2"]
    assert lines[2].endswith("2 d to 6 w ago")
    assert lines[1].split()[:2] == ["codes", "1"]
    assert main(["cache", "prune", *where, "--older-than", "30d", "--dry-run"]) == 0
    assert "would go" in capsys.readouterr().out
    assert main(["cache", "prune", *where, "--older-than", "30d"]) == 0
    assert "gone" in capsys.readouterr().out
    assert len(left(cache)) == 2


def test_an_artifact_travels_as_bytes_and_is_checked_on_arrival(tmp_path):
    cache, keys = filled(tmp_path, {"a": 1, "b": 1})
    other = Cache(tmp_path / "other")
    files = cache.pack("train", keys["a"])
    for wrong in (
        (files[0], files[1][:-1] + b"x"),
        (files[0].replace(b'"name":"a"', b'"name":"x"'), files[1]),
    ):
        with pytest.raises(Damaged):
            other.unpack("train", keys["a"], wrong)
    with pytest.raises(Damaged, match="it is train"):
        other.unpack("train", keys["b"], files)
    body = json.loads(files[0]) | {"inputs": {"name": "x"}}
    del body["check"]
    forged = canonical({**body, "check": digest(body)}).encode()
    with pytest.raises(Damaged, match="another artifact"):
        other.unpack("train", keys["a"], (forged, files[1]))
    assert not left(other)
    other.unpack("train", keys["a"], files)
    other.unpack("train", keys["a"], (b"", b""))  # it is here: nothing is read
    found = other.find("train", keys["a"])
    assert found is not None
    assert torch.equal(found.tensors["x"], torch.zeros(2000))
    assert other.pack("train", keys["a"]) == files
