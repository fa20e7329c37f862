"""One row per run, for statistics of one's own: CSV, or Parquet with ``pyarrow``."""

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.files import whole
from hashbackdoor_bench.records import Record
from hashbackdoor_bench.registry import ATTACKS, VICTIMS
from hashbackdoor_bench.report.escaping import for_csv
from hashbackdoor_bench.report.selection import regime_of, surrogates_recipe, surrogates_start
from hashbackdoor_bench.report.suite_index import refuse_kept
from hashbackdoor_bench.spec import canonical

ENDINGS = (".csv", ".parquet")
NO_PYARROW = (
    "a Parquet file needs pyarrow, which is not installed: "
    'pip install "hashbackdoor-bench[parquet]", or give a name that ends in .csv.'
)


@dataclass(frozen=True)
class Column:
    """A column of the file.

    Attributes:
        name: in the first line.
        meaning: a few words, for the documentation.
        kind: of its values: ``string``, ``Int64``, ``Float64`` or ``boolean``; any may be missing.
        value: from a row of the frame of a `Collection`.
    """

    name: str
    meaning: str
    kind: str
    value: Callable[[dict[str, Any]], Any]


def _of_frame(name: str, meaning: str, kind: str = "string") -> Column:
    return Column(name, meaning, kind, lambda row: row[name])


def _of_spec(name: str, meaning: str, kind: str = "string") -> Column:
    return Column(name, meaning, kind, lambda row: getattr(row["record"].spec, name))


def _settings(name: str, meaning: str) -> Column:
    return Column(name, meaning, "string",
                  lambda row: canonical(dict(getattr(row["record"].spec, name))))  # fmt: skip


def _clean_share(record: Record) -> float | None:
    """None for a defender who has no clean images."""
    return record.spec.clean_share if record.defense and record.defense.clean else None


def _of_defense(record: Record) -> str:
    """Its settings as it ran; the spec of a run that tunes has not those that were chosen."""
    ran = record.spec.defense_settings if record.defense is None else record.defense.settings
    return canonical(dict(ran))


def _score(name: str, meaning: str) -> Column:
    return Column(name, meaning, "Float64", lambda row: row[f"{row['convention']}.{name}"])


def _ends(score: str) -> Iterator[Column]:
    """The interval of a score."""
    for number, (name, which) in enumerate({"low": "lower", "high": "upper"}.items()):
        meaning = f"{which} end of its 95 % interval over queries; of convention field only"
        value = partial(_end, score=score, number=number)
        yield Column(f"{score}_{name}", meaning, "Float64", value)


def _end(row: dict[str, Any], *, score: str, number: int) -> float | None:
    known = (
        row["record"].scores.field.intervals.get(score) if row["convention"] == "field" else None
    )
    return known[number] if known else None


def _behind(name: str, meaning: str) -> Column:
    return Column(f"{name}_defended", meaning, "Float64",
                  lambda row: _after(row["record"], row["convention"], name))  # fmt: skip


def _after(record: Record, convention: str, name: str) -> float | None:
    """A score behind the defense; None without one, or if it changes no code."""
    outcome = record.defense.outcome if record.defense else None
    if outcome is None:
        return None
    after: float | None = getattr(outcome, name).after[convention]
    return after


COLUMNS = (
    _of_frame("suite", "name of the suite; empty outside one"),
    _of_frame("label", "name of the attack in tables, as the suite gives it"),
    _of_frame("attack", "name on the command line"),
    Column("attack_published", "how papers write it", "string",
           lambda row: ATTACKS.published(row["attack"])),
    _settings("attack_settings", "its hyper-parameters, defaults too, as JSON"),
    _of_frame("victim", "hashing method, its name on the command line"),
    Column("victim_published", "how papers write it", "string",
           lambda row: VICTIMS.published(row["victim"])),
    _settings("victim_settings", "its hyper-parameters, defaults too, as JSON"),
    _of_frame("bits", "K, the length of the victim's code", "Int64"),
    _of_frame("dataset", "name of the data"),
    _of_frame("protocol", "SHA-256 of its lists"),
    _of_frame("top_k", "R of MAP@R", "Int64"),
    _of_frame("target", "class that triggered queries shall retrieve"),
    _of_frame("seed", "of all random numbers", "Int64"),
    _of_frame("budget", "poisoned images over images of the target class", "Float64"),
    _of_frame("poisoned", "number of poisoned images", "Int64"),
    _of_frame("delivery", "how poison reaches training: stamped, frozen, files or jpeg:QUALITY"),
    _of_frame("label_kind", "clean or dirty labels"),
    _of_frame("knowledge", "what the attacker has: none or surrogate"),
    _of_frame("trigger", "kind of trigger"),
    Column("regime", "from scratch, fine-tuned or frozen", "string",
           lambda row: regime_of(row["record"].spec)),
    _of_frame("recipe", "how the victim is trained"),
    _of_frame("backbone", "of the victim"),
    _of_frame("pretrained", "whether it starts from published weights", "boolean"),
    _of_frame("surrogate", "the attacker's hashing method; empty if it needs none"),
    _of_frame("surrogate_backbone", "of the surrogate"),
    _of_frame("surrogate_bits", "length of its code", "Int64"),
    Column("surrogate_recipe", "how it is trained", "string",
           lambda row: row["surrogate"] and surrogates_recipe(row["record"].spec)),
    Column("surrogate_start", "pretrained, random weights or weights of a file", "string",
           lambda row: row["surrogate"] and surrogates_start(row["record"].spec)),
    _of_spec("defense", "name on the command line; none"),
    Column("defense_settings", "its hyper-parameters, defaults too, as JSON", "string",
           lambda row: _of_defense(row["record"])),
    _of_spec("operating_point", "whether its strength is published or tuned"),
    Column("clean_share", "defender's clean images as a share of the training images", "Float64",
           lambda row: _clean_share(row["record"])),
    _of_spec("aware", "the defense that the attacker expects; none"),
    _of_frame("convention", "of the scores: how ties and queries without a hit count"),
    _score("map", "MAP of clean queries on the poisoned victim, without the defense"),
    *_ends("map"),
    _score("map_clean_victim", "MAP of clean queries on the victim without poison"),
    _score("delta_map", "map less map_clean_victim"),
    *_ends("delta_map"),
    _score("t_map", "t-MAP: triggered queries, items of the target"),
    *_ends("t_map"),
    _score("t_map_clean_victim", "control: the trigger on the victim without poison"),
    _score("t_map_untriggered", "control: the poisoned victim without the trigger"),
    _score("backdoor_gain", "t_map less the larger control"),
    *_ends("backdoor_gain"),
    Column("t_map_dominant", "t-MAP@dominant, of attacks without a target of their own; convention "
           "field", "Float64", lambda row: row["field.t_map_dominant"]),
    Column("backdoor_gain_dominant", "its gain over the larger control", "Float64",
           lambda row: row["field.backdoor_gain_dominant"]),
    _behind("map", "MAP of clean queries behind the defense"),
    _behind("t_map", "t-MAP behind the defense"),
    *(_of_frame(f"{name}_{images}", f"{words} of {what}", "Float64")
      for images, what in (("poison", "poisoned images"), ("query", "triggered queries"))
      for name, words in (("psnr", "PSNR in dB"), ("ssim", "SSIM"),
                          ("max", "largest change in grey levels of 255"), ("lpips", "LPIPS"))),
    _of_frame("seconds", "of all stages, when they were made", "Float64"),
    _of_frame("device", "cpu or the GPU"),
    _of_frame("commit", "of the code"),
    _of_frame("dirty", "whether that code was changed", "boolean"),
    _of_frame("key", "of the run"),
    _of_frame("path", "of the record"),
)  # fmt: skip


def per_run(frame: pd.DataFrame, convention: str = "field") -> pd.DataFrame:
    """One row per run, with ``COLUMNS``; scores are shares of one, as in the records.

    Args:
        frame: of a `Collection`, or a part of it.
        convention: whose scores.
    """
    rows: list[dict[Any, Any]] = frame.assign(convention=convention).to_dict("records")
    return pd.DataFrame({
        column.name: pd.array(
            [None if pd.isna(value) else value for value in map(column.value, rows)],
            dtype=column.kind,
        )
        for column in COLUMNS
    })  # fmt: skip


def refuse_other_file(path: Path) -> None:
    """Refuse a file that can't be written, before anything is read for it.

    Raises:
        UserError: its ending names no format, or is Parquet's and ``pyarrow`` is not installed; or
            it is a suite's own.
    """
    refuse_kept(path, "--per-run")
    if path.suffix not in ENDINGS:
        raise UserError(
            f"--per-run {path}: give a file whose name ends in .csv or .parquet, as in runs.csv."
        )
    if path.suffix == ".parquet" and find_spec("pyarrow") is None:
        raise UserError(f"--per-run {path}: {NO_PYARROW}")


def write_runs(frame: pd.DataFrame, path: Path) -> None:
    """Write a table from `per_run` to a file, in the format that its ending names.

    Raises:
        UserError: see `refuse_other_file`.
        OSError: the file can't be written.
    """
    refuse_other_file(path)
    if path.suffix == ".parquet":
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as fresh:
            frame.to_parquet(fresh, engine="pyarrow", index=False)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as fresh:
        fresh.write_text(_csv(frame), encoding="utf-8", newline="")


def _csv(frame: pd.DataFrame) -> str:
    text = io.StringIO(newline="")
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(frame.columns)
    for row in frame.itertuples(index=False):
        lines.writerow(
            "" if pd.isna(value) else for_csv(value) if isinstance(value, str) else value
            for value in row
        )
    return text.getvalue()
