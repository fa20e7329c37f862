"""``bench suite``: plan the runs of one file, run them, and show how many are done."""

import json
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import click

from hashbackdoor_bench.cli.options import (
    FOLDER,
    JOBS,
    NumberRange,
    bench,
    cache_option,
    device_option,
    log_option,
    mode_of,
    plugin_option,
    talk,
    threads_option,
)
from hashbackdoor_bench.cli.suite_running import (
    gpus_of,
    jobs_of,
    lay_out_suite,
    look_at_index,
    run_missing,
    tell_failures,
)
from hashbackdoor_bench.cli.terminal import console, for_messages_only, say
from hashbackdoor_bench.records import OWN
from hashbackdoor_bench.registry import load_plugin
from hashbackdoor_bench.suites import Suite, find_suite, shipped
from hashbackdoor_bench.text import counted


@bench.group("suite")
def suite_group() -> None:
    """Plan the many runs of one file, run them, and show how many are done."""


def suite_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of all commands on one suite; the command gets the suite and its folder."""

    @wraps(command)
    def found(
        suite: str,
        plugin: tuple[Path, ...],
        results_dir: Path | None,
        lists: Path | None,
        root: Path | None,
        **more: Any,
    ) -> Any:
        with for_messages_only() if more.get("as_json") else nullcontext():
            for path in plugin:
                load_plugin(path)
        given = {"lists": lists, "root": root}
        where: dict[str, Any] = {
            name: str(path.absolute()) for name, path in given.items() if path is not None
        }
        read = find_suite(suite)
        if where:
            runs = tuple(replace(run, spec=replace(run.spec, **where)) for run in read.runs)
            read = replace(read, runs=runs)
        folder = OWN / read.name if results_dir is None else results_dir
        return command(suite=read, plugin=plugin, results_dir=folder, **more)

    for option in (
        click.option("--root", type=FOLDER, help="Folder of the images, if they aren't embedded."),
        click.option("--lists", type=FOLDER, help="Folder of the list files of a list protocol."),
        click.option(
            "--results-dir",
            type=FOLDER,
            show_default="runs/SUITE",
            help="Folder of the suite's records and their index.",
        ),
        cache_option,
        plugin_option,
        device_option,
        threads_option(1),
    ):
        found = option(found)
    return click.argument("suite")(found)


@suite_group.command("list")
def suite_list() -> None:
    """List the suites that come with the package."""
    titles = shipped()
    width = max(map(len, titles), default=0)
    for name, title in titles.items():
        say(f"{name:<{width}}  {title}")


@suite_group.command("plan")
@suite_options
def suite_plan(
    suite: Suite,
    plugin: tuple[Path, ...],
    device: str,
    threads: int,
    cache_dir: Path,
    results_dir: Path,
) -> None:
    """Show the stages of a suite, how many are in the cache, and how long the others will take.

    SUITE is a name of ``bench suite list``, or a TOML file.
    """
    from hashbackdoor_bench.cli.console import spell_seconds
    from hashbackdoor_bench.network import install_hint
    from hashbackdoor_bench.stages import GROUPS
    from hashbackdoor_bench.suites import Times, describe

    cache, layout = lay_out_suite(suite, cache_dir, results_dir, device, threads)
    look_at_index(layout, results_dir)
    times, wanted = Times(cache), {task for one in layout.missing for task in one.tasks}
    say(
        f"{suite.name}: {suite.title}",
        f"{len(suite.runs)} runs, {len(layout.planned) - len(layout.missing)} done",
        "",
    )
    say(f"{'stages':<24}{'all':>8}{'in cache':>10}{'to make':>9}  time of one worker")
    for name in GROUPS:
        these = [task for task in layout.tasks.values() if task.group == name]
        make = [task for task in these if task.key not in layout.done and task in wanted]
        cached = sum(task.key in layout.done for task in these)
        seconds, unknown = times.total(make)
        spelt = "unknown" if unknown else spell_seconds(seconds) if make else "-"
        say(f"{name:<24}{len(these):>8}{cached:>10}{len(make):>9}  {spelt}")
    seconds, unknown = times.total(n for n in wanted if n.key not in layout.done)
    jobs = jobs_of(None, threads, gpus_of(device))
    first = f"unknown for {unknown} stages; for the others " if unknown else ""
    say(
        "",
        f"time    {first}{spell_seconds(seconds)} of one worker, {spell_seconds(seconds / jobs)} "
        f"with the {jobs} that this machine has room for",
    )
    for name in sorted({name for one in layout.missing for name in one.spec.pretrained_backbones}):
        if hint := install_hint(name):
            say(f"weights {hint}; without it they are asked for at the hub")
    refused: dict[str, list[str]] = {}
    for failure in layout.refused:
        refused.setdefault(failure.message, []).append(describe(failure.run))
    for reason, runs in refused.items():
        others = f" and {counted(len(runs) - 1, 'more run')}" if len(runs) > 1 else ""
        say(f"refused {runs[0]}{others}: {reason}")
    for reason, count in Counter(failure.message for failure in layout.unfit).items():
        say(f"n/a     {counted(count, 'run')}: {reason}")


@suite_group.command("run")
@suite_options
@click.option(
    "--executor",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Processes of this machine, or tasks of a Ray cluster.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1),
    help=JOBS,
)
@click.option(
    "--address", help="Address of the Ray cluster; if not given, one is started on this machine."
)
@click.option(
    "--gpus-per-stage",
    type=NumberRange(0),
    help="Share of a GPU that a Ray task takes; 1 on CUDA, 0 on the CPU if not given.",
)
@log_option
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
    log_dir: Path | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Run what is missing of a suite; the same command continues after an interruption.

    SUITE is a name of ``bench suite list``, or a TOML file.
    """
    from hashbackdoor_bench.cli.training_log import training_log
    from hashbackdoor_bench.files import unless_refused
    from hashbackdoor_bench.stages import device_of
    from hashbackdoor_bench.suites import write_index

    device_of(device)  # before a folder is made
    mode = mode_of(quiet, as_json)
    cluster = {"address": address, "gpus": gpus_per_stage} if executor == "ray" else None
    where: dict[str, Any] = {"device": device, "plugin": plugin, "threads": threads, "mode": mode}
    with training_log(log_dir, results_dir) as log:
        with unless_refused(results_dir, "--results-dir"):
            cache, layout = lay_out_suite(suite, cache_dir, results_dir, device, threads, mode)
            look_at_index(layout, results_dir)
        try:
            failures = run_missing(
                layout, cache, results=results_dir, jobs=jobs, cluster=cluster, log=log, **where
            )
        finally:  # an interrupted suite's records need their labels too
            write_index(layout, results_dir)
    tell_failures(failures, results_dir, cache=cache.root, **where)
    left = {n.key for one in layout.missing for n in one.tasks} - layout.done
    done = len(layout.planned) - len(layout.missing)
    unfit = len(layout.unfit)
    if as_json:
        counts = {"runs": len(suite.runs), "done": done, "stages_not_made": len(left)}
        counts |= {"not_applicable": unfit} if unfit else {}
        say(json.dumps({"event": "result", **counts, "failed": len(failures)}))
    else:
        lost = f", {len(failures)} failed, {len(left)} stages not made" if failures else ""
        lost += f", {unfit} n/a" if unfit else ""
        say(f"{suite.name}: {done} of {len(suite.runs)} runs done{lost}")
    return 1 if failures else 0


@suite_group.command("status")
@suite_options
def suite_status(
    suite: Suite,
    plugin: tuple[Path, ...],
    device: str,
    threads: int,
    cache_dir: Path,
    results_dir: Path,
) -> None:
    """Show which runs of a suite are done, missing or failed.

    SUITE is a name of ``bench suite list``, or a TOML file.
    """
    from hashbackdoor_bench.cli.suite_console import counts_table
    from hashbackdoor_bench.suites import describe, kept_failure

    cache, layout = lay_out_suite(suite, cache_dir, results_dir, device, threads)
    missing = {one.run.spec for one in layout.missing} | {one.run.spec for one in layout.refused}
    kept = [kept_failure(cache, run) for run in suite.runs if run.spec in missing]
    failures = list(layout.refused) + [
        failure for failure in kept if failure and failure.stage != "plan"
    ]
    failed = {failure.run.spec for failure in failures}
    counts: dict[tuple[str, str], Counter[str]] = {}
    unfit = {failure.run.spec for failure in layout.unfit}
    for run in suite.runs:
        if run.spec in unfit:
            continue
        place = (run.label, f"{run.spec.victim}, {run.spec.bits} bits")
        state = "failed" if run.spec in failed else "missing" if run.spec in missing else "done"
        counts.setdefault(place, Counter())[state] += 1
    console().print(counts_table(counts))
    for failure in failures:
        say(f"failed  {describe(failure.run)}: {failure.stage}: {failure.message}")
    total = sum(counts.values(), Counter())
    words = ", ".join(f"{total[state]} {state}" for state in ("done", "missing", "failed"))
    words += f", {len(unfit)} n/a" if unfit else ""
    say(f"{suite.name}: {len(suite.runs)} runs: {words}")
