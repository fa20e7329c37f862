"""Results of other threads, devices, precisions or versions of torch are never mixed."""

import json
from pathlib import Path

import msgspec
import pytest
import torch
from pretend import GPU, pretend_gpu
from test_pipeline import spec

from hashbackdoor_bench.cli import main
from hashbackdoor_bench.records import read_record, record_key
from hashbackdoor_bench.stages import Cache, Plan, Run, numerics_of, run, threads_set

CPU = torch.device("cpu")
PUBLISHED = Path(__file__).parents[1] / "results"


def planned(tiny: Path, cache: Path, device: torch.device = CPU, **changes) -> Plan:
    threads = changes.pop("threads", None)
    return Plan(spec(tiny, **changes), cache=Cache(cache), device=device, threads=threads)


def keys(plan: Plan) -> dict[str, str]:
    return {name: stage.key for name, stage in plan.stages.items()}


def test_threads_precision_device_and_torch_enter_the_key_of_every_stage(
    tiny, tmp_path, monkeypatch
):
    base = keys(planned(tiny, tmp_path, precision="float32"))
    others = [
        keys(planned(tiny, tmp_path, precision="float32", threads=7)),
        keys(planned(tiny, tmp_path, precision="bfloat16")),
    ]
    with pretend_gpu():
        others.append(keys(planned(tiny, tmp_path, GPU, precision="float32")))
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "2.99.0")
        others.append(keys(planned(tiny, tmp_path, precision="float32")))
    with monkeypatch.context() as patch:
        patch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "another")
        others.append(keys(planned(tiny, tmp_path, precision="float32")))
    for name in base:
        assert len({base[name], *(other[name] for other in others)}) == 1 + len(others), name


def test_a_gpu_has_tf32_instead_of_threads(monkeypatch):
    with pretend_gpu():
        found = [numerics_of(GPU, "float32", threads) for threads in (1, 2)]
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
        exact = numerics_of(GPU, "float32")
    assert found[0] == found[1]
    assert found[0] != exact
    assert found[0].threads is None


def test_a_shared_function_is_computed_again_under_other_threads(tiny, tmp_path):
    def shared(threads: int) -> str:
        plan = planned(tiny, tmp_path, threads=threads)
        return plan.shared("optimise_patch", {"side": 3}, plan.stages["backdoor"].row).key

    assert shared(1) == shared(1) != shared(2)


def test_a_control_of_other_threads_is_not_reused(tiny, tmp_path):
    cache, results = Cache(tmp_path / "c"), tmp_path / "r"
    made, *_ = run(
        spec(tiny, attack="clean"), cache=cache, results=results, device="cpu", threads=2
    )
    found, path, _ = run(
        spec(tiny, attack="identity"), cache=cache, results=results, device="cpu", threads=1
    )
    assert not {*made.artifacts.values()} & {*found.artifacts.values()}
    assert found.scores.field.delta_map == 0
    assert (made.numerics.threads, found.numerics.threads) == (2, 1)
    assert found.device.endswith(", 1 thread")
    assert read_record(path) == found


def test_a_run_leaves_the_number_of_threads_as_it_was():
    before = torch.get_num_threads()
    with threads_set(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with pytest.raises(RuntimeError), threads_set(before + 1):
        raise RuntimeError
    assert torch.get_num_threads() == before


def test_bench_run_takes_threads_and_writes_them_down(tiny, tmp_path, capsys):
    places = ["--cache-dir", str(tmp_path / "c"), "--results-dir", str(tmp_path / "r")]
    data = ["--dataset", "lists", "--lists", str(tiny), "--root", str(tiny), "--size", "16"]
    short = ["--epochs", "1", "--bits", "12", "--attack", "clean", "--json", "--device", "cpu"]
    for threads in (1, 2):
        words = ["run", *data, *short, *places, "--threads", str(threads)]
        assert main(words) == 0
        result = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert read_record(Path(result["record"])).numerics.threads == threads
    assert len(list((tmp_path / "r").rglob("*.json"))) == 2
    assert main(["run", *data, *short, *places, "--threads", "0"]) == 2


def test_without_numerics_a_run_has_the_key_of_records_from_before_they_were_kept(tmp_path):
    path = PUBLISHED / "fashion-mini/csq-48/identity_resized-s0-c51373d508.json"
    plan = Plan(read_record(path).spec, cache=Cache(tmp_path), device=CPU)
    before = plan.keys_under(None)
    assert record_key(plan.spec, before)[:10] == "344eb453f0"  # the first record of this run
    assert plan.keys_under(plan.numerics) == keys(plan) != before


def test_the_numerics_of_a_record_give_its_artifacts_on_another_machine(tiny, tmp_path):
    given = spec(tiny, attack="clean", precision="float32")
    record = Run(given, cache=Cache(tmp_path), device=CPU).record()
    elsewhere = planned(tiny, tmp_path, attack="clean", precision="float32", threads=5)
    assert keys(elsewhere) != record.artifacts
    assert elsewhere.keys_under(record.numerics) == record.artifacts
    changed = msgspec.structs.replace(record.numerics, threads=5)
    assert elsewhere.keys_under(changed) == keys(elsewhere)
