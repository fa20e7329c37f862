"""A suite's layout, its order, and that any number of workers makes the records of single runs."""

import hashlib
import json
import random
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from hashbackdoor_bench import RunSpec, UserError
from hashbackdoor_bench.files import file_hash
from hashbackdoor_bench.records import Record, read_record
from hashbackdoor_bench.report.refusals import read_refusals
from hashbackdoor_bench.stages import loading
from hashbackdoor_bench.stages.cache import Cache
from hashbackdoor_bench.stages.cache_users import keys_in_use
from hashbackdoor_bench.stages.pipeline import run
from hashbackdoor_bench.suites.durations import Times
from hashbackdoor_bench.suites.execution import Report, execute
from hashbackdoor_bench.suites.executors import local as executors_local
from hashbackdoor_bench.suites.executors import making
from hashbackdoor_bench.suites.executors.local import LocalExecutor
from hashbackdoor_bench.suites.executors.making import Workbench
from hashbackdoor_bench.suites.failures import kept_failure
from hashbackdoor_bench.suites.index import write_index
from hashbackdoor_bench.suites.layout import RECORD, Layout, Task, lay_out
from hashbackdoor_bench.suites.schedule import Schedule
from hashbackdoor_bench.suites.suite import SuiteRun

CPU = torch.device("cpu")


def cell(tiny: Path, attack: str = "tri", **changes: Any) -> SuiteRun:
    base: dict[str, Any] = {
        "dataset": "lists", "lists": str(tiny), "root": str(tiny), "size": 16, "top_k": 20,
        "bits": 12, "epochs": 1, "batch_size": 16, "attack": attack, "victim": "csq",
    }  # fmt: skip
    if attack in ("tri", "ciba", "tri_noise", "tri_adv"):
        base["attack_settings"] = (("perturbation_steps", 2), ("steps", 3))
    spec = RunSpec(**{**base, **changes})
    return SuiteRun("tiny", attack, spec, 1)


def cells(tiny: Path, attacks: list[str], victims: list[str], seeds: int) -> list[SuiteRun]:
    return [
        cell(tiny, attack, victim=victim, seed=seed)
        for seed in range(seeds)
        for victim in victims
        for attack in attacks
    ]


def laid(tiny: Path, tmp_path: Path, these: list[SuiteRun]) -> Layout:
    return lay_out(these, cache=Cache(tmp_path / "c"), results=tmp_path / "r", device=CPU)


def local(tmp_path: Path, jobs: int = 2, **more: Any) -> LocalExecutor:
    places = {"cache": tmp_path / "c", "results": tmp_path / "r", "device": "cpu"}
    return LocalExecutor(jobs=jobs, threads=1, gpus=[], **places, **more)


class Imaginary:
    """An executor that makes nothing: tasks end in a random order, some fail."""

    def __init__(self, jobs: int, fails: set[str] = frozenset()) -> None:  # type: ignore[assignment]
        self.jobs, self.fails, self.running = jobs, fails, list[Task]()
        self.order, self.random, self.most = list[Task](), random.Random(0), 0

    def free(self) -> int:
        return self.jobs - len(self.running)

    def start(self, task: Task) -> str:
        assert self.free() > 0
        crafting = [other.attacker for other in self.running if other.attacker]
        assert task.attacker not in crafting, "two crafts of one attacker at once"
        assert all(other.kind == RECORD or other in self.order for other in task.needs)
        self.running.append(task)
        self.most = max(self.most, len(self.running))
        return "0"

    def reports(self, timeout: float) -> list[Report]:
        task = self.running.pop(self.random.randrange(len(self.running)))
        if task.title in self.fails:
            return [Report("failed", task, "0", "no")]
        self.order.append(task)
        return [Report("done", task, "0", seconds=1.0)]


def imagine(layout: Layout, executor: Imaginary, tmp_path: Path) -> tuple[list[Any], list[Any]]:
    cache, said = Cache(tmp_path / "c"), list[Any]()
    failures = execute(layout, executor, cache=cache, times=Times(cache), watch=said.append)
    return failures, said


# ---- the layout ----------------------------------------------------------------------------------


def test_sharing_is_exact(tiny, tmp_path):
    attacks, victims = ["badnets", "tri", "tri_noise", "ciba"], ["csq", "hashnet", "dpsh"]
    layout = laid(tiny, tmp_path, cells(tiny, ["clean", *attacks], victims, 2))
    count = Counter(task.group for task in layout.tasks.values())
    assert count == {
        "train surrogate": 2 * 3,
        "train clean victim": 2 * 3,
        "craft backdoor": 2 * 3 * 3 + 2 * 2,  # white-box ones each; badnets and clean ask no victim
        "train poisoned victim": 2 * 3 * 4,
        "codes": 2 * 3 * (1 + 5) + 2 * 3 * (2 * 4),
        "scores": 2 * 3 * 5,
        "visibility": 2 * 3 * 3 + 2 * 2,
        RECORD: 2 * 3 * 5,
    }


def test_data_is_loaded_once_for_all_runs(tiny, tmp_path, monkeypatch):
    loads, load = [], loading.load_data
    monkeypatch.setattr(loading, "load_data", lambda *a: loads.append(a) or load(*a))
    laid(tiny, tmp_path, cells(tiny, ["clean", "tri"], ["csq", "hashnet"], 2))
    assert len(loads) == 1
    laid(tiny, tmp_path, [cell(tiny), cell(tiny, top_k=10)])
    assert len(loads) == 3


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_every_stage_is_made_once_after_its_inputs_and_no_craft_waits(tiny, tmp_path, jobs):
    these = cells(tiny, ["clean", "badnets", "tri", "ciba"], ["csq", "hashnet"], 2)
    layout, executor = laid(tiny, tmp_path, these), Imaginary(jobs)
    failures, said = imagine(layout, executor, tmp_path)
    assert not failures
    assert sorted(task.key for task in executor.order) == sorted(layout.tasks)
    assert executor.most == jobs
    assert sum(message["event"] == "run" for message in said) == len(these)
    assert said[-1]["stages_done"] == said[-1]["stages"] == len(layout.tasks)
    assert said[-1]["runs_done"] == said[-1]["runs"] == len(these)
    assert said[-1]["remaining"] == 0


def test_every_message_has_the_counts_of_its_moment(tiny, tmp_path):
    these = cells(tiny, ["clean", "badnets", "tri", "ciba"], ["csq", "hashnet"], 2)
    imagine(laid(tiny, tmp_path, these[:2]), Imaginary(2), tmp_path)
    layout, executor = laid(tiny, tmp_path, these), Imaginary(3, {"train surrogate"})
    todo, cache = len(layout.tasks.keys() - layout.done), Cache(tmp_path / "c")
    already, seen = len(layout.done), list[str]()

    def watch(message: Any) -> None:
        seen.append(message["event"])
        assert message["runs"] == len(these)
        assert message["runs_done"] == len(layout.planned) - len(layout.missing)
        assert message["stages"] == todo
        assert message["stages_done"] == len(layout.done) - already
        assert message["running"] == len(executor.running)

    execute(layout, executor, cache=cache, times=Times(cache), watch=watch)
    assert {"stage", "run", "tick"} == set(seen)
    assert layout.missing


def test_the_first_run_ends_before_the_last_begins(tiny, tmp_path):
    layout, executor = laid(tiny, tmp_path, cells(tiny, ["tri"], ["csq"], 3)), Imaginary(1)
    imagine(layout, executor, tmp_path)
    kinds = [task.kind for task in executor.order]
    each = len(kinds) // 3
    assert [place for place, kind in enumerate(kinds) if kind == RECORD] == [
        each - 1, 2 * each - 1, 3 * each - 1,
    ]  # fmt: skip


def test_a_failed_stage_stops_its_dependents_only(tiny, tmp_path):
    these = cells(tiny, ["clean", "badnets", "tri"], ["csq"], 1)
    layout = laid(tiny, tmp_path, these)
    executor = Imaginary(2, {"train surrogate"})
    failures, _ = imagine(layout, executor, tmp_path)
    assert [(f.run.label, f.stage, f.message) for f in failures] == [
        ("tri", "train surrogate", "no")
    ]
    assert [one.run.label for one in layout.missing] == ["tri"]
    made = {task.key for task in executor.order}
    assert not any(n.attacker for n in layout.missing[0].tasks if n.key in made)
    kept = kept_failure(Cache(tmp_path / "c"), these[2])
    assert kept is not None
    assert (kept.stage, kept.message) == ("train surrogate", "no")
    imagine(laid(tiny, tmp_path, these), Imaginary(2), tmp_path)
    assert kept_failure(Cache(tmp_path / "c"), these[2]) is None


def test_every_run_of_a_failed_stage_fails_and_is_told_its_first_failure(tiny, tmp_path):
    layout = laid(tiny, tmp_path, cells(tiny, ["tri", "ciba"], ["csq"], 1))
    executor = Imaginary(2, {"train surrogate", "train clean victim"})
    failures, said = imagine(layout, executor, tmp_path)
    first = next(message["stage"] for message in said if message.get("state") == "failed")
    assert [(f.run.label, f.stage) for f in failures] == [("tri", first), ("ciba", first)]
    assert said[-1]["failed"] == 2  # both were under way


def test_a_run_that_cannot_be_planned_stops_no_other(tiny, tmp_path):
    good, bad = cell(tiny), cell(tiny, poison_count=999)
    layout = laid(tiny, tmp_path, [bad, good])
    assert [failure.run for failure in layout.refused] == [bad]
    failures, _ = imagine(layout, Imaginary(1), tmp_path)
    assert "999 images are to be poisoned" in failures[0].message
    assert not layout.missing
    with pytest.raises(UserError, match="999 images are to be poisoned"):
        laid(tiny, tmp_path, [bad])


def test_a_defense_that_does_not_fit_is_a_result_and_no_failure(tiny, tmp_path):
    good, unfit = cell(tiny), cell(tiny, defense="dpsgd", victim="hashnet")
    layout = laid(tiny, tmp_path, [unfit, good])
    assert (layout.refused, [one.run for one in layout.unfit]) == ([], [unfit])
    failures, _ = imagine(layout, Imaginary(1), tmp_path)
    assert failures == []
    results = tmp_path / "r"
    results.mkdir(exist_ok=True)
    write_index(layout, results)
    ((refusal,), problems) = read_refusals(results / "refused.csv")
    assert problems == ()
    assert (refusal.label, refusal.victim, refusal.defense) == (unfit.label, "hashnet", "dpsgd")
    assert refusal.reason.startswith("defense dpsgd needs a gradient for each image, and the loss")
    write_index(laid(tiny, tmp_path, [good]), results)
    assert not (results / "refused.csv").exists()
    with pytest.raises(UserError, match="needs a gradient for each image"):
        laid(tiny, tmp_path, [unfit])


def test_no_stage_starts_that_only_failed_runs_need(tiny, tmp_path):
    layout = laid(tiny, tmp_path, cells(tiny, ["tri"], ["csq"], 1))
    schedule = Schedule(layout)
    task = schedule.take()
    assert task is not None
    schedule.fail(task)
    assert schedule.over
    assert schedule.take() is None


# ---- times --------------------------------------------------------------------------------------


def test_a_stage_is_expected_to_take_what_stages_like_it_took(tiny, tmp_path):
    layout = laid(tiny, tmp_path, cells(tiny, ["tri", "ciba"], ["csq", "hashnet"], 1))
    train = {
        (task.inputs["method"], task.title): task
        for task in layout.tasks.values()
        if task.kind == "train"
    }
    times = Times(Cache(tmp_path / "c"))
    csq, hashnet = train["csq", "train clean victim"], train["hashnet", "train clean victim"]
    assert times.of("train", csq.inputs) is None
    times.add("train", csq.inputs, 10.0)
    assert times.of("train", csq.inputs) == 10
    assert times.of("train", hashnet.inputs) == 10  # of the kind
    times.add("train", hashnet.inputs, 30.0)
    assert times.of("train", csq.inputs) == 10
    longer = {**csq.inputs, "recipe": {**csq.inputs["recipe"], "epochs": 4}}
    assert times.of("train", longer) == 40
    times.add("train", {**hashnet.inputs, "recipe": {"epochs": 4}}, 400.0)
    assert times.of("train", hashnet.inputs) == (30 + 100) / 2
    crafts = [task for task in layout.tasks.values() if task.attacker]
    assert times.total([csq, *crafts]) == (10, 4)
    times.add("backdoor", crafts[0].inputs, 2.0)
    shared = {k: v for k, v in crafts[0].inputs.items() if k not in ("settings", "poisoned")}
    times.add("shared", shared, 7.0)
    assert times.total(crafts) == (4 * 2 + 2 * 7, 0)  # once for both attacks on each victim


# ---- processes of this machine ------------------------------------------------------------------


def scores(folder: Path) -> dict[str, Any]:
    found = {}
    for path in sorted(folder.rglob("*.json")):
        record: Record = read_record(path)
        same = (record.key, record.scores, record.retrieval, record.imperceptibility)
        found[str(path.relative_to(folder))] = (*same, record.training, record.artifacts)
    return found


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("warm_workers")
def test_workers_read_another_cache_and_write_only_their_own(tiny, tmp_path, one_thread):
    these, theirs = [cell(tiny, "badnets_clean", victim="csq")], tmp_path / "theirs"
    run(these[0].spec, cache=Cache(theirs), results=tmp_path / "single")
    shutil.rmtree(theirs / "scores")
    before = sorted(path for path in theirs.rglob("*") if "data" not in path.parts)
    cache = Cache(tmp_path / "c", [theirs])
    layout = lay_out(these, cache=cache, results=tmp_path / "r", device=CPU)
    assert {layout.tasks[key].group for key in layout.tasks.keys() - layout.done} == {
        "scores", RECORD,
    }  # fmt: skip
    with local(tmp_path, others=[theirs]) as executor:
        failures = execute(layout, executor, cache=cache, times=Times(cache), watch=lambda m: None)
    assert not failures
    assert scores(tmp_path / "r") == scores(tmp_path / "single")
    assert {kind for kind, *_ in cache.stored()} == {"scores"}
    assert sorted(path for path in theirs.rglob("*") if "data" not in path.parts) == before


@pytest.mark.usefixtures("warm_workers")
def test_two_workers_make_the_records_of_single_runs_bit_for_bit(tiny, tmp_path, one_thread):
    these = cells(tiny, ["clean", "tri", "ciba"], ["csq"], 1)
    layout, cache = laid(tiny, tmp_path, these), Cache(tmp_path / "c")
    with local(tmp_path) as executor:
        failures = execute(layout, executor, cache=cache, times=Times(cache), watch=lambda m: None)
        assert not failures
        assert len(executor.workers) == 2
    assert all(worker.process.returncode is not None for worker in executor.workers.values())
    for one in these:
        run(one.spec, cache=Cache(tmp_path / "alone"), results=tmp_path / "single")
    assert scores(tmp_path / "r") == scores(tmp_path / "single")
    weights = sorted(p.name for p in (tmp_path / "c" / "train").iterdir())
    assert len(weights) == 4  # one surrogate, one clean, two poisoned
    for key in weights:
        files = [
            (tmp_path / place / "train" / key / "tensors.safetensors").read_bytes()
            for place in ("c", "alone")
        ]
        assert files[0] == files[1]
    assert not keys_in_use(tmp_path / "c")
    for one in layout.planned:
        names = {picture.name for picture in one.path.with_suffix("").iterdir()}
        assert "retrieval.png" in names
    again = laid(tiny, tmp_path, these)
    assert not again.missing
    values = json.loads(again.planned[0].path.read_text())
    again.planned[0].path.write_text(json.dumps({**values, "key": "0" * 64}))
    assert len(laid(tiny, tmp_path, these).missing) == 1


# ---- a worker -----------------------------------------------------------------------------------


@pytest.fixture
def bench(tmp_path, monkeypatch, one_thread):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return lambda place: Workbench(Cache(tmp_path / place), tmp_path / "r", CPU)


def test_a_stage_reads_what_the_graph_says_and_makes_itself_only(tiny, tmp_path, bench):
    layout = laid(tiny, tmp_path, [cell(tiny, "tri")])
    whole = bench("c")
    for number, task in enumerate(layout.tasks.values()):
        alone = bench(f"alone{number}")
        given = {(other.kind, other.key) for other in task.needs}
        for name in given:
            alone.cache.unpack(*name, whole.cache.pack(*name))
        alone.make(task.spec, task.name, task.key, lambda *a, **k: None)
        made = {(kind, key) for kind, key, _ in alone.cache.stored()} - given
        made = {(kind, key) for kind, key in made if kind not in ("shared", "dispersion")}
        assert made == ({(task.kind, task.key)} if task.kind != RECORD else set()), task.title
        whole.make(task.spec, task.name, task.key, lambda *a, **k: None)
    assert not laid(tiny, tmp_path, [cell(tiny, "tri")]).missing


def test_idle_workers_leave_with_their_input_and_all_share_one_deadline(
    tiny, tmp_path, monkeypatch
):
    asked, waits = [], []

    class Worker:
        def __init__(self, place: int, *more: Any) -> None:
            self.place = place

        def send(self, message: Any) -> None: ...

        def ask(self, *, busy: bool) -> None:
            asked.append((self.place, busy))

        def end(self, seconds: float) -> str:
            waits.append(seconds)
            time.sleep(0.1)
            return ""

    monkeypatch.setattr(executors_local, "_Process", Worker)
    first, second = laid(tiny, tmp_path, [cell(tiny)]).planned[0].tasks[:2]
    with local(tmp_path) as executor:
        executor.start(first)
        executor.start(second)
        del executor.working[1]
    assert asked == [(0, True), (1, False)]
    assert executors_local.GRACE - 0.05 < waits[0] <= executors_local.GRACE
    assert waits[1] <= waits[0] - 0.1


def test_a_worker_that_plans_another_stage_than_the_driver_says_so(tiny, bench):
    with pytest.raises(UserError, match="other code or data"):
        bench("c").make(cell(tiny).spec, "clean victim", "0" * 64, lambda *a, **k: None)


def test_a_record_is_written_after_its_pictures(tiny, tmp_path, bench, monkeypatch):
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    layout = laid(tiny, tmp_path, [cell(tiny, "clean")])
    record = layout.planned[0].tasks[-1]
    monkeypatch.setattr(making, "draw_missing", full)
    with pytest.raises(UserError, match="No space"):
        bench("c").make(record.spec, record.name, record.key, lambda *a, **k: None)
    assert laid(tiny, tmp_path, [cell(tiny, "clean")]).missing


def test_half_a_record_is_not_done(tiny, tmp_path):
    layout = laid(tiny, tmp_path, [cell(tiny, "clean")])
    path = layout.planned[0].path
    path.parent.mkdir(parents=True)
    for text in ("", "{}", '{"schema": 1}'):
        path.write_text(text)
        assert laid(tiny, tmp_path, [cell(tiny, "clean")]).missing


def test_precision_is_the_drivers_for_all_workers(tiny, tmp_path):
    layout = laid(tiny, tmp_path, [cell(tiny)])
    assert {task.spec.precision for task in layout.tasks.values()} <= {"float32", "bfloat16"}


def test_a_weight_file_that_was_changed_is_hashed_again(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    before = file_hash(path, "--weights")
    assert file_hash(path, "--weights") == before == hashlib.sha256(b"one").hexdigest()
    path.write_bytes(b"others")
    assert file_hash(path, "--weights") == hashlib.sha256(b"others").hexdigest()
