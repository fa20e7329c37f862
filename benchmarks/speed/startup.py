"""The start-up time of commands; the ceiling is a Python interpreter that does nothing."""

import subprocess
import sys
from collections.abc import Iterator

from .clock import Entry, Goal, Row, Setting, in_turn, ratio

COMMANDS = ("--help", "list attacks", "list victims", "list datasets", "run --help")
LIMIT = 0.5  # s


def measure(setting: Setting) -> Iterator[Row]:
    """The rows of this part."""
    for command in COMMANDS[:2] if setting.quick else COMMANDS:
        yield _started(command, setting)


def _started(command: str, setting: Setting) -> Row:
    words = [sys.executable, "-m", "hashbackdoor_bench", *command.split()]
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert text.strip(), f"bench {command} prints nothing"
    entries = {
        "ours": Entry(lambda: subprocess.run(words, capture_output=True, check=True)),
        "bare": Entry(
            lambda: subprocess.run([sys.executable, "-c", "pass"], capture_output=True, check=True)
        ),
    }
    seconds = in_turn(entries, setting, warm=False)
    return Row(
        "start-up",
        f"bench {command}",
        seconds,
        [Goal("seconds, median", sorted(seconds["ours"])[setting.repeat // 2], LIMIT, most=True)],
        least="one interpreter started",
        ceiling="python -c pass",
        share=ratio(seconds, "bare"),
    )
