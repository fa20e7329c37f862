"""``bench compare``: rank one attack among those of a suite."""

from functools import partial
from pathlib import Path
from typing import Any

import click

from hashbackdoor_bench.cli.options import (
    FILE,
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
from hashbackdoor_bench.cli.run import settings_of
from hashbackdoor_bench.cli.suite_running import tell_failures
from hashbackdoor_bench.cli.terminal import say
from hashbackdoor_bench.errors import UserError


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
    type=NumberRange(0, 100, min_open=True),
    metavar="POINTS",
    help="Run the suite target by target (seed by seed if it has one target), and stop as soon as "
    "every attack with a place is told apart, or differs by less than POINTS of percent. All looks "
    "together err in 5 % of comparisons.",
)
@click.option(
    "--minutes",
    type=NumberRange(0, min_open=True),
    help="With --until: begin no further part of the suite that would end later.",
)
@threads_option(1)
@plugin_option
@cache_option
@device_option
@log_option
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
    log_dir: Path | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Run an attack on the victims and seeds of a suite, and rank it among the suite's attacks.

    Runs that have a record are not repeated. The records and their index are written to a folder of
    their own; `bench leaderboard results THAT_FOLDER` lists the attack too.
    """
    given = settings_of(settings)
    if given["victim"]:
        raise UserError("--set victim.…: the suite sets its victims; give attack.NAME=VALUE only.")
    if given["defense"]:
        raise UserError("--set defense.…: attacks are compared without defenses: leave it out.")
    from hashbackdoor_bench.cli.comparing import NoRun, compared

    where: dict[str, Any] = {"device": device, "plugin": plugin, "threads": threads}
    where["mode"] = mode_of(quiet, as_json)
    try:
        found = compared(
            name,
            suite=suite,
            settings=dict(given["attack"]),
            against=against,
            results=results_dir,
            cache_dir=cache_dir,
            jobs=jobs,
            until=until,
            minutes=minutes,
            log_dir=log_dir,
            note=lambda sentence: say(f"note: {sentence}", err=True),
            tell=partial(tell_failures, cache=cache_dir, **where),
            **where,
        )
    except NoRun:
        return 1
    say(*str(found).split("\n"), err=as_json)
    if found.records:
        say("", f"records  {found.records}", err=as_json)
    return 1 if found.failures else 0
