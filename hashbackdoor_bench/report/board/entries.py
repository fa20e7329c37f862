"""One attack on a board: its gain, what it costs, and whether it may have a place."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

import pandas as pd

from hashbackdoor_bench.records import Record, Threat
from hashbackdoor_bench.report.board.rules import (
    CONVENTION,
    LEAST_CLEAN_MAP,
    why_apart,
    why_no_place,
)
from hashbackdoor_bench.report.selection import poisoned_share
from hashbackdoor_bench.report.statistics import (
    Draws,
    Estimate,
    Spread,
    VictimKey,
    draws,
    estimate,
    rows_of,
    spread,
)
from hashbackdoor_bench.spec import canonical


@dataclass(frozen=True, order=True)
class Victim:
    """A column of a board.

    Attributes:
        name: of the hashing method, on the command line.
        bits: of its codes.
        clean_map: MAP without poison, the mean over the board's seeds and targets.
    """

    name: str
    bits: int
    clean_map: float

    @property
    def counts(self) -> bool:
        """Whether it has learnt enough to be attacked."""
        return self.clean_map >= LEAST_CLEAN_MAP

    @property
    def key(self) -> VictimKey:
        """Its name and bits, with which the columns of `Draws` begin."""
        return self.name, self.bits

    def among(self, values: Draws) -> Draws:
        """Those of its own, at any budget."""
        return {column: draws for column, draws in values.items() if column[:2] == self.key}


@dataclass(frozen=True)
class ScoredRun:
    """One record of an entry."""

    path: str
    victim: Victim
    target: str
    seed: int
    record: Record

    def score(self, name: str) -> float | None:
        """A score of the board's convention, None if the run has none."""
        value: float | None = getattr(self.record.scores[CONVENTION], name)
        return value

    def visibility(self, images: str, name: str) -> float | None:
        """How much is seen in ``poison`` or ``query`` images: ``psnr``, ``ssim`` or another."""
        value = getattr(getattr(self.record.imperceptibility, images), name)
        return value if isinstance(value, float) else None


@dataclass(frozen=True)
class Entry:
    """One attack of a board.

    Attributes:
        label: in tables.
        attack: its name on the command line.
        place: first and last place that it may have; None if it has none.
        why: a clause why it has no place, empty if it has one.
        draws: backdoor gain by victim, target and seed; by budget too, on a board of several.
        gain: its mean over the victims that count and the budgets; None if none was run.
        gains: of each victim of the board, None where it was not run.
        delta_map: mean delta MAP of the victim that counts where it is largest in size.
        poison: share of the target class that is poisoned, the largest of its runs.
        least_poison: the smallest.
        runs: the records it follows from.
        complete: whether it was run in all cells of the victims that count, always with the same
            hyper-parameters; nothing that stands apart is.
        apart: see `rules.why_apart`.
    """

    label: str
    attack: str
    place: tuple[int, int] | None
    why: str
    draws: Draws
    gain: Estimate | None
    gains: tuple[Spread | None, ...]
    delta_map: float | None
    poison: float
    least_poison: float
    runs: tuple[ScoredRun, ...]
    complete: bool
    apart: str

    @property
    def threat(self) -> Threat:
        """The threat model, that of its first run."""
        return self.runs[0].record.threat

    @property
    def counted_draws(self) -> Draws:
        """The draws on victims that count."""
        counting = {run.victim.key for run in self.runs if run.victim.counts}
        return {key: values for key, values in self.draws.items() if key[:2] in counting}

    def mean_visibility(self, images: str, name: str) -> float | None:
        """The mean of `ScoredRun.visibility` over the runs on victims that count."""
        values = [run.visibility(images, name) for run in self.runs if run.victim.counts]
        known = [value for value in values if value is not None]
        return fmean(known) if known else None


def entry(
    frame: pd.DataFrame, what: str, victims: Sequence[Victim], cells: int, *, by_budget: bool
) -> Entry:
    """The entry of one attack, still without a place.

    Args:
        frame: its records, of one label and one attack.
        what: they are, for messages.
        victims: all of the board.
        cells: how many runs an attack needs to have all of those that count.
        by_budget: whether the board is over several budgets.

    Raises:
        UserError: two records are of one victim, target and seed.
    """
    counting = [victim for victim in victims if victim.counts]
    gains = draws(frame, what, f"{CONVENTION}.backdoor_gain", by_budget=by_budget)
    counted = {key: some for one in counting for key, some in one.among(gains).items()}
    deltas = draws(frame, what, f"{CONVENTION}.delta_map", by_budget=by_budget)
    of_victims = (_values(one.among(deltas)) for one in counting)
    delta_maps = [fmean(values) for values in of_victims if values]
    runs = _runs(frame, victims)
    shares = [poisoned_share(run.record) for run in runs]
    missing, varied = cells - sum(map(len, counted.values())), _varied_settings(runs)
    apart = why_apart([run.record.threat for run in runs])
    why = why_no_place(
        apart=apart,
        cells=cells,
        missing=missing,
        varied=varied,
        delta_maps=delta_maps,
        poison=max(shares),
    )
    return Entry(
        label=str(frame["label"].iloc[0]),
        attack=str(frame["attack"].iloc[0]),
        place=None,
        why=why,
        draws=gains,
        gain=estimate(counted),
        gains=tuple(spread(_values(victim.among(gains))) for victim in victims),
        delta_map=max(delta_maps, key=abs, default=None),
        poison=max(shares),
        least_poison=min(shares),
        runs=runs,
        complete=cells > 0 and not missing and not varied and not apart,
        apart=apart,
    )


def _values(some: Draws) -> list[float]:
    return [value for column in some.values() for value in column.values()]


def _runs(frame: pd.DataFrame, victims: Sequence[Victim]) -> tuple[ScoredRun, ...]:
    by_key = {victim.key: victim for victim in victims}
    runs = [
        ScoredRun(path, by_key[victim, bits], str(target), int(seed), record)
        for path, victim, bits, target, seed, record in rows_of(
            frame, "path", "victim", "bits", "target", "seed", "record"
        )
    ]
    return tuple(sorted(runs, key=lambda run: (run.victim, run.target, run.seed)))


def _varied_settings(runs: Iterable[ScoredRun]) -> list[str]:
    """The hyper-parameters of an attack that are not the same in all of its runs."""
    settings = [
        {**dict(run.record.spec.attack_settings), **run.record.params.attack} for run in runs
    ]
    names = {name for one in settings for name in one}
    return sorted(n for n in names if len({canonical(one.get(n)) for one in settings}) > 1)
