"""Records as one table with a row for each; what can't be trusted is named and left out."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.records import (
    CONVENTION_FIELDS,
    CONVENTIONS,
    INDEX,
    REFUSED,
)
from hashbackdoor_bench.registry import ATTACKS
from hashbackdoor_bench.report.copies import Found, with_checked_labels, without_copies
from hashbackdoor_bench.report.reading import read_checked
from hashbackdoor_bench.report.refusals import Refusal, read_refusals
from hashbackdoor_bench.report.scan import scan_records
from hashbackdoor_bench.report.suite_index import SuiteIndex, read_index
from hashbackdoor_bench.spec import canonical
from hashbackdoor_bench.text import visible

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
            `records` (shares of one, NaN where there is none), ``field.t_map_dominant`` and
            ``field.backdoor_gain_dominant`` (NaN but for attacks without a target of their own, see
            `records.Dominant`), ``psnr_poison`` to
            ``similarity_query`` (NaN where there is none), ``seconds``, ``device``, ``commit``,
            ``dirty``, and last ``record``, the `Record` itself.
        left_out: a sentence for every file and row that is not in the frame, and why.
        refused: the runs that the suites of these records could not plan.
    """

    frame: pd.DataFrame
    left_out: tuple[str, ...]
    refused: tuple[Refusal, ...] = ()


class NoRecords(UserError):
    """No record was found that can be read.

    Attributes:
        left_out: see `Collection`.
    """

    def __init__(self, message: str, left_out: Iterable[str]) -> None:
        super().__init__(message)
        self.left_out = tuple(left_out)


def collect(places: Iterable[Path]) -> Collection:
    """Read the records of some places.

    Args:
        places: records, folders of them (searched to the bottom), and names of suites see
            `scan_records`.

    Raises:
        UserError: a place doesn't exist, or holds too many files.
        NoRecords: no record was found that can be read.
    """
    asked = [Path(place) for place in places]
    scans = [scan_records(place) for place in asked]
    # two places may hold one file
    files = {path.absolute(): (path, scan.named) for scan in scans[::-1] for path in scan.paths}
    checked = dict(zip(files, read_checked(list(files.values())), strict=True))
    left_out: list[str] = []
    found: list[Found] = []
    indices: dict[Path, SuiteIndex] = {}
    refused_runs: list[Refusal] = []
    for scan in scans:
        left_out += scan.left_out
        for path in scan.paths:
            absolute = path.absolute()
            record = checked.pop(absolute, None)
            if record is None:
                continue
            if isinstance(record, UserError):
                left_out.append(_left_out(path, record))
                continue
            # DATASET/VICTIM-BITS/FILE, see `records.record_path`
            folder = absolute.parent.parent.parent
            if folder not in indices:
                indices[folder] = read_index(folder / INDEX)
                left_out += indices[folder].problems
                refusals, problems = read_refusals(folder / REFUSED)
                refused_runs += refusals
                left_out += problems
            line = indices[folder].lines.get("/".join(absolute.parts[-3:]))
            found.append(Found(path, record, list(indices).index(folder), line))
    found, refused = with_checked_labels(found, list(indices))
    kept, copies = without_copies(found)
    left_out += refused + copies
    if not kept:
        where = ", ".join(str(place) for place in asked) or "nothing"
        why = f" ({len(left_out)} left out; {left_out[0].rstrip('.')})" if left_out else ""
        message = f"{where}: no record found{why}; give records, a folder or a suite's name."
        raise NoRecords(message, left_out)
    frame = pd.DataFrame([_row(one) for one in sorted(kept, key=lambda one: one.order)])
    frame["label"] = frame["label"].fillna(_labels(frame[frame["label"].isna()]))
    # as objects: a row of some of pandas' texts takes ten times as long to choose
    texts = [name for name, kind in frame.dtypes.items() if isinstance(kind, pd.StringDtype)]
    for column in dict.fromkeys([*OPTIONAL, *map(str, texts)]):
        present = frame[column].astype(object)
        frame[column] = present.where(present.notna(), None)
    return Collection(frame, tuple(left_out), tuple(refused_runs))


def _left_out(path: Path, error: UserError) -> str:
    """Which file is left out, and why; the error may begin with its path."""
    name = path.as_posix()
    text = str(error).removeprefix(name).removeprefix(":").strip()
    return visible(f"{name} is left out: {'it ' if text.startswith(('is ', 'has ')) else ''}{text}")


def _row(found: Found) -> dict[str, Any]:
    """A record's columns."""
    record = found.record
    row: dict[str, Any] = {
        "path": found.path.as_posix(),
        "key": record.key,
        "suite": found.suite,
        "label": found.line.label if found.line else None,
    }
    row |= {column: getattr(getattr(record, part), name) for column, (part, name) in FACTS.items()}
    if row["knowledge"] == "none":
        row |= {"surrogate": None, "surrogate_backbone": None, "surrogate_bits": None}
    row |= {
        "settings": canonical(dict(record.spec.attack_settings)),
        "victim_settings": canonical(dict(record.spec.victim_settings)),
    }
    for convention in CONVENTIONS:
        for name in CONVENTION_FIELDS:
            score = getattr(record.scores[convention], name)
            row[f"{convention}.{name}"] = math.nan if score is None else score
    dominant = record.retrieval.dominant
    for name in ("t_map", "backdoor_gain"):
        score = None if dominant is None else getattr(dominant, name)
        row[f"field.{name}_dominant"] = math.nan if score is None else score
    for images in ("poison", "query"):
        seen = getattr(record.imperceptibility, images)
        for name in VISIBILITY:
            value = getattr(seen, name)  # the first records have no lpips and no similarity
            row[f"{name}_{images}"] = value if isinstance(value, float) else math.nan
    row["seconds"] = float(sum(record.seconds.values()))
    row |= {"device": record.device, "commit": record.commit, "dirty": record.dirty}
    return row | {"record": record}


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
