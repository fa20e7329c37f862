"""What is shown while the many stages of a suite are made, and the counts of its runs."""

import json
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
    SpinnerColumn,
    TaskID,
    TextColumn,
)
from rich.table import Table
from rich.text import Text

from hashbackdoor_bench.cli.console import pause, spell_facts, spell_seconds
from hashbackdoor_bench.cli.heartbeat import now_doing
from hashbackdoor_bench.cli.terminal import console, say
from hashbackdoor_bench.report import for_rich
from hashbackdoor_bench.text import one_line

LONGEST = 3  # running stages that a report in lines names

Message = Mapping[str, Any]


@contextmanager
def suite_shown(mode: str) -> Iterator[Callable[[Message], None]]:
    """The function that shows the messages of `suites.execute`, in a mode of `console.shown`."""
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
            TextColumn("{task.fields[place]:<11}  {task.description}", markup=False),
            console=screen,
        )
        state = Text(style="dim", no_wrap=True, overflow="ellipsis")
        with Live(Group(whole, state, workers), console=screen, refresh_per_second=4):
            yield _SuiteBars(whole, state, workers)
    elif mode == "json":
        yield _print_json
    elif mode == "quiet":
        yield _SuiteBeat()
    else:
        yield _SuiteLines()


def _state(message: Message) -> str:
    """The counts of a message in words."""
    rate = 60 * message["stages_done"] / max(message["seconds"], 1.0)
    failed = f", {message['failed']} failed" if message["failed"] else ""
    return (
        f"runs {message['runs_done']}/{message['runs']}, {message['running']} stages running"
        f"{failed}, {rate:.0f}/min, remaining {spell_seconds(message['remaining'])}"
    )


def _what(message: Message) -> str:
    """The part of a stage that a worker makes, and of which run."""
    return f"{message.get('part', message['stage'])}, {message['run']}"


def _place(message: Message) -> str:
    """How far a stage is: ``epoch 3/12``, or ``40/200``; empty if it has no parts."""
    facts, total = message.get("facts", {}), message.get("total", 1)
    if "epoch" in facts:
        return spell_facts({name: facts[name] for name in ("epoch", "epochs")})
    return f"{message['done']}/{total}" if total > 1 else ""


def _loss(message: Message) -> str:
    """The other numbers of a training."""
    facts = message.get("facts", {})
    return spell_facts({n: value for n, value in facts.items() if n not in ("epoch", "epochs")})


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


class _Running:
    """The stages that run now, by their workers, longest first."""

    def __init__(self) -> None:
        self.stages: dict[str, str] = {}

    def __call__(self, message: Message) -> None:
        if message["event"] != "stage" or message["state"] == "note":
            return
        if message["state"] in ("done", "failed"):
            self.stages.pop(message["worker"], None)
        else:
            self.stages[message["worker"]] = f"{_what(message)}  {_place(message)}".rstrip()

    def lines(self) -> list[str]:
        """A line for each of the first `LONGEST`, and how many more there are."""
        shown = list(self.stages.values())
        more = [f"and {len(shown) - LONGEST} more"] if len(shown) > LONGEST else []
        return [*shown[:LONGEST], *more]


class _SuiteBeat:
    """Says what the suite does, for the lines of `heartbeat`."""

    def __init__(self) -> None:
        self.running, self.state = _Running(), ""

    def __call__(self, message: Message) -> None:
        self.running(message)
        if "stages" in message:
            self.state = _state(message)
        now_doing(lambda: "; ".join(filter(None, [self.state, *self.running.lines()[:1]])))


class _SuiteLines:
    """Lines about the whole suite, ever more seldom, each with a few of the running stages."""

    def __init__(self) -> None:
        self.printed = 0.0  # seconds of the last line about the whole suite
        self.running = _Running()

    def __call__(self, message: Message) -> None:
        self.running(message)
        end = _end(message)
        if end is not None:
            say(end, err=True)
        if message["event"] not in ("tick", "run"):
            return
        now = message["seconds"]
        late = message["event"] == "tick" and now - self.printed >= pause(now)
        if late or message["event"] == "run":
            self.printed = now
            stages = f"stages {message['stages_done']}/{message['stages']}"
            say(f"[{now:6.0f} s] {stages}, {_state(message)}", err=True)
        if late:
            say(*(f"{'':11}{line}" for line in self.running.lines()), err=True)


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
            self.workers[worker] = self.bars.add_task("", total=1, place="")
        running = message["state"] in ("started", "progress")
        self.bars.update(
            self.workers[worker],
            description=one_line(f"{_what(message)}  {_loss(message)}".rstrip()),
            completed=message.get("done", 0 if running else 1),
            total=message.get("total", 1),
            place=_place(message),
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
