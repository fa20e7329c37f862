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

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.files import open_regular, remove, room, sha256_of, writable
from hashbackdoor_bench.locks import locked
from hashbackdoor_bench.progress import Progress, silent
from hashbackdoor_bench.spec import canonical, digest

FILES = ("facts.json", "tensors.safetensors")
LARGEST = 200_000_000  # bytes of facts.json that are read; a usual one has 3 000
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
                    with room(self.root):
                        remove(self.root / stage / key)
                if found is None:
                    found = self._write(stage, key, inputs, build)
        finally:
            self._inner = outer + time.perf_counter() - start
        return found

    def find(self, stage: str, key: str) -> Artifact | None:
        """The stored artifact; None if there is none.

        Raises:
            Damaged: a file is missing, cut off, or not what its hash says; or it is the artifact of
                another key.
        """
        folder = self.root / stage / key
        if not os.path.lexists(folder):
            return None
        found = _read(folder, stage, key)
        with suppress(OSError):
            os.utime(folder)  # pruning goes by the time of the last use
        return found

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
            _read(fresh, stage, key)
            (self.root / stage).mkdir(exist_ok=True)
            os.replace(fresh, self.root / stage / key)
        shutil.rmtree(work, ignore_errors=True)

    @contextmanager
    def _locked(self, stage: str, key: str, progress: Progress) -> Iterator[None]:
        folder = self.root / "locks"
        with room(self.root):
            folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / f"{stage}-{key}.lock", f"making {stage} {key[:12]}", progress):
            yield

    def _write(
        self, stage: str, key: str, inputs: Mapping[str, object], build: Callable[[Path], Content]
    ) -> Artifact:
        work = self.root / "work" / f"{stage}-{key}"
        with room(self.root):
            if os.path.lexists(work) and (work.is_symlink() or not work.is_dir()):
                remove(work)
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
        return _read(folder, stage, key)


def _read(folder: Path, stage: str, key: str) -> Artifact:
    """The artifact of this stage and key from a folder; nothing in the folder is trusted.

    Raises:
        Damaged: a file is missing, cut off, or not what its hash says; or it is the artifact of
            another key.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise Damaged("it is no directory")
    try:
        with open_regular(folder / FILES[0], links=False) as file:
            text = file.read(LARGEST + 1)
        if len(text) > LARGEST:
            raise Damaged(f"{FILES[0]} has more than {LARGEST / 1e6:g} MB")
        body = json.loads(text)
        check = body.pop("check")
        if digest(body) != check:
            raise Damaged(f"{FILES[0]} was changed")
        if (body["stage"], body["key"]) != (stage, key):
            raise Damaged(f"it is {body['stage']} {str(body['key'])[:12]}")
        if digest({"stage": stage, "inputs": body["inputs"]}) != key:
            raise Damaged("its inputs belong to another artifact")
        open_regular(folder / FILES[1], links=False).close()
        if sha256_of(folder / FILES[1]) != body["sha256"]:
            raise Damaged(f"{FILES[1]} was changed")
        tensors = load_file(folder / FILES[1])
        facts, seconds = body["facts"], float(body["seconds"])
        if not isinstance(facts, dict):
            raise Damaged("its facts have no names")
    except (
        OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, SafetensorError,
        UserError,
    ) as error:  # fmt: skip
        raise Damaged(f"{type(error).__name__}: {error}") from error
    return Artifact(key, tensors, facts, seconds)


def _spent(work: Path) -> float:
    """Seconds that earlier, interrupted attempts at this artifact took."""
    try:
        return float((work / "seconds").read_text())
    except (OSError, ValueError):
        return 0.0
