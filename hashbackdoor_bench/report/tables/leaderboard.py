"""The boards of the leaderboard as tables of a paper, and ``LEADERBOARD.md``."""

from collections.abc import Sequence
from dataclasses import replace
from textwrap import fill

import pandas as pd

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.report.board import wording
from hashbackdoor_bench.report.board.boards import Board, boards
from hashbackdoor_bench.report.board.claimed_order import order_tables
from hashbackdoor_bench.report.board.defenses import DefenseBoard, DefenseEntry
from hashbackdoor_bench.report.board.entries import Entry
from hashbackdoor_bench.report.board.rules import CONVENTION, LARGEST_COST
from hashbackdoor_bench.report.captions import provenance
from hashbackdoor_bench.report.escaping import for_markdown
from hashbackdoor_bench.report.formatting import hundredfold
from hashbackdoor_bench.report.statistics import Spread
from hashbackdoor_bench.report.tables.parts import Block, Cell, Line, Table

BEFORE = ("place", "gain", "95 %")  # columns before and behind those of the victims
NUMBERS = ("ΔMAP", "PSNR poison", "PSNR query")
WORDS = ("label", "knowledge", "trigger")

HEAD = f"""# Leaderboard

Made by `bench leaderboard` from the records, by the rules in [RULES.md](RULES.md); don't edit it.

Gain: backdoor gain in percent, convention `{CONVENTION}`, the mean over victims and budgets with
its 95 % interval; by victim: mean ± standard deviation over runs. ΔMAP: of the victim that
changed most. PSNR in dB, of poisoned images and of triggered queries. Poison: in percent of the
target class's images.

{fill(wording.PLACES, 100)}
"""
EXPLANATION = (
    f"Gain: backdoor gain in percent, convention {CONVENTION}, the mean over the victims that "
    "count and the budgets (each weighs the same) with its 95 % interval over targets, or over "
    "seeds that all targets share. By victim: mean ± standard deviation. ΔMAP: of the victim that "
    "changed most. PSNR in dB, of poisoned images and of triggered queries. Poison: in percent of "
    "the target class's images.",
    f"{wording.PLACES} Bold: significantly above all others that have a place. {wording.TEST} "
    "Holm's correction over all pairs of attacks that have a place.",
)


BRIEF = "95 %: interval of the mean gain, in points. A place such as 1-3 is a tie."


def leaderboard_tables(frame: pd.DataFrame, convention: str) -> list[Table]:
    """A table for each board of the records' suites.

    Args:
        frame: of a `Collection`, or a part of it.
        convention: must be the leaderboard's.

    Raises:
        UserError: another convention, no suite, or records that no board may hold together.
    """
    if convention != CONVENTION:
        raise UserError(
            f"--convention {convention}: the leaderboard compares scores of convention "
            f"{CONVENTION} only; leave the option out, or take --layout pairs."
        )
    suites = list(dict.fromkeys(frame["suite"].dropna()))
    if not suites:
        raise UserError(
            "--layout leaderboard ranks the attacks of a suite, and none of these records is in "
            "one: give the folder of a suite with its index.csv, as in `bench table quick`."
        )
    return [_with_provenance(board_table(board), board, frame) for board in boards(frame, suites)]


def _with_provenance(table: Table, board: Board, frame: pd.DataFrame) -> Table:
    paths = {run.path for entry in board.entries for run in entry.runs}
    records = frame[frame["path"].isin(paths)]
    return replace(table, caption=(*table.caption, *provenance(records)))


def board_table(board: Board) -> Table:
    """A board, with the rows and in the order of the board."""
    victims = tuple(wording.column(victim, board) for victim in board.victims)
    caption = [
        *EXPLANATION,
        wording.caption(board),
        wording.left_out_victims(board),
        wording.without_places(board.entries, board.name),
    ]
    return Table(
        f"Leaderboard of {board.suite}, {board.title}",
        "attack",
        (*BEFORE, *victims, *NUMBERS, *WORDS, "poison"),
        (Block("", tuple(_line(entry, board) for entry in board.entries)),),
        tuple(sentence for sentence in caption if sentence),
        BRIEF,
    )


def _line(entry: Entry, board: Board) -> Line:
    gain, placed = entry.gain, sum(not other.why for other in board.entries)
    mean = gain.mean if gain else None
    best = entry.place == (1, 1) and placed > 1
    seen = [entry.mean_visibility(images, "psnr") for images in ("poison", "query")]
    cells = [
        Cell(wording.place(entry)),
        Cell(wording.percent(mean), hundredfold(mean), n=gain.n if gain else 0, best=best),
        Cell(wording.interval(gain) or wording.NOTHING),
        *map(_gain_cell, entry.gains),
        Cell(wording.signed(entry.delta_map), hundredfold(entry.delta_map)),
        *(Cell(wording.number(psnr), psnr) for psnr in seen),
        *map(Cell, (entry.threat.label, wording.knowledge(entry), entry.threat.trigger)),
        Cell(wording.poison_share(entry), 100 * entry.poison),
    ]
    facts = {
        "source": "records",
        "dataset": board.protocol.name,
        "protocol": board.protocol.sha256,
        "top_k": str(board.protocol.top_k),
        "convention": CONVENTION,
        "delivery": board.delivery,
    }
    return Line(board.name(entry), tuple(cells), facts)


def _gain_cell(gain: Spread | None) -> Cell:
    if gain is None:
        return Cell(wording.NOTHING)
    deviation = hundredfold(gain.deviation)
    return Cell(wording.mean_and_deviation(gain), 100 * gain.mean, deviation, gain.n)


def leaderboard_text(found: Sequence[Board], defenses: Sequence[DefenseBoard] = ()) -> str:
    """``LEADERBOARD.md``: a table for each board; the same records give the same bytes."""
    ours = [DEFENSES, *map(_defenses, defenses)] if defenses else []
    return "\n".join([HEAD, *map(_section, found), *ours])


DEFENDED = (
    "place", "defense", "stage", "removal", "95 %", "t-MAP", "MAP", "clean cost", "clean images",
    "sees", "seconds", "trainings",
)  # fmt: skip
DEFENSES = f"""## Defenses

Removal: the part of t-MAP above the floor (the clean victim's t-MAP, behind the defense too if that
purifies queries) that a defense takes away, in percent, the mean over attacks and victims with its
95 % interval. Ranked are defenses whose clean cost, MAP before less MAP after on the victim where
it is largest, is at most {100 * LARGEST_COST:.1f} points. A place such as 1-3 is a tie. t-MAP and
MAP: behind the defense, the mean over the same runs. Clean images, sees: what the defender has.
Seconds, trainings: the defense's own time for each run, in seconds and in trainings of the victim.
"""


def _defenses(board: DefenseBoard) -> str:
    rules = ["---", "---", "---", *["---:"] * 6, "---", "---:", "---:"]
    lines = [
        f"### Defenses of {for_markdown(board.suite)}, {for_markdown(board.delivery)}",
        "",
        for_markdown(wording.defenses_caption(board)),
        "",
        f"| {' | '.join(DEFENDED)} |",
        f"| {' | '.join(rules)} |",
        *(f"| {' | '.join(map(for_markdown, _defense_row(one)))} |" for one in board.entries),
    ]
    reasons = [
        f"- {for_markdown(one.name)}: {for_markdown(one.why)}" for one in board.entries if one.why
    ]
    if reasons:
        lines += ["", "Without a place:", "", *reasons]
    return "\n".join(lines) + "\n"


def _defense_row(one: DefenseEntry) -> list[str]:
    return [
        wording.place(one),
        one.name,
        one.stage or wording.NOTHING,
        wording.percent(one.removal.mean if one.removal else None),
        wording.interval(one.removal) or wording.NOTHING,
        wording.percent(one.t_map),
        wording.percent(one.map),
        wording.signed(one.clean_cost),
        " or ".join(map(str, one.clean)) or wording.NOTHING,
        ", ".join(one.sees) or wording.NOTHING,
        wording.number(one.seconds),
        wording.NOTHING if one.trainings is None else f"{one.trainings:.2f}",
    ]


def _section(board: Board) -> str:
    table = board_table(board)
    counts = [True] * len(BEFORE) + [victim.counts for victim in board.victims]
    counts += [True] * (len(table.columns) - len(counts))

    def row(attack: str, texts: Sequence[str]) -> str:
        words = [
            for_markdown(text) if known else f"*{for_markdown(text)}*"
            for text, known in zip(texts, counts, strict=True)
        ]
        return f"| {' | '.join([words[0], for_markdown(attack), *words[1:]])} |"

    (block,) = table.blocks
    numbers = len(table.columns) - 1 - len(WORDS) - 1
    rules = ["---", "---", *["---:"] * numbers, *["---"] * len(WORDS), "---:"]
    lines = [
        f"## {for_markdown(board.suite)}, {for_markdown(board.title)}",
        "",
        for_markdown(f"{wording.caption(board)} {wording.left_out_victims(board)}".strip()),
        "",
        row(table.corner, table.columns),
        f"| {' | '.join(rules)} |",
        *(row(line.head, [cell.text for cell in line.cells]) for line in block.lines),
    ]
    reasons = [
        f"- {for_markdown(board.name(entry))}: {for_markdown(entry.why)}"
        for entry in board.entries
        if entry.why
    ]
    if reasons:
        lines += ["", "Without a place:", "", *reasons]
    for order in order_tables(board):
        head, *rows = (
            f"| {' | '.join(map(for_markdown, cells))} |" for cells in (order.columns, *order.rows)
        )
        lines += ["", for_markdown(order.sentence), "", head]
        lines += [f"|{' ---: |' * len(order.columns)}", *rows]
    return "\n".join(lines) + "\n"
