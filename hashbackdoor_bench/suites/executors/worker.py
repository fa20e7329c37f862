"""A worker process of `LocalExecutor`: a JSON line in, JSON lines out, until its input ends.

    {"cache": …, "others": […], "results": …, "device": …, "plugins": […]}         the first line
    {"spec": {…}, "name": "clean victim", "key": …}                 a stage, or "record"
    {"state": "progress", "text": …, "done": …, "total": …, "facts": {…}}
    {"state": "epoch", "text": …, "facts": {…}}
    {"state": "note", "text": …}
    {"state": "done", "seconds": …} or {"state": "failed", "text": …}   what comes back

Its input ends when the main process ends in any way; then the worker ends too.
"""

import json
import os
import signal
import sys
import threading
import warnings
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from hashbackdoor_bench.registry import load_plugin
from hashbackdoor_bench.spec import RunSpec
from hashbackdoor_bench.stages import Cache, device_of
from hashbackdoor_bench.suites.executors.making import Telling, Workbench, sentence


def main() -> None:
    """Work until the input ends."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # other output goes to stderr, so that only messages are on stdout

    def send(state: str, **more: Any) -> None:
        out.write(json.dumps({"state": state, **more}) + "\n")

    def note(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, UserWarning):
            send("note", text=str(message))

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a stage's time is kept
    warnings.showwarning = note
    lines: SimpleQueue[dict[str, Any]] = SimpleQueue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    place = lines.get()
    for path in place["plugins"]:
        load_plugin(Path(path))
    cache = Cache(Path(place["cache"]), [Path(other) for other in place["others"]])
    bench = Workbench(cache, Path(place["results"]), device_of(place["device"]))
    while True:
        task = lines.get()
        progress = Telling(lambda message: send(**message))
        try:
            spec = RunSpec.from_dict(task["spec"])
            send("done", seconds=bench.make(spec, task["name"], task["key"], progress))
        except (
            Exception,
            SystemExit,
        ) as error:  # the failure of one stage must not stop the others
            send("failed", text=sentence(error))


def _read(lines: "SimpleQueue[dict[str, Any]]") -> None:
    for line in sys.stdin:
        lines.put(json.loads(line))
    os._exit(1)


if __name__ == "__main__":
    main()
