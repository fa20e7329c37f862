import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from warm import WarmProcess

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.stages.cache import Cache


def build(work: Path):
    return {"x": torch.arange(3)}, {"n": 3}


def test_an_artifact_is_made_once_and_comes_back_equal(tmp_path: Path):
    cache = Cache(tmp_path)
    made = cache.make("stage", {"a": 1}, build)
    again = cache.make("stage", {"a": 1}, lambda work: pytest.fail("made again"))
    assert torch.equal(again.tensors["x"], torch.arange(3))
    assert again.facts == {"n": 3}
    assert (again.key, again.seconds) == (made.key, made.seconds)


@pytest.mark.parametrize("other", [("stage", {"a": 2}), ("other", {"a": 1}), ("stage", {"b": 1})])
def test_another_stage_or_input_has_another_key(tmp_path: Path, other):
    cache = Cache(tmp_path)
    assert cache.key(*other) != cache.key("stage", {"a": 1})


@pytest.mark.parametrize("name", ["facts.json", "tensors.safetensors"])
@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_a_damaged_artifact_is_reported_and_made_again(tmp_path: Path, name: str, harm: str):
    cache = Cache(tmp_path)
    key = cache.make("stage", {}, build).key
    path = tmp_path / "stage" / key / name
    content = bytearray(path.read_bytes())
    if harm == "flip":
        content[len(content) // 2] ^= 1
    path.write_bytes(content[:-5] if harm == "cut" else content)
    if harm == "remove":
        path.unlink()
    with pytest.warns(UserWarning, match="damaged"):
        again = cache.make("stage", {}, build)
    assert torch.equal(again.tensors["x"], torch.arange(3))
    assert cache.find("stage", key) is not None


def test_a_failing_stage_leaves_no_artifact_but_its_checkpoints(tmp_path: Path):
    cache = Cache(tmp_path)

    def fail(work: Path):
        (work / "checkpoint").write_text("epoch 3")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        cache.make("stage", {}, fail)
    assert cache.find("stage", cache.key("stage", {})) is None

    def go_on(work: Path):
        assert (work / "checkpoint").read_text() == "epoch 3"
        return build(work)

    cache.make("stage", {}, go_on)
    assert not list((tmp_path / "work").iterdir())


def test_two_processes_make_one_artifact_once(tmp_path: Path):
    code = """
import sys, time, torch
from pathlib import Path
from hashbackdoor_bench.stages.cache import Cache
root = Path(sys.argv[1])
def build(work):
    with (root / "log").open("a") as log: log.write("made\\n")
    time.sleep(1)
    return {"x": torch.arange(3)}, {}
print(Cache(root).make("stage", {}, build).key)
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    both = [WarmProcess(command, stdout=subprocess.PIPE) for _ in range(2)]
    keys = {process.stdout.read() for process in both}
    assert [process.wait(60) for process in both] == [0, 0]
    assert len(keys) == 1
    assert (tmp_path / "log").read_text() == "made\n"


def test_a_process_killed_while_it_writes_leaves_nothing_half(tmp_path: Path):
    code = """
import sys, time, torch
from pathlib import Path
from hashbackdoor_bench.stages import cache
save = cache.save_file
def slow(tensors, path):
    save(tensors, path)
    print("written", flush=True)
    time.sleep(60)
cache.save_file = slow
cache.Cache(Path(sys.argv[1])).make("stage", {}, lambda work: ({"x": torch.arange(3)}, {}))
"""
    process = WarmProcess([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    with process.stdout:
        assert process.stdout.readline() == b"written\n"
    process.kill()
    assert process.wait() == -signal.SIGKILL
    cache = Cache(tmp_path)
    assert cache.find("stage", cache.key("stage", {})) is None
    assert torch.equal(cache.make("stage", {}, build).tensors["x"], torch.arange(3))
    assert not list((tmp_path / "work").iterdir())


def test_waiting_for_another_process_is_said(tmp_path: Path):
    cache, said = Cache(tmp_path), []
    started, release = threading.Event(), threading.Event()

    def slow(work: Path):
        started.set()
        release.wait(10)
        return build(work)

    def told(stage: str, done: int, total: int, **facts: float) -> None:
        said.append(stage)
        release.set()

    first = threading.Thread(target=cache.make, args=("stage", {}, slow))
    first.start()
    started.wait(10)
    Cache(tmp_path).make("stage", {}, lambda work: pytest.fail("made twice"), told)
    first.join()
    assert any("waiting" in text for text in said)


def test_seconds_add_up_over_interrupted_tries(tmp_path: Path):
    cache = Cache(tmp_path)

    def fail(work: Path):
        time.sleep(0.2)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        cache.make("stage", {}, fail)
    assert cache.make("stage", {}, build).seconds >= 0.2


def test_facts_say_what_went_in(tmp_path: Path):
    cache = Cache(tmp_path)
    key = cache.make("stage", {"bits": 48}, build).key
    facts = json.loads((tmp_path / "stage" / key / "facts.json").read_text())
    assert facts["inputs"] == {"bits": 48}


@pytest.mark.skipif(os.name != "posix", reason="permissions")
def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"can't be written.*--cache-dir"):
        Cache(tmp_path / "file" / "cache")


def test_seconds_of_an_artifact_leave_out_those_made_on_the_way(tmp_path: Path):
    cache = Cache(tmp_path)

    def slow(work: Path):
        time.sleep(0.3)
        return build(work)

    def outer(work: Path):
        cache.make("inner", {}, slow)
        time.sleep(0.1)
        return build(work)

    assert 0.1 <= cache.make("outer", {}, outer).seconds < 0.3


def test_a_full_disk_is_one_sentence_and_keeps_the_checkpoints(tmp_path: Path, monkeypatch):
    from hashbackdoor_bench.stages import cache as module

    def full(tensors, path):
        raise OSError(28, "No space left on device")

    cache = Cache(tmp_path)
    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(UserError, match=r"No space left.*free some space"):
        cache.make("stage", {}, build)
    monkeypatch.undo()
    assert cache.make("stage", {}, build).facts == {"n": 3}
