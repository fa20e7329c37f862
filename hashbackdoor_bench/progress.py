"""The callback through which all code below the command line reports its progress."""

from typing import Protocol


class Progress(Protocol):
    """Called as ``progress("train clean victim", 3, 12, loss=0.41)``.

    Args:
        stage: what is being done, in words.
        done: units finished so far; 0 announces the stage, ``total`` ends it.
        total: units in all; 1 for a stage that has no parts.
        facts: numbers worth showing beside the bar.
    """

    def __call__(self, stage: str, done: int, total: int, **facts: float) -> None:
        """Receive one message."""


def silent(stage: str, done: int, total: int, **facts: float) -> None:
    """A `Progress` that shows nothing."""
