"""The task of `RayExecutor`, as a node of the cluster makes it."""

import functools
import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from hashbackdoor_bench.registry import load_plugin
from hashbackdoor_bench.spec import RunSpec
from hashbackdoor_bench.stages import FILES, Cache, attacker_of, device_of, open_cache
from hashbackdoor_bench.suites.executors.mailbox import Letters
from hashbackdoor_bench.suites.executors.making import Telling, Workbench, sentence
from hashbackdoor_bench.suites.executors.temporary import temporary_folder
from hashbackdoor_bench.suites.layout import RECORD

Name = tuple[str, str]  # kind and key of an artifact
Files = tuple[bytes, ...]
Workplace = tuple[str, str, tuple[tuple[str, str], ...]]  # cache, device, plugins by name
Order = tuple[dict[str, Any], str, str, str, str | None]  # spec, name, kind, key, attacker


def work(
    place: Workplace, order: Order, inputs: list[tuple[Name, Any]], mailbox: Any
) -> tuple[dict[str, Any], list[Any]]:
    """Make one task; returns its report, and the files of the artifacts that the report names.

    Args:
        place: where and by what.
        order: the task.
        inputs: names of the artifacts that it needs, with references to their files.
        mailbox: the actor to which `Letters` are sent.
    """
    import ray  # late: its absence is told by the executor

    spec, name, kind, key, attacker = order
    letters = Letters(mailbox, key)
    try:
        bench = _bench(place)
        for (input_kind, input_key), ref in inputs:
            if not bench.cache.has(input_kind, input_key):
                bench.cache.unpack(input_kind, input_key, ray.get(ref))
        with tempfile.TemporaryDirectory() as folder:
            bench.results = Path(folder)
            seconds = bench.make(RunSpec.from_dict(spec), name, key, Telling(letters))
            if kind == RECORD:
                paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
                files: list[Any] = [
                    (str(path.relative_to(folder)), path.read_bytes()) for path in paths
                ]
                files.sort(key=lambda file: file[0].endswith(".json"))  # the record comes last
                return {"state": "done", "seconds": seconds, "names": []}, files
        names = [(kind, key)]
        if attacker:
            given = {input_key for (_, input_key), _ in inputs}
            names += [("shared", k) for k in shared_of(bench.cache, attacker) - given]
        packed = [bench.cache.pack(*made) for made in names]
        return {"state": "done", "seconds": seconds, "names": names}, packed
    except (Exception, SystemExit) as error:  # a stage that fails, however, stops no other
        return {"state": "failed", "text": sentence(error)}, []
    finally:
        letters.close()


@functools.cache
def _bench(place: Workplace) -> Workbench:
    """The workbench of this process, whose data stays loaded between tasks."""
    root, device, plugins = place
    folder, _ = temporary_folder()
    for name, text in plugins:
        (folder / name).write_text(text, encoding="utf-8")
        load_plugin(folder / name)
    cache = open_cache(Path(os.environ.get("HASHBACKDOOR_CACHE") or root))
    return Workbench(cache, folder, device_of(device))


def shared_of(cache: Cache, attacker: str) -> set[str]:
    """The keys of the shared stages of an attacker that are in a cache, and can be read."""
    keys = set()
    for _, key, folder in cache.stored("shared"):
        with suppress(OSError, ValueError, KeyError):
            if _made_for(folder) == attacker:
                keys.add(key)
    return keys


@functools.cache
def _made_for(folder: Path) -> str | None:
    """The attacker of the shared stage in a folder; kept, since it is asked at every crafting."""
    return attacker_of(json.loads((folder / FILES[0]).read_text(encoding="utf-8"))["inputs"])
