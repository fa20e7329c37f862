"""``bench new``: write the first two files of a new attack, victim or defense."""

from pathlib import Path

import click

from hashbackdoor_bench.cli.options import FOLDER, bench
from hashbackdoor_bench.cli.terminal import say
from hashbackdoor_bench.registry import METHODS
from hashbackdoor_bench.templates import write_skeleton


@bench.command("new")
@click.argument("kind", type=click.Choice(list(METHODS)))
@click.argument("name")
@click.option(
    "--dir",
    "folder",
    type=FOLDER,
    default=Path(),
    show_default="the current folder",
    help="Where the two files are written.",
)
def new_command(kind: str, name: str, folder: Path) -> None:
    """Write a working attack, victim or defense and its test, for you to rewrite."""
    method, test = write_skeleton(kind, name, folder)
    named = f"--{kind}"
    for path in (method, test):
        say(f"wrote {path}")
    say(f"check it   bench check {method}")
    say(f"run it     bench run --plugin {method} {named} {method.stem}")
