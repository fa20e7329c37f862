"""Running the missing runs of a suite, for ``bench suite`` and ``bench compare``."""

import json
import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hashbackdoor_bench.cli.terminal import say
from hashbackdoor_bench.spec import RunSpec
from hashbackdoor_bench.suites import Suite
from hashbackdoor_bench.text import counted, quoted

WORKER = 9 * 10**9  # bytes of a GPU for each worker; ResNet-50 at 224 px takes 7 in batches of 128

if TYPE_CHECKING:
    from hashbackdoor_bench.progress import Log
    from hashbackdoor_bench.records import Record
    from hashbackdoor_bench.stages import Cache
    from hashbackdoor_bench.suites import Failure, Layout


def run_missing(
    layout: "Layout",
    cache: "Cache",
    *,
    results: Path,
    device: str,
    plugin: tuple[Path, ...],
    jobs: int | None,
    threads: int,
    mode: str,
    cluster: dict[str, Any] | None = None,
    log: "Log | None" = None,
) -> list["Failure"]:
    """Run the missing runs.

    Args:
        layout: see `lay_out_suite`.
        cache: the cache of this process.
        results: folder of the records.
        device: the value of ``--device``.
        plugin: files with methods that the workers load.
        jobs: number of worker processes; None: see `jobs_of`.
        threads: threads per worker.
        mode: see `mode_of`.
        cluster: ``address`` of a Ray cluster and ``gpus`` (the share of a GPU per stage); None: use
            processes on this machine.
        log: see `execute`.

    Returns:
        The runs that failed, those that can't be planned included.
    """
    from hashbackdoor_bench.cli.suite_console import suite_shown
    from hashbackdoor_bench.suites import Times, execute

    failures = list(layout.refused)
    if layout.missing:
        gpus = gpus_of(device)
        kind = "cuda" if gpus else "cpu"
        places: dict[str, Any] = {"results": results, "device": kind, "plugins": plugin}
        if cluster is not None:
            from hashbackdoor_bench.suites.executors import RayExecutor

            share = cluster["gpus"] if cluster["gpus"] is not None else float(bool(gpus))
            chosen: Any = RayExecutor(
                address=cluster["address"], threads=threads, gpus=share, cache=cache, **places
            )
        else:
            from hashbackdoor_bench.suites.executors import LocalExecutor

            jobs = jobs_of(jobs, threads, gpus)
            tell_of_mps(jobs, gpus)
            chosen = LocalExecutor(
                jobs=jobs,
                threads=threads,
                gpus=gpus,
                cache=cache.root,
                others=cache.others,
                **places,
            )
        with chosen as workers, suite_shown(mode) as watch:
            failures = execute(
                layout, workers, cache=cache, times=Times(cache), watch=watch, log=log
            )
    return failures


def tell_failures(
    failures: Iterable["Failure"],
    results: Path,
    *,
    cache: Path,
    device: str,
    plugin: tuple[Path, ...],
    threads: int,
    mode: str,
) -> None:
    """Print each run that failed, with the command that repeats it alone; see `run_missing`."""
    from hashbackdoor_bench.stages import without_idle
    from hashbackdoor_bench.suites import describe

    here = {"--cache-dir": cache, "--results-dir": results, "--device": device}
    here |= {"--threads": threads}
    alone = [word for flag, value in here.items() for word in (flag, str(value))]
    alone += [word for path in plugin for word in ("--plugin", str(path))]
    for failure in failures:
        spec = failure.run.spec
        if failure.spec is not None:  # a suite may give to all rows what changes nothing in some
            spec = without_idle(spec, failure.spec)
        command = shlex.join([*command_of(spec), *alone])
        if mode == "json":
            parts = {"stage": failure.stage, "message": failure.message, "command": command}
            say(json.dumps({"event": "failure", "run": describe(failure.run), **parts}))
        else:
            say(f"failed  {describe(failure.run)}: {failure.stage}: {failure.message}")
            say(f"        {command}")


def command_of(spec: RunSpec) -> list[str]:
    """The words of the ``bench run`` command that asks for this run."""
    words = ["bench", "run"]
    for field in fields(RunSpec):
        value = getattr(spec, field.name)
        if value == field.default:
            continue
        flag = "--" + field.name.replace("_", "-")
        if field.name.endswith("_settings"):
            kind = field.name.removesuffix("_settings")
            words += [word for k, v in value for word in ("--set", f"{kind}.{k}={v}")]
        elif isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        else:
            words += [flag, str(value)]
    return words


def command_of_record(record: "Record") -> list[str]:
    """The words of the command that makes a record again, under its key.

    The key depends on the device and, on the CPU, on the number of threads.
    """
    words, numerics = command_of(record.spec), record.numerics
    if numerics is None:  # a record of older code, which doesn't say
        return words
    if numerics.threads is None:
        return [*words, "--device", "cuda"]
    return [*words, "--device", "cpu", "--threads", str(numerics.threads)]


def lay_out_suite(
    suite: Suite, cache_dir: Path, results: Path, device: str, threads: int, mode: str = "quiet"
) -> tuple["Cache", "Layout"]:
    """The cache, and the layout of a suite's runs, see `layout.lay_out`; tells of equal rows.

    Raises:
        UserError: no run can be planned, or a label would be refused, see `check_labels`.
    """
    from hashbackdoor_bench.cli.console import shown
    from hashbackdoor_bench.stages import device_of, open_cache
    from hashbackdoor_bench.suites import check_labels, lay_out

    cache = open_cache(cache_dir)
    with shown(mode) as progress:
        layout = lay_out(
            suite.runs,
            cache=cache,
            results=results,
            device=device_of(device),
            threads=threads,
            progress=progress,
        )
    check_labels(layout, results)
    for row, first in {**suite.repeated, **layout.repeated}.items():
        told = f"row {quoted(row)} has runs of row {quoted(first)} again"
        say(f"note: {told}; these have the label of that row only.", err=True)
    for row, count in sorted(layout.merged.items()):
        told = f"{counted(count, 'run')} of row {quoted(row)} {'is' if count == 1 else 'are'}"
        say(
            f"note: {told} another run of it again, since a setting that they vary changes nothing "
            "there; these have one record.",
            err=True,
        )
    return cache, layout


def look_at_index(layout: "Layout", results: Path) -> None:
    """Tell which records the suite's index will not name any more.

    Raises:
        UserError: the index is another suite's, see `refuse_index`.
    """
    from hashbackdoor_bench.suites import outside, refuse_index

    refuse_index(layout, results)
    for told in outside(layout, results):
        say(f"note: {told}", err=True)


def gpus_of(device: str) -> list[str]:
    """Names of the GPUs that workers may take; none on the CPU."""
    import torch

    from hashbackdoor_bench.stages import device_of

    chosen = device_of(device)
    if chosen.type == "cpu":
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(n) for n in range(torch.cuda.device_count())]
    return names if chosen.index is None else [names[chosen.index]]


def tell_of_mps(jobs: int, gpus: Sequence[str]) -> None:
    """Say so if workers take turns on a GPU, where NVIDIA's MPS would let them work at once."""
    pipes = Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps"))  # NVIDIA's default
    if gpus and jobs > len(gpus) and not (pipes / "control").exists():
        say(
            f"note: {jobs} workers on {len(gpus)} GPU{'s' * (len(gpus) > 1)} take turns; with "
            "NVIDIA's MPS, nvidia-cuda-mps-control -d, they work at once, and small networks are "
            "trained up to three times as fast (docs/machines.md).",
            err=True,
        )


def jobs_of(wanted: int | None, threads: int, gpus: Sequence[str]) -> int:
    """The number of workers: ``wanted``, or as many as fit the CPU cores, and the GPUs if any.

    A small network can't keep a GPU busy: on an H100, eight workers train five times as many of
    them in an hour as one, and sixteen no more than eight.
    """
    cores = max(1, len(os.sched_getaffinity(0)) // threads)
    if wanted or not gpus:
        return wanted or cores
    import torch

    memory = torch.cuda.mem_get_info()[1]  # of the first GPU; the others are taken to be like it
    return min(max(cores, len(gpus)), len(gpus) * max(1, min(8, memory // WORKER)))
