"""A table that is a page of the site: rows of text, each with a sentence that says what it is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TableRow:
    """A row.

    Attributes:
        head: its first column.
        cells: one for each column.
        sentence: what it is; may be empty.
    """

    head: str
    cells: tuple[str, ...]
    sentence: str = ""


@dataclass(frozen=True)
class TablePage:
    """A table in groups of rows.

    Attributes:
        title: a few words.
        corner: what the row heads are.
        columns: heads of the others.
        groups: title and rows of each.
        caption: sentences.
    """

    title: str
    corner: str
    columns: tuple[str, ...]
    groups: tuple[tuple[str, tuple[TableRow, ...]], ...]
    caption: tuple[str, ...]
