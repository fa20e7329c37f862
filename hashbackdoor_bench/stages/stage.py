"""A row of the table of stages."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hashbackdoor_bench.stages.artifact import Content

if TYPE_CHECKING:
    from hashbackdoor_bench.stages.pipeline import Run
    from hashbackdoor_bench.stages.plan import Plan, PlannedStage

Keys = Mapping[str, str]  # of the artifacts that a stage needs, by the stages' names
Inputs = dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """A row of the table.

    Attributes:
        name: its name in plans and records.
        kind: a key of ``VERSIONS``, and the folder of its artifacts.
        title: its name for users.
        needs: the names of the stages whose artifacts it reads, if the run has them.
        inputs: function of the plan and the keys of ``needs``: all that the artifact depends on, as
            JSON values. No other keys are passed to it, so ``needs`` can't be incomplete.
        build: function of the run, the planned stage and a folder for checkpoints that makes the
            artifact.
        when: function of the plan: whether the run has this stage.
    """

    name: str
    kind: str
    title: str
    needs: tuple[str, ...]
    inputs: Callable[["Plan", Keys], Inputs]
    build: Callable[["Run", "PlannedStage", Path], Content]
    when: Callable[["Plan"], bool] = lambda plan: True

    @property
    def group(self) -> str:
        """The line of `bench suite plan` in which it is counted: its title, or its kind."""
        titled = ("train", "backdoor", "shared", "tamper")
        return self.title if self.kind in titled else self.kind
