"""The branch and the text of a pull request, in a clone of a repository on this machine."""

import csv
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hashbackdoor_bench import ATTACKS, RunSpec
from hashbackdoor_bench.cli import main
from hashbackdoor_bench.registry import load_plugin
from hashbackdoor_bench.stages.cache import Cache
from hashbackdoor_bench.stages.pipeline import run
from hashbackdoor_bench.trust.git_branch import Clone
from hashbackdoor_bench.trust.verification import verify

BADNETS = (Path(__file__).parents[1] / "attacks/badnets.py").read_text("utf-8")
ATTACK = re.sub("@ATTACKS.register.*", "@ATTACKS.register", BADNETS).replace(
    '"badnets": "BadNets", "badnets_clean": "BadNets, clean label"',
    '"white_square": "White | Square"',
)


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(autouse=True)
def somebody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Git knows who commits, and nothing of this machine's settings."""
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "Somebody")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "somebody@example.org")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with a change that is not committed; its remote is a bare repository beside it."""
    first = tmp_path / "first"
    (first / "results").mkdir(parents=True)
    (first / "results/RULES.md").write_text("# Rules\n")
    (first / ".gitignore").write_text("*.zip\n*.json\n")
    git(first, "init", "-q", "-b", "main")
    git(first, "add", "-A")
    git(first, "commit", "-qm", "first")
    git(tmp_path, "clone", "-q", "--bare", "first", "remote.git")
    git(tmp_path, "clone", "-q", "remote.git", "clone")
    hook = tmp_path / "clone/.git/hooks/pre-commit"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    (tmp_path / "clone/results/RULES.md").write_text("# My rules\n")
    git(tmp_path / "clone", "checkout", "-qb", "work")
    return tmp_path / "clone"


@pytest.fixture(scope="module")
def place(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``cache``, ``quick`` (two runs with their index) and the attack's file."""
    folder = tmp_path_factory.mktemp("submitted")
    (folder / "white_square.py").write_text(ATTACK, encoding="utf-8")
    load_plugin(folder / "white_square.py")
    rows = [("suite", "label", "victim", "bits", "target", "seed", "record")]
    for attack in ("white_square", "clean"):
        spec = RunSpec(attack=attack, victim="csq", dataset="lists", lists=str(tiny),
                       root=str(tiny), size=16, top_k=20, bits=12, epochs=1,
                       batch_size=16)  # fmt: skip
        _, path, _ = run(spec, cache=Cache(folder / "cache"), results=folder / "quick",
                         device="cpu")  # fmt: skip
        name = path.relative_to(folder / "quick").as_posix()
        label = "White | Square" if attack == "white_square" else "Clean"
        rows.append(("quick", label, "csq", "12", "", "0", name))
    with (folder / "quick/index.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    forget()
    return folder


def forget() -> None:
    """Forget the attack: each command loads it anew."""
    ATTACKS._plugins.pop("white_square", None)
    ATTACKS._loaded.pop("white_square", None)


@pytest.fixture
def submit(place: Path, clone: Path, capsys) -> Callable[..., tuple[int, str]]:
    def call(*words: str, pr: Path = clone, folder: Path = place / "quick") -> tuple[int, str]:
        where = ["--pr", str(pr), "--cache-dir", str(place / "cache"), "--plugin",
                 str(place / "white_square.py")]  # fmt: skip
        code = main(["submit", str(folder), *where, *words])
        forget()
        streams = capsys.readouterr()
        return code, streams.out if code == 0 else streams.err.splitlines()[-1]

    return call


def state(clone: Path) -> tuple[str, ...]:
    return (
        git(clone, "status", "--porcelain", "--branch"),
        git(clone, "rev-parse", "HEAD"),
        git(clone, "ls-files", "-s"),
        (clone / "results/RULES.md").read_text(),
    )


def test_a_branch_adds_records_poison_and_the_attack_and_nothing_else_changes(
    submit, clone: Path, place: Path, tmp_path: Path
):
    before, remote = state(clone), git(tmp_path / "remote.git", "for-each-ref")
    code, out = submit()
    assert code == 0
    assert state(clone) == before
    assert git(tmp_path / "remote.git", "for-each-ref") == remote  # nothing was pushed
    changed = git(clone, "diff", "--name-status", "origin/main", "submit/white-square")
    names = {line.partition("\t")[2] for line in changed.splitlines()}
    assert all(line.startswith("A\t") for line in changed.splitlines())
    (record,) = (place / "quick").rglob("white_square*.json")
    folder = "submissions/white-square"
    assert names == {
        f"{folder}/records/index.csv", f"{folder}/white_square.py",
        f"{folder}/poison/{record.stem}.zip",
        *(f"{folder}/records/{path.relative_to(place / 'quick').as_posix()}"
          for path in (place / "quick").rglob("*.json")),
    }  # fmt: skip
    assert f"push    git -C {clone} push origin submit/white-square" in out
    assert "gh pr create --fill --head submit/white-square" in out


def test_what_the_branch_holds_is_verified_and_reproduced(submit, clone: Path, place, tmp_path):
    submit()
    git(clone, "push", "-q", "origin", "submit/white-square")
    git(tmp_path, "clone", "-q", "-b", "submit/white-square", "remote.git", "maintainer")
    folder = tmp_path / "maintainer/submissions/white-square"
    found = verify(folder / "records", None)
    assert (found.records, found.problems) == (2, ())
    (packed,) = (folder / "poison").iterdir()
    assert (folder / "white_square.py").read_text() == ATTACK
    words = ["reproduce", str(packed), "--plugin", str(place / "white_square.py"), "-q"]
    assert main([*words, "--device", "cpu"]) == 0


def test_the_text_is_the_message_of_the_commit(submit, clone: Path):
    _, out = submit()
    text = git(clone, "log", "-1", "--format=%B", "submit/white-square")
    assert out.startswith(text)
    title, empty, *lines = text.splitlines()
    assert title == "Submit white-square: 2 runs"
    assert empty == ""
    row = next(line for line in lines if line.startswith("| White"))
    assert row.startswith("| White &#124; Square | CSQ | 12 | 0 | 0 | 12 |")
    assert sum(line.startswith("- [ ] ") for line in lines) == 3


def test_it_is_pushed_where_that_is_asked_for(submit, clone: Path, tmp_path: Path):
    code, out = submit("--push", "origin")
    assert code == 0
    assert "pushed  submit/white-square to origin" in out
    assert git(tmp_path / "remote.git", "rev-parse", "submit/white-square") == git(
        clone, "rev-parse", "submit/white-square"
    )


def test_what_a_failed_push_says_to_type_pushes_the_branch(submit, clone: Path, tmp_path: Path):
    code, told = submit("--push", "nowhere")
    assert code == 2
    assert "git push fails in" in told
    git(clone, "remote", "add", "nowhere", str(tmp_path / "remote.git"))  # put right
    _, _, command = told.removesuffix(".").partition("put that right and type ")
    subprocess.run(shlex.split(command), check=True, capture_output=True)
    assert git(tmp_path / "remote.git", "rev-parse", "submit/white-square") == git(
        clone, "rev-parse", "submit/white-square"
    )


def test_a_second_submission_of_one_name_is_refused(submit):
    assert submit()[0] == 0
    code, told = submit()
    assert code == 2
    assert "has a branch submit/white-square" in told
    assert submit("--name", "white-square-2")[0] == 0


@pytest.mark.parametrize("name", ["White", "../x", "-x", "a/b", "x" * 61, "a b", "ä"])
def test_a_name_that_is_none_is_refused(submit, name: str):
    code, told = submit(f"--name={name}")
    assert code == 2
    assert "give small letters" in told


def test_what_is_no_clone_of_the_benchmark_is_refused(submit, tmp_path: Path):
    assert "is no folder" in submit(pr=tmp_path / "gone")[1]
    (tmp_path / "plain").mkdir()
    assert "is no clone of git" in submit(pr=tmp_path / "plain")[1]
    git(tmp_path / "plain", "init", "-q")
    assert "is no clone of the benchmark" in submit(pr=tmp_path / "plain")[1]


def test_a_damaged_record_is_not_submitted(submit, place: Path, clone: Path, tmp_path: Path):
    shutil.copytree(place / "quick", tmp_path / "quick")
    (path,) = (tmp_path / "quick").rglob("white_square*.json")
    path.write_text(path.read_text().replace('"t_map": 0.', '"t_map": 0.9', 1))
    code, told = submit(folder=tmp_path / "quick")
    assert code == 2
    assert "this can't be submitted" in told
    assert not Clone(clone).has_branch("submit/white-square")


def test_a_backdoor_that_is_not_in_the_cache_is_named(place: Path, clone: Path, tmp_path, capsys):
    words = ["submit", str(place / "quick"), "--pr", str(clone), "--plugin",
             str(place / "white_square.py"), "--cache-dir", str(tmp_path / "empty")]  # fmt: skip
    assert main(words) == 2
    assert "is not in" in capsys.readouterr().err
    assert not Clone(clone).has_branch("submit/white-square")


def test_without_a_name_for_git_nothing_is_made(submit, clone: Path, monkeypatch):
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "")
        monkeypatch.delenv(f"GIT_{name}_EMAIL")
    code, told = submit()
    assert code == 2
    assert "git commit-tree fails" in told
    assert not Clone(clone).has_branch("submit/white-square")


def test_out_and_pr_exclude_each_other(place: Path, tmp_path: Path, capsys):
    (record,) = (place / "quick").rglob("white_square*.json")
    for words, why in (
        ([], "give --out ZIP for one record, or --pr CLONE"),
        (["--out", "x.zip", "--pr", "x"], "give --out ZIP for one record, or --pr CLONE"),
        (["--out", "x.zip", "--name", "x"], "--name and --push belong to --pr"),
        (["--out", "x.zip", str(record)], "--out holds one record, and 2 are given"),
    ):
        assert main(["submit", str(record), *words]) == 2
        assert why in capsys.readouterr().err
