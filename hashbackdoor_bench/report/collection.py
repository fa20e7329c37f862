"""Records as one table with a row for each; what can't be trusted is named and left out."""

import csv
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.records import (
    CONVENTION_FIELDS,
    CONVENTIONS,
    INDEX,
    ConventionScores,
    Record,
    read_record,
    record_key,
)
from hashbackdoor_bench.registry import ATTACKS
from hashbackdoor_bench.spec import canonical

RESULTS = Path("results")  # where suites put their records if nothing else is said
SPEED = "speed"  # its folder in which benchmarks.speed puts measurements, which are no records

# column -> part of the record, and its name there
FACTS: dict[str, tuple[str, str]] = {
    "attack": ("spec", "attack"),
    "victim": ("spec", "victim"),
    "bits": ("spec", "bits"),
    "dataset": ("spec", "dataset"),
    "protocol": ("protocol", "sha256"),
    "top_k": ("protocol", "top_k"),
    "target": ("spec", "target"),
    "seed": ("spec", "seed"),
    "budget": ("threat", "budget"),
    "delivery": ("threat", "delivery"),
    "backbone": ("spec", "backbone"),
    "pretrained": ("spec", "pretrained"),
    "recipe": ("spec", "recipe"),
    "surrogate": ("spec", "surrogate"),
    "surrogate_backbone": ("spec", "surrogate_backbone"),
    "surrogate_bits": ("spec", "surrogate_bits"),
    "trigger": ("threat", "trigger"),
    "label_kind": ("threat", "label"),
    "knowledge": ("threat", "knowledge"),
    "poisoned": ("threat", "poisoned"),
    "universal": ("threat", "universal"),
}
# these hold None where there is nothing; pandas would make it NaN
OPTIONAL = (
    "suite", "target", "backbone", "recipe", "surrogate", "surrogate_backbone", "surrogate_bits",
    "commit", "dirty",
)  # fmt: skip
VISIBILITY = ("psnr", "ssim", "max", "lpips", "similarity")


@dataclass(frozen=True)
class Collection:
    """What was read.

    Attributes:
        frame: one row per record, in the order of a suite's index, else of the files' names. Its
            columns: ``path``, ``key``, ``suite`` (None outside one), ``label`` (of the attack, in
            tables), those of ``FACTS`` (the surrogate's are None for an attack that takes none),
            ``settings`` and ``victim_settings`` (canonical JSON), ``CONVENTION.FIELD`` for all of
            `records` (shares of one, NaN where there is none), ``psnr_poison`` to
            ``similarity_query`` (NaN where there is none), ``seconds``, ``device``, ``commit``,
            ``dirty``, and last ``record``, the `Record` itself.
        left_out: a sentence for every file and row that is not in the frame, and why.
    """

    frame: pd.DataFrame
    left_out: tuple[str, ...]


def collect(places: Iterable[Path]) -> Collection:
    """Read the records of some places.

    Args:
        places: records, folders of them (searched to the bottom), and names of suites whose
            records stand in ``results/NAME``.

    Raises:
        UserError: a place doesn't exist, or no record was found that can be read.
    """
    rows: list[dict[str, Any]] = []
    order: list[tuple[int, float]] = []
    left_out: list[str] = []
    indices: dict[Path, Mapping[str, tuple[str, str, int]]] = {}
    first: dict[tuple[str | None, str], str] = {}
    asked = [Path(place) for place in places]
    for path in (path for place in asked for path in _files(place)):
        name = path.as_posix()
        try:
            row = _row(read_record(path))
        except UserError as error:
            left_out.append(f"{name} is left out: {_short(name, error)}")
            continue
        # DATASET/VICTIM-BITS/FILE, see `records.record_path`
        folder = path.absolute().parent.parent.parent
        if folder not in indices:
            indices[folder], told = _index(folder / INDEX)
            left_out += told
        place = path.absolute().relative_to(folder).as_posix()
        suite, label, number = indices[folder].get(place, (None, None, math.inf))
        known = suite, row["key"]  # two suites may share a run
        if known in first:
            if first[known] != name:  # two places may hold one file; only another file is news
                left_out.append(f"{name} is left out: it is the run of {first[known]} again.")
            continue
        first[known] = name
        order.append((list(indices).index(folder), number))
        rows.append({"path": name, "suite": suite, "label": label} | row)
    if not rows:
        where = ", ".join(str(place) for place in asked) or "nothing"
        why = f" ({len(left_out)} left out; {left_out[0].rstrip('.')})" if left_out else ""
        raise UserError(f"{where}: no record found{why}; give records, a folder or a suite's name.")
    frame = pd.DataFrame([rows[i] for i in sorted(range(len(rows)), key=order.__getitem__)])
    frame["label"] = frame["label"].fillna(_labels(frame[frame["label"].isna()]))
    columns = ["path", "key", "suite", "label"]
    frame = frame[columns + [name for name in frame if name not in columns]]
    for column in OPTIONAL:
        present = frame[column].astype(object)
        frame[column] = present.where(present.notna(), None)
    return Collection(frame, tuple(left_out))


def _files(place: Path) -> Iterator[Path]:
    if not place.exists() and len(place.parts) == 1 and (RESULTS / place).is_dir():
        place = RESULTS / place
    if not place.exists():
        name = str(place)
        hint = (
            f"make its records with `bench suite run {name}`, or give the folder they are in"
            if (files("hashbackdoor_bench.benchmarks") / f"{name}.toml").is_file()
            else "give records, a folder of them, or the name of a suite"
        )
        raise UserError(f"{name}: there is no such file, and no folder {RESULTS / name}; {hint}.")
    if not place.is_dir():
        yield place
        return
    for path in sorted(place.rglob("*.json")):
        hidden = path.name.startswith(".")  # `records.whole` writes to .NAME
        if path.is_file() and not hidden and path.relative_to(place).parts[0] != SPEED:
            yield path


def _short(name: str, error: UserError) -> str:
    """The error without the path that it may begin with, as a sentence."""
    text = str(error).removeprefix(name).removeprefix(":").strip()
    return f"it {text}" if text.startswith("is ") else text


def _row(record: Record) -> dict[str, Any]:
    """A record's columns.

    Raises:
        UserError: what it says doesn't hold together, so it was changed after the run.
    """
    row = {column: getattr(getattr(record, part), name) for column, (part, name) in FACTS.items()}
    if record_key(record.spec, record.artifacts) != record.key:
        raise UserError("its spec was changed after the run: its key doesn't follow from it.")
    if row["knowledge"] == "none":
        row |= {"surrogate": None, "surrogate_backbone": None, "surrogate_bits": None}
    row |= {
        "key": record.key,
        "settings": canonical(dict(record.spec.attack_settings)),
        "victim_settings": canonical(dict(record.spec.victim_settings)),
    }
    for convention in CONVENTIONS:
        row |= _scores(convention, record.scores[convention])
    for images in ("poison", "query"):
        seen = getattr(record.imperceptibility, images)
        for name in VISIBILITY:
            value = getattr(seen, name)  # the first records have no lpips and no similarity
            row[f"{name}_{images}"] = value if isinstance(value, float) else math.nan
    row["seconds"] = float(sum(record.seconds.values()))
    row |= {"device": record.device, "commit": record.commit, "dirty": record.dirty}
    return row | {"record": record}


def _scores(convention: str, scores: ConventionScores) -> dict[str, float]:
    """The scores as columns, if the differences among them are what they should be."""
    found = {name: getattr(scores, name) for name in CONVENTION_FIELDS}
    values = {name: math.nan if value is None else value for name, value in found.items()}
    control = max(values["t_map_clean_victim"], values["t_map_untriggered"])
    follows = {
        "delta_map": values["map"] - values["map_clean_victim"],
        "backdoor_gain": values["t_map"] - control,
    }
    for name, value in values.items():  # NaN, a missing score, compares as false and passes
        if abs(value) > 1 or (name not in follows and value < 0):
            raise UserError(f"scores.{convention}.{name} is {value:g}, which no share can be.")
        if abs(value - follows.get(name, value)) > 1e-9:
            raise UserError(
                f"scores.{convention}.{name} was changed: it is {value:g}, but {follows[name]:g} "
                "follows from the others."
            )
    return {f"{convention}.{name}": value for name, value in values.items()}


def _index(path: Path) -> tuple[dict[str, tuple[str, str, int]], list[str]]:
    """A suite's index: record -> (suite, label, line); and what is wrong with it."""
    if not path.is_file():
        return {}, []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file, strict=True)
            if not {"record", "suite", "label"} <= set(rows.fieldnames or ()):
                raise ValueError("it lacks the columns suite, label and record")
            found: dict[str, tuple[str, str, int]] = {}
            for row in rows:
                if None in (row["record"], row["suite"], row["label"]):
                    raise ValueError(f"line {rows.line_num} is cut short")
                found.setdefault(row["record"], (row["suite"], row["label"], rows.line_num))
    except (OSError, ValueError, csv.Error) as error:
        return {}, [f"{path.as_posix()} is no index of a suite ({error}): labels are made up."]
    return found, []


def _labels(frame: pd.DataFrame) -> pd.Series:
    """Labels for records outside a suite: how papers write the attack, and what of it varies."""
    labels = frame["attack"].copy()
    for attack, rows in frame.groupby("attack"):
        settings = [dict(record.spec.attack_settings) for record in rows["record"]]
        names = sorted({name for one in settings for name in one})
        varied = [n for n in names if len({canonical(one.get(n)) for one in settings}) > 1]
        for index, one in zip(rows.index, settings, strict=True):
            words = [f"{name}={one.get(name)}" for name in varied]
            if rows["delivery"].nunique() > 1:
                words.append(rows.at[index, "delivery"])
            labels[index] = ", ".join([ATTACKS.published(str(attack)), *words])
    return labels
