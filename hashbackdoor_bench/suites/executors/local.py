"""Worker processes on this machine, on its GPUs or on the CPU.

On the CPU a result depends on the number of threads, so each worker has a fixed number of threads,
and the records don't depend on the number of workers.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from hashbackdoor_bench.suites.execution import Report
from hashbackdoor_bench.suites.executors.making import limits
from hashbackdoor_bench.suites.layout import Task, describe

TRIES = 2  # attempts at a task whose worker dies
GRACE = 5.0  # seconds that the workers have to end by themselves


class LocalExecutor:
    """See `Executor`.

    Args:
        jobs: number of worker processes.
        threads: threads per worker.
        gpus: numbers of the GPUs, which are assigned to the workers in turn; empty: use the CPU.
        cache: root of the cache.
        results: folder of the records.
        device: ``cpu`` or ``cuda``.
        plugins: files with attacks and victims from outside.
        others: folders of other caches, see `Cache`.
    """

    def __init__(
        self,
        *,
        jobs: int,
        threads: int,
        gpus: Sequence[str],
        cache: Path,
        results: Path,
        device: str,
        plugins: Sequence[Path] = (),
        others: Sequence[Path] = (),
    ) -> None:
        self.place = {
            "cache": str(cache.absolute()),
            "others": [str(other.absolute()) for other in others],
            "results": str(results.absolute()),
            "device": device,
            "plugins": [str(path.absolute()) for path in plugins],
        }
        self.environments = [
            {**os.environ, **limits(threads)}
            | ({"CUDA_VISIBLE_DEVICES": gpus[place % len(gpus)]} if gpus else {})
            for place in range(jobs)
        ]
        self.workers: dict[int, _Process] = {}
        self.working: dict[int, tuple[Task, int]] = {}  # the task, and how often it was begun
        self.messages: SimpleQueue[tuple[_Process, dict[str, Any] | None]] = SimpleQueue()

    def __enter__(self) -> "LocalExecutor":
        return self

    def __exit__(self, *error: object) -> None:
        for place, worker in self.workers.items():
            worker.ask(busy=place in self.working)
        end = time.monotonic() + GRACE
        for worker in self.workers.values():
            worker.end(end - time.monotonic())

    def free(self) -> int:
        """See `Executor`."""
        return len(self.environments) - len(self.working)

    def start(self, task: Task) -> str:
        """See `Executor`; a worker process is started when it is first needed."""
        idle = [place for place in range(len(self.environments)) if place not in self.working]
        place = min(idle, key=lambda place: place not in self.workers)
        self._begin(place, task, 1)
        return str(place)

    def _begin(self, place: int, task: Task, attempt: int) -> None:
        self.working[place] = task, attempt
        if place not in self.workers:
            self.workers[place] = _Process(place, self.environments[place], self.messages)
            self.workers[place].send(self.place)
        self.workers[place].send({"spec": asdict(task.spec), "name": task.name, "key": task.key})

    def reports(self, timeout: float) -> list[Report]:
        """See `Executor`."""
        found: list[Report] = []
        with suppress(Empty):
            found += self._report(*self.messages.get(timeout=timeout))
            while True:
                found += self._report(*self.messages.get_nowait())
        return found

    def _report(self, worker: "_Process", message: dict[str, Any] | None) -> list[Report]:
        place = worker.place
        if message is None:  # the process has ended
            why = worker.end()
            del self.workers[place]
            if place not in self.working:
                return []
            task, attempt = self.working[place]
            if attempt < TRIES:
                self._begin(place, task, attempt + 1)
                text = f"{task.title}, {describe(task.run)}: {why}; another worker continues it."
                return [Report("note", task, str(place), text)]
            message = {"state": "failed", "text": f"{TRIES} times: {why}"}
        task, _ = self.working[place]
        if message["state"] in ("done", "failed"):
            del self.working[place]
        return [Report(task=task, worker=str(place), **message)]


class _Process:
    """One worker process, and the thread that reads its messages.

    Args:
        place: number of the worker.
        environment: environment variables of the process.
        messages: queue for the messages of the process, and None when it has ended.
    """

    def __init__(
        self,
        place: int,
        environment: dict[str, str],
        messages: "SimpleQueue[tuple[_Process, dict[str, Any] | None]]",
    ) -> None:
        self.place, self.messages = place, messages
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115, open as long as the process
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hashbackdoor_bench.suites.executors.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches the main process only
        )
        threading.Thread(target=self._listen, daemon=True).start()

    def send(self, message: dict[str, Any]) -> None:
        """Send a message; a process that has ended is reported by `_listen`."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                with suppress(ValueError):  # the last line of a killed process may be incomplete
                    self.messages.put((self, json.loads(line)))
        self.messages.put((self, None))

    def ask(self, *, busy: bool) -> None:
        """Ask the process to end: by a signal in the middle of a task, else by the end of input.

        A process whose input ends leaves at once. After a signal it keeps the time of its task, and
        then cleans up for seconds, which add up where many processes share a GPU.
        """
        if busy:
            self.process.terminate()
        else:
            self._close()

    def _close(self) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()

    def end(self, seconds: float = GRACE) -> str:
        """Wait for the process to end, or kill it; returns how it ended, as part of a sentence."""
        try:
            code = self.process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self._close()
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        self.errors.close()
        if code < 0:
            name = signal.Signals(-code).name
            hint = " (was the memory enough?)" if name == "SIGKILL" else ""
            return f"its worker was killed by {name}{hint}"
        return f"its worker ended with code {code}{': ' + lines[-1] if lines else ''}"
