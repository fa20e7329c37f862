"""The ``index.csv`` beside the records of a suite: the label of each record in tables.

A label decides whose scores a row of a table shows, so a line of the index must say what the record
that it names says: its victim, bits, target and seed, and no other attack than the label's.
"""

import csv
import io
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.files import open_regular, whole
from hashbackdoor_bench.records import INDEX, REFUSED, Record
from hashbackdoor_bench.registry import ATTACKS
from hashbackdoor_bench.text import visible

LARGEST = 10_000_000  # bytes of an index; a line has about 100
LONGEST_LABEL = 200  # characters of a label
NAMED = ("suite", "label", "record")  # columns that every line must fill
FACTS = ("victim", "bits", "target", "seed")  # columns that say what the record says


@dataclass(frozen=True)
class IndexLine:
    """A line of an index.

    Attributes:
        number: its number, from 1.
        suite: name of the suite.
        label: the attack's in tables.
        record: path of the record, relative to the index.
        facts: what the line says of the record, by its name in the record's spec.
    """

    number: int
    suite: str
    label: str
    record: str
    facts: Mapping[str, str]

    def check(self, record: Record, named: str | None, others: Collection[str]) -> None:
        """Refuse a line that contradicts its record.

        Args:
            record: the record.
            named: the attack with which its label begins, see `attack_of_label`.
            others: how papers write the attacks of all records of the index.

        Raises:
            UserError: what contradicts what, as a clause.
        """
        for name, listed in self.facts.items():
            recorded = str(getattr(record.spec, name))
            # a suite may name the target in other letters or by its number, or take the default
            number = name == "target" and listed.isdecimal()
            if listed and not number and listed.casefold() != recorded.casefold():
                raise UserError(f"it has {name} {listed}, but its record has {recorded}")
        own = ATTACKS.published(record.spec.attack)
        # a suite may shorten "BadNets, clean label", but not if it has BadNets too
        short = own.startswith(f"{named}, ") and named not in others
        if named not in (None, own) and not short:
            raise UserError(
                f"it labels its record {self.label!r}, but the attack of that record is {own}"
            )
        settings = dict(record.spec.attack_settings)
        for part in self.label.split(", ")[1:]:
            name, sign, value = part.partition("=")
            name = name.replace("-", "_")
            if sign and name in settings and not _means(value, settings[name]):
                raise UserError(
                    f"it labels its record {self.label!r}, which has {name}={settings[name]}"
                )


def _means(text: str, value: object) -> bool:
    """Whether a setting as it was typed can mean a value: ``2`` is 2.0, and ``yes`` is True."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(text) == value
        except ValueError:
            return False
    return isinstance(value, bool) or text.casefold() == str(value).casefold()


def attack_of_label(label: str) -> str | None:
    """The published name with which a label begins, up to its end or a comma; None if none does."""
    names = {ATTACKS.published(name) for name in ATTACKS}
    found = [name for name in names if label == name or label.startswith(f"{name}, ")]
    return max(found, key=len, default=None)


@dataclass(frozen=True)
class SuiteIndex:
    """An index that was read.

    Attributes:
        lines: by the path of the record.
        problems: a sentence for each line that is refused, or for the whole file.
    """

    lines: Mapping[str, IndexLine]
    problems: tuple[str, ...] = ()


def read_index(path: Path) -> SuiteIndex:
    """The index at a path; empty if there is none."""
    name = visible(path.as_posix())
    lines: dict[str, IndexLine] = {}
    problems = []
    try:
        with open_regular(path, links=False) as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise ValueError(f"it has more than {LARGEST / 1e6:g} MB")
        for line in _lines(data.decode("utf-8")):
            first = lines.setdefault(line.record, line)
            if first is not line:
                problems.append(
                    f"{name}, line {line.number} is refused: it names the record of line "
                    f"{first.number} again."
                )
    except FileNotFoundError:
        return SuiteIndex({})
    except (OSError, ValueError, csv.Error, UserError) as error:
        why = visible(str(error)).rstrip(".")
        return SuiteIndex({}, (f"{name} is no index of a suite ({why}): labels are made up.",))
    return SuiteIndex(lines, tuple(problems))


def refuse_kept(path: Path, option: str) -> None:
    """Refuse to write what is made from records over a record, or over what stands beside it.

    Args:
        path: of the file that would be written.
        option: by which it was given, for the message.

    Raises:
        UserError: it has the name of an index or of the refused runs, or is a JSON file.
    """
    if path.name in (INDEX, REFUSED):
        raise UserError(
            f"{option} {path}: {path.name} is a suite's own file beside its records, which the "
            "labels of tables come from: give another name."
        )
    if path.suffix == ".json" and path.exists():
        raise UserError(
            f"{option} {path}: it is there, and may be a record, which can't be made again from a "
            "table: give another name."
        )


def write_index(path: Path, lines: Iterable[IndexLine]) -> None:
    """Write an index completely or not at all.

    Args:
        path: its path.
        lines: its lines, which are numbered anew.
    """
    with whole(path) as fresh, fresh.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow((*NAMED[:2], *FACTS, NAMED[2]))
        for line in lines:
            facts = (line.facts.get(name, "") for name in FACTS)
            rows.writerow((line.suite, line.label, *facts, line.record))


def _lines(text: str) -> Iterator[IndexLine]:
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    if not set(NAMED) <= set(rows.fieldnames or ()):
        raise ValueError("it lacks the columns suite, label and record")
    for row in rows:
        if None in row or None in row.values():
            raise ValueError(f"line {rows.line_num} has not as many cells as the head")
        if len(row["label"]) > LONGEST_LABEL:
            raise ValueError(
                f"line {rows.line_num} has a label of more than {LONGEST_LABEL} characters"
            )
        facts = {name: row[name] for name in FACTS if name in row}
        yield IndexLine(rows.line_num, row["suite"], row["label"], row["record"], facts)
