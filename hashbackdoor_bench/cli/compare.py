"""``bench compare``: rank one attack among those of a suite."""

import time
from dataclasses import replace
from pathlib import Path

import click

from hashbackdoor_bench.cli.looking import count_of, in_groups, verdict_on
from hashbackdoor_bench.cli.options import (
    FILE,
    FOLDER,
    JOBS,
    bench,
    cache_option,
    device_option,
    first_of,
    mode_of,
    plugin_option,
    talk,
    threads_option,
)
from hashbackdoor_bench.cli.run import settings_of
from hashbackdoor_bench.cli.suite_running import lay_out_suite, run_missing
from hashbackdoor_bench.cli.terminal import say
from hashbackdoor_bench.errors import UserError, unknown
from hashbackdoor_bench.records import OWN
from hashbackdoor_bench.registry import METHODS, load_plugin


@bench.command("compare")
@click.argument("name")
@click.option("--suite", default="quick", show_default=True, help="A name, or a TOML file.")
@click.option(
    "--against",
    multiple=True,
    type=FILE,
    show_default="runs/SUITE, or else results/SUITE",
    help="Records of the suite's attacks.",
)
@click.option(
    "--results-dir",
    type=FOLDER,
    show_default="runs/SUITE-NAME, with its settings",
    help="Folder of the attack's records and their index.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="A hyper-parameter of the attack: attack.side=5.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1),
    help=JOBS,
)
@click.option(
    "--until",
    type=click.FloatRange(0, 100, min_open=True),
    metavar="POINTS",
    help="Run the suite target by target (seed by seed if it has one target), and stop as soon as "
    "every attack with a place is told apart, or differs by less than POINTS of percent. All looks "
    "together err in 5 % of comparisons.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    help="With --until: begin no further part of the suite that would end later.",
)
@threads_option(1)
@plugin_option
@cache_option
@device_option
@talk
def compare_command(
    name: str,
    suite: str,
    against: tuple[Path, ...],
    results_dir: Path | None,
    settings: tuple[str, ...],
    jobs: int | None,
    until: float | None,
    minutes: float | None,
    threads: int,
    plugin: tuple[Path, ...],
    cache_dir: Path,
    device: str,
    quiet: bool,
    as_json: bool,
) -> int:
    """Run an attack on the victims and seeds of a suite, and rank it among the suite's attacks.

    Runs that have a record are not repeated. The records and their index are written to a folder of
    their own; `bench leaderboard results THAT_FOLDER` lists the attack too.
    """
    if minutes is not None and until is None:
        raise UserError(f"--minutes {minutes:g} limits --until: give --until 5 too.")
    for path in plugin:
        load_plugin(path)
    name = name.replace("-", "_")
    if name not in METHODS["attack"]:
        raise unknown("attack", name, METHODS["attack"])
    from hashbackdoor_bench.report import collect, for_file_name
    from hashbackdoor_bench.report.board import (
        GOAL,
        board_with,
        boards,
        contest,
        rivals,
        standing,
        standing_text,
    )
    from hashbackdoor_bench.suites import suite_with

    given = settings_of(settings)
    if given["victim"]:
        raise UserError("--set victim.…: the suite sets its victims; give attack.NAME=VALUE only.")
    mine = suite_with(suite, name, dict(given["attack"]))
    places = against or (Path(mine.name),)
    known = collect(places)  # before the runs: it raises if there are no records to compare with
    for sentence in first_of(known.left_out):
        say(f"note: {sentence}", err=True)
    from hashbackdoor_bench.files import writable
    from hashbackdoor_bench.suites import write_index

    folder = results_dir or OWN / for_file_name(
        "-".join([mine.name, name, *map("=".join, given["attack"])])
    )
    writable(folder, "--results-dir")
    mode = mode_of(quiet, as_json)
    batches = in_groups(mine) if until is not None else [mine]
    goal = GOAL if until is None else until / 100
    began, failures, verdict = time.monotonic(), 0, ""
    for look, batch in enumerate(batches):
        cache, layout = lay_out_suite(batch, cache_dir, folder, device, threads, mode)
        keys = {one.tasks[-1].key for one in layout.planned}
        layout.done |= keys & set(known.frame["key"])
        failures += len(
            run_missing(
                layout,
                cache,
                results=folder,
                device=device,
                plugin=plugin,
                jobs=jobs,
                threads=threads,
                mode=mode,
            )
        )
        own = [one for one in layout.planned if one.path.is_file()]
        if own:
            write_index(replace(layout, planned=own), folder)
        frame = collect([*places, *([folder] if own else [])]).frame
        if not frame["key"].isin(keys).any():
            return 1
        frame, left_out = rivals(frame, mine.name, [one.spec for one in layout.planned], keys)
        label = str(frame["label"][frame["key"].isin(keys)].iloc[0])
        board = board_with(boards(frame, [mine.name]), label)
        found = standing(board, label)
        if until is None or found.entry.place is None:
            break
        result = contest(board, label, [count_of(one) for one in batches], look, goal)
        spent = (time.monotonic() - began) / 60
        verdict = verdict_on(result, batches, look, spent, minutes)
        if verdict:
            break
    for sentence in left_out:
        say(f"note: {sentence}", err=True)
    say(*standing_text(found, goal).split("\n"), err=as_json)
    if verdict:
        say("", verdict, err=as_json)
    if own:
        say("", f"records  {folder}", err=as_json)
    return 1 if failures else 0
