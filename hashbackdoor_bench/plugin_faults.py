"""Naming the method from outside the project that fails: its file, line and error."""

import sys
from traceback import walk_tb

from hashbackdoor_bench.errors import Diverged, UserError

PLUGIN = "hashbackdoor_plugin_"  # before a plugin's name in sys.modules, where json.py is another
OURS = "hashbackdoor_bench."  # before the names of our own modules
OUTSIDE: set[str] = set()  # names of the modules whose methods come from outside the project


def spelt(error: BaseException) -> str:
    """An exception in words: its type and what it says."""
    if isinstance(error, SystemExit):
        return f"it ends the process with code {error.code!r}"
    try:
        return f"{type(error).__name__}: {error}".rstrip(".: ")
    except Exception:  # a plugin's exception may fail to say what it is
        return type(error).__name__


def plugin_place(error: BaseException) -> tuple[str, int] | None:
    """File and line of the innermost method from outside that an exception went through."""
    found = None
    for frame, line in walk_tb(error.__traceback__):
        name = frame.f_globals.get("__name__") or ""
        if name in OUTSIDE or name.startswith(PLUGIN):
            found = frame.f_code.co_filename, line
    return found


def plugin_fault(error: BaseException) -> str | None:
    """The sentence, without its full stop, on an exception that a method from outside caused.

    If the exception went through none, as when a method returned what it must not, the files that
    are loaded are named. None: there is no method from outside, or the exception is a message of
    its own.
    """
    if isinstance(error, UserError | Diverged | KeyboardInterrupt):
        return None
    notes = " ".join(getattr(error, "__notes__", ()))
    said = f"{spelt(error)} ({notes})" if notes else spelt(error)
    if place := plugin_place(error):
        return f"plugin {place[0]}, line {place[1]}: {said}"
    files = sorted({str(getattr(sys.modules.get(name), "__file__", name)) for name in OUTSIDE})
    if not files or isinstance(error, SystemExit):
        return None
    return (
        f"{said}, with the plugin {' and '.join(files)} loaded: `bench check {files[0]}` says "
        "which promise of a method it breaks"
    )
