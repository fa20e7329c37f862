"""A suite on a Ray cluster whose nodes have caches of their own."""

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from hashbackdoor_bench import RunSpec, UserError
from hashbackdoor_bench.cli import main
from hashbackdoor_bench.records import read_record
from hashbackdoor_bench.stages.cache import Cache
from hashbackdoor_bench.suites.durations import Times
from hashbackdoor_bench.suites.execution import execute
from hashbackdoor_bench.suites.executors.local import LocalExecutor
from hashbackdoor_bench.suites.layout import Layout, lay_out
from hashbackdoor_bench.suites.suite import SuiteRun

CPU = torch.device("cpu")


def test_without_ray_a_sentence_says_what_to_install(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "hashbackdoor_bench.suites.executors.ray", raising=False)
    suite = tmp_path / "one.toml"
    suite.write_text(
        f'title = "one"\ndataset = "lists"\nlists = "{tiny}"\nroot = "{tiny}"\nsize = 32\n'
        'top_k = 20\nattack = ["clean"]\n'
    )
    places = ["--cache-dir", str(tmp_path / "c"), "--results-dir", str(tmp_path / "r")]
    assert main(["suite", "run", str(suite), *places, "--executor", "ray"]) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("bench:")]
    assert 'pip install "hashbackdoor-bench[ray]"' in line


def cells(tiny: Path) -> list[SuiteRun]:
    common: dict[str, Any] = {
        "dataset": "lists", "lists": str(tiny), "root": str(tiny), "size": 32, "top_k": 20,
        "bits": 12, "epochs": 2, "batch_size": 16, "victim": "csq",
    }  # fmt: skip
    steps = (("perturbation_steps", 2), ("steps", 3))
    return [
        SuiteRun("tiny", attack, RunSpec(**common, attack=attack, attack_settings=settings), 1)
        for attack, settings in (("clean", ()), ("tri", steps), ("ciba", steps), ("badnets", ()))
    ]


def laid(tiny: Path, folder: Path) -> Layout:
    return lay_out(cells(tiny), cache=Cache(folder / "c"), results=folder / "r", device=CPU)


def scores(folder: Path) -> dict[str, Any]:
    found = {}
    for path in sorted((folder / "r").rglob("*.json")):
        record = read_record(path)
        same = (record.key, record.scores, record.retrieval, record.imperceptibility)
        found[path.name] = (*same, record.training, record.artifacts)
        assert (path.with_suffix("") / "retrieval.png").is_file()
    return found


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[Any, list[Any]]]:
    """A head without CPUs, for the driver, and two nodes with one CPU and a cache each."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [
        found.add_node(num_cpus=1, env_vars={"HASHBACKDOOR_CACHE": str(tmp_path / f"node{n}")})
        for n in range(2)
    ]
    yield found, nodes
    ray.shutdown()
    found.shutdown()


def through_ray(layout: Layout, folder: Path, address: str, watch: Any) -> list[Any]:
    from hashbackdoor_bench.suites.executors.ray import RayExecutor

    cache = Cache(folder / "c")
    places = {"cache": cache, "results": folder / "r", "device": "cpu"}
    with RayExecutor(address=address, threads=1, gpus=0, **places) as executor:
        return execute(layout, executor, cache=cache, times=Times(cache), watch=watch)


@pytest.mark.slow
def test_two_nodes_with_their_own_caches_equal_two_local_workers(tiny, tmp_path, cluster):
    alone, spread = tmp_path / "alone", tmp_path / "spread"
    layout, cache = laid(tiny, alone), Cache(alone / "c")
    places = {"cache": alone / "c", "results": alone / "r", "device": "cpu"}
    with LocalExecutor(jobs=2, threads=1, gpus=[], **places) as workers:
        assert not execute(layout, workers, cache=cache, times=Times(cache), watch=lambda m: None)
    said: list[Any] = []
    assert not through_ray(laid(tiny, spread), spread, cluster[0].address, said.append)
    assert scores(spread) == scores(alone)
    assert len(scores(spread)) == 4
    kinds = {kind for kind, _, _ in cache.stored()}
    assert "shared" in kinds
    # Dispersion is measured where a record is written, and no other stage needs it.
    stored = {
        place: {(kind, key) for kind, key, _ in Cache(place).stored() if kind != "dispersion"}
        for place in (alone / "c", spread / "c", tmp_path / "node0", tmp_path / "node1")
    }
    assert stored[spread / "c"] == stored[alone / "c"]
    nodes = [stored[tmp_path / node] for node in ("node0", "node1")]
    assert all({kind for kind, _ in node} & {"train", "codes"} for node in nodes)  # both worked
    assert all(node <= stored[alone / "c"] for node in nodes)
    assert any(node < stored[alone / "c"] for node in nodes)  # and got what they needed only
    assert not laid(tiny, spread).missing


@pytest.mark.slow
def test_with_a_node_removed_in_the_middle_the_suite_ends(tiny, tmp_path, cluster):
    found, nodes = cluster
    layout, folder = laid(tiny, tmp_path), tmp_path
    removed = threading.Event()

    def watch(message: Any) -> None:
        busy = message["event"] == "stage" and message["state"] == "started"
        if busy and message["running"] == 2 and message["stages_done"] > 4 and not removed.is_set():
            removed.set()
            time.sleep(0.5)
            found.remove_node(nodes[1], allow_graceful=False)

    assert not through_ray(layout, folder, found.address, watch)
    assert removed.is_set()
    assert len(scores(folder)) == 4


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere"])
def test_an_address_where_nobody_answers_is_one_sentence(tmp_path, address):
    pytest.importorskip("ray")
    from hashbackdoor_bench.suites.executors.ray import RayExecutor

    places = {"cache": Cache(tmp_path), "results": tmp_path, "device": "cpu"}
    with (
        pytest.raises(UserError, match=f"--address {address}: no Ray cluster answers there"),
        RayExecutor(address=address, threads=1, gpus=0, **places),
    ):
        pass
