"""A suite of stub stages on a Ray cluster of four nodes, in peace and while nodes are killed."""

import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hashbackdoor_bench.suites import Failure, Times, execute

from ..speed.clock import Goal, Row, Setting
from .suite import PLUGIN, Simulated, load_stubs

NODES, KILLS, SEED = 4, 6, 13
NOTE = "note"


@dataclass(frozen=True)
class Outcome:
    """What became of a suite.

    Attributes:
        stages: number of its stages, records among them.
        runs: number of its runs.
        records: number of records at the end.
        failures: the failed runs.
        notes: the warnings, each of which tells that a stage was begun again.
        built: how often each stage was built on any node, by key and title.
        killed: number of nodes that were killed.
        seconds: for all of it, without the start of the cluster.
        main_seconds: processor time of the main process.
    """

    stages: int
    runs: int
    records: int
    failures: Sequence[Failure]
    notes: Sequence[str]
    built: Mapping[tuple[str, str], int]
    killed: int
    seconds: float
    main_seconds: float

    @property
    def silent(self) -> Counter[str]:
        """Titles of stages that were built more often than once and the warnings told of."""
        more: Counter[str] = Counter()
        for (_, title), times in self.built.items():
            more[title] += times - 1
        return more - Counter(note.partition(", ")[0] for note in self.notes)


def storm(suite: Simulated, kills: int, seed: int) -> Outcome:
    """Run a suite on a new cluster.

    Args:
        suite: the suite; `load_stubs` was called.
        kills: number of nodes to kill, each of which another one replaces.
        seed: decides when a node is killed, and which.
    """
    import ray
    from ray.cluster_utils import Cluster

    from hashbackdoor_bench.suites.executors import RayExecutor

    cache, layout = suite.lay_out(suite.read())
    draw, stages = random.Random(seed), len(layout.missing and layout.tasks)
    moments = sorted(draw.sample(range(stages // 10, 9 * stages // 10), kills))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    folders = [suite.work / f"node{number}" for number in range(NODES)]

    def node(number: int) -> Any:
        places = {"HASHBACKDOOR_CACHE": str(folders[number])}
        return cluster.add_node(num_cpus=1, env_vars=places)

    nodes, notes = list[Any](), list[str]()

    def watch(message: Mapping[str, Any]) -> None:
        json.dumps(message)
        if message.get("state") == NOTE:
            notes.append(message["message"])
        if message.get("state") == "started" and moments and message["stages_done"] >= moments[0]:
            moments.pop(0)
            number = draw.randrange(NODES)
            cluster.remove_node(nodes[number], allow_graceful=False)
            nodes[number] = node(number)

    try:
        nodes += [node(number) for number in range(NODES)]
        executor = RayExecutor(
            address=cluster.address,
            threads=1,
            gpus=0,
            cache=cache,
            results=suite.results,
            device="cpu",
            plugins=[PLUGIN],
        )
        with executor:
            start, before = time.perf_counter(), time.process_time()
            failures = execute(layout, executor, cache=cache, times=Times(cache), watch=watch)
            seconds, main = time.perf_counter() - start, time.process_time() - before
    finally:
        ray.shutdown()
        cluster.shutdown()
    built: Counter[tuple[str, str]] = Counter()
    for folder in folders:
        for path in folder.glob("built.txt"):
            for line in path.read_text(encoding="utf-8").splitlines():
                key, _, title = line.partition(" ")
                built[key, title] += 1
    return Outcome(
        stages=stages,
        runs=len(layout.planned),
        records=len(list(suite.results.rglob("*.json"))),
        failures=failures,
        notes=notes,
        built=built,
        killed=kills - len(moments),
        seconds=seconds,
        main_seconds=main,
    )


def measure(setting: Setting) -> Iterator[Row]:
    """The rows of this part; none if Ray is not installed."""
    if find_spec("ray") is None:
        return
    load_stubs()
    for kills in (0, 2 if setting.quick else KILLS):
        work = setting.work / f"{kills}-kills"
        work.mkdir()
        found = storm(Simulated(work, 1), kills, SEED)
        lost = found.runs - found.records - len(found.failures)
        what = f"{kills} of them killed and replaced, seed {SEED}" if kills else "in peace"
        yield Row(
            "Ray cluster",
            f"{found.stages} stages of {found.runs} runs, {NODES} nodes on this machine, {what}",
            {"ours": [found.seconds]},
            [
                Goal("runs neither finished nor failed with a reason", lost, 0, True),
                Goal("stages made again without a word", found.silent.total(), 0, True),
                *(() if kills else (Goal("failed runs", len(found.failures), 0, True),)),
            ],
            least="the files of each stage, through the object store and back",
            facts={
                "ms_per_stage": 1e3 * found.seconds / found.stages,
                "main_process_ms_per_stage": 1e3 * found.main_seconds / found.stages,
                "failed_runs": len(found.failures),
                "warnings": len(found.notes),
                "stages_built_again": sum(found.built.values()) - len(found.built),
                "nodes_killed": found.killed,
            },
        )


if __name__ == "__main__":  # a try by hand: the folder, the kills, the seed
    import sys

    load_stubs()
    print(storm(Simulated(Path(sys.argv[1]), 1), int(sys.argv[2]), int(sys.argv[3])))
