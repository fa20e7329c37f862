"""``bench data``: list, prepare and verify data sets."""

from pathlib import Path
from typing import Any

import click

from hashbackdoor_bench.cli.options import bench, mode_of, places, talk, tolerance_option
from hashbackdoor_bench.cli.terminal import say
from hashbackdoor_bench.errors import UserError


@bench.group("data")
def data_group() -> None:
    """List, prepare and verify data sets."""


@data_group.command("list")
def data_list() -> None:
    """List the data protocols: sizes, classes, R, and the files they need."""
    list_data()


@data_group.command("prepare")
@click.argument("name")
@tolerance_option
@places
@talk
def data_prepare(
    name: str, tolerance: float, cache_dir: Path, quiet: bool, as_json: bool, **where: Any
) -> None:
    """Decode a data set's images once, into a file that runs read directly."""
    from hashbackdoor_bench import data
    from hashbackdoor_bench.cli.console import shown
    from hashbackdoor_bench.files import writable

    writable(cache_dir, "--cache-dir")
    with shown(mode_of(quiet, as_json)) as progress:
        folder = data.prepare(
            name, cache=cache_dir, tolerance=tolerance, progress=progress, **where
        )
    say(f"{name} is ready{'' if folder is None else f': {folder}'}", err=as_json)


@data_group.command("verify")
@click.argument("name")
@places
@talk
def data_verify(name: str, cache_dir: Path, quiet: bool, as_json: bool, **where: Any) -> None:
    """Hash a data set's prepared files again and list those that have changed."""
    from hashbackdoor_bench import data
    from hashbackdoor_bench.cli.console import shown

    with shown(mode_of(quiet, as_json)) as progress:
        differences = data.verify(name, cache=cache_dir, progress=progress, **where)
    if differences:
        raise UserError(" ".join(differences))
    say(f"{name} is as it was prepared", err=as_json)


def list_data() -> None:
    """Print the data protocols, one per line."""
    from hashbackdoor_bench.data import PROTOCOLS

    def spell(count: int | None) -> str:
        return "-" if count is None else f"{count:,}".replace(",", " ")

    say(f"{'name':<20}{'train':>8}{'query':>8}{'database':>10}{'classes':>9}{'R':>7}  needs")
    for protocol in PROTOCOLS.values():
        top = "all" if protocol.top_k is None else str(protocol.top_k)
        say(
            f"{protocol.name:<20}{spell(protocol.train):>8}{spell(protocol.query):>8}"
            f"{spell(protocol.database):>10}{spell(protocol.classes):>9}{top:>7}  "
            f"{protocol.bring or 'nothing: it is in the package'}"
        )
