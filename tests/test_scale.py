"""The simulation of large suites: its stubs go the real way, its plan can be computed by hand."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hashbackdoor_bench.benchmarks.scale import imagenet
from hashbackdoor_bench.benchmarks.scale.__main__ import BLOCK, PAGE, PREFIX, page_with
from hashbackdoor_bench.benchmarks.scale.cluster import Outcome, storm
from hashbackdoor_bench.benchmarks.scale.scoring import EXTRA
from hashbackdoor_bench.benchmarks.scale.suite import Simulated, load_stubs
from hashbackdoor_bench.benchmarks.speed.clock import Row

from hashbackdoor_bench.records import read_record
from hashbackdoor_bench.stages import plan
from hashbackdoor_bench.suites.executors import making

ROOT = Path(__file__).parents[1]
SPEED = ROOT / "results" / "speed"


@pytest.fixture
def stubs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stubs' plugin, loaded into this process for one test."""
    monkeypatch.setattr(plan, "STAGES", plan.STAGES)  # what the plugin replaces is put back
    monkeypatch.setattr(making, "draw_missing", making.draw_missing)
    load_stubs()


@pytest.mark.slow
def test_the_command_simulates_a_suite_and_writes_the_plan(tmp_path):
    words = ["-m", "hashbackdoor_bench.benchmarks.scale", "--quick", "--output", str(tmp_path)]
    parts = ["--part", "simulation", "--part", "scoring"]
    done = subprocess.run(
        [sys.executable, *words, *parts], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob(f"{PREFIX}*.json")
    body = json.loads(path.read_text())
    rows = {row["part"]: Row.from_json(row) for row in body["rows"]}
    assert rows.keys() == {
        "planning", "scheduling", "executing", "a finished suite", "scores of a run",
    }  # fmt: skip
    assert rows["planning"].work == "502 stages of 72 runs"
    assert imagenet.spelt([imagenet.Line(**line) for line in body["plan"]]) in done.stdout


def test_a_simulated_suite_is_laid_out_as_its_docstring_says(stubs, tmp_path):
    simulated = Simulated(tmp_path, 2)
    _, layout = simulated.lay_out(simulated.read())
    assert not layout.refused
    assert (len(layout.planned), len(layout.tasks)) == (2 * 72, 2 * 502)


# ---- the cluster --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_while_nodes_are_killed_no_run_is_lost_and_no_stage_made_again_silently(
    stubs, tmp_path, seed
):
    pytest.importorskip("ray")
    print(f"seed {seed}")
    simulated = Simulated(tmp_path, 1, seconds=0.2, victims=("hashnet",), bits=(16, 32))
    found = storm(simulated, kills=4, seed=seed)
    assert (found.runs, found.killed) == (12, 4)
    assert found.records + len(found.failures) == found.runs
    assert all(one.stage and one.message for one in found.failures)
    assert not found.silent
    for path in simulated.results.rglob("*.json"):
        read_record(path)
    _, again = simulated.lay_out(simulated.read())
    assert len(again.missing) == len(found.failures)


def test_a_stage_that_is_made_again_without_a_warning_is_found():
    def outcome(*notes: str) -> Outcome:
        built = {("a", "score"): 2, ("b", "score"): 1, ("c", "encode"): 3}
        return Outcome(3, 1, 1, (), notes, built, 1, 1.0, 1.0)

    assert outcome("score, x: died", "encode, x: died").silent == {"encode": 1}
    assert outcome("score, x: died", "encode, x: died", "encode, x: died again").silent == {}
    assert outcome().silent.total() == 3


# ---- the plan -----------------------------------------------------------------------------------


def rows() -> list[Row]:
    facts = {
        "planning": {"ms_per_run": 2.0},
        "executing": {
            "main_process_ms_per_stage": 0.5,
            "worker_ms_per_stage": 3.5,
            "record_bytes_per_run": 16_000.0,
        },
        "scores of a run": {
            "seconds_without_queries": 10.0,
            "seconds_per_query": 0.001,
            "average_precision_seconds_per_query": 0.0001,
            "label_bytes_of_the_database": 10**9,
            EXTRA: 2.0,
        },
    }
    return [Row(part, "work", {"ours": [1.0]}, facts=entry) for part, entry in facts.items()]


def rates() -> dict[str, object]:
    parts = {
        "training": 1000.0, "encoding": 10_000.0, "trigger crafting": 500.0,
        "confusing perturbations": 400.0,
    }  # fmt: skip
    other = {"part": "training", "work": "cnn32, 32 px", "facts": {"images_per_second": 1e6}}
    ours = [
        {"part": part, "work": "resnet50, 224 px", "facts": {"images_per_second": rate}}
        for part, rate in parts.items()
    ]
    return {"device": "a GPU", "rows": [other, *ours]}


def test_the_plan_is_what_a_person_computes():
    found = {line.what: line for line in imagenet.plan(rates(), rows())}
    hours = 10_160 * 150 * 130_000 / 1000 / 3600
    assert found["runs"].value == 10_000
    assert found["training, 150 epochs"].value == pytest.approx(hours)
    assert found["images on each node"].value == pytest.approx(1_180_000 * 3 * 256**2 / 1e9)
    encoded = 10_080 * 1_050_000 + 20_000 * 50_000
    assert found["encoding"].value == pytest.approx(encoded / 10_000 / 3600)
    crafted = 80 * 2000 * 32 / 500 + 10_000 * 78 * 20 / 400
    assert found["crafting, if all attacks were CIBA"].value == pytest.approx(crafted / 3600)
    assert found["scoring"].value == pytest.approx(10_000 * (10 + 50_000 * 0.001) / 3600)
    ranked = found["of that, the five exact rankings alone"]
    assert ranked.value == pytest.approx(10_000 * 5 * 50_000 * 0.0001 / 3600)
    assert found["memory of a scoring"].value == pytest.approx(3)
    assert found["planning"].value == pytest.approx(20)
    assert found["overhead of the suite, local workers"].value == pytest.approx(
        4e-3 * 80_320 / 3600
    )
    weights = found["weights of one network"].value * 1e6
    assert weights == pytest.approx(4 * 23.6e6, rel=0.01)  # ResNet-50 without its 1000 classes
    poison = 78 * (3 * 224**2 + 1000)
    codes = 5 * encoded
    disk = 10_160 * weights + codes + 10_000 * poison
    assert found["disk for the cache"].value == pytest.approx(disk / 1e12)
    assert found["sent to and from the nodes"].value == pytest.approx(
        (2 * disk + 10_160 * weights) / 1e12
    )


def test_the_page_has_the_plan_of_the_committed_report():
    (path,) = SPEED.glob(f"{PREFIX}*.json")
    body = json.loads(path.read_text(encoding="utf-8"))
    report = imagenet.read_report(ROOT / imagenet.GPU_REPORT)
    lines = imagenet.plan(report, [Row.from_json(row) for row in body["rows"]])
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    found = BLOCK.search(page)
    assert found is not None
    assert found[0] == imagenet.spelt(lines)
    assert page_with(page, "new\n") == page.replace(found[0], "new\n")
    assert [imagenet.Line(**line) for line in body["plan"]] == lines
