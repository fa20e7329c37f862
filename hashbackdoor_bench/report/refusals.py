"""The ``refused.csv`` beside the records of a suite: runs that can't be, each with its reason.

A table prints such a cell as n/a with the reason. Nothing else follows from the file, so what
stands in it is taken as words.
"""

import csv
import io
from dataclasses import dataclass, fields
from pathlib import Path

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.files import open_regular
from hashbackdoor_bench.text import shortened, visible

LARGEST = 10_000_000  # bytes; a line has about 250
LONGEST = 300  # characters of a reason


@dataclass(frozen=True)
class Refusal:
    """A run that its suite could not plan.

    Attributes:
        suite: name of the suite.
        label: of the attack in tables.
        victim: name of the victim.
        bits: of its codes.
        seed: of the run.
        defense: name of the defense.
        reason: a clause.
    """

    suite: str
    label: str
    victim: str
    bits: str
    seed: str
    defense: str
    reason: str


COLUMNS = tuple(field.name for field in fields(Refusal))


def read_refusals(path: Path) -> tuple[list[Refusal], tuple[str, ...]]:
    """The refused runs at a path, none if there is no such file; and what is wrong with it."""
    try:
        with open_regular(path, links=False) as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise ValueError(f"it has more than {LARGEST / 1e6:g} MB")
        rows = csv.DictReader(io.StringIO(data.decode("utf-8"), newline=""), strict=True)
        if tuple(rows.fieldnames or ()) != COLUMNS:
            raise ValueError(f"its columns are not {', '.join(COLUMNS)}")
        found = []
        for row in rows:
            if None in row or None in row.values():
                raise ValueError(f"line {rows.line_num} has not as many cells as the head")
            found.append(Refusal(**{name: shortened(row[name], LONGEST) for name in COLUMNS}))
    except FileNotFoundError:
        return [], ()
    except (OSError, ValueError, csv.Error, UserError) as error:
        why = visible(str(error)).rstrip(".")
        name = visible(path.as_posix())
        return [], (f"{name} names no refused runs ({why}): `bench suite run` writes it.",)
    return found, ()
