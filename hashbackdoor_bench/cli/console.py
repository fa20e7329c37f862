"""What is shown while one thing after another is made: progress bars, plain lines or JSON."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from hashbackdoor_bench.cli.heartbeat import now_doing
from hashbackdoor_bench.cli.terminal import console, say
from hashbackdoor_bench.progress import OF_EPOCHS
from hashbackdoor_bench.progress import Progress as Callback
from hashbackdoor_bench.text import one_line


@contextmanager
def shown(mode: str) -> Iterator[Callback]:
    """The progress callback of a mode.

    Args:
        mode: ``bars`` (one bar per stage, with its rate and remaining time), ``lines`` (for logs
            and pipes), ``json`` (one JSON object per line, on standard output) or ``quiet`` (what
            `heartbeat` prints, and nothing else).
    """
    if mode == "bars":
        with _bars() as bars:
            yield _Bars(bars)
    elif mode == "quiet":
        yield _beat
    else:
        yield _Lines(as_json=mode == "json")


def _bars() -> Progress:
    return Progress(
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("[dim]{task.fields[facts]}"),
        console=console(err=True),
        refresh_per_second=8,
    )


class _Rate(ProgressColumn):
    """Units per second."""

    def render(self, task: Task) -> Text:
        """The rate; empty if a stage has no parts."""
        speed = task.finished_speed or task.speed
        known = speed is not None and task.total != 1
        return Text(f"{speed:6.1f}/s" if known else "", style="dim")


class _Bars:
    def __init__(self, bars: Progress) -> None:
        self.bars, self.tasks = bars, dict[str, TaskID]()

    def __call__(self, stage: str, done: int, total: int, **facts: float) -> None:
        if stage not in self.tasks:
            self.tasks[stage] = self.bars.add_task(one_line(stage), total=total, facts="")
        self.bars.update(self.tasks[stage], total=total, completed=done, facts=spell_facts(facts))


class _Lines:
    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.start = time.perf_counter()
        self.printed: dict[str, float] = {}  # seconds of the last line of each stage

    def __call__(self, stage: str, done: int, total: int, **facts: float) -> None:
        now = time.perf_counter() - self.start
        if 0 < done < total and now - self.printed.setdefault(stage, now) < pause(now):
            return
        self.printed[stage] = now
        if self.as_json:
            event = {"event": "progress", "stage": stage, "done": done, "total": total, **facts}
            say(json.dumps({**event, "seconds": round(now, 2)}))
        else:
            say(f"[{now:6.1f} s] {_line(stage, done, total, facts)}", err=True)


def _beat(stage: str, done: int, total: int, **facts: float) -> None:
    now_doing(lambda: _line(stage, done, total, facts))


def pause(seconds: float) -> float:
    """Seconds between two plain lines after so many: a night's log has hundreds, not thousands."""
    return min(max(10.0, seconds / 10), 60.0)


def _line(stage: str, done: int, total: int, facts: Mapping[str, float]) -> str:
    """A message as a line: the stage, how far it is, and its facts."""
    count = f" {done}/{total}" if total > 1 else "" if done else " …"
    return f"{stage}{count}  {spell_facts(facts)}".rstrip()


def spell_facts(facts: Mapping[str, float]) -> str:
    """The facts of a message: ``epoch 3/12  loss 0.41``; the numbers of a log are left out."""
    shown = {name: f"{value:.4g}" for name, value in facts.items() if name not in OF_EPOCHS}
    if "epoch" in shown and "epochs" in shown:
        shown["epoch"] += f"/{shown.pop('epochs')}"
    return "  ".join(f"{name} {value}" for name, value in shown.items())


def spell_seconds(seconds: float | None) -> str:
    """A time in readable units: ``48 s``, ``12 min``, ``3 h 20 min``."""
    if seconds is None:
        return "unknown"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
