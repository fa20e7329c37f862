"""Which task of a suite is made next."""

from collections.abc import Sequence

from hashbackdoor_bench.suites.layout import Layout, PlannedRun, Task


class Schedule:
    """Chooses the next task, so that no task waits for another and runs are finished early.

    Args:
        layout: the layout of the suite; only tasks of runs without a record are made.
    """

    def __init__(self, layout: Layout) -> None:
        self.runs: Sequence[PlannedRun] = layout.missing
        self.done = layout.done
        self.todo = {
            task.key for one in self.runs for task in one.tasks if task.key not in self.done
        }
        self.running: dict[str, Task] = {}
        self.failed: set[str] = set()

    @property
    def live(self) -> list[PlannedRun]:
        """The runs that can still be finished, those with the fewest remaining tasks first."""
        runs = [one for one in self.runs if not any(n.key in self.failed for n in one.tasks)]
        left = [sum(task.key not in self.done for task in one.tasks) for one in runs]
        order = sorted((count, place) for place, count in enumerate(left) if count)
        return [runs[place] for _, place in order]

    def take(self) -> Task | None:
        """Choose a task whose inputs are done and mark it as running; None if there is none."""
        crafting = {task.attacker for task in self.running.values() if task.attacker}
        for one in self.live:
            for task in one.tasks:
                if (
                    task.key not in self.done
                    and task.key not in self.running
                    and task.attacker not in crafting
                    and all(other.key in self.done for other in task.needs)
                ):
                    self.running[task.key] = task
                    return task
        return None

    def finish(self, task: Task) -> list[PlannedRun]:
        """Mark a task as done; returns the runs that are finished with it."""
        del self.running[task.key]
        self.done.add(task.key)
        return [one for one in self.runs if one.tasks[-1] is task]

    def fail(self, task: Task) -> list[PlannedRun]:
        """Mark a task as failed; returns the runs that can't be finished without it."""
        del self.running[task.key]
        self.failed.add(task.key)
        return [one for one in self.runs if task in one.tasks]

    @property
    def over(self) -> bool:
        """Whether no task is running and none can be started any more."""
        return not self.running and not self.live
