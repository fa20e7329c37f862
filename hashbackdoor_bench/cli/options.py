"""The group `bench`, and the options that several of its commands take."""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import wraps
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hashbackdoor_bench import __version__
from hashbackdoor_bench.cli.heartbeat import heartbeat
from hashbackdoor_bench.cli.terminal import for_messages_only, say
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.records import CONVENTIONS, OWN, PUBLISHED
from hashbackdoor_bench.spec import TOLERANCE
from hashbackdoor_bench.text import counted

if TYPE_CHECKING:
    from hashbackdoor_bench.report import Collection

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path)
MOST_THREADS = 1024  # of a process


class Commands(click.Group):
    """A group whose words are never empty: an empty name or path would count as not given."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See `click.Group`.

        Raises:
            UserError: a word, or the value of an option, is empty.
        """
        for before, word in zip(["", *args], args, strict=False):
            name, equals, value = word.partition("=")
            option = before if before.startswith("-") else "an argument"
            if not word.strip() or (word.startswith("--") and equals and not value.strip()):
                what = name if word.strip() else option
                raise UserError(f"{what} is empty: give it a value, or leave it out.")
        return super().parse_args(ctx, args)


class NumberRange(click.FloatRange):
    """A range of numbers. That of click takes ``nan``, which no comparison finds outside of it."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """See `click.ParamType`."""
        found: float = super().convert(value, param, ctx)
        if isnan(found):
            self.fail(f"{value!r} is no number.", param, ctx)
        return found


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, "-V", "--version", prog_name="hashbackdoor_bench")
def bench() -> None:
    """Backdoor attacks on deep-hashing image retrieval, compared."""


def default_cache() -> Path:
    """The folder of the stages' artifacts if nothing else is said."""
    return Path(os.environ.get("HASHBACKDOOR_CACHE") or Path.home() / ".cache/hashbackdoor_bench")


cache_option = click.option(
    "--cache-dir",
    type=FOLDER,
    default=default_cache,
    show_default="$HASHBACKDOOR_CACHE or ~/.cache/hashbackdoor_bench",
    help="Folder of the stages' artifacts.",
)
results_option = click.option(
    "--results-dir",
    type=FOLDER,
    default=OWN,
    show_default=True,
    help="Folder of the records.",
)
plugin_option = click.option(
    "--plugin",
    multiple=True,
    type=FILE,
    help="A Python file with a method of yours.",
)
log_option = click.option(
    "--log-dir",
    type=FOLDER,
    help="Write loss, learning rates and seconds of each epoch of training into this folder, for "
    "TensorBoard.",
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


def threads_option(
    default: int | None = None, otherwise: str = "all cores, or $OMP_NUM_THREADS"
) -> Callable[..., Any]:
    """The option ``--threads``.

    Args:
        default: its default.
        otherwise: what holds if there is no default, for the help.
    """
    return click.option(
        "--threads",
        type=click.IntRange(1, MOST_THREADS),
        default=default,
        show_default=otherwise if default is None else True,
        help="Threads of each process. On the CPU results depend on this number, so it enters the "
        "keys of all stages.",
    )


JOBS = (
    "Number of worker processes; by default as many as fit the CPU cores and, with a GPU, its "
    "memory: one for every 9 GB, at most 8."
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
    """The options that say how progress is shown; with ``--json``, stdout is for objects only.

    A quiet command prints a line every minute, see `heartbeat`.
    """

    @wraps(command)
    def told(*, quiet: bool, as_json: bool, **more: Any) -> Any:
        with (
            for_messages_only() if as_json else nullcontext(),
            heartbeat() if quiet and not as_json else nullcontext(),
        ):
            return command(quiet=quiet, as_json=as_json, **more)

    for option in (
        click.option(
            "--quiet",
            "-q",
            is_flag=True,
            help="Print only the result and errors; on stderr a line every minute, from 30 s on.",
        ),
        click.option(
            "--json", "as_json", is_flag=True, help="Print JSON objects, one per line, on stdout."
        ),
    ):
        told = option(told)
    return told


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


def first_of(sentences: Sequence[str], command: str = "bench verify") -> list[str]:
    """The first twenty sentences, and how many more there are."""
    more = len(sentences) - 20
    rest = [f"and {more} more, which `{command} --json` lists."] if more > 0 else []
    return [*sentences[:20], *rest]


def published_or_own() -> Path:
    """The folder of records that a command reads if none is given."""
    return PUBLISHED if PUBLISHED.is_dir() else OWN


def records_read(
    places: Iterable[Path], conditions: Sequence[str] = (), *, defended: bool = False
) -> "Collection":
    """The records of ``places`` that meet ``conditions``; prints which were left out.

    Args:
        places: see `collect`.
        conditions: see `choose`.
        defended: see `choose`.
    """
    from hashbackdoor_bench.report import (
        DEFENDED,
        choose,
        collect,
        values_wanted,
        without_repeats,
        without_surrogate,
    )

    read = collect(places)
    for sentence in first_of(read.left_out):
        say(f"note: {sentence}", err=True)
    chosen = choose(read.frame, conditions, defended=defended)
    for sentence in without_surrogate(read.frame, conditions, defended=defended):
        say(f"note: {sentence}", err=True)
    asked = values_wanted(conditions).get("defense", [])
    if not asked and not defended:
        left = len(choose(read.frame, conditions, defended=True)) - len(chosen)
        if left:
            say(f"note: {counted(left, 'run')} with a defense left out: {DEFENDED}.", err=True)
    chosen, repeats = without_repeats(chosen)
    for sentence in first_of(repeats):
        say(f"note: {sentence}", err=True)
    refused = tuple(one for one in read.refused if not asked or one.defense in asked)
    return replace(read, frame=chosen, refused=refused)


def mode_of(quiet: bool, as_json: bool) -> str:
    """How progress is shown, see `console.shown`."""
    if as_json:
        return "json"
    return "quiet" if quiet else "bars" if sys.stderr.isatty() else "lines"
