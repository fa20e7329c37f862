"""The group `bench`, and the options that several of its commands take."""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hashbackdoor_bench import __version__
from hashbackdoor_bench.records import CONVENTIONS
from hashbackdoor_bench.spec import TOLERANCE

if TYPE_CHECKING:
    import pandas as pd

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", prog_name="hashbackdoor_bench")
def bench() -> None:
    """Backdoor attacks on deep-hashing image retrieval, compared."""


cache_option = click.option(
    "--cache-dir",
    type=FOLDER,
    default=lambda: Path(
        os.environ.get("HASHBACKDOOR_CACHE") or Path.home() / ".cache/hashbackdoor_bench"
    ),
    show_default="$HASHBACKDOOR_CACHE or ~/.cache/hashbackdoor_bench",
    help="Folder of the stages' artifacts.",
)
results_option = click.option(
    "--results-dir",
    type=FOLDER,
    default=Path("results"),
    show_default=True,
    help="Folder of the records.",
)
plugin_option = click.option(
    "--plugin", multiple=True, type=FILE, help="A Python file with an attack or victim of yours."
)
tolerance_option = click.option(
    "--tolerance",
    type=float,
    default=TOLERANCE,
    show_default=True,
    help="Share of a split's images that may be unreadable, and are left out.",
)
device_option = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu or cuda."
)


def places(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say where data and artifacts are."""
    for option in (
        click.option(
            "--size",
            type=int,
            help="Input side in px for --dataset lists or folder; 224 if not given.",
        ),
        click.option(
            "--top-k", type=int, help="R for --dataset lists or folder; 1000 if not given."
        ),
        click.option("--root", type=FOLDER, help="Folder of the images, if they aren't embedded."),
        click.option("--lists", type=FOLDER, help="Folder of the list files of a list protocol."),
        cache_option,
    ):
        command = option(command)
    return command


def talk(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say how progress is shown."""
    for option in (
        click.option("--quiet", "-q", is_flag=True, help="Print only the result and errors."),
        click.option(
            "--json", "as_json", is_flag=True, help="Print JSON objects, one per line, on stdout."
        ),
    ):
        command = option(command)
    return command


def records_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which records are looked at, and by which convention."""
    for option in (
        click.option(
            "--where",
            "conditions",
            multiple=True,
            metavar="NAME=VALUE",
            help="Use only runs with this value of a field. May be repeated: values of one field "
            "are alternatives, conditions on several fields must all hold.",
        ),
        click.option(
            "--convention",
            type=click.Choice(CONVENTIONS),
            default="field",
            show_default=True,
            help="How ties and queries without a hit are scored.",
        ),
    ):
        command = option(command)
    return command


def records_read(places: Iterable[Path], conditions: Sequence[str] = ()) -> "pd.DataFrame":
    """The records of ``places`` that meet ``conditions``; prints which files were left out."""
    from hashbackdoor_bench.report import choose, collect

    read = collect(places)
    for sentence in read.left_out:
        click.echo(f"note: {sentence}", err=True)
    return choose(read.frame, conditions)


def mode_of(quiet: bool, as_json: bool) -> str:
    """How progress is shown, see `console.shown`."""
    if as_json:
        return "json"
    return "quiet" if quiet else "bars" if sys.stderr.isatty() else "lines"
