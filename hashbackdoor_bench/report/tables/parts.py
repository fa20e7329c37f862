"""A table before it is typeset: blocks of rows under common columns, and its caption."""

from collections.abc import Mapping
from dataclasses import dataclass, field

LINE_FACTS = ("source", "dataset", "protocol", "top_k", "convention", "delivery")


@dataclass(frozen=True)
class Second:
    """A second number of a cell, which is printed in parentheses.

    Attributes:
        name: what it is.
        mean: see `Cell`.
        deviation: see `Cell`.
    """

    name: str
    mean: float
    deviation: float | None


@dataclass(frozen=True)
class Cell:
    """What stands in one row and column.

    Attributes:
        text: as printed.
        mean: the number behind it, in the unit of the column; None for words and for nothing.
        deviation: of a single run, over the runs; None where there is none.
        n: number of runs; 0 where nothing was run.
        best: a test says that it is above all it may be compared with; it is printed in bold.
        second: another number, which the text has too.
    """

    text: str
    mean: float | None = None
    deviation: float | None = None
    n: int = 0
    best: bool = False
    second: Second | None = None


@dataclass(frozen=True)
class Line:
    """A row.

    Attributes:
        head: its first column.
        cells: one for each column of the table.
        facts: of ``LINE_FACTS``, those that hold for the row.
        from_paper: its numbers are those that a paper printed.
    """

    head: str
    cells: tuple[Cell, ...]
    facts: Mapping[str, str] = field(default_factory=dict)
    from_paper: bool = False


@dataclass(frozen=True)
class Block:
    """Rows that show one measure."""

    title: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Table:
    """Blocks over the same columns.

    Attributes:
        title: a few words.
        corner: what the row heads are.
        columns: heads of the others.
        blocks: at least one; a single one needs no title.
        caption: sentences.
    """

    title: str
    corner: str
    columns: tuple[str, ...]
    blocks: tuple[Block, ...]
    caption: tuple[str, ...]
