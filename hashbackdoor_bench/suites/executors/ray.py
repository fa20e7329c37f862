"""Tasks of a Ray cluster, whose nodes need not share a file system with the driver.

Every node has a cache of its own: ``$HASHBACKDOOR_CACHE`` if that is set in the node's environment,
else at the path of the main process's cache. Artifacts that a stage needs and the node lacks are
sent as bytes through Ray's object store and are checked on arrival; the results are sent back in
the same way. A node needs the same version of this package, and the data at the same paths. If a
worker or node dies, or what it made is lost with it, the task is tried again, with a warning; it
continues from the checkpoint if it is on the same node. Ray's own retries are off, since they would
make a stage again without a word.
"""

import os
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.files import whole
from hashbackdoor_bench.stages import Cache, Damaged
from hashbackdoor_bench.suites.execution import Report
from hashbackdoor_bench.suites.executors.mailbox import Mailbox
from hashbackdoor_bench.suites.executors.making import limits
from hashbackdoor_bench.suites.executors.ray_worker import Name, shared_of, work
from hashbackdoor_bench.suites.executors.temporary import remove, temporary_folder
from hashbackdoor_bench.suites.layout import RECORD, Task, describe

try:
    import ray
except ModuleNotFoundError as error:
    raise UserError(
        'Ray is not installed: pip install "hashbackdoor-bench[ray]", or take --executor local.'
    ) from error

TRIES = 4  # attempts at a task whose worker or node dies; nodes may disappear several times
CONNECT = 10.0  # seconds in which a cluster must answer
FRESH = 1.0  # seconds after which the nodes are looked at again, which takes 3 ms
LAST = 5.0  # seconds in which the last messages of a suite must come


class RayExecutor:
    """See `Executor`.

    Args:
        address: address of the cluster; None: start one on this machine, and stop it at the end.
        threads: CPUs per task.
        gpus: GPUs per task, or the share of one.
        cache: the cache of the main process.
        results: folder of the records.
        device: ``cpu`` or ``cuda``, for the tasks.
        plugins: files with attacks and victims from outside.
    """

    def __init__(
        self,
        *,
        address: str | None,
        threads: int,
        gpus: float,
        cache: Cache,
        results: Path,
        device: str,
        plugins: Sequence[Path] = (),
    ) -> None:
        self.address, self.threads, self.gpus = address, threads, gpus
        self.cache, self.results = cache, results
        texts = tuple((path.name, path.read_text(encoding="utf-8")) for path in plugins)
        self.place = (str(cache.root.absolute()), device, texts)
        self.running: dict[Any, _Running] = {}
        self.begun: dict[str, tuple[Task, str]] = {}  # all tasks by key, and who made them last
        self.looked, self.room = float("-inf"), 0
        self.folder: Path | None = None  # of a cluster that this process has started
        self.lock: FileLock | None = None

    def __enter__(self) -> "RayExecutor":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        self.ours = not ray.is_initialized()
        if self.ours:
            try:
                _probe(self.address)
                ray.init(
                    address=self.address or "local",
                    log_to_driver=False,
                    logging_level="ERROR",
                    **({} if self.address else self._alone()),
                )
            except (OSError, ValueError, RuntimeError) as error:
                raise UserError(
                    f"--address {self.address}: no Ray cluster answers there "
                    f"({str(error).splitlines()[0]}): start one with ray start --head."
                ) from error
        if self.free() < 1:
            self.__exit__()
            need = f"{self.threads} CPUs" + (f" and {self.gpus:g} GPUs" if self.gpus else "")
            raise UserError(
                f"no node of the Ray cluster has the {need} that a stage takes: give other "
                "--threads or --gpus-per-stage, or --device cpu."
            )
        self.mailbox = Mailbox()
        self.work: Any = ray.remote(work).options(
            num_returns=2,
            num_cpus=self.threads,
            num_gpus=self.gpus,
            max_retries=0,
            runtime_env={"env_vars": limits(self.threads)},
        )
        return self

    def _alone(self) -> dict[str, Any]:
        """Options of a cluster that only this process uses, in a folder that can be removed."""
        self.folder, self.lock = temporary_folder()
        return {"include_dashboard": False, "_temp_dir": str(self.folder)}

    def __exit__(self, *error: object) -> None:
        for done in self.running:
            ray.cancel(done, force=True)
        if self.ours:
            ray.shutdown()
        if self.folder is not None and self.lock is not None:
            remove(self.folder, self.lock)
            self.folder = None

    def free(self) -> int:
        """See `Executor`: the tasks that fit the present nodes, less those that are running."""
        if time.monotonic() - self.looked > FRESH:
            self.looked, self.room = time.monotonic(), self._room()
        return max(0, self.room - len(self.running))

    def _room(self) -> int:
        """The number of tasks that fit the present nodes."""
        room = 0
        for node in ray.nodes():
            if node["Alive"]:
                has = node["Resources"]
                fits = has.get("CPU", 0) // self.threads
                fits = min(fits, has.get("GPU", 0) // self.gpus) if self.gpus else fits
                room += int(fits)
        return room

    def start(self, task: Task) -> str:
        """See `Executor`."""
        names = [(other.kind, other.key) for other in task.needs]
        if task.attacker:
            names += [("shared", key) for key in shared_of(self.cache, task.attacker)]
        known = {name: ref for one in self.running.values() for name, ref in one.inputs.items()}
        inputs = {name: known.get(name) or ray.put(self.cache.pack(*name)) for name in names}
        taken = {one.worker for one in self.running.values()}
        worker = min(set(range(len(taken) + 1)) - taken)
        self._begin(task, worker, inputs, 1)
        return str(worker)

    def _begin(self, task: Task, worker: int, inputs: dict[Name, Any], attempt: int) -> None:
        order = (asdict(task.spec), task.name, task.kind, task.key, task.attacker)
        # In a list the references stay references: a node fetches only what it lacks.
        done, made = self.work.remote(self.place, order, list(inputs.items()), self.mailbox.actor)
        self.running[done] = _Running(task, worker, made, inputs, attempt)
        self.begun[task.key] = task, str(worker)

    def reports(self, timeout: float) -> list[Report]:
        """See `Executor`."""
        if not self.running:
            time.sleep(timeout)
            return []
        ready, _ = ray.wait(list(self.running), num_returns=1, timeout=timeout)
        if ready:
            ready, _ = ray.wait(list(self.running), num_returns=len(self.running), timeout=0)
        ended = [self._report(done) for done in ready]
        return [*self._told(), *ended]

    def _told(self) -> list[Report]:
        """What the workers have told; the epochs of a task may come after its end."""
        now = {one.task.key for one in self.running.values()}
        told = self.mailbox.take(0.0 if now else LAST)
        return [
            Report(task=self.begun[key][0], worker=self.begun[key][1], **message)
            for key, message in told
            if key in now or message["state"] == "epoch"
        ]

    def _report(self, done: Any) -> Report:
        running = self.running.pop(done)
        task = running.task
        try:
            result = ray.get(done)
            if result["state"] == "done":
                self._take(running, result["names"])
        except (ray.exceptions.RayError, Damaged) as error:
            why = f"{type(error).__name__}: {error}".splitlines()[0].partition(". ")[0].rstrip(".")
            if running.attempt < TRIES:
                attempt = running.attempt + 1
                self._begin(task, running.worker, running.inputs, attempt)
                text = f"{task.title}, {describe(task.run)}: {why}; attempt {attempt} begins."
                return Report("note", task, str(running.worker), text)
            result = {"state": "failed", "text": f"{TRIES} times: {why}"}
        return Report(
            result["state"],
            task,
            str(running.worker),
            text=result.get("text", ""),
            seconds=result.get("seconds", 0.0),
        )

    def _take(self, running: "_Running", names: Sequence[Name]) -> None:
        """Copy the result of a task to this machine, unless its node shares the cache."""
        if running.task.kind == RECORD:
            for name, content in ray.get(running.made):
                path = self.results / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with whole(path) as fresh:
                    fresh.write_bytes(content)
        elif not all(self.cache.has(*name) for name in names):
            for name, files in zip(names, ray.get(running.made), strict=True):
                self.cache.unpack(*name, files)


def _probe(address: str | None) -> None:
    """Raise OSError at once if nothing listens at the address; Ray would try for minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT).close()


@dataclass(frozen=True, eq=False)
class _Running:
    """A running task.

    Attributes:
        task: the task.
        worker: number of its worker.
        made: reference to the files of what it makes.
        inputs: references to the artifacts that it was given.
        attempt: how often it was begun.
    """

    task: Task
    worker: int
    made: Any
    inputs: dict[Name, Any]
    attempt: int
