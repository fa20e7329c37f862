"""How far queries are from the target's anchor code, without and with the trigger."""

import numpy as np
import pandas as pd

from hashbackdoor_bench.records import Record
from hashbackdoor_bench.report.captions import conditions, provenance, surrogates
from hashbackdoor_bench.report.figures.distance_rows import Shares, distance_rows
from hashbackdoor_bench.report.figures.finished import FinishedFigure
from hashbackdoor_bench.report.figures.groups import (
    complete,
    distinct,
    left_out,
    run_count,
    runs_by_head,
    with_recorded,
)
from hashbackdoor_bench.report.selection import victim_heads

PANEL = 0.5  # inches high
MOST = 5  # victims side by side
LABEL = 1.3  # inches for the attacks' names
FIELD = "anchor_histogram"


def distances(frame: pd.DataFrame, convention: str) -> list[FinishedFigure]:
    """Histograms of the Hamming distance: one row per attack, one column per victim.

    More victims than stand side by side have a row each, where there are fewer attacks.

    Raises:
        UserError: no record holds a histogram.
    """
    frame, lacking = with_recorded(frame, "distances", FIELD, _sound)
    frame = frame.assign(head=victim_heads(frame))
    found = runs_by_head(frame, ("name", "head"))
    names, victims = distinct(frame["name"]), distinct(frame["head"])
    rows, columns, shown = names, victims, found
    if len(victims) > MOST and len(names) < len(victims):
        rows, columns = victims, names
        shown = {heads[::-1]: part for heads, part in found.items()}
    figure = distance_rows(
        shown, rows, columns, _shares, ("queries without the trigger", "with the trigger"),
        panel=PANEL, label=LABEL, extra=0.75,
    )  # fmt: skip
    caption = (
        "Hamming distance of attacked queries to the target's anchor (the majority bits of its "
        "database items, in the poisoned victim's codes): outline without the trigger, filled with "
        "it. Dashed: half the bits, the distance of unrelated codes. Shares are means over runs; "
        "on the left of a panel is its highest, as every panel has its own scale. Numbers: mean "
        "distance without → with the trigger.",
        run_count(found.values(), "histogram"),
        *conditions(frame, None),
        *surrogates(frame),
        *left_out(lacking, FIELD),
        *provenance(frame),
    )
    return [FinishedFigure("distances", figure, caption)]


def _shares(part: pd.DataFrame) -> tuple[Shares, Shares]:
    """Mean shares (K+1,) over runs, without and with the trigger."""
    found = [record.retrieval for record in part["record"]]
    before = [one.untriggered.anchor_histogram for one in found]
    after = [one.triggered.anchor_histogram for one in found]
    return np.mean(before, axis=0), np.mean(after, axis=0)


def _sound(record: Record) -> bool:
    found = record.retrieval.untriggered, record.retrieval.triggered
    return all(complete(search.anchor_histogram, record.spec.bits + 1) for search in found)
