"""``bench suite``: many runs from one file, planned, run and looked at."""

import json
import os
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hashbackdoor_bench.cli.options import (
    FOLDER,
    bench,
    cache_option,
    device_option,
    mode_of,
    plugin_option,
    talk,
)
from hashbackdoor_bench.cli.run import command_of
from hashbackdoor_bench.registry import load_plugin
from hashbackdoor_bench.suites import Suite, find_suite, shipped

if TYPE_CHECKING:
    from hashbackdoor_bench.stages import Cache
    from hashbackdoor_bench.suites import Failure, Layout


@bench.group("suite")
def suite_group() -> None:
    """Many runs from one file: plan them, run them, look how far they are."""


def suite_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What every command on one suite takes; it gets the suite, and the folder of its records."""

    @wraps(command)
    def found(
        suite: str,
        plugin: tuple[Path, ...],
        results_dir: Path | None,
        lists: Path | None,
        root: Path | None,
        **more: Any,
    ) -> Any:
        for path in plugin:
            load_plugin(path)
        given = {"lists": lists, "root": root}
        where: dict[str, Any] = {
            name: str(path.absolute()) for name, path in given.items() if path is not None
        }
        read = find_suite(suite)
        cells = tuple(replace(cell, spec=replace(cell.spec, **where)) for cell in read.cells)
        folder = Path("results") / read.name if results_dir is None else results_dir
        return command(suite=replace(read, cells=cells), plugin=plugin, results_dir=folder, **more)

    for option in (
        click.option("--root", type=FOLDER, help="Folder of the images, if they aren't embedded."),
        click.option("--lists", type=FOLDER, help="Folder of the list files of a list protocol."),
        click.option(
            "--results-dir",
            type=FOLDER,
            show_default="results/SUITE",
            help="Folder of the suite's records and their index.",
        ),
        cache_option,
        plugin_option,
        device_option,
    ):
        found = option(found)
    return click.argument("suite")(found)


@suite_group.command("list")
def suite_list() -> None:
    """List the suites that come with the package."""
    titles = shipped()
    width = max(map(len, titles), default=0)
    for name, title in titles.items():
        click.echo(f"{name:<{width}}  {title}")


@suite_group.command("plan")
@suite_options
def suite_plan(
    suite: Suite, plugin: tuple[Path, ...], device: str, cache_dir: Path, results_dir: Path
) -> None:
    """Say what a suite is made of, what of it is in the cache, and how long the rest takes.

    SUITE is a name of ``bench suite list``, or a TOML file.
    """
    from hashbackdoor_bench.cli.console import spell_seconds
    from hashbackdoor_bench.stages import GROUPS
    from hashbackdoor_bench.suites import Times, describe

    cache, layout = lay_out_suite(suite, cache_dir, results_dir, device)
    times, wanted = Times(cache), {task for one in layout.missing for task in one.tasks}
    click.echo(
        f"{suite.name}: {suite.title}\n{len(suite.cells)} runs, "
        f"{len(layout.planned) - len(layout.missing)} done\n"
    )
    click.echo(f"{'stages':<24}{'all':>8}{'in cache':>10}{'to make':>9}  time of one worker")
    for name in GROUPS:
        these = [task for task in layout.tasks.values() if task.group == name]
        make = [task for task in these if task.key not in layout.done and task in wanted]
        cached = sum(task.key in layout.done for task in these)
        seconds, unknown = times.total(make)
        spelt = "unknown" if unknown else spell_seconds(seconds) if make else "-"
        click.echo(f"{name:<24}{len(these):>8}{cached:>10}{len(make):>9}  {spelt}")
    seconds, unknown = times.total(n for n in wanted if n.key not in layout.done)
    jobs = _jobs(None, 1, _gpus(device))
    first = f"unknown for {unknown} stages; for the others " if unknown else ""
    click.echo(
        f"\ntime    {first}{spell_seconds(seconds)} of one worker, {spell_seconds(seconds / jobs)} "
        f"with the {jobs} that this machine has room for"
    )
    for failure in layout.refused:
        click.echo(f"refused {describe(failure.cell)}: {failure.message}")


@suite_group.command("run")
@suite_options
@click.option(
    "--executor",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Processes of this machine, or tasks of a Ray cluster.",
)
@click.option("--jobs", type=click.IntRange(1), help="Worker processes; one a GPU or --threads.")
@click.option(
    "--threads",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Of each worker; on the CPU another number gives other results.",
)
@click.option("--address", help="Of the Ray cluster; a new one on this machine if not given.")
@click.option(
    "--gpus-per-stage",
    type=click.FloatRange(0),
    help="Share of a GPU that a Ray task takes; 1 on CUDA, 0 on the CPU if not given.",
)
@talk
def suite_run(
    suite: Suite,
    plugin: tuple[Path, ...],
    device: str,
    cache_dir: Path,
    results_dir: Path,
    executor: str,
    jobs: int | None,
    threads: int,
    address: str | None,
    gpus_per_stage: float | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Run what a suite lacks, each stage once; the same command goes on after an interruption.

    SUITE is a name of ``bench suite list``, or a TOML file.
    """
    from hashbackdoor_bench.files import writable
    from hashbackdoor_bench.suites import write_index

    writable(results_dir, "--results-dir")
    mode = mode_of(quiet, as_json)
    cache, layout = lay_out_suite(suite, cache_dir, results_dir, device, mode)
    cluster = {"address": address, "gpus": gpus_per_stage} if executor == "ray" else None
    failures = run_missing(
        layout,
        cache,
        results=results_dir,
        device=device,
        plugin=plugin,
        jobs=jobs,
        threads=threads,
        mode=mode,
        cluster=cluster,
    )
    left = {n.key for one in layout.missing for n in one.tasks} - layout.done
    write_index(layout, results_dir)
    done = len(layout.planned) - len(layout.missing)
    if as_json:
        counts = {"runs": len(suite.cells), "done": done, "stages_not_made": len(left)}
        click.echo(json.dumps({"event": "result", **counts, "failed": len(failures)}))
    else:
        lost = f", {len(failures)} failed, {len(left)} stages not made" if failures else ""
        click.echo(f"{suite.name}: {done} of {len(suite.cells)} runs done{lost}")
    return 1 if failures else 0


@suite_group.command("status")
@suite_options
def suite_status(
    suite: Suite, plugin: tuple[Path, ...], device: str, cache_dir: Path, results_dir: Path
) -> None:
    """Show which runs of a suite are done, missing or failed.

    SUITE is a name of ``bench suite list``, or a TOML file.
    """
    from rich.console import Console

    from hashbackdoor_bench.cli.console import counts_table
    from hashbackdoor_bench.suites import describe, remembered

    cache, layout = lay_out_suite(suite, cache_dir, results_dir, device)
    missing = {one.cell.spec for one in layout.missing} | {one.cell.spec for one in layout.refused}
    told = [remembered(cache, cell) for cell in suite.cells if cell.spec in missing]
    failures = list(layout.refused) + [
        failure for failure in told if failure and failure.stage != "plan"
    ]
    failed = {failure.cell.spec for failure in failures}
    counts: dict[tuple[str, str], Counter[str]] = {}
    for cell in suite.cells:
        place = (cell.label, f"{cell.spec.victim}, {cell.spec.bits} bits")
        state = "failed" if cell.spec in failed else "missing" if cell.spec in missing else "done"
        counts.setdefault(place, Counter())[state] += 1
    Console().print(counts_table(counts))
    for failure in failures:
        click.echo(f"failed  {describe(failure.cell)}: {failure.stage}: {failure.message}")
    total = sum(counts.values(), Counter())
    words = ", ".join(f"{total[state]} {state}" for state in ("done", "missing", "failed"))
    click.echo(f"{suite.name}: {len(suite.cells)} runs: {words}")


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
) -> list["Failure"]:
    """Run what a layout lacks and say what failed, with the command that runs it alone.

    Args:
        layout: see `lay_out_suite`.
        cache: of the driver.
        results: folder of the records.
        device: of ``--device``.
        plugin: files that the workers load.
        jobs: worker processes; None: as many as the machine has room for.
        threads: of each worker.
        mode: see `mode_of`.
        cluster: ``address`` and ``gpus`` (share of one that a stage takes) of a Ray cluster; None:
            processes of this machine.
    """
    from hashbackdoor_bench.cli.console import suite_shown
    from hashbackdoor_bench.suites import Times, describe, execute

    failures = list(layout.refused)
    if layout.missing:
        gpus = _gpus(device)
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

            jobs = _jobs(jobs, threads, gpus)
            chosen = LocalExecutor(
                jobs=jobs, threads=threads, gpus=gpus, cache=cache.root, **places
            )
        with chosen as workers, suite_shown(mode) as watch:
            failures = execute(layout, workers, cache=cache, times=Times(cache), watch=watch)
    here = {"--cache-dir": cache.root, "--results-dir": results, "--device": device}
    alone = [word for flag, value in here.items() for word in (flag, str(value))]
    alone += [word for path in plugin for word in ("--plugin", str(path))]
    for failure in failures:
        command = (
            f"OMP_NUM_THREADS={threads} {shlex.join([*command_of(failure.cell.spec), *alone])}"
        )
        if mode == "json":
            parts = {"stage": failure.stage, "message": failure.message, "command": command}
            click.echo(json.dumps({"event": "failure", "run": describe(failure.cell), **parts}))
        else:
            click.echo(f"failed  {describe(failure.cell)}: {failure.stage}: {failure.message}")
            click.echo(f"        {command}")
    return failures


def lay_out_suite(
    suite: Suite, cache_dir: Path, results: Path, device: str, mode: str = "quiet"
) -> tuple["Cache", "Layout"]:
    """The cache, and the layout of a suite's cells, see `layout.lay_out`."""
    from hashbackdoor_bench.cli.console import shown
    from hashbackdoor_bench.stages import Cache, device_of
    from hashbackdoor_bench.suites import lay_out

    cache = Cache(cache_dir)
    with shown(mode) as progress:
        return cache, lay_out(
            suite.cells,
            cache=cache,
            results=results,
            device=device_of(device),
            progress=progress,
        )


def _gpus(device: str) -> list[str]:
    """Names of the GPUs that workers may take; none on the CPU."""
    import torch

    from hashbackdoor_bench.stages import device_of

    chosen = device_of(device)
    if chosen.type == "cpu":
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(n) for n in range(torch.cuda.device_count())]
    return names if chosen.index is None else [names[chosen.index]]


def _jobs(wanted: int | None, threads: int, gpus: Sequence[str]) -> int:
    """The number of workers: as wanted, else one a GPU, else as many as the cores feed."""
    return wanted or len(gpus) or max(1, len(os.sched_getaffinity(0)) // threads)
