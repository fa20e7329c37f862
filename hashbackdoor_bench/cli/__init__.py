"""`bench`, the command line: parse, call, print; one file for each group of commands."""

import os
import traceback
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
    search,
    sharing,
    suite,
    table,
    trust,
)
from hashbackdoor_bench.cli.methods import argument_texts
from hashbackdoor_bench.cli.options import bench
from hashbackdoor_bench.cli.terminal import in_utf8, readable_streams, say, silence
from hashbackdoor_bench.errors import Diverged, UserError
from hashbackdoor_bench.memory import keep_freed_memory, scarce
from hashbackdoor_bench.plugin_faults import plugin_fault, spelt
from hashbackdoor_bench.text import sentence

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
    "search",
    "sharing",
    "suite",
    "table",
    "trust",
]

# torch, rich and matplotlib are imported where they are used, so that `bench --help` is fast.


DEBUG = "HASHBACKDOOR_DEBUG"  # the environment variable with which tracebacks are printed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `bench`.

    Args:
        arguments: the words behind ``bench``; None: those of this process.

    Returns:
        0; 2 for a user's mistake or a plugin's; 1 for a failed run, or if nobody reads the output
        any more; 130 for Ctrl-C.
    """
    if arguments is None:
        in_utf8()
        keep_freed_memory()
    readable_streams()
    warnings.showwarning = _note
    try:
        code = bench.main(arguments, prog_name="bench", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except BrokenPipeError:
        silence()
        return 1
    except (KeyboardInterrupt, click.Abort):
        say("bench: interrupted; the same command continues where it stopped.", err=True)
        return 130
    except BaseException as error:
        message = _message(error)
        if message is None:
            raise
        if os.environ.get(DEBUG):
            say(*"".join(traceback.format_exception(error)).splitlines(), err=True)
        say(f"bench: {sentence(message)}", err=True)
        return 1 if isinstance(error, Diverged) else 2


def _message(error: BaseException) -> str | None:
    """What a user is told about an error; None if only its traceback can tell."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, click.ClickException):
        return _sentence(error)
    if isinstance(error, Diverged):
        return f"{error} ({' '.join(getattr(error, '__notes__', ()))})"
    if memory := scarce(error):
        return (
            f"the {memory} memory is too small ({spelt(error)}): end other programs, or give fewer "
            "--jobs, a smaller --size or --batch-size, or less data"
        )
    fault = plugin_fault(error)
    if fault is not None:
        return f"{fault}; {DEBUG}=1 shows the traceback."
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}; give another path, or make room for it."
    return None


def _note(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    if issubclass(category, UserWarning):
        say(f"note: {sentence(message)}", err=True)


def _sentence(error: click.ClickException) -> str:
    command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else ""
    hint = f" See {command} --help." if command else ""
    return f"{error.format_message().rstrip('.')}.{hint}"
