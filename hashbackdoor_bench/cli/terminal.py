"""What `bench` prints: every line goes through `say`, every table through `console`.

Lines may hold text from outside, so they are made visible, and what the encoding of a stream can't
show is written in ASCII.
"""

import codecs
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, TextIO

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.text import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# How a stream without these characters shows them; others are written as Python escapes them.
PLAIN = {
    "–": "-", "—": "-", "−": "-", "±": "+-", "×": "x", "→": "->", "←": "<-", "…": "...", "·": ".",
    "≤": "<=", "≥": ">=", "≠": "!=", "Δ": "delta ", "ε": "epsilon", "✓": "v", "‘": "'", "’": "'",
    "“": '"', "”": '"', "\u00a0": " ",
}  # fmt: skip
BARS = range(0x2500, 0x2900)  # lines, bars and spinners of rich
ERRORS = "hashbackdoor-plain"
WIDTH = 100  # characters of a table that goes to no terminal

_messages: TextIO | None = None  # where `say` writes if standard output is kept for messages


def _plain(error: UnicodeError) -> tuple[str, int]:
    """An error handler of codecs: the characters in ASCII."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    shown = (PLAIN.get(c) or ("-" if ord(c) in BARS else ascii(c)[1:-1]) for c in found)
    return "".join(shown), error.end


def readable_streams() -> None:
    """Make standard output and error show in ASCII what their encoding doesn't have."""
    codecs.register_error(ERRORS, _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ERRORS)


def in_utf8() -> None:
    """Start `bench` again with UTF-8 for file names and arguments, if the locale has another.

    Under a locale such as POSIX, the names of files in other encodings can't be opened, and
    arguments arrive undecoded. The streams keep the encoding of the locale.
    """
    if sys.getfilesystemencoding() == "utf-8" or os.environ.get("PYTHONUTF8") == "1":
        return
    stream = getattr(sys.stdout, "encoding", None) or "ascii"
    names = {"PYTHONUTF8": "1", "PYTHONIOENCODING": os.environ.get("PYTHONIOENCODING") or stream}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **names})


def say(*lines: str, err: bool = False) -> None:
    """Print lines on standard output, or on standard error.

    Args:
        lines: each is printed as one line, whatever it holds.
        err: print them on standard error.

    Raises:
        BrokenPipeError: nobody reads the stream any more.
        UserError: the stream can't be written.
    """
    stream = sys.stderr if err else _messages or sys.stdout
    if stream is None or stream.closed:
        return
    try:
        stream.write("".join(f"{visible(line)}\n" for line in lines))
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        if err:
            return
        raise UserError(
            f"the output can't be written ({error.strerror}): give another place for it."
        ) from error


def console(*, err: bool = False) -> "Console":
    """A console of rich on standard output or error, which reads no markup and no emoji codes."""
    from rich.console import Console

    stream = sys.stderr if err else _messages or sys.stdout
    return Console(file=stream, markup=False, emoji=False, highlight=False)


def print_whole(table: "Table") -> None:
    """Print a table, wider than the console if need be: a truncated number would be wrong."""
    from rich.measure import Measurement

    screen = console()
    needed = Measurement.get(screen, screen.options.update(max_width=1000), table).maximum
    screen.width = max(screen.width, needed)
    screen.print(table)


@contextmanager
def for_messages_only() -> Iterator[None]:
    """Keep standard output for `say`: what else is printed there, by a plugin say, goes to stderr.

    That holds for this process's file of standard output too, if there is one.
    """
    global _messages
    if _messages is not None:
        yield
        return
    out = sys.stdout
    try:
        kept = os.dup(out.fileno()) if out.fileno() == 1 else None
    except (OSError, ValueError, AttributeError):  # a stream in memory, or none at all
        kept = None
    if kept is None:
        _messages = out
    else:
        out.flush()
        encoding, errors = out.encoding, out.errors
        _messages = os.fdopen(os.dup(kept), "w", encoding=encoding, errors=errors)
        os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        if kept is not None:
            out.flush()
            os.dup2(kept, 1)
            os.close(kept)
            with _messages:
                pass
        _messages = None


def silence() -> None:
    """Let what is still to be printed vanish, after a pipe was closed."""
    for stream in (sys.stdout, sys.stderr):
        try:
            number = stream.fileno()
            stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
        except (OSError, ValueError, AttributeError):
            continue


def as_text(table: "Table") -> str:
    """A table as `console` prints it, without colours."""
    from rich.console import Console

    text = io.StringIO()
    Console(file=text, width=WIDTH).print(table)
    return text.getvalue()


def as_html(table: "Table") -> str:
    """A table for a page: one ``pre`` with its colours; what stands in it is escaped."""
    from rich.console import Console

    page = Console(file=io.StringIO(), record=True, width=WIDTH)
    page.print(table)
    return page.export_html(inline_styles=True, code_format="<pre>{code}</pre>")
