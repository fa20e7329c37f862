"""Tables of what defenses find, and of what each defender needs and pays."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean

import pandas as pd

from hashbackdoor_bench.records import Audited, Detection, Record
from hashbackdoor_bench.report.captions import (
    brief_spread,
    conditions,
    provenance,
    spread_rule,
    surrogates,
)
from hashbackdoor_bench.report.defended import ORDER, seconds_of, trainings_of
from hashbackdoor_bench.report.formatting import NOTHING, percent
from hashbackdoor_bench.report.mixing import SAME_ATTACK, refuse_mixed
from hashbackdoor_bench.report.statistics import draws
from hashbackdoor_bench.report.tables.blocks import cell
from hashbackdoor_bench.report.tables.parts import Block, Cell, Line, Table

RATE = "0.05"  # intended false positive rate of the thresholds that are shown
FINE = "0.01"  # shown only where there are so many negatives that it says something
ENOUGH = 1000  # negatives


@dataclass(frozen=True)
class Column:
    """A column of a table of detections.

    Attributes:
        head: what it is.
        value: of the detection of a run; None where there is none.
    """

    head: str
    value: Callable[[Detection], float | None]


def _share(part: int | None, whole: int) -> float | None:
    return None if part is None or not whole else part / whole


def _at(found: Detection, name: str) -> float | None:
    at = found.operating.get(RATE)
    if at is None or at.threshold is None:
        return None
    value: float | None = getattr(at, name)
    return value


DETECTED = (
    Column("poison in class", lambda found: found.share_of_class),
    Column("AUROC", lambda found: found.auroc),
    Column("in class", lambda found: found.auroc_in_class),
    Column("effective", lambda found: found.auroc_effective),
    Column("clean victim", lambda found: found.auroc_control),
    Column("TPR at FPR 5", lambda found: found.tpr_at_fpr.get(RATE)),
    Column(
        "TPR at FPR 1",
        lambda found: found.tpr_at_fpr.get(FINE) if found.negatives >= ENOUGH else None,
    ),
    Column("realised FPR", lambda found: _at(found, "fpr")),
    Column("TPR there", lambda found: _at(found, "tpr")),
    Column("dropped", lambda found: _share(found.dropped, found.positives + found.negatives)),
    Column("poison dropped", lambda found: _share(found.dropped_poison, found.positives)),
)
EXPLAINED = (
    "Poison in class: its share of the images with the target's label, as delivered. AUROC: of "
    "poisoned training images (filters) or triggered queries (tests) against the clean ones, with "
    "half credit for ties; below 50 it is never turned round. In class: against the clean images "
    "with the target's label. Effective: of the triggered queries whose nearest item is the "
    "target's. Clean victim: of triggered queries on the victim without poison, which shows what "
    "of the AUROC is the trigger's and not the backdoor's. TPR at an FPR: on the ROC curve; at 1 % "
    f"only from {ENOUGH} clean items on. Realised FPR, and TPR there: at the threshold that was "
    "set for 5 % on the defender's clean images. Dropped: of all training images, and of the "
    "poison."
)


def detection_tables(frame: pd.DataFrame) -> Iterator[Table]:
    """One table per victim and poisoned share, with a block for each attack.

    Args:
        frame: from `defended.with_defenses`.
    """
    frame = frame[[bool(record.defense.detection) for record in frame["record"]]]
    several = frame["head"].nunique() > 1
    for (head, share), part in frame.groupby(["head", "share"], sort=False):
        where = f" on {head}" if several else ""
        title = f"Detection{where}, {share} of the target class poisoned (%)"
        blocks, usual = _blocks(part, _detected)
        caption = (
            EXPLAINED,
            spread_rule(usual),
            *conditions(part, None),
            *surrogates(part),
            *provenance(part),
        )
        heads, brief = tuple(c.head for c in DETECTED), brief_spread(usual, part)
        yield Table(title, "defense", heads, blocks, caption, brief)


def _detected(part: pd.DataFrame, what: str, usual: int) -> tuple[Cell, ...]:
    cells = []
    for column in DETECTED:
        values = [_known(column.value(_detection(record))) for record in part["record"]]
        cells.append(cell(draws(part.assign(value=values), what, "value"), percent, usual))
    return tuple(cells)


def _detection(record: Record) -> Detection:
    """Of a defense that has two, that of training images."""
    assert record.defense is not None
    return next(found for _, found in sorted(record.defense.detection.items(), reverse=True))


def _known(value: float | None) -> float:
    return math.nan if value is None else value


def _blocks(
    frame: pd.DataFrame, cells: Callable[[pd.DataFrame, str, int], tuple[Cell, ...]]
) -> tuple[tuple[Block, ...], int]:
    """A block for each attack with a line for each defense, and the usual number of runs."""
    parts = dict(iter(frame.groupby(["attacker", "defense"], sort=False)))
    usual = Counter(map(len, parts.values())).most_common(1)[0][0]
    blocks: dict[str, list[Line]] = {}
    for (attack, defense), part in parts.items():
        what = f"{defense} against {attack}"
        refuse_mixed(part, what, SAME_ATTACK)
        blocks.setdefault(str(attack), []).append(Line(str(defense), cells(part, what, usual)))
    return tuple(Block(attack, tuple(lines)) for attack, lines in blocks.items()), usual


# ---- audits -------------------------------------------------------------------------------------


def _power(audit: Audited, share: str) -> float | None:
    return audit.power.get(share)


def audit_tables(frame: pd.DataFrame) -> Iterator[Table]:
    """One table per victim and poisoned share, with a block for each attack.

    Args:
        frame: from `defended.with_defenses`.
    """
    frame = frame[[record.defense.audit is not None for record in frame["record"]]]
    several = frame["head"].nunique() > 1
    for (head, share), part in frame.groupby(["head", "share"], sort=False):
        audits = [record.defense.audit for record in part["record"]]
        shares = list(dict.fromkeys(share for audit in audits for share in audit.power))
        values: dict[str, Callable[[Audited], float | None]] = {
            **{f"power at {100 * float(one):g} %": partial(_power, share=one) for one in shares},
            "false alarms": lambda audit: audit.false_alarms,
            "popular class": lambda audit: audit.false_alarms_popular,
        }
        where = f" on {head}" if several else ""
        title = f"Audits of many queries{where}, {share} of the target class poisoned (%)"

        def audited(
            rows: pd.DataFrame,
            what: str,
            usual: int,
            values: dict[str, Callable[[Audited], float | None]] = values,
        ) -> tuple[Cell, ...]:
            return tuple(
                cell(
                    draws(
                        rows.assign(
                            value=[_known(value(one.defense.audit)) for one in rows["record"]]
                        ),
                        what,
                        "value",
                    ),
                    percent,
                    usual,
                )
                for value in values.values()
            )

        blocks, usual = _blocks(part, audited)
        windows = {(audit.window, audit.draws) for audit in audits}
        sizes = " and ".join(f"{window} queries, {n} of each kind" for window, n in sorted(windows))
        caption = (
            f"Windows of {sizes}. Power: share of the windows with so many triggered queries that "
            "raise an alarm, at the threshold that was set for 1 % of false alarms on windows of "
            "the defender's clean images. False alarms: of windows without a triggered query; "
            "popular class: of such windows in which one class is searched for twice as often.",
            spread_rule(usual),
            *conditions(part, None),
            *surrogates(part),
            *provenance(part),
        )
        brief = brief_spread(usual, part)
        yield Table(title, "defense", tuple(values), blocks, caption, brief)


# ---- what a defender needs and pays -------------------------------------------------------------

NEEDED = ("clean images", "sees", "images forward", "seconds", "victim trainings")


def needs_table(frame: pd.DataFrame) -> Table:
    """What each defender needs, and what a run of it costs.

    Args:
        frame: from `defended.with_defenses`.
    """
    blocks = []
    for stage in ORDER:
        of_stage = frame[frame["stage"] == stage]
        lines = [
            Line(str(defense), _needed(list(part["record"])))
            for defense, part in of_stage.groupby("defense", sort=False)
        ]
        if lines:
            blocks.append(Block(stage, tuple(lines)))
    caption = (
        "What each defender has: clean images, and what it sees of the service. Cost on the "
        "poisoned victim, means over all runs: images that went through networks in its own "
        "stages, seconds of these when they were made, and these seconds in units of the training "
        "of the poisoned victim in the same run. Of a purification, the seconds are those of "
        "purifying and hashing all queries, clean and triggered. Times are of machines that may "
        "have been busy.",
        *conditions(frame, None),
        *provenance(frame),
    )
    title = "What each defender needs, and what it costs"
    return Table(title, "defense", NEEDED, tuple(blocks), caption)


def _needed(records: Sequence[Record]) -> tuple[Cell, ...]:
    found = [record.defense for record in records if record.defense]
    held = sorted({one.clean for one in found})
    sees = list(dict.fromkeys(name for one in found for name in one.sees))
    forwards = fmean(sum(one.forwards.values()) for one in found)
    counted = any(one.forwards for one in found)
    trainings = [value for value in map(trainings_of, records) if not math.isnan(value)]
    return (
        Cell(" or ".join(map(str, held)), held[0] if len(held) == 1 else None, n=len(found)),
        Cell(", ".join(sees) or "nothing"),
        Cell(f"{forwards:,.0f}", forwards, n=len(found)) if counted else Cell(NOTHING),
        _mean(list(map(seconds_of, records)), ".1f"),
        _mean(trainings, ".2f"),
    )


def _mean(values: Sequence[float], form: str) -> Cell:
    if not values:
        return Cell(NOTHING)
    return Cell(format(fmean(values), form), fmean(values), n=len(values))
