"""The performance benchmark runs, says what it must, and compares before it times; never times."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import warm
from hashbackdoor_bench.benchmarks.gpu import __main__ as gpu_command
from hashbackdoor_bench.benchmarks.speed import ceilings, clock, crafting, scoring
from hashbackdoor_bench.benchmarks.speed.__main__ import PARTS, main
from hashbackdoor_bench.benchmarks.speed.clock import (
    Entry,
    Goal,
    Row,
    Setting,
    in_turn,
    ratios,
    seconds_of,
)
from hashbackdoor_bench.benchmarks.speed.networks import network
from hashbackdoor_bench.benchmarks.speed.table import report, table, write
from pretend import GPU, pretend_gpu

CPU = torch.device("cpu")
OTHERS = ("job", "several")  # what they measure are processes of their own, see the slow test


@pytest.fixture(autouse=True, scope="module")
def few_small_images() -> Iterator[None]:
    """Crafting, whose literal procedures take one image at a time, with batches of 6 of 16 px."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crafting, "BATCH", 6)
        patch.setattr(crafting, "SIZE", 16)
        yield


@pytest.fixture(autouse=True, scope="module")
def warm_children(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The processes that score, whose times don't matter here, are forked; see `warm`."""
    folder = tmp_path_factory.mktemp("children")

    def run(words: list[str], **streams: Any) -> "subprocess.CompletedProcess[str]":
        done = warm.run(folder, *words[1:])
        done.check_returncode()
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "subprocess", SimpleNamespace(**{**vars(subprocess), "run": run}))
        yield


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(True, 1, CPU, tmp_path)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Row]]:
    """Parts of this process, at tiny sizes; the checks for equal results are made on the way."""
    quick = {name: tmp_path_factory.mktemp(name) for name in PARTS if name not in OTHERS}
    return {name: list(PARTS[name](Setting(True, 1, CPU, work))) for name, work in quick.items()}


def test_every_part_names_its_work_its_goal_and_its_least(measured):
    for part, rows in measured.items():
        assert rows, part
        for row in rows:
            assert next(iter(row.seconds)) == "ours", row.part
            assert all((row.goals, row.work, row.least)), row.part
            assert all(time > 0 for times in row.seconds.values() for time in times), row.part
            assert all(name in row.seconds for name in row.samples), row.part


def test_every_part_that_has_a_literal_or_a_ceiling_says_what_it_compared(measured):
    rows = [row for part in measured.values() for row in part]
    literal = [row for row in rows if "literal" in row.seconds]
    limited = [row for row in rows if row.share is not None]
    crafts = {"trigger crafting", "confusing perturbations"}
    reads = {"preparing", "an epoch's images"}
    assert {row.part for row in literal} == {"scoring", "evaluation encode", *crafts, *reads}
    assert {row.part for row in limited} == {row.part for row in literal} | {"training", "start-up"}
    assert all(row.equal for row in literal)
    assert all(row.ceiling and row.share > 0 for row in limited)


@pytest.mark.parametrize("part", ["crafting", "training", "encoding"])
def test_the_parts_with_a_network_run_on_a_gpu(part: str, tmp_path: Path):
    with pretend_gpu():
        rows = list(PARTS[part](Setting(True, 1, GPU, tmp_path)))
    assert all(row.equal for row in rows)
    assert all(time > 0 for row in rows for time in row.seconds["ours"])


@pytest.mark.parametrize("part", ["machine", "training", "crafting", "encoding"])
def test_the_parts_of_the_gpu_command_run_there(part: str, tmp_path: Path):
    with pretend_gpu():
        rows = list(gpu_command.PARTS[part].rows(Setting(True, 1, GPU, tmp_path)))
    assert rows
    assert all(time > 0 for row in rows for time in row.seconds["ours"])
    assert all(Row.from_json(json.loads(json.dumps(row.as_json()))).facts for row in rows)


def test_the_gpu_command_keeps_the_rows_of_a_part_that_fails_and_says_why(tmp_path, monkeypatch):
    def broken(setting):
        yield Row("half", "work", {"ours": [1.0]}, facts={"images_per_second": 2.0})
        raise AssertionError("the other half")

    part = gpu_command.Part(broken, 60)
    monkeypatch.setitem(gpu_command.PARTS, "half", part)
    with pytest.raises(AssertionError):
        gpu_command._measure("half", True, CPU, 1, 1, None, None, tmp_path / "rows")
    (line,) = (tmp_path / "rows").read_text().splitlines()
    page = gpu_command.numbers([Row.from_json(json.loads(line))], {"half": "the other half"})
    assert "half, work: images per second 2\n" in page
    assert "- half: the other half\n" in page


def test_the_table_on_a_gpu_takes_the_number_of_workers_that_was_the_fastest():
    rates = {"1 × 1 thread": 10.0, "4 × 1 thread": 30.0, "16 × 1 thread": 20.0}
    row = Row("several trainings", "w", {"ours": [1.0]}, facts={"trainings_per_hour": rates})
    assert gpu_command.best_sharing([row]) == 4
    assert gpu_command.best_sharing([]) == 8


def test_the_issue_s_parts_are_all_there(measured):
    parts = {row.part for rows in measured.values() for row in rows}
    assert parts == {
        "scoring", "scoring, growth", "trigger crafting", "confusing perturbations", "training",
        "stacked victims", "stacked heads", "evaluation encode", "preparing", "an epoch's images",
        "start-up",
    }  # fmt: skip


def test_a_report_is_json_with_the_machine_and_a_table_has_each_goal(measured, tmp_path):
    rows = [row for part in measured.values() for row in part]
    path = write(report(rows, CPU, quick=True, repeat=1, parts=["job"]), rows, tmp_path)
    found = json.loads(path.read_text())
    assert {"device", "threads", "versions", "commit", "rows", "cores"} <= found.keys()
    assert {"torch", "numpy", "numba"} <= found["versions"].keys()
    assert len(found["rows"]) == len(rows)
    goals = sum(len(row.goals) for row in rows)
    assert table(rows).row_count == goals
    page = path.with_suffix(".md").read_text().splitlines()
    assert any("speed --quick --repeat 1 --part job`" in line for line in page)
    lines = [line for line in page if line.startswith("|")]
    assert len(lines) == 2 + goals
    assert {line.count("|") for line in lines} == {10}
    assert any("×) DataLoader" in line for line in lines)


def test_a_start_imports_neither_torch_nor_numpy():
    code = (
        "import sys; from hashbackdoor_bench.cli import main; main(['list', 'attacks']);"
        "sys.exit(bool({'torch', 'numpy', 'matplotlib'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0


def test_a_plan_and_a_finished_run_import_neither_torchmetrics_nor_matplotlib():
    code = (
        "import sys, hashbackdoor_bench.stages.pipeline, hashbackdoor_bench.stages.pictures;"
        "from hashbackdoor_bench import ATTACKS; [ATTACKS[name] for name in ATTACKS];"
        "sys.exit(bool({'torchmetrics', 'matplotlib', 'torchvision'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_contestants_take_turns_and_a_sample_is_scaled(setting, monkeypatch):
    calls = []
    monkeypatch.setattr(clock, "seconds_of", lambda run, device: run() or 2.0)
    entries = {
        "ours": Entry(lambda: calls.append("a")),
        "literal": Entry(lambda: calls.append("b"), 10, "a tenth"),
    }
    found = in_turn(entries, replace(setting, repeat=3))
    assert calls == ["a", "b", "a", "b", "b", "a", "a", "b"]
    assert found == {"ours": [2.0] * 3, "literal": [20.0] * 3}
    assert clock.samples_of(entries) == {"literal": "a tenth"}


def test_ratios_are_taken_round_by_round_and_goals_know_their_side():
    seconds = {"ours": [1.0, 2.0, 4.0], "literal": [40.0, 20.0, 40.0]}
    assert ratios(seconds, "literal") == [40, 10, 10]
    assert [Goal("x", 2, 2).reached, Goal("x", 2.1, 2, most=True).reached] == [True, False]
    assert [Goal("x", 1.9, 2).reached, Goal("x", 2, 2, most=True).reached] == [False, True]
    body = Row("p", "w", seconds).as_json()
    assert body["ratios"] == {"literal": {"median": 10, "min": 10, "max": 40}}


def test_the_literal_takes_the_ap_of_the_definition():
    codes = np.ones((1, 4))
    database = np.array([[1, 1, 1, 1], [1, 1, 1, -1], [1, 1, -1, -1], [1, -1, -1, -1]])
    labels = np.array([[1.0], [0], [1], [1]])
    task = codes, np.ones((1, 1)), database, labels
    assert scoring.literal(task, 3) == pytest.approx((1 + 2 / 3) / 2)
    assert scoring.literal((codes, np.zeros((1, 1)), database, labels), 3) == 0


@pytest.mark.parametrize("wrong", ["seeded", "expected"])
def test_a_wrong_score_is_found_before_it_is_timed(wrong, setting, monkeypatch):
    right = scoring.metrics.average_precision

    def off(*task, ties="expected", **more):
        return right(*task, ties=ties, **more) + (0.05 if ties == wrong else 0)

    monkeypatch.setattr(scoring.metrics, "average_precision", off)
    with pytest.raises(AssertionError, match=wrong):
        scoring._scored(scoring.TINY, setting)


def test_a_wrong_gradient_is_found_before_it_is_timed(setting, monkeypatch):
    right = crafting.ciba_patch.patch_gradient
    monkeypatch.setattr(
        crafting.ciba_patch, "patch_gradient", lambda *given, **how: right(*given, **how).flip(-1)
    )
    model, _ = network("cnn32", 32, 1, CPU)
    with pytest.raises(AssertionError):
        crafting._patch(model.eval().requires_grad_(False), setting)


def test_multiply_adds_of_cnn32_are_those_of_its_docstring():
    model, _ = network("cnn32", 32, 1, CPU)
    assert round(ceilings.multiply_adds(model.backbone, 32) / 1e6, 1) == 38.6


def test_the_bare_loops_of_ranking_see_every_pair(setting):
    rng = np.random.default_rng(0)
    codes, words = rng.integers(0, 2**63, (5, 1)).astype(np.uint64), np.zeros((1, 3000), np.uint64)
    sums = np.zeros(5, np.int64)
    ceilings.add_distances(0, 5, codes, words, sums)
    assert sums.tolist() == (3000 * np.bitwise_count(codes).sum(1)).tolist()
    counts = np.zeros((5, 65), np.int32)
    ceilings.count_distances(0, 5, np.full(7, 3, np.uint32), 4, counts)
    assert counts[:, 3].tolist() == [28] * 5
    assert counts.sum() == 5 * 28


def test_seconds_hold_one_call():
    calls = []
    assert seconds_of(lambda: calls.append(1), CPU) > 0
    assert calls == [1]


def test_an_unknown_part_is_one_sentence_and_exit_code_two(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["speed", "--part", "scorng"])
    assert main() == 2
    assert "did you mean scoring" in capsys.readouterr().err


@pytest.mark.slow
def test_the_job_runs_cold_and_warm_with_the_same_scores(setting):
    cold, warm = PARTS["job"](setting)
    assert cold.equal == "2 runs have the same scores"
    assert 0 < cold.share <= 1
    assert 0 < warm.seconds["ours"][0] < cold.seconds["ours"][0]


@pytest.mark.slow
def test_several_trainings_at_once_give_the_weights_of_one_alone(setting):
    row, memory = PARTS["several"](setting)
    assert row.equal == "weights equal those of a training alone, at equal threads"
    assert memory.equal == "weights are equal"
    for one in (row, memory):
        assert one.part == "several trainings"
        assert all((one.goals, one.work, one.least))
        assert all(time > 0 for times in one.seconds.values() for time in times)
