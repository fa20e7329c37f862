"""``bench run --config`` and ``--dry-run``: options in a file, and what they would do."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from doc_pages import blocks
from PIL import Image

from hashbackdoor_bench.cli import main
from hashbackdoor_bench.cli.config import read_config
from hashbackdoor_bench.records import read_record
from hashbackdoor_bench.stages import Cache
from hashbackdoor_bench.templates import write_skeleton

TINY = """
dataset = "lists"
lists = "LISTS"
root = "LISTS"
size = 16
top_k = 20
bits = 12
epochs = 1
batch_size = 16
attack = "badnets"
victim = "csq"
backbone = "cnn32"
recipe = "scratch32"
threads = 1
cache_dir = "cache"
results_dir = "runs"

[attack_settings]
patch = 3

[victim_settings]
quantisation = 0.5
"""


@pytest.fixture
def folder(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ``run.toml`` in it; the working directory is another one."""
    (tmp_path / "here").mkdir()
    (tmp_path / "images").symlink_to(tiny)
    (tmp_path / "run.toml").write_text(TINY.replace("LISTS", "images"), encoding="utf-8")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def planned(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """The object that a dry run prints at its end."""
    assert main(["run", "--dry-run", "--json", *words]) == 0
    *progress, line = capsys.readouterr().out.splitlines()
    assert {json.loads(one)["event"] for one in progress} <= {"progress"}
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_file_of_options_is_read_and_what_is_typed_wins(folder, capsys):
    config = ["--config", "../run.toml"]
    spec = planned(capsys, *config)["spec"]
    assert (spec["bits"], spec["attack"], spec["victim"]) == (12, "badnets", "csq")
    assert dict(spec["attack_settings"])["patch"] == 3
    assert dict(spec["victim_settings"])["quantisation"] == 0.5
    typed = ["--bits", "16", "--set", "attack.patch=5", "--victim=csq", "--seed", "0"]
    found = planned(capsys, *config, *typed)
    assert found["spec"]["bits"] == 16
    assert dict(found["spec"]["attack_settings"])["patch"] == 5
    assert dict(found["spec"]["victim_settings"])["quantisation"] == 0.5
    assert Path(found["record"]).is_relative_to(folder / "runs")
    elsewhere = planned(capsys, *config, "--results-dir", "mine", "--bits", "48")
    assert elsewhere["record"].startswith("mine/")
    assert elsewhere["spec"]["bits"] == 48  # typed, though it is the default


def test_paths_in_a_file_are_relative_to_the_file(folder, capsys):
    write_skeleton("attack", "my_blend", folder)
    text = (folder / "run.toml").read_text("utf-8").replace('"badnets"', '"my-blend"')
    text = text.replace("patch = 3", "").replace(
        "\nsize = 16", '\nsize = 16\nplugin = "my_blend.py"'
    )
    (folder / "run.toml").write_text(text, encoding="utf-8")
    found = planned(capsys, "--config", str(folder / "run.toml"))
    assert found["spec"]["attack"] == "my_blend"
    assert found["spec"]["root"] == str(folder / "images")
    assert (folder / "cache").is_dir()
    assert not list((folder / "here").iterdir())


def test_a_path_among_the_settings_of_a_file_is_relative_to_the_file(folder, capsys):
    Image.new("RGB", (16, 16)).save(folder / "k.png")
    text = (folder / "run.toml").read_text("utf-8").replace('"badnets"', '"blended"')
    (folder / "run.toml").write_text(text.replace("patch = 3", 'key = "k.png"'), encoding="utf-8")
    found = planned(capsys, "--config", "../run.toml")
    assert dict(found["spec"]["attack_settings"])["key"] == "../k.png"
    Image.new("RGB", (16, 16)).save(folder / "here/k.png")
    typed = planned(capsys, "--config", "../run.toml", "--set", "attack.key=k.png")
    assert dict(typed["spec"]["attack_settings"])["key"] == "k.png"


def test_the_file_that_a_page_shows_is_read(tmp_path):
    (block,) = [block for block in blocks("toml") if not block.title]
    path = tmp_path / "run.toml"
    path.write_text(block.text, encoding="utf-8")
    found = read_config(path)
    assert found["attack_settings"] == (("epsilon", 4),)
    assert found["results_dir"] == tmp_path / "runs"


def test_a_flag_of_a_file_can_be_taken_back(folder, capsys):
    path = folder / "run.toml"
    path.write_text("pretrained = true\n" + path.read_text("utf-8"), encoding="utf-8")
    words = ["--config", str(path), "--no-pretrained"]
    assert planned(capsys, *words)["spec"]["pretrained"] is False


def test_the_options_that_a_dry_run_prints_are_a_file_that_asks_for_the_same_run(folder, capsys):
    words = ["--cache-dir", str(folder / "cache"), "--results-dir", "r", "--threads", "1"]
    assert main(["run", "--dry-run", "--config", "../run.toml", *words]) == 0
    out = capsys.readouterr().out
    again = folder / "again.toml"
    again.write_text(out.partition("\nstage ")[0], encoding="utf-8")
    assert "quantisation = 0.5" in again.read_text("utf-8")
    first = planned(capsys, "--config", "../run.toml", *words)
    assert planned(capsys, "--config", str(again), *words) == first


def test_a_dry_run_makes_nothing_and_says_unknown_where_nothing_is_known(folder, capsys):
    config = ["--config", str(folder / "run.toml")]
    found = planned(capsys, *config)
    assert {stage["cached"] for stage in found["stages"]} == {False}
    assert {stage["seconds"] for stage in found["stages"]} == {None}
    assert (found["unknown"], found["written"]) == (len(found["stages"]), False)
    assert not (folder / "runs").exists()
    assert not list(Cache(folder / "cache").stored())
    assert main(["run", "--dry-run", *config]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "time    unknown, since the cache has no stages like these"


def test_a_dry_run_says_what_is_cached_and_takes_times_of_like_stages(folder, capsys):
    config = ["--config", str(folder / "run.toml")]
    first = planned(capsys, *config)
    # in a process of its own: torch's threads can be set only once in one
    done = subprocess.run(
        [sys.executable, "-m", "hashbackdoor_bench", "run", *config, "--quiet"], check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    assert first["record"] in done.stdout.replace("\n", "")
    after = planned(capsys, *config)
    assert after["written"]
    assert all(stage["cached"] for stage in after["stages"])
    record = read_record(Path(first["record"]))
    assert {stage["stage"]: stage["key"] for stage in after["stages"]} == record.artifacts
    assert (after["seconds"], after["unknown"]) == (0, 0)
    assert main(["run", "--dry-run", *config]) == 0
    out = capsys.readouterr().out
    assert out.endswith("time    nothing is to be made\n")
    assert out.count("in the cache") == len(after["stages"])
    other = planned(capsys, *config, "--seed", "1", "--epochs", "3")
    times = {stage["stage"]: stage["seconds"] for stage in other["stages"]}
    trained = [record.seconds["victim"], record.seconds["clean victim"]]
    assert times["victim"] == pytest.approx(3 * sum(trained) / 2, rel=0.01)  # three epochs
    assert other["unknown"] == 0
    assert other["seconds"] == pytest.approx(1 + sum(times.values()))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("atack = 'ciba'", "run.toml: unknown option 'atack': did you mean attack"),
        ("quiet = true", "run.toml: unknown option 'quiet'"),
        ("bits = 'x'", "run.toml: bits is 'x': it must be a whole number"),
        ("bits = 48.5", "run.toml: bits is 48.5: it must be a whole number"),
        ("bits = true", "run.toml: bits is True: it must be a whole number"),
        (
            "victim = ['csq', 'dpsh']",
            "run.toml: victim is ['csq', 'dpsh']: a run has one value; many runs",
        ),
        ("budget = 3", "run.toml: --budget is 3: it must be between 0 and 1"),
        ("budget = nan", "run.toml: --budget is nan"),
        ("attack = 'cibaa'", "unknown attack 'cibaa': did you mean ciba"),
        ("attack = ''", "run.toml: --attack is empty"),
        ("root = 3", "run.toml: root is 3: it must be a word"),
        ("threads = 0", "run.toml: threads is 0: it must be between 1 and 1024"),
        ("plugin = 'no.py'", "no.py: give the path of a Python file that exists"),
        ("plugin = [3]", "run.toml: plugin is 3: it must be a path"),
        ("cache_dir = ''", "run.toml: cache_dir is '': it must be a path"),
        ("attack_settings = 3", "run.toml: attack_settings is 3: write a table, as in [attack"),
        ("attack_settings.epsilon = [2, 4]", "attack_settings.epsilon is [2, 4]: write a word"),
        ("attack_settings.epsilom = 2", "epsilom"),
        ("set.attack.epsilon = 4", "run.toml: set is a key of suites: write [attack_settings]"),
        ("bits =", "is not valid TOML"),
        (None, "none.toml: give the path of a TOML file that exists"),
    ],
)
def test_a_mistake_in_a_file_is_one_sentence(text, match, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "none.toml" if text is None else "run.toml"
    if text is not None:
        Path(name).write_text(text, encoding="utf-8")
    assert main(["run", "--config", name, "--dry-run", "--cache-dir", "cache"]) == 2
    out, err = capsys.readouterr()
    assert match in err
    assert (out, err.count("\n")) == ("", 1)
