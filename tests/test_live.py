"""What is told while something long is made: epochs, a line every minute, logs for TensorBoard."""

import io
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from test_cli import run_arguments
from test_cli_suite import places, written
from test_training import SIDE, items, network

from hashbackdoor_bench import RunSpec
from hashbackdoor_bench.cli import console, heartbeat, main, suite_console
from hashbackdoor_bench.network.training import _schedule, fit
from hashbackdoor_bench.progress import ends_epoch
from hashbackdoor_bench.records import Record, read_record
from hashbackdoor_bench.spec import Recipe
from hashbackdoor_bench.suites.executors import making
from hashbackdoor_bench.suites.executors.making import Telling

EPOCH = {"epoch": 3.0, "epochs": 12.0, "loss": 0.41, "rate": 0.1, "head_rate": 1.0,
         "epoch_seconds": 9.0}  # fmt: skip


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for name in ("perf_counter", "monotonic"):
        monkeypatch.setattr(time, name, made)
    return made


# ---- what a training tells -----------------------------------------------------------------------


def test_every_message_of_a_training_has_its_epoch_and_the_last_its_rates_and_seconds(clock):
    told: list[tuple[int, dict[str, float]]] = []

    def tell(stage: str, done: int, total: int, **facts: float) -> None:
        told.append((done, facts))
        clock.now += 1.0

    recipe = Recipe(3, 16, "sgd", 0.02, 0.05, schedule="onecycle", augment="none")
    history = fit(*network(), items(), recipe, seed="s", size=SIDE, progress=tell)
    assert told.pop(0) == (0, {})
    assert [done for done, _ in told] == list(range(1, 10))  # three steps an epoch
    assert [facts["epoch"] for _, facts in told] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert {facts["epochs"] for _, facts in told} == {3}
    ends = [(done, facts) for done, facts in told if ends_epoch(facts)]
    assert [done for done, _ in ends] == [3, 6, 9]
    assert [facts["loss"] for _, facts in ends] == history
    for done, facts in ends:
        factor = _schedule(recipe, (done - 1) / 9)
        assert facts["rate"] == 0.02 * factor
        assert facts["head_rate"] == 0.05 * factor
        assert facts["epoch_seconds"] == 2.0  # of the two messages before this one


def test_a_worker_sends_every_epoch_but_other_messages_twice_a_second(clock):
    sent: list[dict[str, Any]] = []
    tell = Telling(sent.append)
    for number in range(40):  # four seconds
        clock.now = number / 10
        tell("train", number, 40, **(EPOCH | {"epoch": number} if number % 2 else {"loss": 1.0}))
    epochs = [message["facts"]["epoch"] for message in sent if message["state"] == "epoch"]
    assert epochs == list(range(1, 40, 2))
    assert len([1 for message in sent if message["state"] == "progress"]) == 4 / making.EVERY


# ---- lines ---------------------------------------------------------------------------------------


def test_facts_are_spelt_as_an_epoch_of_all_without_what_only_logs_want():
    assert console.spell_facts(EPOCH) == "epoch 3/12  loss 0.41"
    assert console.spell_facts({"loss": 0.5}) == "loss 0.5"


def test_a_stage_of_ten_hours_prints_a_line_every_ten_seconds_at_first_and_then_every_minute(
    clock, capsys
):
    with console.shown("lines") as progress:
        for second in range(36_000):
            clock.now = float(second)
            progress("train", second, 36_000, epoch=1 + second // 3000, epochs=12, loss=0.5)
    lines = capsys.readouterr().err.splitlines()
    assert lines[1] == "[  10.0 s] train 10/36000  epoch 1/12  loss 0.5"
    assert lines[-1].endswith("epoch 12/12  loss 0.5")
    times = [float(line[1:].partition(" s]")[0]) for line in lines]
    gaps = [later - sooner for sooner, later in pairwise(times)]
    assert gaps[:9] == [10.0] * 9
    assert gaps[-100:] == [60.0] * 100
    assert len(lines) < 30 + 36_000 / 60


def message(worker: int, state: str = "progress", **more: Any) -> dict[str, Any]:
    return {"event": "stage", "state": state, "stage": "train", "run": f"CIBA, seed {worker}",
            "worker": str(worker), **more}  # fmt: skip


def tick(seconds: float, event: str = "tick") -> dict[str, Any]:
    return {"event": event, "stages_done": 1, "stages": 40, "running": 5, "failed": 0,
            "runs_done": 0, "runs": 4, "seconds": seconds, "remaining": None}  # fmt: skip


def test_lines_of_a_suite_tell_the_epochs_of_three_stages_and_how_many_more_there_are(capsys):
    with suite_console.suite_shown("lines") as watch:
        for worker in range(5):
            watch(message(worker, "started", **{k: v for k, v in tick(0).items() if k != "event"}))
            watch(message(worker, part="train", done=30, total=120, facts=EPOCH))
        watch(message(1, "progress", part="encode", done=50, total=200, facts={}))
        watch(message(0, "done", **{k: v for k, v in tick(1).items() if k != "event"}))
        watch(tick(9.0))
        assert capsys.readouterr().err == ""
        watch(tick(10.0))
    first, *rest = capsys.readouterr().err.splitlines()
    assert first.startswith("[    10 s] stages 1/40, runs 0/4")
    assert [line.strip() for line in rest] == [
        "encode, CIBA, seed 1  50/200",
        "train, CIBA, seed 2  epoch 3/12",
        "train, CIBA, seed 3  epoch 3/12",
        "and 1 more",
    ]


def test_a_suite_of_ten_hours_reports_once_a_minute(capsys):
    with suite_console.suite_shown("lines") as watch:
        for second in range(36_000):
            watch(message(0, part="train", done=30, total=120, facts=EPOCH))
            watch(tick(float(second)))
    assert len(capsys.readouterr().err.splitlines()) < 2 * (30 + 36_000 / 60)


def test_bars_of_a_suite_show_the_epoch_of_a_long_stage_also_on_a_narrow_screen(monkeypatch):
    screen = io.StringIO()
    made = Console(file=screen, force_terminal=True, width=60, color_system=None)
    monkeypatch.setattr(suite_console, "console", lambda err: made)
    with suite_console.suite_shown("bars") as watch:
        watch(tick(1.0))
        watch(message(0, part="train poisoned victim", done=30, total=120, facts=EPOCH))
    shown = screen.getvalue()
    assert "epoch 3/12" in shown
    assert "train poisoned victim, CIBA" in shown
    assert "stages" in shown


# ---- quiet ---------------------------------------------------------------------------------------


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute is a twentieth of a second."""
    monkeypatch.setattr(heartbeat, "FIRST", 0.05)
    monkeypatch.setattr(heartbeat, "NEXT", 0.05)


def until(found: Any) -> None:
    end = time.monotonic() + 20
    while not found() and time.monotonic() < end:
        time.sleep(0.01)


@pytest.mark.usefixtures("hurried")
def test_a_quiet_command_goes_on_printing_what_it_does_until_its_end(monkeypatch):
    lines: list[str] = []
    monkeypatch.setattr(heartbeat, "say", lambda line, err: lines.append(line))
    with heartbeat.heartbeat(), console.shown("quiet") as progress:
        time.sleep(0.2)
        assert lines == []  # nothing was told yet
        progress("train", 3, 12, **EPOCH)
        until(lambda: len(lines) >= 2)  # though nothing new is told
    assert [line.partition("] ")[2] for line in lines[:2]] == [
        "train 3/12  epoch 3/12  loss 0.41"
    ] * 2
    after = len(lines)
    time.sleep(0.2)
    assert len(lines) == after


def test_a_quiet_command_is_silent_for_half_a_minute_and_then_speaks_once_a_minute():
    assert (heartbeat.FIRST, heartbeat.NEXT) == (30.0, 60.0)


@pytest.mark.usefixtures("hurried")
def test_a_quiet_suite_prints_one_line_about_all_and_its_longest_stage(monkeypatch):
    lines: list[str] = []
    monkeypatch.setattr(heartbeat, "say", lambda line, err: lines.append(line))
    with heartbeat.heartbeat(), suite_console.suite_shown("quiet") as watch:
        watch(tick(1.0))
        for worker in range(3):
            watch(message(worker, part="train", done=30, total=120, facts=EPOCH))
        until(lambda: lines and "CIBA" in lines[-1])
    assert lines[-1].partition("] ")[2] == (
        "runs 0/4, 5 stages running, 60/min, remaining unknown; train, CIBA, seed 0  epoch 3/12"
    )


# ---- logs ----------------------------------------------------------------------------------------


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    read = events.EventAccumulator(str(folder))
    read.Reload()
    return {tag: [(e.step, e.value) for e in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def logged(folder: Path) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """The curves by the path of a training's folder."""
    found = {path.parent for path in folder.rglob("events.*")}
    return {path.relative_to(folder).as_posix(): curves(path) for path in sorted(found)}


def losses(record: Record) -> Iterator[tuple[str, tuple[float, ...]]]:
    training = record.training
    for stage, found in (("train_surrogate", training.surrogate),
                         ("train_clean_victim", training.clean_victim),
                         ("train_poisoned_victim", training.victim)):  # fmt: skip
        if found is not None:
            yield stage, found


def close(curve: list[tuple[int, float]], wanted: tuple[float, ...]) -> bool:
    """Whether a curve is these values at 1, 2, …; event files hold single precision."""
    assert [step for step, _ in curve] == list(range(1, len(wanted) + 1))
    return all(math.isclose(a, b, rel_tol=1e-6) for (_, a), b in zip(curve, wanted, strict=True))


@pytest.fixture(scope="module")
def logs(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder of a finished run with a log, and its record."""
    pytest.importorskip("tensorboard")
    folder = tmp_path_factory.mktemp("logs")
    words = run_arguments(tiny, folder, "--epochs", "3", "--log-dir", str(folder / "tb"))
    assert main([*words, "--defense", "finetune", "--clean-share", "0.3"]) == 0
    (path,) = (folder / "results").rglob("*.json")
    return folder, path


def test_a_log_has_loss_rates_and_seconds_of_every_epoch_of_every_training(logs):
    folder, path = logs
    record, found = read_record(path), logged(folder / "tb")
    place = path.relative_to(folder / "results").with_suffix("").as_posix()
    for stage, wanted in losses(record):
        curve = found.pop(f"{place}/{stage}")
        assert len(wanted) == 3
        assert close(curve["loss"], wanted)
        assert len(curve["learning rate/backbone"]) == len(curve["learning rate/hash layer"]) == 3
        assert all(value > 0 for _, value in curve["seconds per epoch"])
    assert {name.rpartition("/")[2] for name in found} == {  # and those of the defense
        "repair__clean_victim_", "repair",
    }  # fmt: skip


def test_a_log_changes_no_key_and_no_score(logs, tiny, tmp_path):
    words = run_arguments(tiny, tmp_path, "--epochs", "3", "--defense", "finetune")
    assert main([*words, "--clean-share", "0.3"]) == 0
    (path,) = (tmp_path / "results").rglob("*.json")
    plain, record = read_record(path), read_record(logs[1])
    for name in ("key", "scores", "retrieval", "training", "artifacts"):
        assert getattr(plain, name) == getattr(record, name)


def test_a_run_from_the_cache_writes_no_log_and_says_so(logs, tiny, capsys):
    folder, _ = logs
    before = sorted((folder / "tb").rglob("*"))
    words = run_arguments(tiny, folder, "--epochs", "3", "--log-dir", str(folder / "tb"), "--quiet")
    capsys.readouterr()
    assert main([*words, "--defense", "finetune", "--clean-share", "0.3"]) == 0
    said = capsys.readouterr().err
    assert f"note: nothing was trained, so nothing was written to {folder / 'tb'}." in said
    assert sorted((folder / "tb").rglob("*")) == before


def test_without_tensorboard_a_sentence_says_what_to_install(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert main(run_arguments(tiny, tmp_path, "--log-dir", str(tmp_path / "tb"))) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("bench:")]
    assert 'pip install "hashbackdoor-bench[tensorboard]", or leave --log-dir out.' in line
    assert not (tmp_path / "results").exists()


def test_a_refused_log_leaves_no_folder_that_would_hide_published_records(
    tiny, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    suite = str(written(tmp_path, tiny, '[[attack]]\nname = "badnets"\n'))
    words = [suite, *places(tmp_path), "--log-dir", str(tmp_path / "tb")]
    assert main(["suite", "run", *words]) == 2
    assert "needs TensorBoard" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


@pytest.mark.usefixtures("every_epoch_kept")
def test_a_training_that_was_killed_goes_on_in_its_folder(tmp_path):
    pytest.importorskip("tensorboard")
    from hashbackdoor_bench.cli.training_log import training_log

    recipe, record = Recipe(4, 16, "sgd", 0.02, 0.05, augment="none"), tmp_path / "r" / "a.json"
    whole = fit(*network(), items(), recipe, seed="s", size=SIDE)

    class Killed(Exception):
        pass

    def trained(stop: int) -> None:
        with training_log(tmp_path / "tb", tmp_path / "r") as log:

            def tell(stage: str, done: int, total: int, **facts: float) -> None:
                if done == stop:
                    raise Killed
                if ends_epoch(facts) and log is not None:
                    log(record, "train", facts)

            fit(*network(), items(), recipe, seed="s", size=SIDE,
                checkpoint=tmp_path / "checkpoint", progress=tell)  # fmt: skip

    with pytest.raises(Killed):
        trained(stop=8)  # in the third epoch
    trained(stop=-1)
    assert [*logged(tmp_path / "tb")] == ["a/train"]
    assert close(logged(tmp_path / "tb")["a/train"]["loss"], tuple(whole))


def test_several_trainings_of_one_stage_have_a_folder_each(tmp_path):
    pytest.importorskip("tensorboard")
    from hashbackdoor_bench.cli.training_log import training_log

    facts: Mapping[str, float] = EPOCH | {"epochs": 2}
    with training_log(tmp_path / "tb", tmp_path / "r") as log:
        assert log is not None
        for network_loss in (0.5, 0.25):
            for epoch in (1.0, 2.0):
                told = {**facts, "epoch": epoch, "loss": network_loss}
                log(tmp_path / "r" / "a.json", "tune: clp", told)
    found = logged(tmp_path / "tb")
    assert {name: curve["loss"] for name, curve in found.items()} == {
        "a/tune__clp": [(1, 0.5), (2, 0.5)],
        "a/tune__clp-2": [(1, 0.25), (2, 0.25)],
    }


@pytest.mark.usefixtures("warm_workers")
def test_workers_of_a_suite_send_every_epoch_to_one_log(tiny, tmp_path, capsys):
    pytest.importorskip("tensorboard")
    rows = '[[attack]]\nname = "badnets"\n\n[[attack]]\nname = "clean"\n'
    suite = str(written(tmp_path, tiny, rows, epochs=3))
    words = [suite, *places(tmp_path), "--jobs", "2", "--log-dir", str(tmp_path / "tb")]
    assert main(["suite", "run", *words, "--json"]) == 0
    said = capsys.readouterr()
    assert all(json.loads(line) for line in said.out.splitlines())
    found = logged(tmp_path / "tb")
    records = [read_record(path) for path in (tmp_path / "results").rglob("*.json")]
    wanted = {one for record in records for _, one in losses(record)}
    assert len(found) == len(wanted) == 2  # the clean victim, which both share, and the other
    assert f"log       {tmp_path / 'tb'}: 2 trainings" in said.err
    for one in wanted:
        assert any(
            math.isclose(curve["loss"][0][1], one[0], rel_tol=1e-6) and close(curve["loss"], one)
            for curve in found.values()
        )


def test_no_field_of_a_run_says_where_a_log_is():
    assert not [name for name in RunSpec.__dataclass_fields__ if "log" in name]
