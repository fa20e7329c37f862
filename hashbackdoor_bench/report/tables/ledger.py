"""The ledger: what every deviation of a released code is worth, each with its interval."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pandas as pd

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.report.board.rules import CONVENTION
from hashbackdoor_bench.report.board.table_page import TablePage, TableRow
from hashbackdoor_bench.report.captions import conditions, provenance
from hashbackdoor_bench.report.formatting import NOTHING, percent
from hashbackdoor_bench.report.mixing import SAME_ATTACK, refuse_mixed, refuse_mixed_victims
from hashbackdoor_bench.report.selection import with_display_names
from hashbackdoor_bench.report.statistics import (
    LEVEL,
    Draws,
    Estimate,
    difference,
    draws,
    holm,
    spread,
)
from hashbackdoor_bench.report.tables.ledger_rows import LEDGER, UNMEASURED, LedgerRow
from hashbackdoor_bench.report.tables.parts import Block, Cell, Line, Table


@dataclass(frozen=True)
class Effect:
    """A measure of which the ledger shows the change.

    Attributes:
        name: head of its column.
        column: of the frame, without a convention.
        scored: whether it depends on the convention.
        text: a value, or the size of a change, as text.
        factor: from the frame's unit to the column's.
    """

    name: str
    column: str
    scored: bool
    text: Callable[[float | None], str]
    factor: float = 100


def decibels(value: float | None) -> str:
    """Two decimals, since steps change the PSNR by hundredths; no minus before zero."""
    if value is None:
        return NOTHING
    text = f"{value:.2f}"
    return "0.00" if text == "-0.00" else text


EFFECTS = (
    Effect("t-MAP", "t_map", True, percent),
    Effect("gain", "backdoor_gain", True, percent),
    Effect("MAP", "map", True, percent),
    Effect("PSNR (dB)", "psnr_poison", False, decibels, 1),
)
COLUMNS = ("against", *(effect.name for effect in EFFECTS), "n", "significant after Holm")
BRIEF = "Changes in points (PSNR: dB) with their 95 % intervals over n pairs."
DIGITS = 12  # of a value; what lies behind is rounding, which would pass for a sure difference
EXPLANATION = (
    "First line of a block: mean ± standard deviation of a single run. Others: what a step changes "
    "(points of percent; dB for the PSNR of the poisoned images), with the 95 % interval over "
    "pairs of equal target and seed; n: the number of pairs. Against: the label of the runs that "
    "the step is compared with, where CIBA, Tri and BadHash are the released codes, and the "
    "convention that scores them if the step changes it. All pairs of one seed are one draw, "
    "so an interval holds for these targets alone. Significant after Holm: the measures whose "
    f"change differs from zero by a paired t-test, two-sided at {100 * LEVEL:g} %, with Holm's "
    "correction over the column of the block; n pairs can't tell the others from zero."
)

Changes = list[Estimate | None]  # of one row, in the order of `EFFECTS`


def ledger_tables(frame: pd.DataFrame, convention: str) -> list[Table]:
    """A block for each code; rows whose runs are missing are left out, and named in the caption.

    Args:
        frame: of a `Collection`, or a part of it.
        convention: whose scores are compared, except in rows that compare conventions.

    Raises:
        UserError: no row has its runs, or runs that differ in more than draws would be averaged.
    """
    frame = with_display_names(frame)
    rows = [row for group in LEDGER.values() for row in group]
    present = set(frame["label"])
    kept = [row for row in rows if {row.base, row.changed} <= present]
    if not kept:
        raise UserError(
            "--layout ledger: these records are not of the suite ledger, whose labels it compares: "
            "run it with `bench suite run ledger`, or take --layout pairs."
        )
    used = frame[frame["label"].isin({label for row in kept for label in (row.base, row.changed)})]
    for victim, part in used.groupby("victim", sort=False):
        refuse_mixed_victims(part, str(victim))
    for label, part in used.groupby("label", sort=False):
        refuse_mixed(part, str(label), SAME_ATTACK)
    blocks = [
        Block(title, tuple(_lines([row for row in group if row in kept], used, convention)))
        for title, group in LEDGER.items()
        if any(row in kept for row in group)
    ]
    absent = sorted({f"'{row.changed}'" for row in rows if row not in kept})
    caption = (
        EXPLANATION,
        *conditions(used, convention),
        *map(_said, kept),
        UNMEASURED,
        *([f"No runs of both sides: {', '.join(absent)}."] if absent else []),
        *provenance(used),
    )
    title = "From the released codes to the papers, one step at a time"
    return [Table(title, "step", COLUMNS, tuple(blocks), caption, BRIEF)]


def ledger_page(frame: pd.DataFrame) -> TablePage:
    """The same as a page of the leaderboard's site, each row with its sentence.

    Args:
        frame: the records of the suite ``ledger``.

    Raises:
        UserError: see `ledger_tables`.
    """
    (table,) = ledger_tables(frame, CONVENTION)
    groups = []
    for block in table.blocks:
        sentences = {row.head: row.sentence for row in LEDGER[block.title]}
        rows = (
            TableRow(
                line.head, tuple(cell.text for cell in line.cells), sentences.get(line.head, "")
            )
            for line in block.lines
        )
        groups.append((block.title, tuple(rows)))
    said = {_said(row) for group in LEDGER.values() for row in group}
    caption = tuple(sentence for sentence in table.caption if sentence not in said)
    return TablePage(table.title, table.corner, table.columns, tuple(groups), caption)


def _said(row: LedgerRow) -> str:
    return f"{row.head[:1].upper()}{row.head[1:]}: {row.sentence}"


def _lines(rows: list[LedgerRow], frame: pd.DataFrame, convention: str) -> Iterator[Line]:
    """The first row's base in absolute numbers, then the rows."""
    first = rows[0].base
    yield Line(f"{first}, released", (Cell(NOTHING), *_absolute(frame, first, convention)))
    found = [_changes(row, frame, convention) for row in rows]
    significant: list[list[str]] = [[] for _ in rows]
    for number, effect in enumerate(EFFECTS):
        estimates = [changes[number] for changes in found]
        corrected = holm([one.p if one else 1.0 for one in estimates])
        for names, p in zip(significant, corrected, strict=True):
            if p < LEVEL:
                names.append(effect.name.partition(" ")[0])
    for row, changes, names in zip(rows, found, significant, strict=True):
        n = max((one.n for one in changes if one), default=0)
        words = ", ".join(names) or NOTHING
        cells = [_cell(one, effect) for one, effect in zip(changes, EFFECTS, strict=True)]
        yield Line(row.head, (Cell(row.against), *cells, Cell(str(n), n=n), Cell(words)))


def _changes(row: LedgerRow, frame: pd.DataFrame, convention: str) -> Changes:
    before, after = row.conventions or (convention, convention)
    found: Changes = []
    for effect in EFFECTS:
        if row.conventions and not effect.scored:
            found.append(None)
            continue
        sides = [
            _values(frame, label, effect, rule)
            for label, rule in ((row.changed, after), (row.base, before))
        ]
        found.append(difference(*sides, unit="seed"))
    return found


def _values(frame: pd.DataFrame, label: str, effect: Effect, convention: str) -> Draws:
    column = f"{convention}.{effect.column}" if effect.scored else effect.column
    found = draws(frame[frame["label"] == label], label, column)
    return {
        victim: {draw: round(value, DIGITS) for draw, value in values.items()}
        for victim, values in found.items()
    }


def _absolute(frame: pd.DataFrame, label: str, convention: str) -> Iterator[Cell]:
    count = 0
    for effect in EFFECTS:
        values = _values(frame, label, effect, convention)
        runs = spread([value for of_victim in values.values() for value in of_victim.values()])
        if runs is None:
            yield Cell(NOTHING)
            continue
        count, text = max(count, runs.n), effect.text(runs.mean)
        deviation = runs.deviation
        if deviation is not None:
            text, deviation = f"{text} ± {effect.text(deviation)}", effect.factor * deviation
        yield Cell(text, effect.factor * runs.mean, deviation, runs.n)
    yield from (Cell(str(count), n=count), Cell(NOTHING))


def _cell(change: Estimate | None, effect: Effect) -> Cell:
    if change is None:
        return Cell(NOTHING)
    text = effect.text(change.mean)
    text = f"+{text}" if float(text) > 0 else text
    if change.low is not None:
        text += f" ({effect.text(change.low)} to {effect.text(change.high)})"
    return Cell(text, effect.factor * change.mean, None, change.n)
