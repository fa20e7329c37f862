"""The boards of the leaderboard, by the rules of ``results/RULES.md``.

A board is one suite under one delivery, one regime of training and one type of labels. Its cells
are every (victim, bits, budget, target, seed) that any attack of the board was run on; an attack
has a place only if it has all those of the victims that count.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import pandas as pd

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.records import DataFacts
from hashbackdoor_bench.report.board.entries import Entry, Victim, entry
from hashbackdoor_bench.report.board.rules import CONVENTION, attacks_nothing, why_apart
from hashbackdoor_bench.report.defended import attacker_of
from hashbackdoor_bench.report.mixing import (
    SAME_ATTACK,
    refuse_mixed,
    refuse_mixed_protocols,
    refuse_mixed_victims,
)
from hashbackdoor_bench.report.selection import regime_of
from hashbackdoor_bench.report.statistics import Unit, places, unit_of
from hashbackdoor_bench.text import quoted


@dataclass(frozen=True)
class Board:
    """A suite under one delivery, regime and type of labels.

    Attributes:
        suite: its name.
        delivery: ``stamped`` or ``files``.
        protocol: name, top_k and sha256 are those of every record of it.
        targets: class names.
        seeds: of the runs.
        victims: its columns, by name and bits.
        entries: those with a place first, by falling gain.
        regime: how its victims are trained, see `selection.regime_of`.
        labels: ``clean`` or ``dirty``: those of its attacks' poison.
        budgets: shares of the target class that every attack is run at, rising; empty where each
            attack has one budget of its own.
    """

    suite: str
    delivery: str
    protocol: DataFacts
    targets: tuple[str, ...]
    seeds: tuple[int, ...]
    victims: tuple[Victim, ...]
    entries: tuple[Entry, ...]
    regime: str
    labels: str
    budgets: tuple[float, ...] = ()

    @property
    def unit(self) -> Unit:
        """Over what the intervals are."""
        return unit_of((run.target, run.seed) for entry in self.entries for run in entry.runs)

    @property
    def title(self) -> str:
        """What it has in common, without the suite."""
        return f"delivery {self.delivery}, {self.labels} labels, {self.regime}"

    def name(self, entry: Entry) -> str:
        """How a row is headed: as labelled, but for a budget that its poison says too.

        Args:
            entry: of the board. Where rows would then have one name, all keep their labels.
        """
        names = [attacker_of(one.label) for one in self.entries]
        return attacker_of(entry.label) if len({*names}) == len(names) else entry.label


def boards(frame: pd.DataFrame, suites: Sequence[str]) -> list[Board]:
    """The boards of these suites, by suite, regime, delivery and type of labels.

    Attacks without a trigger are controls, which are on all boards of their regime and delivery.

    Args:
        frame: of a `Collection`.
        suites: names; records of other suites, or of none, are not looked at.

    Raises:
        UserError: no record of a suite, mixed protocols or victims, or an attack with two records
            of one cell.
    """
    found = []
    for suite in suites:
        of_suite = frame[frame["suite"] == suite]
        if of_suite.empty:
            others = sorted({name for name in frame["suite"] if isinstance(name, str) and name})
            hint = f"; there is --suite {' or '.join(others)}" if others else ""
            raise UserError(
                f"no record of suite {quoted(suite)} is among these{hint}: a record belongs to a "
                f"suite by the index.csv that `bench suite run {suite}` writes beside it."
            )
        of_suite = of_suite.assign(regime=[regime_of(one.spec) for one in of_suite["record"]])
        for (regime, delivery), part in of_suite.groupby(["regime", "delivery"], sort=True):
            control = pd.Series([attacks_nothing(one.threat) for one in part["record"]], part.index)
            for labels in sorted(set(part["label_kind"][~control] if any(~control) else ["clean"])):
                shown = part[control | (part["label_kind"] == labels)]
                found.append(_board(suite, str(regime), str(delivery), str(labels), shown))
    return found


def _board(suite: str, regime: str, delivery: str, labels: str, frame: pd.DataFrame) -> Board:
    name = f"board {suite}, {delivery}, {labels} labels, {regime}"
    refuse_mixed_protocols(frame, f"{name}: its records")
    victims = tuple(
        _victim(name, str(victim), int(bits), part)
        for (victim, bits), part in frame.groupby(["victim", "bits"], sort=True)
    )
    counting = {victim.key for victim in victims if victim.counts}
    asked = pd.Series([record.spec.budget for record in frame["record"]], frame.index)
    by_budget = any(asked.groupby([frame["label"], frame["attack"]]).nunique() > 1)
    apart = {
        name: why_apart([one.threat for one in part["record"]])
        for name, part in frame.groupby(["label", "attack"])
    }
    # what stands apart adds no cells to a board over budgets: its own are no budget of the others
    added = [not apart[name] for name in zip(frame["label"], frame["attack"], strict=True)]
    attacked = frame[added] if by_budget else frame
    budgets = asked[attacked.index] if by_budget else [0.0] * len(frame)
    runs = zip(
        attacked["victim"], attacked["bits"], attacked["target"], attacked["seed"], budgets,
        strict=True,
    )  # fmt: skip
    cells = len({run for run in runs if run[:2] in counting})
    varied = {"attack_settings", "attack_inputs", *(["budget"] if by_budget else [])}
    entries = []
    for (label, _), part in frame.groupby(["label", "attack"], sort=True):
        for (victim, bits), of_victim in part.groupby(["victim", "bits"]):
            # an attack whose settings vary is not refused: it has no place, and its row says why
            same = [field for field in SAME_ATTACK if field not in varied]
            refuse_mixed(of_victim, f"{name}: {quoted(label)} on {victim}, {bits} bits", same)
        what = f"{name}: {quoted(label)}"
        entries.append(entry(part, what, victims, cells, by_budget=by_budget))
    return Board(
        suite,
        delivery,
        frame["record"].iloc[0].protocol,
        tuple(sorted(set(map(str, frame["target"])))),
        tuple(sorted(set(map(int, frame["seed"])))),
        victims,
        _placed(entries),
        regime,
        labels,
        tuple(sorted(set(budgets))) if by_budget else (),
    )


def _victim(board: str, name: str, bits: int, frame: pd.DataFrame) -> Victim:
    """A column, whose records must all be of networks trained in the same way."""
    refuse_mixed_victims(frame, f"{board}: victim {name}, {bits} bits")
    draws = [frame["target"], frame["seed"]]
    clean = frame[f"{CONVENTION}.map_clean_victim"].groupby(draws).mean()
    return Victim(name, bits, clean_map=fmean(clean))


def _placed(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Entries with their places: those that have one, then the others; each by falling gain."""
    eligible = [one for one in entries if not one.why]
    ranges = places([one.counted_draws for one in eligible])
    placed = [replace(one, place=place) for one, place in zip(eligible, ranges, strict=True)]
    return tuple(sorted([*placed, *(one for one in entries if one.why)], key=_order))


def _order(one: Entry) -> tuple[bool, float, str, str]:
    # not by place: a wide range begins above the narrow one of a higher gain
    mean = one.gain.mean if one.gain else float("-inf")
    return one.place is None, -mean, one.label, one.attack
