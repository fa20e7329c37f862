"""Which records can be compared with an attack's runs of a suite, whatever suite they are of."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from hashbackdoor_bench.report.mixing import (
    RECORDED,
    SAME_VICTIM,
    clean_victim_of,
    size_of,
    text_of,
    texts_of,
)
from hashbackdoor_bench.spec import RunSpec
from hashbackdoor_bench.text import counted, listed, quoted


def rivals(
    frame: pd.DataFrame, suite: str, runs: Sequence[RunSpec], keys: set[str]
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The records of an attack's own runs, and those that can stand on a board with them.

    Those are of the same data, R and delivery, on one of the suite's victims, trained in the same
    way, and of one of the targets and seeds. The name of their suite doesn't matter.

    Args:
        frame: of a `Collection`.
        suite: the name that the records get.
        runs: the attack's runs of the suite, with all defaults filled in.
        keys: the keys of their records, at least one of which is in the frame.

    Returns:
        The records, as records of ``suite``, and sentences on those that are left out.
    """
    frame = frame.assign(suite=suite).drop_duplicates("key")
    own = frame["key"].isin(keys)
    first = frame[own].iloc[0].to_dict()
    rows = frame.assign(**{name: texts_of(frame, name) for name in SAME_VICTIM}).to_dict("records")
    trained = {(spec.victim, spec.bits): _spec_texts(spec) for spec in runs}
    networks = dict(filter(None, map(clean_victim_of, frame["record"][own])))
    draws = {(spec.victim, spec.bits, str(spec.target), spec.seed) for spec in runs}
    reasons = [
        "" if mine else _why_not(row, first, trained, networks, draws)
        for row, mine in zip(rows, own, strict=True)
    ]
    told = []
    for reason in dict.fromkeys(filter(None, reasons)):
        out = frame[[one == reason for one in reasons]]
        names = listed(dict.fromkeys(out["label"]))
        records = counted(len(out), "record")
        told.append(f"{records} of {names} left out of the comparison: {reason}.")
    return frame[[not reason for reason in reasons]], tuple(told)


def _spec_texts(spec: RunSpec) -> dict[str, str]:
    """What makes the victim of a run what it is, as `mixing.texts_of` writes it."""
    values = {name: getattr(spec, name) for name in SAME_VICTIM if name not in RECORDED}
    values["size"] = size_of(spec)
    return {n: text_of(dict(v) if n.endswith("_settings") else v) for n, v in values.items()}


def _why_not(
    row: Mapping[Any, Any],
    first: Mapping[Any, Any],
    trained: Mapping[tuple[str, int], Mapping[str, str]],
    networks: Mapping[tuple[object, ...], str],
    draws: set[tuple[str, int, str, int]],
) -> str:
    """Why a record can't be compared, as a clause; empty if it can."""
    for name, title in (("top_k", "R"), ("protocol", "data"), ("delivery", "delivery")):
        if row[name] != first[name]:
            shown = [
                f"{one['dataset']} ({one[name][:10]})" if name == "protocol" else one[name]
                for one in (row, first)
            ]
            return f"their {title} is {shown[0]}, and here it is {shown[1]}"
    if row["label"] == first["label"] and row["attack"] == first["attack"]:
        return "they are earlier runs of the attack itself"
    victim = (row["victim"], row["bits"])
    if victim not in trained:
        return f"the suite has no victim {victim[0]} of {victim[1]} bits"
    for name, text in trained[victim].items():
        if row[name] != text:
            return f"{name} of {victim[0]} is {quoted(row[name])}, and in the suite {quoted(text)}"
    network, key = clean_victim_of(row["record"]) or ((), "")
    if networks.get(network, key) != key:
        return (
            f"their clean {victim[0]} is another network than the suite's, as from other weights "
            "or another version of its code"
        )
    if (*victim, str(row["target"]), row["seed"]) not in draws:
        return f"the suite has no run of target {quoted(row['target'])} and seed {row['seed']}"
    return ""
