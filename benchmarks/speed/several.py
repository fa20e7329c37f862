"""Several small trainings at once on one device: which number of processes is the fastest."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from hashlib import sha256

import torch

from hashbackdoor_bench.memory import keep_freed_memory
from hashbackdoor_bench.network.training import fit
from hashbackdoor_bench.network.training_set import TrainingSet
from hashbackdoor_bench.suites.executors.making import limits

from .clock import Goal, Row, Setting, ratio
from .networks import network, one_hot, pictures, recipe
from .training import SMALL, TINY, Size

GPU_WORKERS = (1, 2, 4, 8, 16)
RETURNED = "freed memory returned"  # a contestant: what glibc does by itself
ON_GPU = Size("cnn32", 12_000, 32, 32, 32, "flip")


def measure(setting: Setting) -> Iterator[Row]:
    """The rows of this part."""
    size = TINY if setting.quick else SMALL if setting.device.type == "cpu" else ON_GPU
    layouts = {spell(*layout): layout for layout in layouts_of(setting.device)}
    ours, *others = layouts
    found: dict[str, list[float]] = {name: [] for name in layouts}
    digests: dict[str, set[str]] = {}
    for turn in range(setting.repeat):
        for name in list(layouts)[:: -1 if turn % 2 else 1]:
            workers, threads = layouts[name]
            seconds, weights = together(size, workers, threads, setting.device)
            found[name].append(seconds / workers)
            digests.setdefault(name, set()).update(weights)
    if setting.device.type == "cpu":
        assert all(len(weights) == 1 for weights in digests.values()), "weights differ"
        for name, (_, threads) in layouts.items():
            alone = digests[spell(1, threads)]
            assert digests[name] == alone, f"{name} gives other weights than one alone"
    times = {"ours": found[ours], **{name: found[name] for name in others}}
    share = min([1.0, *(ratio(times, name) for name in others)])
    steps = size.items // size.batch
    yield Row(
        "several trainings",
        f"{size.backbone}, {steps} steps of {size.batch}, {ours}; seconds of one training's share",
        times,
        [Goal("share of the most runs an hour", share, 0.9)],
        equal="weights equal those of a training alone, at equal threads"
        if setting.device.type == "cpu"
        else "",
        least="the training alone",
        facts={"trainings_per_hour": {n: 3600 / min(seconds) for n, seconds in found.items()}},
        peers=others,
    )
    if setting.device.type == "cpu":
        yield _memory(setting, size)


def _memory(setting: Setting, size: Size) -> Row:
    """What it is worth that freed memory stays with the process."""
    workers, threads = layouts_of(setting.device)[0]
    found: dict[str, list[float]] = {"ours": [], RETURNED: []}
    weights = set()
    for turn in range(setting.repeat):
        for name in list(found)[:: -1 if turn % 2 else 1]:
            seconds, digests = together(size, workers, threads, setting.device, keep=name == "ours")
            found[name].append(seconds / workers)
            weights.update(digests)
    assert len(weights) == 1, "weights differ"
    return Row(
        "several trainings",
        f"{spell(workers, threads)}, freed memory kept; seconds of one training's share",
        found,
        [Goal("times faster than if it is returned", ratio(found, RETURNED), 1.0)],
        equal="weights are equal",
        least="the training alone",
        peers=(RETURNED,),
    )


def layouts_of(device: torch.device) -> list[tuple[int, int]]:
    """The pairs (processes, threads of each) to compare; the first is that of `bench suite run`."""
    cores = len(os.sched_getaffinity(0))
    if device.type == "cuda":
        return [(workers, 1) for workers in GPU_WORKERS if workers <= cores]
    return list(dict.fromkeys([(cores, 1), (1, cores), (1, 1)]))


def spell(workers: int, threads: int) -> str:
    """A layout in words."""
    return f"{workers} × {threads} thread{'s' * (threads > 1)}"


def together(
    size: Size, workers: int, threads: int, device: torch.device, *, keep: bool = True
) -> tuple[float, list[str]]:
    """Seconds until all of several processes have trained, and the digests of their weights.

    Args:
        size: the training of each process.
        workers: number of processes.
        threads: threads of each.
        device: where they train.
        keep: whether they keep freed memory, as those of `bench` do.
    """
    words = [json.dumps(asdict(size)), str(device), *(() if keep else (RETURNED,))]
    command = [sys.executable, "-m", __name__, *words]
    with ExitStack() as stack:
        running = [
            stack.enter_context(
                subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env={**os.environ, **limits(threads)},
                    text=True,
                )
            )
            for _ in range(workers)
        ]
        states = [_line(process) for process in running]
        assert set(states) == {"ready"}, states
        start = time.perf_counter()
        for process in running:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        weights = [_line(process) for process in running]
        return time.perf_counter() - start, weights


def _line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    assert line, f"a training ended with code {process.wait()}"
    return line


def train(size: Size, device: torch.device) -> None:
    """Train once to warm up, print that this process is ready, wait for a line, and train again."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    images, labels = pictures(size.items, size.stored), one_hot(size.items)
    data = TrainingSet(images, labels, torch.full((size.items,), -1)).to(device)
    how = recipe(device, batch_size=size.batch, augment=size.augment)

    def once(items: int) -> str:
        model, loss = network(size.backbone, size.size, size.items, device)
        few = replace(
            data, images=data.images[:items], labels=data.labels[:items], slot=data.slot[:items]
        )
        fit(model, loss, few, how, seed="0", size=size.size)
        found = sha256()
        for weight in model.parameters():
            found.update(weight.detach().cpu().numpy().tobytes())
        return found.hexdigest()

    once(2 * size.batch)
    print("ready", flush=True)
    sys.stdin.readline()
    print(once(size.items), flush=True)


if __name__ == "__main__":
    if RETURNED not in sys.argv:
        keep_freed_memory()
    train(Size(**json.loads(sys.argv[1])), torch.device(sys.argv[2]))
