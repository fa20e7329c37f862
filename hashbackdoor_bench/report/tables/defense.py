"""The tables of layout ``defense``: what is left of attacks, what that costs, what is found.

    matrix     defenses × (attacks × victims), t-MAP (MAP); one table per poisoned share
    clean cost defenses on the clean victim
    detection  filters and tests of queries, and audits of many of them
    needs      what each defender needs, and what it costs

Rows stand by stage, in the order of the suite.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from hashbackdoor_bench.records import Record
from hashbackdoor_bench.registry import DEFENSES
from hashbackdoor_bench.report.captions import (
    brief_spread,
    conditions,
    provenance,
    spread_rule,
    surrogates,
)
from hashbackdoor_bench.report.defended import (
    CONTROLS,
    ORDER,
    STAGES,
    UNDEFENDED,
    Reasons,
    reasons_by_cell,
    with_defenses,
)
from hashbackdoor_bench.report.formatting import NOTHING, percent, signed
from hashbackdoor_bench.report.mixing import SAME_ATTACK, refuse_mixed, refuse_mixed_victims
from hashbackdoor_bench.report.refusals import Refusal
from hashbackdoor_bench.report.selection import with_display_names
from hashbackdoor_bench.report.statistics import Column, Draw, Draws, draws
from hashbackdoor_bench.report.tables.blocks import cell
from hashbackdoor_bench.report.tables.detection import audit_tables, detection_tables, needs_table
from hashbackdoor_bench.report.tables.parts import Block, Cell, Line, Table
from hashbackdoor_bench.spec import POINTS

FLOOR = "floor: clean victim"
REFERENCE = "no backdoor"
FILTERS_BETWEEN = (
    "Filters are read between the oracle, which drops exactly the poison, and as many images "
    "dropped at random."
)


def defense_tables(
    frame: pd.DataFrame, convention: str, refused: Sequence[Refusal] = ()
) -> list[Table]:
    """All tables of the layout.

    Args:
        frame: of a `Collection`, with the runs that have a defense.
        convention: whose scores are shown.
        refused: runs that the suite could not plan.

    Raises:
        UserError: no run has a defense, or runs are mixed that never are.
    """
    named = with_display_names(frame)
    found = with_defenses(named, convention)
    for (head, share), part in found.groupby(["head", "share"], sort=False):
        refuse_mixed_victims(part, f"{head}, {share} poisoned")
    return [
        *_matrices(found, convention, refused),
        *_clean_cost(found, convention),
        *detection_tables(found),
        *audit_tables(found),
        needs_table(found),
    ]


# ---- attacks x defenses -------------------------------------------------------------------------


def _matrices(frame: pd.DataFrame, convention: str, refused: Sequence[Refusal]) -> Iterator[Table]:
    changing = frame[frame["t_map.after"].notna()]
    for share, part in changing.groupby("share", sort=False):
        yield _matrix(str(share), part, frame[frame["share"] == share], convention, refused)


def _matrix(
    share: str,
    frame: pd.DataFrame,
    everything: pd.DataFrame,
    convention: str,
    refused: Sequence[Refusal],
) -> Table:
    several = frame["head"].nunique() > 1
    frame = frame.assign(column=_columns(frame, several=several))
    columns = list(dict.fromkeys(frame["column"]))
    reasons, why = Reasons(), reasons_by_cell(refused)
    found = dict(iter(frame.groupby(["defense", "column"], sort=False)))
    for (defense, column), part in found.items():
        refuse_mixed(part, f"{defense} against {column}", SAME_ATTACK)
    usual = usual_count(found)
    labels = {
        column: set(zip(part["label"], part["victim"], strict=True))
        for column, part in frame.groupby("column", sort=False)
    }
    unplanned = [
        name for name in dict.fromkeys(one.defense for one in refused)
        if name not in {record.spec.defense for record in frame["record"]}
    ]  # fmt: skip

    def shown(defense: str, names: set[str], column: str) -> Cell:
        part = found.get((defense, column))
        if part is not None:
            what = f"{defense} against {column}"
            second = "MAP", draws(part, what, "map.after")
            return cell(draws(part, what, "t_map.after"), percent, usual, second)
        pairs = labels[column]
        for label, victim, name in why:
            if name in names and (label, victim) in pairs:
                return Cell(reasons.mark(why[label, victim, name]))
        return Cell(NOTHING)

    def line(defense: str, names: set[str]) -> Line:
        return Line(defense, tuple(shown(defense, names, column) for column in columns))

    blocks = []
    for stage in ORDER:
        of_stage = frame[frame["stage"] == stage]
        lines = [
            line(str(defense), {record.spec.defense for record in part["record"]})
            for defense, part in of_stage.groupby("defense", sort=False)
        ]
        if stage == CONTROLS:
            lines.insert(0, _before(frame, columns, UNDEFENDED, ("t_map", "map"), usual))
        if lines:
            blocks.append(Block(stage, tuple(lines)))
    if unplanned:
        rest = tuple(line(DEFENSES.published(name), {name}) for name in unplanned)
        blocks.append(Block("not applicable", rest))
    floor = _before(frame, columns, FLOOR, ("control_t_map", "control_map"), usual)
    blocks.append(Block(REFERENCE, (floor,)))
    apart = everything[everything["t_map.after"].isna()]["defense"]
    names = list(dict.fromkeys(apart))
    caption = (
        f"Cells: t-MAP (MAP) in percent after the defense, with {share} of the target class "
        "poisoned. Of the last row, t-MAP is what the trigger gives without a backdoor, and MAP "
        "that of the clean victim.",
        *([FILTERS_BETWEEN] if (frame["stage"] == STAGES["screen"]).any() else []),
        spread_rule(usual),
        *conditions(frame, convention),
        *surrogates(frame),
        *held(frame),
        *operating_points(frame),
        *([f"In no row, since they change no code: {'; '.join(names)}."] if names else []),
        *reasons.sentences,
        *provenance(frame),
    )
    title = f"t-MAP (MAP) behind defenses (%), budget {share}"
    brief = brief_spread(usual, frame)
    return Table(title, "defense", tuple(columns), tuple(blocks), caption, brief)


def _columns(frame: pd.DataFrame, *, several: bool) -> list[str]:
    pairs = zip(frame["attacker"], frame["head"], strict=True)
    return [f"{attack}, {victim}" if several else attack for attack, victim in pairs]


def _before(
    frame: pd.DataFrame, columns: Sequence[str], head: str, names: tuple[str, str], usual: int
) -> Line:
    """A row of scores that no defense changes, each draw of which any defended run tells."""
    first = frame.drop_duplicates(["column", "victim", "bits", "target", "seed"])
    cells = []
    for column in columns:
        part = first[first["column"] == column]
        one, two = (draws(part, head, f"{name}.before") for name in names)
        cells.append(cell(one, percent, usual, ("MAP", two)))
    return Line(head, tuple(cells))


def usual_count(found: Mapping[tuple[str, str], pd.DataFrame]) -> int:
    """The most common number of runs in a cell."""
    return Counter(map(len, found.values())).most_common(1)[0][0]


def held(frame: pd.DataFrame) -> list[str]:
    """How many clean images which defenders have, as a sentence."""
    counts: dict[int, list[str]] = {}
    for name, record in zip(frame["defense"], frame["record"], strict=True):
        names = counts.setdefault(record.defense.clean, [])
        if name not in names:
            names.append(name)
    words = [f"m = {m} for {'; '.join(names)}" for m, names in sorted(counts.items()) if m]
    if not words:
        return ["No defender has clean images."]
    oracle = any(record.defense.oracle_clean for record in frame["record"])
    known = ", which are training images known not to be poisoned" if oracle else ""
    return [f"Clean images of the defender{known}: {'. '.join(words)}; none for the others."]


def operating_points(frame: pd.DataFrame) -> list[str]:
    """At which strength the defenses are, as a sentence."""
    points = {record.spec.operating_point for record in frame["record"]}
    if points == {POINTS[0]}:
        return ["Operating point: published, or as the name says."]
    return [
        "Operating point: published, or as the name says; tuned is the largest strength that costs "
        "at most 2 points of MAP on the defender's clean images."
    ]


# ---- the clean victim ---------------------------------------------------------------------------


def _clean_cost(frame: pd.DataFrame, convention: str) -> Iterator[Table]:
    """Every defense on the clean victim; runs against several attacks are one draw."""
    frame = frame[frame["control_map.after"].notna()]
    if frame.empty:
        return
    heads = list(dict.fromkeys(frame["head"]))
    several = len(heads) > 1
    frame = frame.assign(
        cost=frame["control_map.before"] - frame["control_map.after"],
        dropped=[_dropped_control(record) for record in frame["record"]],
    )
    measures = {"MAP": ("control_map.after", percent), "clean cost": ("cost", signed)}
    if filtered := bool(frame["dropped"].notna().any()):
        measures["images dropped"] = ("dropped", percent)
    columns = [f"{name}, {head}" if several else name for head in heads for name in measures]
    parts = {
        (defense, head): _one_per_draw(part, f"{defense} on {head}")
        for (defense, head), part in frame.groupby(["defense", "head"], sort=False)
    }
    usual = Counter(
        sum(map(len, values["cost"].values())) for values in parts.values()
    ).most_common(1)[0][0]
    blocks = []
    for stage in ORDER:
        lines = []
        for defense in dict.fromkeys(frame[frame["stage"] == stage]["defense"]):
            cells: list[Cell] = []
            for head in heads:
                values = parts.get((defense, head), {})
                cells += [
                    cell(values.get(name, {}), written, usual)
                    for name, written in measures.values()
                ]
            lines.append(Line(defense, tuple(cells)))
        if lines:
            blocks.append(Block(stage, tuple(lines)))
    caption = (
        "Every defense on the victim that was trained without poison: MAP after it; clean cost, "
        "MAP before less MAP after, in points. All in percent. Where clean images are drawn among "
        "those that are not poisoned, runs against several attacks are averaged first.",
        *(["Images dropped: of the clean training set, by filters."] if filtered else []),
        spread_rule(usual),
        *conditions(frame, convention),
        *held(frame),
        *operating_points(frame),
        *provenance(frame),
    )
    title = "Clean cost: defenses on the clean victim (%)"
    brief = brief_spread(usual, frame)
    yield Table(title, "defense", tuple(columns), tuple(blocks), caption, brief)


def _dropped_control(record: Record) -> float:
    """Share of the clean training set that is dropped; NaN for a defense that drops nothing."""
    found = record.defense.detection.get("train") if record.defense else None
    if found is None or found.dropped_control is None:
        return float("nan")
    return float(found.dropped_control / (found.positives + found.negatives))


def _one_per_draw(frame: pd.DataFrame, what: str) -> dict[str, Draws]:
    """The values of each measure, the mean over attacks of each victim, target and seed."""
    found: dict[str, Draws] = {}
    keys = ["victim", "bits", "target", "seed"]
    for name in ("control_map.after", "cost", "dropped"):
        values = frame.groupby(keys, sort=False, dropna=False)[name].mean().dropna().items()
        by_victim: dict[Column, dict[Draw, float]] = {}
        for (victim, bits, target, seed), value in values:
            by_victim.setdefault((victim, bits), {})[target, seed] = float(value)
        found[name] = by_victim
    return found
