"""The callback through which all code below the command line reports its progress."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

# What only the last message of an epoch of training has: the learning rates of the backbone and the
# hash layer in its last step, and how long it took.
OF_EPOCHS = ("rate", "head_rate", "epoch_seconds")


class Progress(Protocol):
    """Called as ``progress("train clean victim", 3, 12, epoch=1, epochs=4, loss=0.41)``.

    Args:
        stage: what is being done, in words.
        done: units finished so far; 0 announces the stage, ``total`` ends it.
        total: units in all; 1 for a stage that has no parts.
        facts: numbers worth showing beside the bar. A training, whose units are steps, gives the
            ``epoch`` (from 1) of the ``epochs``, and the ``loss`` of the step. The last message of
            an epoch has the mean loss of the epoch instead, and the names of ``OF_EPOCHS``.
    """

    def __call__(self, stage: str, done: int, total: int, **facts: float) -> None:
        """Receive one message."""


def silent(stage: str, done: int, total: int, **facts: float) -> None:
    """A `Progress` that shows nothing."""


def ends_epoch(facts: Mapping[str, float]) -> bool:
    """Whether the facts of a message are those of a whole epoch of training."""
    return all(name in facts for name in OF_EPOCHS)


# Called at the end of each epoch of training: the path of the run's record, the stage, its facts.
Log = Callable[[Path, str, Mapping[str, float]], None]


def logged(progress: Progress, log: Callable[[str, Mapping[str, float]], None]) -> Progress:
    """A `Progress` that passes the end of each epoch of training, with the stage, to a log too."""

    def tell(stage: str, done: int, total: int, **facts: float) -> None:
        progress(stage, done, total, **facts)
        if ends_epoch(facts):
            log(stage, facts)

    return tell
