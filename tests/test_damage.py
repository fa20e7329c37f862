"""Whatever happens to the files of a cache, a run has the right numbers or ends in a sentence."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_pipeline import spec

from hashbackdoor_bench import locks
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.records import Record
from hashbackdoor_bench.spec import canonical, digest
from hashbackdoor_bench.stages import Cache, Run, in_use
from hashbackdoor_bench.stages.artifact import FILES
from hashbackdoor_bench.stages.cache_users import keys_in_use, no_new_users
from hashbackdoor_bench.suites.executors import temporary

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def whole(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    """A cache with every stage of a run, and the run's record."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, recorded(tiny, folder)


def recorded(tiny: Path, folder: Path) -> Record:
    given = spec(tiny, attack="tri", victim="csq", surrogate="hashnet")
    return Run(given, cache=Cache(folder), device=CPU).record()


def artifacts(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob(f"*/*/{FILES[0]}"))


# ---- damages: a function of an artifact's folder and of the source of chance ------------------


def flipped(folder: Path, chance: random.Random) -> None:
    path = folder / chance.choice(FILES)
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def cut(folder: Path, chance: random.Random) -> None:
    path = folder / chance.choice(FILES)
    path.write_bytes(path.read_bytes()[: chance.randrange(path.stat().st_size)])


def lengthened(folder: Path, chance: random.Random) -> None:
    with (folder / chance.choice(FILES)).open("ab") as file:
        file.write(chance.randbytes(chance.randrange(1, 100)))


def removed(folder: Path, chance: random.Random) -> None:
    (folder / chance.choice(FILES)).unlink()


def nonsense(folder: Path, chance: random.Random) -> None:
    texts = ["", "[]", "null", "7", '"x"', "{}", '{"check": 1}', "[" * 5000, "9" * 5000, "\0\xff"]
    (folder / FILES[0]).write_text(chance.choice(texts), encoding="latin-1")


def forged(folder: Path, chance: random.Random) -> None:
    """Values of the wrong type with a hash that fits them."""
    body = json.loads((folder / FILES[0]).read_text())
    del body["check"]
    name = chance.choice(list(body))
    body[name] = chance.choice([[], None, "x", [1], True])
    (folder / FILES[0]).write_text(canonical({**body, "check": digest(body)}))


def another_s_folder(folder: Path, chance: random.Random) -> None:
    other = chance.choice(artifacts(folder.parents[1]))
    if other != folder:
        kept = folder.with_name("kept")
        folder.rename(kept)
        shutil.copytree(other, folder)
        shutil.rmtree(kept)


def swapped(folder: Path, chance: random.Random) -> None:
    """With another artifact of the same kind, both whole."""
    other = chance.choice(sorted(folder.parent.iterdir()))
    if other != folder:
        kept = folder.with_name("kept")
        folder.rename(kept)
        other.rename(folder)
        kept.rename(other)


def another_s_file(folder: Path, chance: random.Random) -> None:
    other, name = chance.choice(artifacts(folder.parents[1])), chance.choice(FILES)
    if other != folder:
        shutil.copy(other / name, folder / name)


def a_file_for_a_folder(folder: Path, chance: random.Random) -> None:
    shutil.rmtree(folder)
    folder.write_text("x")


def a_folder_for_a_file(folder: Path, chance: random.Random) -> None:
    path = folder / chance.choice(FILES)
    path.unlink()
    path.mkdir()


def a_link(folder: Path, chance: random.Random) -> None:
    """Of the folder or a file, to nothing or to another artifact."""
    other = chance.choice([Path("/nowhere"), *artifacts(folder.parents[1])])
    if chance.random() < 0.5:
        if other != folder:
            shutil.rmtree(folder)
            folder.symlink_to(other)
    else:
        name = chance.choice(FILES)
        (folder / name).unlink()
        (folder / name).symlink_to(other / name)


def a_pipe(folder: Path, chance: random.Random) -> None:
    path = folder / chance.choice(FILES)
    path.unlink()
    os.mkfifo(path)


def remnants(folder: Path, chance: random.Random) -> None:
    """The artifact is gone, and its work folder holds a file, a link, or a checkpoint of noise."""
    shutil.rmtree(folder)
    work = folder.parents[1] / "work" / f"{folder.parent.name}-{folder.name}"
    work.parent.mkdir(exist_ok=True)
    what = chance.randrange(4)
    if what == 0:
        work.write_text("x")
    elif what == 1:
        work.symlink_to("/nowhere")
    else:
        work.mkdir()
        (work / "seconds").write_bytes(chance.randbytes(9))
        if what == 2:
            (work / "checkpoint").write_bytes(chance.randbytes(200))
        else:
            (work / "checkpoint").mkdir()


DAMAGES: tuple[Callable[[Path, random.Random], None], ...] = (
    flipped, cut, lengthened, removed, nonsense, forged, another_s_folder, swapped, another_s_file,
    a_file_for_a_folder, a_folder_for_a_file, a_link, a_pipe, remnants,
)  # fmt: skip


def survives(tiny: Path, whole: tuple[Path, Record], copy: Path, damage, chance) -> list[str]:
    """Damage one artifact of a copy and run again; returns the warnings."""
    source, record = whole
    shutil.copytree(source, copy, symlinks=True)
    folder = chance.choice(artifacts(copy))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        damage(folder, chance)
        try:
            found = recorded(tiny, copy)
            assert found.scores == record.scores, damage.__name__
            assert found.retrieval == record.retrieval, damage.__name__
            assert found.artifacts == record.artifacts
        finally:
            shutil.rmtree(copy)
    return [str(one.message) for one in caught]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda one: one.__name__)
def test_a_damaged_artifact_is_made_again(tiny, tmp_path, whole, damage, seed):
    survives(tiny, whole, tmp_path / "copy", damage, random.Random(seed))


def test_two_swapped_artifacts_are_named_and_made_again(tiny, tmp_path, whole):
    source, record = whole
    shutil.copytree(source, tmp_path / "copy")
    one, other = (tmp_path / "copy" / "codes" / record.artifacts[f"{name}'s plain"]
                  for name in ("victim", "clean victim"))  # fmt: skip
    one.rename(kept := one.with_name("kept"))
    other.rename(one)
    kept.rename(other)
    (tmp_path / "copy" / "scores" / record.artifacts["scores"] / FILES[0]).unlink()
    with pytest.warns(UserWarning, match=r"codes .* is damaged \(it is codes"):
        found = recorded(tiny, tmp_path / "copy")
    assert found.scores == record.scores


@pytest.mark.slow
def test_two_hundred_damages(tiny, tmp_path, whole):
    seed = int(os.environ.get("FUZZ_SEED", time.time()))
    print(f"FUZZ_SEED={seed}")
    chance = random.Random(seed)
    for number in range(200):
        survives(tiny, whole, tmp_path / str(number), chance.choice(DAMAGES), chance)


# ---- locks and users --------------------------------------------------------------------------


def test_a_lock_that_is_a_folder_is_a_sentence(tiny, tmp_path, whole):
    source, record = whole
    shutil.copytree(source, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "scores" / record.artifacts["scores"])
    lock = tmp_path / "copy" / "locks" / f"scores-{record.artifacts['scores']}.lock"
    lock.unlink(missing_ok=True)
    lock.mkdir()
    with pytest.raises(UserError, match="is a directory where a lock must be: remove it"):
        recorded(tiny, tmp_path / "copy")


@pytest.mark.parametrize("code", ["ENOLCK", "EOPNOTSUPP", "EIO"])
def test_a_file_system_without_locks_is_a_sentence(tmp_path, monkeypatch, code):
    import errno
    import fcntl

    def refuse(*arguments):
        raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        pytest.raises(UserError, match=r"can't be locked .* take a folder on a local disk"),
        locks.locked(tmp_path / "a.lock", "testing"),
    ):
        pass


HOLD = """
import sys, time
from pathlib import Path
from hashbackdoor_bench.locks import locked
with locked(Path(sys.argv[1]), "testing"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_who_waits_is_told_who_holds_the_lock_and_since_when(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "MINUTE", 0.2)
    path = tmp_path / "a.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    ) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            assert locks.try_lock(path) is None
            assert f"process {other.pid} on " in locks.holder(path)
            assert "stopped" not in locks.holder(path)
            os.kill(other.pid, 19)  # SIGSTOP
            while "stopped" not in locks.holder(path):
                time.sleep(0.01)
            told: list[str] = []

            def kill(message: object, *rest: object, **more: object) -> None:
                told.append(str(message))
                if len(told) == 2:
                    other.kill()

            monkeypatch.setattr(warnings, "warn", kill)
            with locks.locked(path, "testing"):  # once the other is dead
                assert f"process {os.getpid()} on " in locks.holder(path)
        finally:
            other.kill()
    assert len(told) >= 2
    assert f"waiting for process {other.pid} on " in told[0]
    assert "since " in told[0]
    assert f"kill -CONT {other.pid}" in told[0]
    assert locks.holder(path) == f"another process, which holds {path}"


@pytest.mark.parametrize("text", ["", "[]", '["a"]', "{}", "null", '["\\u001b[31m", "h", "t"]'])
def test_what_a_holder_left_is_not_trusted(tmp_path, text):
    (tmp_path / "a.lock.held").write_text(text)
    assert locks.holder(tmp_path / "a.lock").isprintable()


def test_what_a_killed_user_left_is_removed_by_the_next(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from hashbackdoor_bench.stages import in_use\n"
        "with in_use(Path(sys.argv[1]), ['a']): os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert len(list((tmp_path / "users").glob("*"))) == 2
    with in_use(tmp_path, ["b"]):
        (own,) = (tmp_path / "users").glob("*.json")
        assert json.loads(own.read_text()) == ["b"]
    assert not list((tmp_path / "users").iterdir())


@pytest.mark.parametrize("text", ["", "{}", "[1]", "[" * 5000])
def test_keys_of_a_running_user_that_cant_be_read_stop_pruning(tmp_path, text):
    with in_use(tmp_path, ["a"]):
        (own,) = (tmp_path / "users").glob("*.json")
        own.write_text(text)
        with no_new_users(tmp_path), pytest.raises(UserError, match="wait until it has ended"):
            keys_in_use(tmp_path)


def test_temporary_folders_of_killed_processes_are_removed_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(temporary.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(temporary.tempfile, "tempdir", str(tmp_path))
    code = (
        "import os, tempfile, sys; tempfile.tempdir = sys.argv[1]\n"
        "from hashbackdoor_bench.suites.executors.temporary import temporary_folder\n"
        "folder, _ = temporary_folder(); (folder / 'x').touch(); print(folder, flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    (dead,) = subprocess.run(words, capture_output=True, text=True, check=False).stdout.split()
    alive, lock = temporary.temporary_folder()
    assert Path(dead).is_dir()  # so young that its process might not have locked it yet
    monkeypatch.setattr(temporary, "YOUNG", -1.0)
    (tmp_path / "hashbackdoor-link").symlink_to(alive)
    another, its_lock = temporary.temporary_folder()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [alive.name, another.name, "hashbackdoor-link"]
    )
    temporary.remove(alive, lock)
    temporary.remove(another, its_lock)
    assert not alive.exists()
