"""The tables of the papers, from collected records.

    ciba         methods × bits, t-MAP above MAP; a table a victim
    pairs        attacks × victims: t-MAP, backdoor gain, MAP, delta MAP
    transfer     surrogates × victims: backdoor gain, a block an attack
    leaderboard  an attack a row, over all victims, by falling gain

Rows and columns stand in the order of the suite.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pandas as pd

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.report.captions import caption, surrogates, usual_n
from hashbackdoor_bench.report.selection import headed, victim_heads
from hashbackdoor_bench.report.spelling import percent, signed
from hashbackdoor_bench.report.tables.blocks import Measure, block
from hashbackdoor_bench.report.tables.paper_numbers import Published
from hashbackdoor_bench.report.tables.paper_numbers import caption as published_caption
from hashbackdoor_bench.report.tables.paper_numbers import lines as published_lines
from hashbackdoor_bench.report.tables.parts import Table
from hashbackdoor_bench.report.tables.summary import summary

T_MAP = Measure("t-MAP", "t_map", percent, contest=True)
MAP = Measure("MAP", "map", percent)
GAIN = Measure("backdoor gain", "backdoor_gain", signed, contest=True)
DELTA = Measure("delta MAP", "delta_map", signed)
WHITE_BOX = "A surrogate of the victim's own method, backbone and bits is the white box."


def tables(
    frame: pd.DataFrame, layout: str, convention: str = "field", numbers: Sequence[Published] = ()
) -> list[Table]:
    """The tables of one layout.

    Args:
        frame: of a `Collection`, or a part of it.
        layout: a name of ``LAYOUTS``.
        convention: whose scores are shown.
        numbers: published ones, to stand below the rows of layout ``ciba``.

    Raises:
        UserError: the records are not of one protocol and R, runs that differ in more than target
            and seed would be averaged, or the layout has no place for published numbers.
    """
    frame = headed(frame)
    frame = frame.assign(row=frame["name"])
    if layout == "ciba":
        return _ciba(frame, convention, numbers)
    if numbers:
        raise UserError(f"--layout {layout} has no published numbers: --layout ciba has.")
    return [LAYOUTS[layout](frame, convention)]


def _ciba(frame: pd.DataFrame, convention: str, numbers: Sequence[Published]) -> list[Table]:
    found = []
    for victim, part in frame.groupby("victim", sort=False):
        bits = sorted({*part["bits"], *(one.bits for one in numbers)})
        columns = [f"{k} bits" for k in bits]
        part = part.assign(column=[f"{k} bits" for k in part["bits"]])
        n, blocks = usual_n(part), []
        for measure in (T_MAP, MAP):
            one = block(measure.name, measure, part, columns, convention, n)
            rows = (*one.lines, *published_lines(numbers, measure.field, bits))
            blocks.append(replace(one, lines=rows))
        title = f"t-MAP and MAP (%) of {victim} by code length"
        told = (*caption(part, convention), *surrogates(part), *published_caption(numbers))
        found.append(Table(title, "method", tuple(columns), tuple(blocks), told))
    return found


def _pairs(frame: pd.DataFrame, convention: str) -> Table:
    frame = frame.assign(column=victim_heads(frame))
    columns, n = list(dict.fromkeys(frame["column"])), usual_n(frame)
    blocks = [
        block(measure.name, measure, frame, columns, convention, n)
        for measure in (T_MAP, GAIN, MAP, DELTA)
    ]
    title = "Attacks against victims (%)"
    told = (*caption(frame, convention), *surrogates(frame))
    return Table(title, "attack", tuple(columns), tuple(blocks), told)


def _transfer(frame: pd.DataFrame, convention: str) -> Table:
    frame = frame[frame["surrogate"].notna()]
    if frame.empty:
        raise UserError(
            "--layout transfer: no attack among these records takes a surrogate; --layout pairs "
            "shows attacks against victims."
        )
    parts = ["surrogate"] + [
        name
        for name in ("surrogate_backbone", "surrogate_bits")
        if frame.groupby("surrogate")[name].nunique().max() > 1
    ]
    surrogates = frame[parts].astype(str).agg(", ".join, axis=1)
    frame = frame.assign(column=victim_heads(frame), row=surrogates)
    columns, n = list(dict.fromkeys(frame["column"])), usual_n(frame)
    blocks = [
        block(str(label), GAIN, part, columns, convention, n)
        for label, part in frame.groupby("name", sort=False)
    ]
    told = (*caption(frame, convention), WHITE_BOX)
    title = "Backdoor gain (%) of triggers made on one network against another"
    return Table(title, "surrogate", tuple(columns), tuple(blocks), told)


LAYOUTS: dict[str, Callable[[pd.DataFrame, str], Table]] = {
    "pairs": _pairs,
    "transfer": _transfer,
    "leaderboard": summary,
}
