"""Which records may stand in one table, which may be averaged, and which is the best.

A table is of one protocol and one R. A mean is over the targets and seeds of runs that are equal in
everything else. The best of some rows is told from the second best by the test of `ranking` on
their differences over equal victims, targets and seeds; without it nothing is called best.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from statistics import fmean

import pandas as pd

from hashbackdoor_bench.errors import UserError, unknown
from hashbackdoor_bench.report.statistics import LEVEL, estimate
from hashbackdoor_bench.spec import RunSpec, canonical

# (victim, bits) -> (target, seed) -> a score
Draws = Mapping[tuple[str, int], Mapping[tuple[str, int], float]]

# what makes an attack of one name another attack, as SAME_VICTIM does for victims
SAME_ATTACK = (
    "attack", "attack_settings", "budget", "poison_count", "delivery", "surrogate",
    "surrogate_backbone", "surrogate_bits",
)  # fmt: skip


def spelled(frame: pd.DataFrame, name: str) -> list[str]:
    """A column, or a field of the specs, as ``--where`` takes it."""
    # the budget of the column is what rounding to whole images left of the spec's
    if name in frame and name != "budget":
        values = [None if pd.isna(value) else value for value in frame[name]]
    else:
        values = [getattr(record.spec, name, None) for record in frame["record"]]
    return [_spell(value) for value in values]


def _spell(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, list | tuple | dict):
        return canonical(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def choose(frame: pd.DataFrame, conditions: Sequence[str]) -> pd.DataFrame:
    """The rows that fulfil ``column=value`` conditions; values of one column are alternatives.

    Raises:
        UserError: no such column, or no row is left.
    """
    wanted: dict[str, list[str]] = {}
    for condition in conditions:
        name, sign, value = condition.partition("=")
        if not sign:
            raise UserError(f"--where {condition}: it is no NAME=VALUE, as in victim=hashnet.")
        wanted.setdefault(name.strip(), []).append(value.strip())
    names = {name for name in frame if "." not in name and name != "record"}
    for name, values in wanted.items():
        known = names | {field.name for field in fields(RunSpec)}
        if name not in known:
            raise unknown("column", name, known)
        present = spelled(frame, name)
        for value in values:
            if value not in present:
                there = ", ".join(sorted(set(present)))
                raise UserError(
                    f"--where {name}={value}: no record is left; {name} is one of {there}."
                )
        frame = frame[[value in values for value in present]]
    return frame


def one_protocol(frame: pd.DataFrame) -> None:
    """Refuse records that are not of one protocol and one R."""
    for name, what in (("protocol", "protocol"), ("top_k", "R")):
        found = frame.drop_duplicates(name)
        if len(found) > 1:
            one, other = (
                f"{value} (data {dataset})"
                for value, dataset in zip(found[name][:2], found["dataset"][:2], strict=True)
            )
            apart = "dataset" if found["dataset"].nunique() == len(found) else name
            raise UserError(
                f"these records have {what} {one} and {other}, which a table never mixes: choose "
                f"one with --where {apart}={found[apart].iloc[0]}."
            )


def headed(frame: pd.DataFrame) -> pd.DataFrame:
    """The records with the heads that they stand under, and a refusal to mix protocols.

    Returns:
        The frame, its ``victim`` with the backbone where a method has several, and ``name``: the
        label, with the delivery where a label has several.

    Raises:
        UserError: see `one_protocol`.
    """
    one_protocol(frame)
    networks = frame.groupby("victim")["backbone"].nunique() > 1
    victims = [
        f"{victim} ({backbone})" if networks[victim] else victim
        for victim, backbone in zip(frame["victim"], frame["backbone"], strict=True)
    ]
    deliveries = frame.groupby("label")["delivery"].nunique() > 1
    names = [
        f"{label}, {delivery}" if deliveries[label] else label
        for label, delivery in zip(frame["label"], frame["delivery"], strict=True)
    ]
    return frame.assign(victim=victims, name=names)


def victim_heads(frame: pd.DataFrame) -> list[str]:
    """The victims, with bits where there are several."""
    if frame["bits"].nunique() == 1:
        return list(frame["victim"])
    pairs = zip(frame["victim"], frame["bits"], strict=True)
    return [f"{victim}, {bits} bits" for victim, bits in pairs]


def one_kind(frame: pd.DataFrame, what: str, names: Sequence[str]) -> None:
    """Refuse records that differ in what they must share.

    Args:
        frame: the records.
        what: they are together, for the message.
        names: columns, or fields of the spec.
    """
    for name in names:
        found = list(dict.fromkeys(spelled(frame, name)))
        if len(found) > 1:
            raise UserError(
                f"{what}: there are runs with {name}={found[0]} and with {name}={found[1]}, which "
                f"are never averaged or compared: choose one with --where '{name}={found[0]}'."
            )


def draws(frame: pd.DataFrame, what: str, column: str) -> Draws:
    """The values of a column that are there, by victim, target and seed.

    Raises:
        UserError: two records of one victim, target and seed.
    """
    found: dict[tuple[str, int], dict[tuple[str, int], float]] = {}
    paths: dict[object, str] = {}
    for row in frame.to_dict("records"):
        place, draw = (row["victim"], row["bits"]), (row["target"], row["seed"])
        if (place, draw) in paths:
            raise UserError(
                f"{what}: {paths[place, draw]} and {row['path']} are both of target {draw[0]}, "
                f"seed {draw[1]}: leave one out, or choose with --where."
            )
        paths[place, draw] = row["path"]
        if not pd.isna(row[column]):
            found.setdefault(place, {})[draw] = row[column]
    return found


def mean(of: Draws) -> float:
    """Each victim weighs the same."""
    return fmean(fmean(values.values()) for values in of.values())


def best(rows: Sequence[Draws]) -> int | None:
    """The row with the highest mean, if its lead over the second is significant."""
    order = sorted((i for i, of in enumerate(rows) if of), key=lambda i: -mean(rows[i]))
    if len(order) < 2 or set(rows[order[0]]) != set(rows[order[1]]):
        return None
    first, second = rows[order[0]], rows[order[1]]
    differences = [
        [value - second[place][draw] for draw, value in values.items() if draw in second[place]]
        for place, values in first.items()
    ]
    if not all(differences):
        return None
    lead = estimate(differences)
    return order[0] if lead.mean > 0 and lead.p < LEVEL else None
