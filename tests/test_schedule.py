"""The schedule of a suite chooses as its rule says, in graphs of every kind, and in little time."""

import random
import time
from pathlib import Path
from typing import Any

import pytest

from hashbackdoor_bench.stages.cache import Cache
from hashbackdoor_bench.suites.durations import RECORD_SECONDS, Remaining, Times
from hashbackdoor_bench.suites.layout import RECORD, Layout, PlannedRun, Task
from hashbackdoor_bench.suites.schedule import Schedule


def task(key: str, needs: tuple[Task, ...] = (), attacker: str | None = None, **more: Any) -> Task:
    given: dict[str, Any] = {"kind": "train", "inputs": {"recipe": {"epochs": 1}}, **more}
    return Task(
        key=key, title=key, group="", run=None, spec=None, name=key, needs=needs,
        attacker=attacker, **given,
    )  # type: ignore[arg-type]  # fmt: skip


def layout_of(runs: list[list[Task]], done: set[str]) -> Layout:
    tasks = {one.key: one for each in runs for one in each}
    planned = [
        PlannedRun(None, None, Path(), tuple(each), frozenset())  # type: ignore[arg-type]
        for each in runs
    ]
    return Layout(planned=planned, tasks=tasks, done=done)


def random_layout(draw: random.Random) -> Layout:
    """Runs that share stages and attackers; needs are closed, the last task needs all others."""
    attackers = [f"attacker {n}" for n in range(draw.randint(1, 3))]
    stages: list[Task] = []
    for number in range(draw.randint(1, 30)):
        needs = draw.sample(stages, min(len(stages), draw.choice((0, 0, 1, 1, 2))))
        attacker = draw.choice(attackers) if draw.random() < 0.4 else None
        stages.append(task(f"stage {number}", tuple(needs), attacker))
    place = {one: number for number, one in enumerate(stages)}
    runs, records = [], list[Task]()
    for number in range(draw.randint(1, 20)):
        if records and draw.random() < 0.1:  # an equal run under another name
            runs.append([*records[-1].needs, records[-1]])
            continue
        mine, new = set[Task](), draw.sample(stages, draw.randint(1, min(4, len(stages))))
        while new:
            mine |= set(new)
            new = [other for one in new for other in one.needs if other not in mine]
        parts = sorted(mine, key=place.__getitem__)
        records.append(task(f"record {number}", tuple(parts), kind=RECORD))
        runs.append([*parts, records[-1]])
    kept = {one.key for one in stages if draw.random() < 0.1}
    kept |= {one.key for one in records if draw.random() < 0.1}
    return layout_of(runs, kept)


class Plain:
    """The rule of `Schedule`, word for word."""

    def __init__(self, layout: Layout) -> None:
        self.runs, self.done = layout.missing, layout.done
        self.running, self.failed = dict[str, Task](), set[str]()

    @property
    def live(self) -> list[PlannedRun]:
        runs = [one for one in self.runs if not any(n.key in self.failed for n in one.tasks)]
        left = [sum(task.key not in self.done for task in one.tasks) for one in runs]
        order = sorted((count, place) for place, count in enumerate(left) if count)
        return [runs[place] for _, place in order]

    def take(self) -> Task | None:
        crafting = {task.attacker for task in self.running.values() if task.attacker}
        for one in self.live:
            for task in one.tasks:
                if (
                    task.key not in self.done
                    and task.key not in self.running
                    and task.attacker not in crafting
                    and all(other.key in self.done for other in task.needs)
                ):
                    self.running[task.key] = task
                    return task
        return None

    def finish(self, task: Task) -> list[PlannedRun]:
        del self.running[task.key]
        self.done.add(task.key)
        return [one for one in self.runs if one.tasks[-1] is task]

    def fail(self, task: Task) -> list[PlannedRun]:
        del self.running[task.key]
        self.failed.add(task.key)
        return [one for one in self.runs if task in one.tasks]


@pytest.mark.parametrize("fails", [0.0, 0.1, 0.4])
def test_in_random_graphs_the_schedule_chooses_as_the_plain_rule_does(fails: float):
    taken = failed = waited = 0
    for seed in range(400):
        draw = random.Random(seed)
        layout = random_layout(draw)
        twin = Layout(planned=layout.planned, tasks=layout.tasks, done=set(layout.done))
        schedule, plain, jobs = Schedule(layout), Plain(twin), draw.randint(1, 6)
        while not schedule.over:
            while len(schedule.running) < jobs:
                one = schedule.take()
                assert one is plain.take(), seed
                if one is None:
                    waited += 1
                    break
                taken += 1
            one = draw.choice(list(schedule.running.values()))
            if draw.random() < fails:
                failed += 1
                assert schedule.fail(one) == plain.fail(one), seed
            else:
                assert schedule.finish(one) == plain.finish(one), seed
            assert schedule.running == plain.running
            assert schedule.unfinished == len(plain.live)
            assert schedule.ended == len(schedule.runs) - len(twin.missing)
        assert not plain.running
        assert not plain.live
    assert taken > 3000
    assert waited > 500
    assert (failed > 500) == (fails > 0)


def test_a_run_that_waits_for_an_attacker_goes_on_when_the_one_before_it_fails():
    crafts = [task(f"craft {number}", (), "attacker") for number in range(3)]
    other, later = task("other"), task("later", (crafts[2],))
    runs = [[crafts[0]], [other, crafts[1]], [crafts[2], later]]
    for number, parts in enumerate(runs):
        parts.append(task(f"record {number}", tuple(parts), kind=RECORD))
    schedule = Schedule(layout_of(runs, set()))
    assert [schedule.take() for _ in range(3)] == [crafts[0], other, None]
    assert not schedule.finish(crafts[0])
    assert schedule.fail(other) == [schedule.runs[1]]
    assert [schedule.take() for _ in range(3)] == [runs[0][-1], crafts[2], None]


@pytest.mark.parametrize("attackers", [1, 5000])
def test_the_time_for_a_choice_does_not_grow_with_the_suite(attackers: int):
    """5 000 runs of 12 tasks; the plain rule takes 0.1 s for one choice, so two hours for all."""
    runs = []
    for number in range(5000):
        craft = task(f"craft {number}", (), f"attacker {number % attackers}")
        parts = [craft]
        for step in range(10):
            parts.append(task(f"stage {number} {step}", (parts[-1],)))
        runs.append([*parts, task(f"record {number}", tuple(parts), kind=RECORD)])
    schedule, start = Schedule(layout_of(runs, set())), time.perf_counter()
    made = 0
    while not schedule.over:
        while len(schedule.running) < 8 and schedule.take():
            made += 1
        schedule.finish(next(iter(schedule.running.values())))
    assert made == 60_000
    assert time.perf_counter() - start < 30


# ---- the remaining time --------------------------------------------------------------------------


def test_the_remaining_time_is_the_sum_over_the_tasks_that_are_left(tmp_path):
    draw, times = random.Random(0), Times(Cache(tmp_path))
    times.shared = {"attacker 0"}
    tasks = []
    for number in range(300):
        kind = draw.choice(("train", "backdoor", "codes", RECORD))
        inputs: dict[str, Any] = {"method": draw.choice("ab"), "data": draw.choice("xy")}
        if kind == "train":
            inputs["recipe"] = {"epochs": draw.randint(1, 3)}
        attacker = f"attacker {draw.randint(0, 20)}" if kind == "backdoor" else None
        if attacker:  # the stages of an attacker are alike
            inputs = {"attack": attacker[-1]}
        tasks.append(task(str(number), (), attacker, kind=kind, inputs=inputs))
    remaining = Remaining(times, tasks)
    draw.shuffle(tasks)
    while tasks:
        known, unknown, attackers = 0.0, 0, {"attacker 0"}
        for one in tasks:
            seconds = times.of(one.kind, one.inputs)
            unknown += seconds is None
            known += seconds or 0.0
            if seconds is not None and one.attacker and one.attacker not in attackers:
                attackers.add(one.attacker)
                known += SHARED if "shared" in times.seconds and one.attacker[-1] == "3" else 0.0
        assert remaining.total() == (pytest.approx(known), unknown)
        assert times.total(tasks) == (pytest.approx(known), unknown)
        ended = tasks.pop()
        remaining.remove(ended)
        times.add(ended.kind, ended.inputs, draw.random())
        if len(tasks) == 200:
            times.add("shared", {"attack": "3"}, SHARED)


SHARED = 7.0


def test_a_median_is_that_of_the_statistics_module(tmp_path):
    from statistics import median

    draw, times, found = random.Random(0), Times(Cache(tmp_path)), list[float]()
    assert times.of(RECORD, {}) == RECORD_SECONDS
    for _ in range(9):
        found.append(draw.random())
        times.add("codes", {"data": "x"}, found[-1])
        assert times.of("codes", {"data": "x"}) == median(found)


def test_the_time_of_a_network_says_nothing_of_a_hash_layer_on_features(tmp_path):
    times = Times(Cache(tmp_path))
    whole = {"method": "csq", "recipe": {"epochs": 12}}
    layer = {"method": "csq", "recipe": {"epochs": 15, "frozen": True}}
    times.add("train", whole, 60.0)
    assert times.of("train", {**whole, "method": "dpsh"}) == 60.0
    assert times.of("train", layer) is None
    times.add("train", layer, 3.0)
    assert times.of("train", {**layer, "method": "dpsh"}) == pytest.approx(3.0)
    assert times.of("train", whole) == 60.0


def test_the_time_of_a_defense_or_a_backbone_says_nothing_of_another(tmp_path):
    times = Times(Cache(tmp_path))
    clp = {"defense": {"module": "clp", "version": 1}, "model": "a"}
    times.add("repair", clp, 0.02)
    assert times.of("repair", {**clp, "model": "b"}) == 0.02
    assert times.of("repair", {**clp, "defense": {"module": "nad"}}) is None
    plain = {"method": "csq", "backbone": "cnn32", "recipe": {"epochs": 10}}
    times.add("train", plain, 40.0)
    assert times.of("train", {**plain, "method": "dpsh"}) == pytest.approx(40.0)
    assert times.of("train", {**plain, "backbone": "resnet18"}) is None
    assert times.of("train", {**plain, "defense": {"module": "dpsgd"}}) is None


def test_how_long_an_attack_crafts_says_nothing_of_another(tmp_path):
    times = Times(Cache(tmp_path))
    times.add("backdoor", {"attack": {"module": "badnets"}, "seed": 0}, 0.01)
    assert times.of("backdoor", {"attack": {"module": "badnets"}, "seed": 1}) == 0.01
    assert times.of("backdoor", {"attack": {"module": "ciba"}, "seed": 0}) is None
