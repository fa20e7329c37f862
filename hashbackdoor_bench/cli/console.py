"""What is shown during a run and at its end: progress bars, plain lines or JSON, and counts."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.live import Live
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
from rich.table import Table
from rich.text import Text

from hashbackdoor_bench.cli.terminal import console, say
from hashbackdoor_bench.progress import Progress as Callback
from hashbackdoor_bench.progress import silent
from hashbackdoor_bench.report import for_rich
from hashbackdoor_bench.text import one_line

EVERY = 10.0  # seconds between the plain lines of one stage


@contextmanager
def shown(mode: str) -> Iterator[Callback]:
    """The progress callback of a mode.

    Args:
        mode: ``bars`` (one bar per stage, with its rate and remaining time), ``lines`` (for logs
            and pipes), ``json`` (one JSON object per line, on standard output) or ``quiet``.
    """
    if mode == "bars":
        with _bars() as bars:
            yield _Bars(bars)
    elif mode == "quiet":
        yield silent
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
        self.bars.update(self.tasks[stage], total=total, completed=done, facts=_spell(facts))


class _Lines:
    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.start = time.perf_counter()
        self.printed: dict[str, float] = {}  # seconds of the last line of each stage

    def __call__(self, stage: str, done: int, total: int, **facts: float) -> None:
        now = time.perf_counter() - self.start
        if 0 < done < total and now - self.printed.setdefault(stage, now) < EVERY:
            return
        self.printed[stage] = now
        if self.as_json:
            event = {"event": "progress", "stage": stage, "done": done, "total": total, **facts}
            say(json.dumps({**event, "seconds": round(now, 2)}))
        else:
            count = f" {done}/{total}" if total > 1 else "" if done else " …"
            text = f"[{now:6.1f} s] {stage}{count}  {_spell(facts)}".rstrip()
            say(text, err=True)


def _spell(facts: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in facts.items())


# ---- a suite ------------------------------------------------------------------------------------

Message = Mapping[str, Any]


@contextmanager
def suite_shown(mode: str) -> Iterator[Callable[[Message], None]]:
    """The function that shows the messages of `suites.execute`, in a mode of `shown`."""
    if mode == "bars":
        screen = console(err=True)
        whole = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            console=screen,
            expand=True,
        )
        workers = Progress(  # the least important column is last: a narrow screen cuts it off
            SpinnerColumn(finished_text=" "),
            BarColumn(bar_width=10),
            TextColumn("{task.description}  {task.fields[facts]}", markup=False),
            console=screen,
        )
        state = Text(style="dim", no_wrap=True, overflow="ellipsis")
        with Live(Group(whole, state, workers), console=screen, refresh_per_second=4):
            yield _SuiteBars(whole, state, workers)
    elif mode == "json":
        yield _print_json
    elif mode == "quiet":
        yield lambda message: None
    else:
        yield _SuiteLines()


def spell_seconds(seconds: float | None) -> str:
    """A time in readable units: ``48 s``, ``12 min``, ``3 h 20 min``."""
    if seconds is None:
        return "unknown"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _state(message: Message) -> str:
    """The counts of a message in words."""
    rate = 60 * message["stages_done"] / max(message["seconds"], 1.0)
    failed = f", {message['failed']} failed" if message["failed"] else ""
    return (
        f"runs {message['runs_done']}/{message['runs']}, {message['running']} stages running"
        f"{failed}, {rate:.0f}/min, remaining {spell_seconds(message['remaining'])}"
    )


def _end(message: Message) -> str | None:
    """The line that stays on the screen after a message; None if there is none."""
    if message["event"] == "run":
        where = f"{message['victim']}, {message['bits']} bits, seed {message['seed']}"
        return f"done: {message['label']} on {where}"
    if message["event"] == "stage" and message["state"] == "failed":
        return f"failed: {message['stage']}, {message['run']}: {message['message']}"
    if message["event"] == "stage" and message["state"] == "note":
        return f"note: {message['message']}"
    return None


def _print_json(message: Message) -> None:
    if message["event"] != "tick":
        say(json.dumps(message))


class _SuiteLines:
    def __init__(self) -> None:
        self.printed = 0.0  # seconds of the last line about the whole suite

    def __call__(self, message: Message) -> None:
        end = _end(message)
        if end is not None:
            say(end, err=True)
        late = message["event"] == "tick" and message["seconds"] - self.printed >= EVERY
        if late or message["event"] == "run":
            self.printed = message["seconds"]
            stages = f"stages {message['stages_done']}/{message['stages']}"
            text = f"[{self.printed:6.0f} s] {stages}, {_state(message)}"
            say(text, err=True)


class _SuiteBars:
    """One bar for all stages, the state of the suite, and one bar for each worker."""

    def __init__(self, whole: Progress, state: Text, bars: Progress) -> None:
        self.whole, self.state, self.bars = whole, state, bars
        self.stages, self.workers = whole.add_task("stages", total=None), dict[str, TaskID]()

    def __call__(self, message: Message) -> None:
        end = _end(message)
        if end is not None:
            self.bars.console.print(for_rich(end))
        if "stages" in message:
            done, total = message["stages_done"], message["stages"]
            self.whole.update(self.stages, completed=done, total=total)
            self.state.plain = _state(message)
        if message["event"] != "stage" or message["state"] == "note":
            return
        worker = message["worker"]
        if worker not in self.workers:
            self.workers[worker] = self.bars.add_task("", total=1, facts="")
        running = message["state"] in ("started", "progress")
        self.bars.update(
            self.workers[worker],
            description=one_line(f"{message.get('part', message['stage'])}, {message['run']}"),
            completed=message.get("done", 0 if running else 1),
            total=message.get("total", 1),
            facts=_spell(message.get("facts", {})),
            visible=running,
        )


def counts_table(counts: Mapping[tuple[str, str], Mapping[str, int]]) -> Table:
    """Attacks against victims: runs done of all, and how many failed.

    Args:
        counts: by attack and victim, how many are ``done``, ``missing`` and ``failed``.
    """
    table = Table("attack", box=SIMPLE_HEAD)
    columns = list(dict.fromkeys(victim for _, victim in counts))
    for victim in columns:
        table.add_column(for_rich(victim), justify="right")
    for attack in dict.fromkeys(attack for attack, _ in counts):
        cells = []
        for victim in columns:
            found = counts.get((attack, victim), {})
            failed = f", {found['failed']} failed" if found.get("failed") else ""
            text = f"{found.get('done', 0)}/{sum(found.values())}{failed}" if found else "-"
            cells.append(for_rich(text, "red" if failed else ""))
        table.add_row(for_rich(attack), *cells)
    return table
