"""An attack, run on the victims and seeds of a suite and ranked among the suite's attacks."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from hashbackdoor_bench.cli.looking import (
    count_of,
    in_groups,
    refuse_few_groups,
    undecidable,
    unit_of_suite,
    verdict_on,
)
from hashbackdoor_bench.cli.options import first_of
from hashbackdoor_bench.cli.suite_running import lay_out_suite, run_missing
from hashbackdoor_bench.cli.training_log import training_log
from hashbackdoor_bench.errors import UserError, unknown
from hashbackdoor_bench.files import unless_refused
from hashbackdoor_bench.records import OWN
from hashbackdoor_bench.registry import METHODS, load_plugin
from hashbackdoor_bench.report import Estimate, choose, collect, for_file_name
from hashbackdoor_bench.report.board import (
    GOAL,
    Standing,
    board_with,
    boards,
    contest,
    power_text,
    rivals,
    standing,
    standing_text,
)
from hashbackdoor_bench.spec import RunSpec
from hashbackdoor_bench.suites import Failure, describe, refuse_shared, suite_with, write_index
from hashbackdoor_bench.text import counted


class NoRun(UserError):
    """No run of the attack has a record, so there is nothing to compare."""


@dataclass(frozen=True, repr=False)
class Comparison:
    """An attack among those of a suite; a notebook shows it as ``bench compare`` prints it.

    Attributes:
        standing: the attack's entry on the board of the suite, and the board.
        records: folder of the attack's own records; None if it is one of the suite's.
        failures: the runs of it that failed.
        goal: the difference that a reader wants to be told, as a share.
        verdict: for ``until``, why no more was run; empty otherwise.
    """

    standing: Standing
    records: Path | None
    failures: tuple[Failure, ...]
    goal: float
    verdict: str

    @property
    def label(self) -> str:
        """The attack's name in tables."""
        return self.standing.entry.label

    @property
    def place(self) -> tuple[int, int] | None:
        """The best and the worst rank that the tests leave open; None if it has no place."""
        return self.standing.entry.place

    @property
    def why(self) -> str:
        """Why it has no place; empty if it has one."""
        return self.standing.entry.why

    @property
    def gains(self) -> pd.DataFrame:
        """A row for each victim: its ``bits``, and whether it ``counts`` for the place.

        ``mean`` is the backdoor gain, with its 95 % interval from ``low`` to ``high``, as shares of
        one, over ``n`` runs. The mean over the victims that count is `gain`.
        """
        found = self.standing
        rows = [
            {"victim": victim.name, "bits": victim.bits, "counts": victim.counts, **_numbers(gain)}
            for victim, gain in zip(found.board.victims, found.gains, strict=True)
        ]
        return pd.DataFrame(rows).set_index("victim")

    @property
    def gain(self) -> pd.Series:
        """``mean``, ``low``, ``high`` and ``n`` of the gain over the victims that count."""
        return pd.Series(_numbers(self.standing.entry.gain), name=self.label)

    @property
    def differences(self) -> pd.DataFrame:
        """A row for each other attack: by how much this one gains more, run by run.

        ``mean``, ``low``, ``high`` and ``n`` as in `gains`; ``best`` and ``worst`` are the ends of
        the other attack's place.
        """
        rows = []
        for other, lead in self.standing.leads:
            best, worst = other.place or (None, None)
            rows.append({"attack": other.label, "best": best, "worst": worst, **_numbers(lead)})
        names = ["attack", "best", "worst", *_numbers(None)]
        return pd.DataFrame(rows, columns=names).set_index("attack")

    @property
    def power(self) -> str:
        """What the runs can tell, and what `goal` needs, as sentences; empty if it isn't known."""
        return power_text(self.standing, self.goal)

    @property
    def files(self) -> tuple[str, ...]:
        """The records of the attack from which all of this follows."""
        return tuple(sorted({run.path for run in self.standing.entry.runs}))

    def to_dict(self) -> dict[str, Any]:
        """All of it in plain values, as ``bench compare --json`` prints it."""
        board = self.standing.board
        return {
            "label": self.label,
            "suite": board.suite,
            "delivery": board.delivery,
            "labels": board.labels,
            "regime": board.regime,
            "place": self.place,
            "placed": sum(one.place is not None for one in board.entries),
            "why": self.why,
            "gain": _numbers(self.standing.entry.gain),
            "victims": _rows(self.gains),
            "rivals": _rows(self.differences),
            "power": self.power,
            "verdict": self.verdict,
            "records": None if self.records is None else str(self.records),
            "files": list(self.files),
            "failures": [
                {"run": describe(one.run), "stage": one.stage, "message": one.message}
                for one in self.failures
            ],
        }

    def __str__(self) -> str:
        text = standing_text(self.standing, self.goal)
        return f"{text}\n\n{self.verdict}" if self.verdict else text

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f'<pre style="white-space: pre-wrap">{escape(str(self))}</pre>'


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame in the plain values of JSON, its index among them; no value is None."""
    rows = frame.reset_index().astype(object).to_dict("records")
    return [{name: None if pd.isna(x) else _plain(x) for name, x in row.items()} for row in rows]


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _numbers(estimate: Estimate | None) -> dict[str, float | int | None]:
    names = ("mean", "low", "high", "n")
    return {name: None if estimate is None else getattr(estimate, name) for name in names}


def compared(
    attack: str,
    *,
    suite: str,
    settings: Mapping[str, object],
    against: Sequence[Path],
    results: Path | None,
    cache_dir: Path,
    device: str,
    threads: int,
    jobs: int | None,
    plugin: tuple[Path, ...],
    until: float | None,
    minutes: float | None,
    log_dir: Path | None,
    mode: str,
    note: Callable[[str], None],
    tell: Callable[[Sequence[Failure], Path], None],
) -> Comparison:
    """Run what is missing of an attack's runs of a suite, and rank it; see ``bench compare``.

    Args:
        attack: its name.
        suite: see `find_suite`.
        settings: hyper-parameters of the attack that are not the defaults.
        against: records of the suite's attacks; if empty, those of the suite's name.
        results: folder of the attack's records; None: one in ``runs``, named by suite and attack.
        cache_dir: folder of the stages' artifacts.
        device: where to compute.
        threads: threads of each worker.
        jobs: number of workers; None: see `jobs_of`.
        plugin: files with methods from outside.
        until: run the suite in parts until every difference is told, or is below so many points of
            percent; None: run all of it.
        minutes: with ``until``, begin no part that would end later.
        log_dir: see `training_log`.
        mode: how progress is shown, see `mode_of`.
        note: is told which records are left out, sentence by sentence.
        tell: is told which runs failed, and the folder of the attack's records.

    Raises:
        UserError: a mistake in what is given, told before anything is run.
        NoRun: no run of the attack worked.
    """
    if minutes is not None and until is None:
        raise UserError(f"--minutes {minutes:g} limits --until: give --until 5 too.")
    for path in plugin:
        load_plugin(path)
    name = attack.replace("-", "_")
    if name not in METHODS["attack"]:
        raise unknown("attack", name, METHODS["attack"])
    mine = suite_with(suite, name, settings)
    plain = tuple(run for run in mine.runs if run.spec.defense == RunSpec.defense)
    if not plain:
        raise UserError(
            f"all runs of suite {mine.name} have a defense, and attacks are compared without: give "
            "another --suite."
        )
    if left := len(mine.runs) - len(plain):
        note(f"{counted(left, 'run')} with a defense left out: attacks are compared without.")
    mine = replace(mine, runs=plain)
    if until is not None:
        refuse_few_groups(mine)
    places = tuple(against) or (Path(mine.name),)
    known = collect(places)  # before the runs: it raises if there are no records to compare with
    for sentence in first_of(known.left_out):
        note(sentence)
    there = set(choose(known.frame, ())["key"])
    words = [mine.name, name, *(f"{key}={value}" for key, value in settings.items())]
    folder = results or OWN / for_file_name("-".join(words))
    batches = in_groups(mine) if until is not None else [mine]
    goal = GOAL if until is None else until / 100
    began, verdict = time.monotonic(), ""
    with training_log(log_dir, folder) as log:
        for look, batch in enumerate(batches):
            cache, layout = lay_out_suite(batch, cache_dir, folder, device, threads, mode)
            keys = {one.tasks[-1].key for one in layout.planned}
            layout.done |= keys & there
            refuse_shared(layout, folder)
            here = unless_refused(folder, "--results-dir") if layout.missing else nullcontext()
            with here:
                failures = run_missing(
                    layout,
                    cache,
                    results=folder,
                    device=device,
                    plugin=plugin,
                    jobs=jobs,
                    threads=threads,
                    mode=mode,
                    log=log,
                )
                tell(failures, folder)
                own = [one for one in layout.planned if one.path.is_file()]
                if own:
                    write_index(replace(layout, planned=own), folder, part=True)
                frame = choose(collect([*places, *([folder] if own else [])]).frame, ())
                if not frame["key"].isin(keys).any():
                    why = (
                        f"{failures[0].stage}: {failures[0].message}" if failures else "see above."
                    )
                    raise NoRun(f"no run of {name} on the victims of {mine.name} worked: {why}")
            frame, left_out = rivals(frame, mine.name, [one.spec for one in layout.planned], keys)
            label = str(frame["label"][frame["key"].isin(keys)].iloc[0])
            board = board_with(boards(frame, [mine.name]), label)
            found = standing(board, label)
            if until is None:
                break
            seen = f"after {len(batch.runs)} of {counted(len(mine.runs), 'run')}"
            if why := undecidable(found, mine, last=batch is batches[-1]):
                verdict = f"Nothing can be decided {seen}: {why}."
                break
            unit = unit_of_suite(mine)
            seen_groups = [count_of(one, unit) for one in batches]
            result = contest(board, label, seen_groups, look, goal, unit)
            spent = (time.monotonic() - began) / 60
            verdict = verdict_on(result, batches, look, spent, minutes)
            if verdict:
                break
    for sentence in left_out:
        note(sentence)
    return Comparison(found, folder if own else None, tuple(failures), goal, verdict)
