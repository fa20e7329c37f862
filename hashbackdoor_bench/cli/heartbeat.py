"""The line that a quiet command prints every minute, so that one can see that it still works."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from hashbackdoor_bench.cli.terminal import say

FIRST, NEXT = 30.0, 60.0  # seconds before the first line, and between two lines

_text: Callable[[], str] | None = None  # what the command is doing; None: nothing was said


def now_doing(text: Callable[[], str]) -> None:
    """Say what the command is doing; the text is made when a line of it is printed."""
    global _text
    _text = text


@contextmanager
def heartbeat() -> Iterator[None]:
    """Inside, a line on standard error says what `now_doing` was told last.

    It is printed after half a minute and then every minute, however long nothing new is told.
    """
    global _text
    _text, over, start = None, threading.Event(), time.monotonic()

    def beat() -> None:
        pause = FIRST
        while not over.wait(pause):
            if _text is not None:
                with suppress(BrokenPipeError):  # nobody reads it; the result may have a reader
                    say(f"[{time.monotonic() - start:6.0f} s] {_text()}", err=True)
            pause = NEXT

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
