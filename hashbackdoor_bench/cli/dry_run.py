"""``bench run --dry-run``: what a run would do, and how long it would take."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hashbackdoor_bench.cli.console import shown, spell_seconds
from hashbackdoor_bench.cli.terminal import say
from hashbackdoor_bench.spec import RunSpec
from hashbackdoor_bench.stages import device_of, open_cache
from hashbackdoor_bench.suites import Times, lay_out_run
from hashbackdoor_bench.text import counted


def show_plan(
    spec: RunSpec, cache_dir: Path, results: Path, device: str, threads: int | None, mode: str
) -> None:
    """Print the resolved run, its stages, and an estimate of the time from those in the cache.

    Args:
        spec: the run.
        cache_dir: folder of the stages' artifacts.
        results: folder of the records.
        device: where it would be computed.
        threads: torch's threads; None: as many as it takes by itself.
        mode: see `mode_of`; with ``json`` one object is printed, where None is an unknown time.

    Raises:
        UserError: a mistake in the run.
    """
    cache = open_cache(cache_dir)
    with shown(mode) as progress:
        layout = lay_out_run(
            spec,
            cache=cache,
            results=results,
            device=device_of(device),
            threads=threads,
            progress=progress,
        )
    (one,), times = layout.planned, Times(cache)
    *stages, record = one.tasks
    make = [task for task in one.tasks if task.key not in layout.done]
    seconds, unknown = times.total(make)
    each = {task.key: times.total([task]) for task in stages if task in make}
    if mode == "json":
        rows = [
            {
                "stage": task.name,
                "title": task.title,
                "key": task.key,
                "cached": task.key in layout.done,
                "seconds": None if each.get(task.key, (0, 0))[1] else each.get(task.key, (0.0,))[0],
            }
            for task in stages
        ]
        found = {"event": "plan", "record": str(one.path), "written": record not in make}
        found |= {"spec": one.spec.to_dict(), "stages": rows}
        say(json.dumps({**found, "seconds": seconds, "unknown": unknown}))
        return
    width = max(len(task.title) for task in stages) + 2
    say(*options(one.spec), "", f"{'stage':<{width}}time")
    for task in stages:
        known, not_known = each.get(task.key, (0.0, 0))
        spelt = "unknown" if not_known else f"about {spell_seconds(known)}"
        say(f"{task.title:<{width}}{spelt if task.key in each else 'in the cache'}")
    say("", f"record  {one.path}{'' if record in make else ', which is written'}")
    say(f"time    {_total(seconds, unknown, len(make))}")


def _total(seconds: float, unknown: int, make: int) -> str:
    if not make:
        return "nothing is to be made"
    about = f"about {spell_seconds(seconds)}"
    if not unknown:
        return f"{about} here, as long as like stages in the cache took"
    if unknown == make - 1:  # all but the record
        return "unknown, since the cache has no stages like these"
    stages = counted(unknown, "stage")
    return f"unknown for {stages}, since the cache has none like them; {about} for the rest"


def options(spec: RunSpec) -> Iterator[str]:
    """The fields of a run that have a value, as lines of a file for ``--config``."""
    values = spec.to_dict()
    settings = {
        name: dict(values.pop(name, ())) for name in tuple(values) if name.endswith("_settings")
    }
    for name, value in values.items():
        if value is not None:
            yield f"{name} = {_toml(value)}"
    for name, found in settings.items():
        if found:
            yield from (
                "",
                f"[{name}]",
                *(f"{key} = {_toml(value)}" for key, value in found.items()),
            )


def _toml(value: Any) -> str:
    """A word, a number or a truth value as TOML; None as the word that settings take for it."""
    return json.dumps("none" if value is None else value, ensure_ascii=False)
