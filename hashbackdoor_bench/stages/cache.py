"""The cache: the results of stages, found by a hash of their inputs, so that none is made twice.

An artifact is a folder ``<root>/<stage>/<key>`` with ``tensors.safetensors`` and ``facts.json``;
its key is the SHA-256 of its inputs. It is written under a temporary name and renamed when it is
complete, under a lock of its own, so a killed process leaves no incomplete artifact, and two
processes don't make the same one twice. No file is ever unpickled.
"""

import json
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hashbackdoor_bench.files import room, sha256_of, writable
from hashbackdoor_bench.progress import Progress, silent
from hashbackdoor_bench.spec import canonical, digest

FILES = ("facts.json", "tensors.safetensors")
Content = tuple[Mapping[str, Tensor], Mapping[str, Any]]


@dataclass(frozen=True)
class Artifact:
    """The stored result of a stage.

    Attributes:
        key: SHA-256, in hex, of the stage and its inputs.
        tensors: tensors by name, on the CPU.
        facts: JSON values by name.
        seconds: the time it took to make.
    """

    key: str
    tensors: dict[str, Tensor]
    facts: dict[str, Any]
    seconds: float


class Damaged(Exception):
    """The files of a stored artifact are damaged or belong to another artifact."""


class Cache:
    """A folder of artifacts.

    Args:
        root: the folder; made if it doesn't exist.

    Raises:
        UserError: the folder can't be made or written to.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._inner = 0.0  # seconds that went into artifacts since the current one was begun
        writable(root, "--cache-dir")

    def key(self, stage: str, inputs: Mapping[str, object]) -> str:
        """The key of an artifact: SHA-256 over the stage's name and all that it reads."""
        return digest({"stage": stage, "inputs": inputs})

    def make(
        self,
        stage: str,
        inputs: Mapping[str, object],
        build: Callable[[Path], Content],
        progress: Progress = silent,
    ) -> Artifact:
        """The stored artifact of ``inputs``, or a new one.

        Args:
            stage: kind of artifact, and name of its folder.
            inputs: all that ``build`` depends on, as JSON values.
            build: function of a folder for checkpoints, which returns tensors and facts. The folder
                is kept if the process dies, and removed when the artifact is complete.
            progress: called while another process is making this artifact.

        Raises:
            UserError: the disk is full, or can't be written any more.
        """
        key = self.key(stage, inputs)
        try:
            found = self.find(stage, key)
        except Damaged:
            found = None
        if found is not None:
            return found
        start, outer, self._inner = time.perf_counter(), self._inner, 0.0
        try:
            with self._locked(stage, key, progress):
                try:
                    found = self.find(stage, key)
                except Damaged as error:
                    warnings.warn(f"cached {stage} {key[:12]} is damaged ({error}): made again.")
                    shutil.rmtree(self.root / stage / key)
                if found is None:
                    found = self._write(stage, key, inputs, build)
        finally:
            self._inner = outer + time.perf_counter() - start
        return found

    def find(self, stage: str, key: str) -> Artifact | None:
        """The stored artifact; None if there is none.

        Raises:
            Damaged: a file is missing, cut off, or not what its hash says.
        """
        folder = self.root / stage / key
        if not folder.is_dir():
            return None
        with suppress(OSError):
            os.utime(folder)  # pruning goes by the time of the last use
        return _read(folder)

    def has(self, stage: str, key: str) -> bool:
        """Whether the artifact is stored; its files are not read."""
        return (self.root / stage / key / FILES[0]).is_file()

    def stored(self, kind: str = "*") -> Iterator[tuple[str, str, Path]]:
        """Kind, key and folder of all artifacts, or of those of one kind."""
        for path in self.root.glob(f"{kind}/{'[0-9a-f]' * 64}/{FILES[0]}"):
            yield path.parts[-3], path.parts[-2], path.parent

    def pack(self, stage: str, key: str) -> tuple[bytes, ...]:
        """The files of an artifact, for `unpack` in another cache."""
        return tuple((self.root / stage / key / name).read_bytes() for name in FILES)

    def unpack(self, stage: str, key: str, files: tuple[bytes, ...]) -> None:
        """Store an artifact of another cache, unless this cache has it.

        Raises:
            Damaged: the files are not that artifact, or are not as they were written.
        """
        work = self.root / "work" / f"{stage}-{key}"
        with self._locked(stage, key, silent):
            if self.has(stage, key):
                return
            fresh = work / "artifact"
            shutil.rmtree(fresh, ignore_errors=True)
            with room(self.root):
                fresh.mkdir(parents=True)
                for name, content in zip(FILES, files, strict=True):
                    (fresh / name).write_bytes(content)
            inputs = json.loads(files[0])["inputs"]
            if _read(fresh).key != key or self.key(stage, inputs) != key:
                raise Damaged("the files belong to another artifact")
            (self.root / stage).mkdir(exist_ok=True)
            os.replace(fresh, self.root / stage / key)
        shutil.rmtree(work, ignore_errors=True)

    @contextmanager
    def _locked(self, stage: str, key: str, progress: Progress) -> Iterator[None]:
        folder = self.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{stage}-{key}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            progress(f"{stage}: waiting for the process that is making it", 0, 1)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _write(
        self, stage: str, key: str, inputs: Mapping[str, object], build: Callable[[Path], Content]
    ) -> Artifact:
        work = self.root / "work" / f"{stage}-{key}"
        work.mkdir(parents=True, exist_ok=True)
        start, before = time.perf_counter(), _spent(work)

        def seconds() -> float:  # less what went into other artifacts on the way
            return before + time.perf_counter() - start - self._inner

        try:
            tensors, facts = build(work)
        except BaseException:
            with suppress(OSError):
                (work / "seconds").write_text(repr(seconds()))
            raise
        took = seconds()
        fresh = work / "artifact"  # this process has the lock, so an existing folder is a remnant
        shutil.rmtree(fresh, ignore_errors=True)
        with room(self.root):
            fresh.mkdir()
            save_file(
                {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
                fresh / "tensors.safetensors",
            )
            body = {
                "stage": stage,
                "key": key,
                "inputs": inputs,
                "facts": facts,
                "seconds": took,
                "sha256": sha256_of(fresh / "tensors.safetensors"),
            }
            text = canonical({**body, "check": digest(body)})
            (fresh / "facts.json").write_text(text, encoding="utf-8")
            folder = self.root / stage / key
            folder.parent.mkdir(parents=True, exist_ok=True)
            os.replace(fresh, folder)
        shutil.rmtree(work, ignore_errors=True)
        return _read(folder)


def _read(folder: Path) -> Artifact:
    """An artifact from its folder.

    Raises:
        Damaged: a file is missing, cut off, or not what its hash says.
    """
    try:
        body = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        check = body.pop("check")
        if digest(body) != check:
            raise Damaged("facts.json was changed")
        if sha256_of(folder / "tensors.safetensors") != body["sha256"]:
            raise Damaged("tensors.safetensors was changed")
        tensors = load_file(folder / "tensors.safetensors")
    except (OSError, ValueError, KeyError, AttributeError, SafetensorError) as error:
        raise Damaged(f"{type(error).__name__}: {error}") from error
    return Artifact(body["key"], tensors, body["facts"], body["seconds"])


def _spent(work: Path) -> float:
    """Seconds that earlier, interrupted attempts at this artifact took."""
    try:
        return float((work / "seconds").read_text())
    except (OSError, ValueError):
        return 0.0
