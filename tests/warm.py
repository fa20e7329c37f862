"""Processes that start at once: forked from one that has imported torch and all that a run needs.

A worker of a suite spends four of the five seconds of a tiny run on imports. Here each process is
still one of its own, with its own streams, environment and session, and can be killed; but instead
of a new interpreter it is a fork of a server that does nothing but import and fork. What depends on
how an interpreter starts (options, encodings, hash seeds, what is imported) needs a real process.
"""

import os
import runpy
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from multiprocessing import get_context
from multiprocessing.forkserver import ensure_running
from multiprocessing.reduction import DupFd
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest
from coarse import resolution

IMPORTED = (
    "warm",
    "warmed",
    "hashbackdoor_bench.cli.run",
    "hashbackdoor_bench.suites.executors.making",
)
SERVER = get_context("forkserver")
SERVER.set_forkserver_preload(list(IMPORTED))


class WarmProcess:
    """What tests and package use of `subprocess.Popen`.

    Args:
        command: ``sys.executable``, then ``"-m", MODULE, *words`` or ``"-c", CODE, *words``.
        stdin: ``PIPE``, or None for that of this process.
        stdout: the same, or a file.
        stderr: a file, or None.
        cwd: the working directory; None: that of this process.
        env: the environment; None: that of this process.
        start_new_session: whether signals to the group of this process don't reach it.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        stdin: int | None = None,
        stdout: int | IO[bytes] | None = None,
        stderr: IO[bytes] | None = None,
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
        start_new_session: bool = False,
    ) -> None:
        program, *words = command
        assert program == sys.executable
        self.stdin = self.stdout = None
        theirs = []
        for number, asked in enumerate((stdin, stdout, stderr)):
            if asked == subprocess.PIPE:
                ends = os.pipe()
                theirs.append(ends[number])
                if number:
                    self.stdout = os.fdopen(ends[0], "rb")
                else:
                    self.stdin = os.fdopen(ends[1], "wb")
            else:
                assert not isinstance(asked, int)
                theirs.append(os.dup(number if asked is None else asked.fileno()))
        place = str(cwd or Path.cwd()), dict(os.environ if env is None else env)
        self._process = SERVER.Process(
            target=_become, args=(words, _Streams(theirs), *place, start_new_session)
        )
        _serve()
        self._process.start()
        for stream in theirs:
            os.close(stream)
        self.returncode: int | None = None  # until it is waited for
        self.terminate, self.kill = self._process.terminate, self._process.kill

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, negative for a signal; see `subprocess.Popen.wait`."""
        self._process.join(timeout)
        self.returncode = self._process.exitcode
        if self.returncode is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired("a forked process", timeout)
        return self.returncode


def run(folder: Path, *words: str, **more: Any) -> "subprocess.CompletedProcess[str]":
    """Run ``python *words`` to its end, with ``folder`` for its output; see `WarmProcess`."""
    command, streams = [sys.executable, *words], [folder / "stdout", folder / "stderr"]
    with streams[0].open("wb") as out, streams[1].open("wb") as err:
        code = WarmProcess(command, stdout=out, stderr=err, **more).wait()
    return subprocess.CompletedProcess(command, code, *(s.read_text("utf-8") for s in streams))


@cache
def _serve() -> None:
    """Start the server, which finds this folder's modules in ``PYTHONPATH`` alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        ensure_running()


class _Streams:
    """File descriptors, which arrive as those of the process that is started with them."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self.numbers = numbers

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, tuple(map(DupFd, self.numbers))


def _received(*handles: Any) -> list[int]:
    return [handle.detach() for handle in handles]


def _become(
    words: list[str], streams: list[int], folder: str, env: dict[str, str], new_session: bool
) -> None:
    """In the fork: become the process that was asked for."""
    if new_session:
        os.setsid()
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    sys.path[:0] = ["", *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(number, mode, buffering, closefd=False)
        for number, mode, buffering in ((0, "r", -1), (1, "w", -1), (2, "w", 1))
    )
    kind, what, *sys.argv[1:] = words
    with resolution():
        if kind == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(what, {"__name__": "__main__"})


# Stands in for the module `subprocess` where only ``Popen`` and constants are used.
WARM = SimpleNamespace(**{**vars(subprocess), "Popen": WarmProcess})
