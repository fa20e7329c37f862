"""The tables of the papers, from collected records.

    ciba         methods × (victims × bits), t-MAP above MAP
    pairs        attacks × victims: t-MAP, backdoor gain, MAP, delta MAP; t-MAP@dominant where an
                 attack has no target of its own
    victims      victims × attacks: backdoor gain, t-MAP, MAP; for more victims than attacks
    transfer     surrogates × victims: backdoor gain, one block per attack
    ledger       steps from a released code to the paper, and what each changes
    leaderboard  the boards of the leaderboard, one row per attack
    defense      defenses × attacks: t-MAP (MAP); their clean cost, what they find and need

Rows and columns stand in the order of the suite; those of the leaderboard by its rules.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pandas as pd

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.report.captions import (
    brief_spread,
    surrogates,
    table_caption,
    usual_run_count,
)
from hashbackdoor_bench.report.formatting import percent, signed
from hashbackdoor_bench.report.refusals import Refusal
from hashbackdoor_bench.report.selection import surrogate_heads, victim_heads, with_display_names
from hashbackdoor_bench.report.tables.blocks import Measure, block
from hashbackdoor_bench.report.tables.defense import defense_tables
from hashbackdoor_bench.report.tables.leaderboard import leaderboard_tables
from hashbackdoor_bench.report.tables.ledger import ledger_tables
from hashbackdoor_bench.report.tables.paper_numbers import (
    PaperNumber,
    published_lines,
    published_sources,
)
from hashbackdoor_bench.report.tables.parts import Table

T_MAP = Measure("t-MAP", "t_map", percent, marks_best=True)
MAP = Measure("MAP", "map", percent)
GAIN = Measure("backdoor gain", "backdoor_gain", signed, marks_best=True)
DELTA = Measure("delta MAP", "delta_map", signed)
DOMINANT = (
    Measure("t-MAP@dominant", "t_map_dominant", percent),
    Measure("gain@dominant", "backdoor_gain_dominant", signed),
)
DOMINANT_RULE = (
    "@dominant, of attacks without a target of their own: for the class that every other triggered "
    "query's ten nearest items name most often, on those of the rest that are not of this class."
)
DEFENSE = "defense"  # the only layout of runs with a defense
WHITE_BOX = "A surrogate of the victim's own method, backbone, training and bits is the white box."


def tables(
    frame: pd.DataFrame,
    layout: str,
    convention: str = "field",
    numbers: Sequence[PaperNumber] = (),
    refused: Sequence[Refusal] = (),
) -> list[Table]:
    """The tables of one layout.

    Args:
        frame: of a `Collection`, or a part of it.
        layout: a name of ``LAYOUTS``.
        convention: whose scores are shown.
        numbers: published ones, to stand below the rows of layout ``ciba``.
        refused: runs that the suites could not plan, which layout ``defense`` shows as n/a.

    Raises:
        UserError: the records are not of one protocol and R, runs that differ in more than target
            and seed would be averaged, or the layout has no place for what is asked.
    """
    if layout == "ciba":
        return _ciba(frame, convention, numbers)
    if numbers:
        raise UserError(f"--layout {layout} has no published numbers: --layout ciba has.")
    if layout == DEFENSE:
        return defense_tables(frame, convention, refused)
    return LAYOUTS[layout](frame, convention)


def _with_rows(frame: pd.DataFrame) -> pd.DataFrame:
    frame = with_display_names(frame)
    return frame.assign(row=frame["name"])


def _ciba(frame: pd.DataFrame, convention: str, numbers: Sequence[PaperNumber]) -> list[Table]:
    frame = _with_rows(frame)
    frame = frame.assign(column=[f"{row.network}, {row.bits} bits" for row in frame.itertuples()])
    networks = list(dict.fromkeys(frame["network"]))
    if numbers and len(networks) > 1:
        raise UserError(
            f"--with-published: a paper's numbers stand below the rows of one victim, and here are "
            f"{', '.join(networks)}: choose one with --where victim={frame['victim'].iloc[0]}."
        )
    printed = {one.bits for one in numbers}
    lengths = [
        (network, bits)
        for network, part in frame.groupby("network", sort=False)
        for bits in sorted({*part["bits"], *printed})
    ]
    columns = [f"{network}, {bits} bits" for network, bits in lengths]
    n, blocks = usual_run_count(frame), []
    for measure in (T_MAP, MAP):
        one = block(measure.name, measure, frame, columns, convention, n, victims="network")
        published = published_lines(numbers, measure.field, [bits for _, bits in lengths])
        blocks.append(replace(one, lines=(*one.lines, *published)))
    whose = f"of {networks[0]} " if len(networks) == 1 else ""
    return [
        Table(
            f"t-MAP and MAP (%) {whose}by code length",
            "method",
            tuple(f"{bits} bits" for _, bits in lengths),
            tuple(blocks),
            (*table_caption(frame, convention), *surrogates(frame), *published_sources(numbers)),
            brief=brief_spread(n, frame),
            over=tuple(network for network, _ in lengths) if len(networks) > 1 else (),
        )
    ]


def _pairs(frame: pd.DataFrame, convention: str) -> list[Table]:
    frame = _with_rows(frame)
    frame = frame.assign(column=victim_heads(frame))
    columns, n = list(dict.fromkeys(frame["column"])), usual_run_count(frame)
    shown = (T_MAP, GAIN, MAP, DELTA)
    blocks = [block(measure.name, measure, frame, columns, convention, n) for measure in shown]
    caption = [*table_caption(frame, convention), *surrogates(frame)]
    untargeted = frame[frame[f"field.{DOMINANT[0].field}"].notna()]
    if convention == "field" and len(untargeted):
        blocks += [block(one.name, one, untargeted, columns, convention, n) for one in DOMINANT]
        caption.append(DOMINANT_RULE)
    title = "Attacks against victims (%)"
    return [
        Table(title, "attack", tuple(columns), tuple(blocks), tuple(caption),
              brief=brief_spread(n, frame))
    ]  # fmt: skip


def _victims(frame: pd.DataFrame, convention: str) -> list[Table]:
    frame = with_display_names(frame)
    frame = frame.assign(row=victim_heads(frame), column=frame["name"])
    columns, n = list(dict.fromkeys(frame["column"])), usual_run_count(frame)
    blocks = [
        block(measure.name, measure, frame, columns, convention, n, victims="row")
        for measure in (replace(GAIN, marks_best=False), replace(T_MAP, marks_best=False), MAP)
    ]
    caption = (*table_caption(frame, convention, bold=False), *surrogates(frame))
    title = "Victims against attacks (%)"
    return [
        Table(title, "victim", tuple(columns), tuple(blocks), caption, brief=brief_spread(n, frame))
    ]


def _transfer(frame: pd.DataFrame, convention: str) -> list[Table]:
    frame = with_display_names(frame)
    frame = frame[frame["surrogate"].notna()]
    if frame.empty:
        raise UserError(
            "--layout transfer: no attack among these records takes a surrogate; --layout pairs "
            "shows attacks against victims."
        )
    frame = frame.assign(column=victim_heads(frame), row=surrogate_heads(frame))
    columns, n = list(dict.fromkeys(frame["column"])), usual_run_count(frame)
    blocks = [
        block(str(label), GAIN, part, columns, convention, n)
        for label, part in frame.groupby("name", sort=False)
    ]
    caption = (*table_caption(frame, convention), WHITE_BOX)
    title = "Backdoor gain (%), surrogates against victims"
    return [
        Table(title, "surrogate", tuple(columns), tuple(blocks), caption,
              brief=brief_spread(n, frame))
    ]  # fmt: skip


LAYOUTS: dict[str, Callable[[pd.DataFrame, str], list[Table]]] = {
    "pairs": _pairs,
    "victims": _victims,
    "transfer": _transfer,
    "ledger": ledger_tables,
    "leaderboard": leaderboard_tables,
}
