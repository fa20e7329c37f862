"""The published results of a method, as rows of HTML tables: means over the records of results/."""

from collections.abc import Iterable, Sequence
from functools import cache
from html import escape
from pathlib import Path
from statistics import fmean, stdev

import pandas as pd

from hashbackdoor_bench.records import Record
from hashbackdoor_bench.registry import ATTACKS, VICTIMS
from hashbackdoor_bench.report import collect, percent

RESULTS = Path(__file__).parents[2] / "results"
SUMMED = ["suite", "dataset", "label", "victim", "bits", "delivery", "defense"]


@cache
def published() -> pd.DataFrame:
    """All published records of suites, one row each; transfer is left to its own figure."""
    frame = collect([RESULTS]).frame
    specs = [record.spec for record in frame["record"]]
    frame["defense"] = [spec.defense for spec in specs]
    own = [
        row.suite is not None
        and row.surrogate in (None, row.victim, ATTACKS[row.attack].cls.surrogate)
        for row in frame.itertuples()
    ]
    return frame[own]


def of_attack(names: Iterable[str]) -> str:
    """The gain of attacks without a defense, by suite and victim."""
    frame = published()
    return _attacked(frame[frame["attack"].isin(list(names)) & (frame["defense"] == "none")])


def of_victim(names: Iterable[str]) -> str:
    """The gain of all attacks on victims."""
    frame = published()
    return _attacked(frame[frame["victim"].isin(list(names)) & (frame["defense"] == "none")])


def of_data(name: str) -> str:
    """The gain of all attacks on a data set."""
    frame = published()
    return _attacked(frame[(frame["dataset"] == name) & (frame["defense"] == "none")])


def of_defense(names: Iterable[str]) -> str:
    """What defenses change, by attack and victim."""
    frame = published()
    frame = frame[frame["defense"].isin(list(names))]
    head = ("Suite", "Attack", "Victim", "MAP", "t-MAP", "AUROC", "Runs")
    rows = []
    for (suite, _, label, victim, bits, _, _), group in frame.groupby(SUMMED, sort=False):
        records = list(group["record"])
        rows.append(
            (
                suite, label, f"{VICTIMS.published(victim)}, {bits} bits",
                _change(records, "map"), _change(records, "t_map"),
                _spread(_aurocs(records)), str(len(group)),
            )
        )  # fmt: skip
    return _table(head, rows)


def gain_on_quick(name: str) -> str:
    """The gain of an attack over the victims of the suite ``quick``, in percent; empty if none."""
    frame = published()
    mine = frame[(frame["attack"] == name) & (frame["suite"] == "quick")]
    mine = mine[mine["defense"] == "none"]
    if mine.empty:
        return ""
    own = mine[mine["label"] == ATTACKS.published(name)]
    by_victim = own.groupby("victim")["field.backdoor_gain"].mean()
    return percent(float(by_victim.mean()))


def _attacked(frame: pd.DataFrame) -> str:
    head = ("Suite", "Attack", "Victim", "Delivery", "MAP", "t-MAP", "Gain", "Runs")
    rows = []
    for (suite, data, label, victim, bits, delivery, _), group in frame.groupby(SUMMED, sort=False):
        scores = [
            _spread(group[f"field.{name}"].tolist()) for name in ("map", "t_map", "backdoor_gain")
        ]
        where = f"{suite}, {data}" if frame["dataset"].nunique() > 1 else suite
        column = f"{VICTIMS.published(victim)}, {bits} bits"
        rows.append((where, label, column, delivery, *scores, str(len(group))))
    return _table(head, rows)


def _spread(values: Sequence[float | None]) -> str:
    """Mean ± standard deviation in percent."""
    known = [value for value in values if value is not None and not pd.isna(value)]
    if not known:
        return "–"
    mean = percent(fmean(known))
    return f"{mean} ± {percent(stdev(known))}" if len(known) > 1 else mean


def _change(records: Sequence[Record], name: str) -> str:
    """A score before and after a defense that changes codes."""
    outcomes = [r.defense.outcome for r in records if r.defense and r.defense.outcome]
    if not outcomes:
        return "–"
    before = [getattr(one, name).before.get("field") for one in outcomes]
    after = [getattr(one, name).after.get("field") for one in outcomes]
    return f"{_spread(before)} → {_spread(after)}"


def _aurocs(records: Sequence[Record]) -> list[float | None]:
    return [one.auroc for r in records if r.defense for one in r.defense.detection.values()]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    cells = ["".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows]
    return (
        f"<table><thead><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr></thead>"
        f"<tbody>{''.join(f'<tr>{row}</tr>' for row in cells)}</tbody></table>"
    )
