"""How far triggered queries are from the target's anchor code, without and with a defense."""

import numpy as np
import pandas as pd

from hashbackdoor_bench.records import Record
from hashbackdoor_bench.report.captions import conditions, provenance, surrogates
from hashbackdoor_bench.report.defended import NO_CODES, with_defenses
from hashbackdoor_bench.report.figures.distance_rows import Shares, distance_rows
from hashbackdoor_bench.report.figures.finished import FinishedFigure, Unfilled
from hashbackdoor_bench.report.figures.groups import (
    by_victim_and_share,
    complete,
    distinct,
    left_out,
    run_count,
    runs_by_head,
    with_recorded,
)

PANEL, LABEL = 0.42, 1.2  # inches: height of a panel, width of a defense's name
FIELD = "outcome.anchor"
TALLEST = 3  # times the filled histogram, above which the outline is cut


def defended_distances(frame: pd.DataFrame, convention: str) -> list[FinishedFigure]:
    """One figure per victim and poisoned share: one row per defense, one column per attack.

    Raises:
        Unfilled: no record holds distances behind a defense.
    """
    frame = with_defenses(frame, convention)
    frame = frame[[record.defense.outcome is not None for record in frame["record"]]]
    if frame.empty:
        raise Unfilled(f"figure defended-distances: {NO_CODES}")
    frame, lacking = with_recorded(frame, "defended-distances", FIELD, _sound)
    parts = by_victim_and_share("defended-distances", frame, lacking)
    return [_drawn(part, name, left_out(without, FIELD)) for name, part, without in parts]


def _sound(record: Record) -> bool:
    outcome = record.defense.outcome if record.defense else None
    after = outcome.anchor.triggered if outcome and outcome.anchor else None
    count = record.spec.bits + 1
    return complete(after, count) and complete(record.retrieval.triggered.anchor_histogram, count)


def _drawn(frame: pd.DataFrame, name: str, lacking: list[str]) -> FinishedFigure:
    found = runs_by_head(frame, ("defense", "attacker"))
    defenses, attacks = (distinct(key[number] for key in found) for number in (0, 1))
    figure = distance_rows(
        found, defenses, attacks, _shares, ("triggered queries, no defense", "with the defense"),
        panel=PANEL, label=LABEL, extra=0.85, tallest=TALLEST,
    )  # fmt: skip
    share = distinct(frame["share"])[0]
    caption = (
        "Hamming distance of triggered queries to the target's anchor (the majority bits of its "
        f"database items, in the codes of the network that serves), with {share} of the target "
        "class poisoned: outline without a defense, filled with it. Dashed: half the bits, the "
        "distance of unrelated codes. Shares are means over runs; on the left of a panel is its "
        "highest, as every panel has its own scale, and an outline more than three times as high "
        "as what is filled is cut. Numbers: mean distance without → with the "
        "defense.",
        run_count(found.values(), "histogram"),
        *conditions(frame, None),
        *surrogates(frame),
        *lacking,
        *provenance(frame),
    )
    return FinishedFigure(name, figure, caption)


def _shares(part: pd.DataFrame) -> tuple[Shares, Shares]:
    """Mean shares (K+1,) over runs, without and with the defense."""
    before = [record.retrieval.triggered.anchor_histogram for record in part["record"]]
    after = [record.defense.outcome.anchor.triggered for record in part["record"]]
    return np.mean(before, axis=0), np.mean(after, axis=0)
