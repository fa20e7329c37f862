"""``bench compare``: rank one attack among those of a suite."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from hashbackdoor_bench.suites import Failure


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
    help="Run the suite target by target (seed by seed if all targets share as many seeds as there "
    "are targets), and stop as soon as every attack with a place is told apart, or differs by less "
    "than POINTS of percent. All looks together err in 5 % of comparisons.",
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
    their own; `bench leaderboard results THAT_FOLDER` lists the attack too. With --json, the last
    object holds place, gains, rivals and files; with --quiet --json it is the only one.
    """
    given = settings_of(settings)
    if given["victim"]:
        raise UserError("--set victim.…: the suite sets its victims; give attack.NAME=VALUE only.")
    if given["defense"]:
        raise UserError("--set defense.…: attacks are compared without defenses: leave it out.")
    from hashbackdoor_bench.cli.comparing import NoRun, compared

    where: dict[str, Any] = {"device": device, "plugin": plugin, "threads": threads}
    one_object = quiet and as_json  # the result, which names the failures too
    where["mode"] = "quiet" if one_object else mode_of(quiet, as_json)
    tell = partial(tell_failures, cache=cache_dir, **where)
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
            tell=_tell_nothing if one_object else tell,
            **where,
        )
    except NoRun as error:
        say(f"bench: {error}", err=True)
        return 1
    if as_json:
        say(json.dumps({"event": "result", "attack": name, **found.to_dict()}, allow_nan=False))
    else:
        say(*str(found).split("\n"))
        if found.records:
            say("", f"records  {found.records}")
    return 1 if found.failures else 0


def _tell_nothing(failures: Sequence["Failure"], folder: Path) -> None:
    """In the place of `tell_failures`, where the result names the failures."""
