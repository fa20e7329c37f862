"""The cache: the results of stages, found by a hash of their inputs, so that none is made twice.

An artifact is a folder ``<root>/<stage>/<key>`` with ``tensors.safetensors`` and ``facts.json``;
its key is the SHA-256 of its inputs. It is written under a temporary name and renamed when it is
complete, under a lock of its own, so a killed process leaves no incomplete artifact, and two
processes don't make the same one twice. No file is ever unpickled.

Beside its own folder, a cache may read those of others, of a colleague or of a shared disk. Nothing
is ever written, repaired or removed there, not even the time of the last use.
"""

import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors.torch import save_file

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.files import remove, room, sha256_of, writable
from hashbackdoor_bench.locks import locked
from hashbackdoor_bench.progress import Progress, silent
from hashbackdoor_bench.spec import canonical, digest
from hashbackdoor_bench.stages.artifact import FILES, Artifact, Content, Damaged, read_artifact

READ_ONLY = "HASHBACKDOOR_CACHE_READ"  # environment variable with folders of other caches


class Cache:
    """A folder of artifacts.

    Args:
        root: the folder; made if it doesn't exist.
        others: folders of other caches, which are only read, the first first.

    Raises:
        UserError: the folder can't be made or written to.
    """

    def __init__(self, root: Path, others: Sequence[Path] = ()) -> None:
        writable(root, "--cache-dir")
        self.root = root
        self.others = tuple(other for other in others if other.resolve() != root.resolve())
        self._inner = 0.0  # seconds that went into artifacts since the current one was begun
        self._ignored: set[Path] = set()  # damaged artifacts of other caches

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
                    found = self._find_elsewhere(stage, key)
                if found is None:
                    found = self._write(stage, key, inputs, build)
        finally:
            self._inner = outer + time.perf_counter() - start
        return found

    def find(self, stage: str, key: str) -> Artifact | None:
        """The stored artifact, from this cache or else from another; None if there is none.

        Raises:
            Damaged: a file of this cache is missing, cut off, or not what its hash says; or it is
                the artifact of another key.

        Warns:
            UserWarning: that is so in another cache, whose artifact is ignored.
        """
        folder = self.root / stage / key
        if not os.path.lexists(folder):
            return self._find_elsewhere(stage, key)
        found = read_artifact(folder, stage, key)
        with suppress(OSError):
            os.utime(folder)  # pruning goes by the time of the last use
        return found

    def _find_elsewhere(self, stage: str, key: str) -> Artifact | None:
        """The artifact of the first other cache that has it undamaged; None if there is none."""
        for other in self.others:
            folder = other / stage / key
            if folder in self._ignored or not os.path.lexists(folder):
                continue
            try:
                return read_artifact(folder, stage, key)
            except Damaged as error:
                self._ignored.add(folder)
                warnings.warn(f"{stage} {key[:12]} in {other} is damaged ({error}): ignored.")
        return None

    def has(self, stage: str, key: str) -> bool:
        """Whether the artifact is stored here or in another cache; its files are not read."""
        return self.folder(stage, key) is not None

    def folder(self, stage: str, key: str) -> Path | None:
        """Where an artifact is stored, of this cache before others; None if nowhere."""
        for root in (self.root, *self.others):
            folder = root / stage / key
            if folder not in self._ignored and (folder / FILES[0]).is_file():
                return folder
        return None

    def keys(self, stage: str) -> set[str]:
        """The names in the folders of a kind, here and in other caches: faster than many `has`."""
        folders = (root / stage for root in (self.root, *self.others))
        return {name for folder in folders if folder.is_dir() for name in os.listdir(folder)}

    def stored(self, kind: str = "*") -> Iterator[tuple[str, str, Path]]:
        """Kind, key and folder of all artifacts of this cache alone, or of those of one kind."""
        yield from stored_in(self.root, kind)

    def pack(self, stage: str, key: str) -> tuple[bytes, ...]:
        """The files of an artifact, for `unpack` in another cache.

        Raises:
            FileNotFoundError: there is no such artifact.
        """
        folder = self.folder(stage, key) or self.root / stage / key
        return tuple((folder / name).read_bytes() for name in FILES)

    def unpack(self, stage: str, key: str, files: tuple[bytes, ...]) -> None:
        """Store an artifact of another cache, unless this cache has it.

        Raises:
            Damaged: the files are not that artifact, or are not as they were written.
        """

        def bring(folder: Path) -> None:
            with room(self.root):
                for name, content in zip(FILES, files, strict=True):
                    (folder / name).write_bytes(content)

        self.receive(stage, key, bring)

    def receive(self, stage: str, key: str, bring: Callable[[Path], None]) -> bool:
        """Store an artifact that was made elsewhere, unless this cache has it; whether it did.

        Args:
            stage: kind of artifact.
            key: its key.
            bring: writes ``FILES`` into a folder. What it has written is kept if it raises, and
                it finds that there the next time.

        Raises:
            Damaged: the files are not that artifact, or are not as they were written.
            UserError: the disk is full, or can't be written any more.
            Exception: whatever ``bring`` raises.
        """
        folder = self.root / stage / key
        work = self.root / "work" / f"{stage}-{key}"
        with self._locked(stage, key, silent):
            if (folder / FILES[0]).is_file():
                return False
            fresh = work / "received"
            with room(self.root):
                fresh.mkdir(parents=True, exist_ok=True)
            bring(fresh)
            try:
                read_artifact(fresh, stage, key)
            except Damaged:
                shutil.rmtree(fresh)
                raise
            with room(self.root):
                if os.path.lexists(folder):  # without its first file
                    remove(folder)
                folder.parent.mkdir(exist_ok=True)
                os.replace(fresh, folder)
        shutil.rmtree(work, ignore_errors=True)
        return True

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
        return read_artifact(folder, stage, key)


def stored_in(root: Path, kind: str = "*") -> Iterator[tuple[str, str, Path]]:
    """Kind, key and folder of all artifacts in the folder of a cache, or of those of one kind."""
    for path in root.glob(f"{kind}/{'[0-9a-f]' * 64}/{FILES[0]}"):
        yield path.parts[-3], path.parts[-2], path.parent


def open_cache(root: Path) -> Cache:
    """The cache in a folder, with the other caches that ``READ_ONLY`` names in the environment.

    Raises:
        UserError: a folder can't be written, or one of the others is none.
    """
    others = [Path(name) for name in os.environ.get(READ_ONLY, "").split(os.pathsep) if name]
    for other in others:
        if not other.is_dir():
            raise UserError(
                f"{READ_ONLY} names {other}, which is no folder: give folders of caches with "
                f"{os.pathsep!r} between them, or unset it."
            )
    return Cache(root, others)


def _spent(work: Path) -> float:
    """Seconds that earlier, interrupted attempts at this artifact took."""
    try:
        return float((work / "seconds").read_text())
    except (OSError, ValueError):
        return 0.0
