"""The published results of a method, as rows of HTML tables: means over the records of results/."""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from html import escape
from pathlib import Path
from statistics import fmean, stdev

import pandas as pd

from hashbackdoor_bench.records import Record
from hashbackdoor_bench.registry import ATTACKS, DEFENSES, VICTIMS
from hashbackdoor_bench.report import collect, percent

RESULTS = Path(__file__).parents[2] / "results"
SCORES = {"MAP": "map", "t-MAP": "t_map", "Gain": "backdoor_gain"}
Row = Callable[[pd.Series], str]  # how a record is named in a row or column of a table


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
    return frame[own].drop_duplicates("key")  # a record may be of two suites


def of_attack(names: Iterable[str]) -> str:
    """The gain of attacks without a defense, on every victim."""
    frame = published()
    return _gains(frame[frame["attack"].isin(list(names))], _victim, _attack)


def of_data(name: str) -> str:
    """The gain of all attacks on a data set."""
    frame = published()
    return _gains(frame[frame["dataset"] == name], _attack, _victim)


def of_victim(names: Iterable[str]) -> str:
    """What all attacks do to victims."""
    frame = published()
    mine = frame[frame["victim"].isin(list(names)) & (frame["defense"] == "none")]
    parts = []
    for (suite, data), found in mine.groupby(["suite", "dataset"], sort=False):
        rows = [
            (
                _attack(group.iloc[0]), _victim(group.iloc[0]),
                *(_spread(group[f"field.{name}"].tolist()) for name in SCORES.values()),
                str(len(group)),
            )
            for _, group in found.groupby(["label", "victim", "bits"], sort=False)
        ]  # fmt: skip
        head = ("Attack", "Victim", *SCORES, "Runs")
        parts.append(f"<h3>{escape(suite)}, {escape(data)}</h3>{_table(head, rows)}")
    return "".join(parts)


def of_defense(names: Iterable[str]) -> str:
    """What defenses change, by attack and victim."""
    frame = published()
    mine = frame[frame["defense"].isin(list(names))]
    head = ("Suite", "Defense", "Attack", "Victim", "MAP", "t-MAP", "AUROC", "Runs")
    rows = []
    for _, group in mine.groupby(["suite", "defense", "label", "victim", "bits"], sort=False):
        records, first = list(group["record"]), group.iloc[0]
        rows.append(
            (
                first["suite"], DEFENSES.published(first["defense"]), _attack(first),
                _victim(first), _change(records, "map"), _change(records, "t_map"),
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
    return str(percent(float(by_victim.mean())))


def _gains(frame: pd.DataFrame, row: Row, column: Row) -> str:
    """For each suite a table of the gains without a defense."""
    parts = []
    frame = frame[frame["defense"] == "none"]
    for (suite, data), found in frame.groupby(["suite", "dataset"], sort=False):
        records = [one for _, one in found.iterrows()]
        cells: dict[tuple[str, str], list[float]] = {}
        for one in records:
            gain = float(one["field.backdoor_gain"])
            cells.setdefault((row(one), column(one)), []).append(gain)
        rows = list(dict.fromkeys(map(row, records)))
        columns = list(dict.fromkeys(map(column, records)))
        runs = sorted({len(values) for values in cells.values()})
        body = [(name, *(_spread(cells.get((name, c), [])) for c in columns)) for name in rows]
        count = f"{runs[0]} to {runs[-1]}" if len(runs) > 1 else str(runs[0])
        title = f"{escape(suite)}, {escape(data)}: backdoor gain, {count} runs a cell"
        parts.append(f"<h3>{title}</h3>{_table(('', *columns), body)}")
    return "".join(parts)


def _attack(one: pd.Series) -> str:
    label = str(one["label"])
    return label if str(one["delivery"]) in label else f"{label}, {one['delivery']}"


def _victim(one: pd.Series) -> str:
    return f"{VICTIMS.published(str(one['victim']))}, {one['bits']} bits"


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
