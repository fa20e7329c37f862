"""Which task of a suite is made next.

A suite may have 20 000 runs of ten tasks each, and the choice is made once per task, so it must
not go through all runs: each run keeps the number of its remaining tasks, and a heap holds the runs
that may have a task to start.
"""

import heapq
from collections import defaultdict
from collections.abc import Sequence

from hashbackdoor_bench.suites.layout import Layout, PlannedRun, Task

Heap = list[tuple[int, int]]  # of runs: the number of remaining tasks, and the place in the suite


class Schedule:
    """Chooses the next task, so that no task waits for another and runs are finished early.

    The rule: go through the runs that can still be finished, those with the fewest remaining tasks
    first, and else in the order of the suite; go through the tasks of each in their order; take the
    first task that is neither done nor running, whose inputs are done, and whose attacker is not
    crafting.

    Args:
        layout: the layout of the suite; only tasks of runs without a record are made.
    """

    def __init__(self, layout: Layout) -> None:
        self.runs: Sequence[PlannedRun] = layout.missing
        self.done = layout.done
        self.todo: dict[str, Task] = {}
        self.running: dict[str, Task] = {}
        self._crafting: set[str] = set()  # attackers
        self._users: dict[str, list[int]] = defaultdict(list)  # places of the runs of a task
        self._left: list[int] = []  # per run, its remaining tasks; 0: it is finished or has failed
        for place, one in enumerate(self.runs):
            mine = [task for task in one.tasks if task.key not in self.done]
            self._left.append(len(mine))
            for task in mine:
                self.todo[task.key] = task
                self._users[task.key].append(place)
        self.unfinished = len(self.runs)  # runs that can still be finished
        self.ended = 0  # runs that were finished
        self._heap: Heap = [(left, place) for place, left in enumerate(self._left)]
        heapq.heapify(self._heap)
        self._waiting: dict[str, Heap] = defaultdict(list)  # runs by the attacker they wait for

    def take(self) -> Task | None:
        """Choose a task whose inputs are done and mark it as running; None if there is none."""
        while self._heap:
            entry = self._heap[0]
            if self._stands(entry):
                waits: set[str] = set()
                for task in self.runs[entry[1]].tasks:
                    if self._ready(task):
                        if task.attacker not in self._crafting:
                            self.running[task.key] = task
                            if task.attacker:
                                self._crafting.add(task.attacker)
                            return task
                        waits.add(str(task.attacker))
                for attacker in waits:
                    heapq.heappush(self._waiting[attacker], entry)
            heapq.heappop(self._heap)  # it comes back when a task of it is done, or in `_release`
        return None

    def _stands(self, entry: tuple[int, int]) -> bool:
        """Whether an entry of a heap still says how many tasks its run has left."""
        left, place = entry
        return left == self._left[place]

    def _ready(self, task: Task) -> bool:
        return (
            task.key not in self.done
            and task.key not in self.running
            and all(other.key in self.done for other in task.needs)
        )

    def _release(self, attacker: str) -> None:
        """Let the first of the runs that wait for an attacker try again.

        The others go on waiting: they come after it, and it leaves them nothing, since two tasks of
        one attacker don't run at the same time.
        """
        waiting = self._waiting[attacker]
        while waiting:
            entry = heapq.heappop(waiting)
            if self._stands(entry):
                heapq.heappush(self._heap, entry)
                return

    def finish(self, task: Task) -> list[PlannedRun]:
        """Mark a task as done; returns the runs that are finished with it."""
        self.done.add(task.key)
        users = self._users.pop(task.key)
        for place in users:
            if self._left[place]:  # the run hasn't failed
                self._left[place] -= 1
                if self._left[place]:
                    heapq.heappush(self._heap, (self._left[place], place))
                else:
                    self.unfinished -= 1
        self._stop(task)
        ended = [self.runs[place] for place in users if self.runs[place].tasks[-1] is task]
        self.ended += len(ended)
        return ended

    def fail(self, task: Task) -> list[PlannedRun]:
        """Mark a task as failed; returns the runs that can't be finished without it."""
        lost = [self.runs[place] for place in self._users[task.key]]
        for place in self._users[task.key]:
            if self._left[place]:
                self._left[place] = 0
                self.unfinished -= 1
        self._stop(task)
        for one in lost:  # such a run may have been the one that `_release` let try
            for other in one.tasks:
                if other.attacker and other.attacker not in self._crafting:
                    self._release(other.attacker)
        return lost

    def _stop(self, task: Task) -> None:
        """Mark a task as not running any more."""
        del self.running[task.key]
        if task.attacker:
            self._crafting.remove(task.attacker)
            self._release(task.attacker)

    @property
    def over(self) -> bool:
        """Whether no task is running and none can be started any more."""
        return not self.running and not self.unfinished
