"""`bench`, the command line: parse, call, print; one file for each group of commands."""

import warnings
from collections.abc import Sequence
from typing import Any

import click

from hashbackdoor_bench.cli import (  # commands of the group
    cache,
    check,
    compare,
    data,
    figure,
    leaderboard,
    methods,
    new,
    run,
    score,
    suite,
    table,
    trust,
)
from hashbackdoor_bench.cli.methods import argument_texts
from hashbackdoor_bench.cli.options import bench
from hashbackdoor_bench.errors import Diverged, UserError

__all__ = [
    "argument_texts",
    "bench",
    "cache",
    "check",
    "compare",
    "data",
    "figure",
    "leaderboard",
    "main",
    "methods",
    "new",
    "run",
    "score",
    "suite",
    "table",
    "trust",
]

# torch, rich and matplotlib are imported where they are used, so that `bench --help` is fast.


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `bench`; returns 0, 2 for a user's mistake, 1 for a failed run, or 130 for Ctrl-C."""
    warnings.showwarning = _note
    try:
        code = bench.main(arguments, prog_name="bench", standalone_mode=False)
    except (UserError, click.ClickException) as error:
        message = str(error) if isinstance(error, UserError) else _sentence(error)
        click.echo(f"bench: {message}", err=True)
        return 2
    except (KeyboardInterrupt, click.Abort):
        click.echo("bench: interrupted; the same command continues where it stopped.", err=True)
        return 130
    except Diverged as error:
        where = " ".join(getattr(error, "__notes__", ()))
        click.echo(f"bench: {error} ({where})", err=True)
        return 1
    return code if isinstance(code, int) else 0


def _note(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    if issubclass(category, UserWarning):
        click.echo(f"note: {message}", err=True)


def _sentence(error: click.ClickException) -> str:
    command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else ""
    hint = f" See {command} --help." if command else ""
    return f"{error.format_message().rstrip('.')}.{hint}"
