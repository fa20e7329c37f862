"""What workers of a Ray cluster tell while a task runs: an actor beside the driver keeps it.

Messages are for people and logs, so nothing waits for them: those that are lost with a worker, a
node or the actor are missed.
"""

import time
from contextlib import suppress
from typing import Any

Message = dict[str, Any]
Letter = tuple[str, Message]  # key of a task, and a message on it

PAUSE = 0.5  # seconds between two deliveries of a worker
PATIENCE = 5.0  # seconds that a worker waits until its last delivery has arrived


class _Kept:
    """The actor: the letters since they were last taken."""

    def __init__(self) -> None:
        self.letters: list[Letter] = []

    def put(self, letters: list[Letter]) -> None:
        """Keep letters."""
        self.letters += letters

    def take(self) -> list[Letter]:
        """All letters, once."""
        taken, self.letters = self.letters, []
        return taken


class Mailbox:
    """The driver's side. Ray must be connected.

    Attributes:
        actor: what a worker gives to its `Letters`.
    """

    def __init__(self) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        made = ray.remote(_Kept).options(num_cpus=0, max_restarts=-1, scheduling_strategy=here)
        self.actor: Any = made.remote()
        self.asked = self.actor.take.remote()

    def take(self, seconds: float) -> list[Letter]:
        """The letters that have arrived.

        Args:
            seconds: how long to wait for all that were sent before this call; 0: not at all.
        """
        found = self._taken(seconds)
        return found + self._taken(seconds) if seconds else found  # the first was asked before

    def _taken(self, seconds: float) -> list[Letter]:
        import ray

        ready, _ = ray.wait([self.asked], timeout=seconds)
        found: list[Letter] = []
        if ready:
            with suppress(ray.exceptions.RayError):  # it was lost with its node, and starts again
                found = ray.get(self.asked)
            self.asked = self.actor.take.remote()
        return found


class Letters:
    """A worker's side: sends its messages on one task in a few deliveries.

    Args:
        actor: that of the `Mailbox`.
        key: key of the task.
    """

    def __init__(self, actor: Any, key: str) -> None:
        self.actor, self.key = actor, key
        self.held: list[Letter] = []
        self.sent, self.last = float("-inf"), None

    def __call__(self, message: Message) -> None:
        """Send a message, now or with the next delivery."""
        self.held.append((self.key, message))
        if time.monotonic() - self.sent >= PAUSE:
            self._deliver()

    def _deliver(self) -> None:
        self.last = self.actor.put.remote(self.held)
        self.held, self.sent = [], time.monotonic()

    def close(self) -> None:
        """Send what is held, and wait until it has arrived."""
        import ray

        if self.held:
            self._deliver()
        if self.last is not None:
            with suppress(ray.exceptions.RayError):  # the driver may be gone
                ray.get(self.last, timeout=PATIENCE)
