"""The leaderboard as Markdown."""

import re
from collections.abc import Sequence

from hashbackdoor_bench.report.board import wording
from hashbackdoor_bench.report.board.leaderboard import CONVENTION, Board, Row

HEAD = f"""# Leaderboard

Made by `bench leaderboard` from the records, by the rules in [RULES.md](RULES.md); don't edit it.

Gain: backdoor gain in percent, convention `{CONVENTION}`, the mean over victims and seeds with its
95 % interval; by victim: mean ± standard deviation over seeds. A place such as 1-3 is a tie: the
records can't tell these attacks apart. ΔMAP: of the victim that changed most. PSNR in dB, of
poisoned images and of triggered queries. Poison: share of the target class.
"""


def leaderboard_text(found: Sequence[Board]) -> str:
    """``LEADERBOARD.md``: a table a board; the same records give the same bytes."""
    return "\n".join([HEAD, *(_board(board) for board in found)])


def _board(board: Board) -> str:
    victims = [_cell(wording.column(victim, board)) for victim in board.victims]
    names = [
        name if victim.counts else f"*{name}*"
        for name, victim in zip(victims, board.victims, strict=True)
    ]
    heads = ["place", "attack", "gain", "95 %", *names, "ΔMAP"]
    heads += ["PSNR poison", "PSNR query", "label", "knowledge", "trigger", "poison"]
    lines = [
        f"## {_cell(board.suite)}, {_cell(board.delivery)}",
        "",
        _cell(f"{wording.caption(board)} {wording.left_out_victims(board)}".strip()),
        "",
        _line(heads),
        _line(["---", "---", *["---:"] * (len(heads) - 6), *["---"] * 3, "---:"]),
        *(_line(_cells(row, board)) for row in board.rows),
    ]
    reasons = [f"- {_cell(row.label)}: {_cell(row.why)}" for row in board.rows if row.why]
    if reasons:
        lines += ["", "Without a place:", "", *reasons]
    return "\n".join(lines) + "\n"


def _cells(row: Row, board: Board) -> list[str]:
    gains = [
        wording.spread(gain) if victim.counts else f"*{wording.spread(gain)}*"
        for gain, victim in zip(row.gains, board.victims, strict=True)
    ]
    return [
        wording.place(row),
        _cell(row.label),
        wording.percent(row.gain.mean if row.gain else None),
        wording.interval(row.gain),
        *gains,
        wording.signed(row.delta_map),
        wording.number(row.mean("poison", "psnr")),
        wording.number(row.mean("query", "psnr")),
        *(_cell(getattr(row.threat, name)) for name in ("label", "knowledge", "trigger")),
        f"{wording.percent(row.poison)} %",
    ]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: object) -> str:
    """Text from a record, so that Markdown and HTML show it as it is, in one line."""
    return re.sub(r"([\\`*_{}\[\]<>#|&~!])", r"\\\1", " ".join(str(text).split()))
