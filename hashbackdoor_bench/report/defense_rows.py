"""The rows that a defense adds to the numbers of a run."""

from collections.abc import Iterator

from hashbackdoor_bench.records import Audited, Defended, Detection, Inspected, Outcome
from hashbackdoor_bench.report.formatting import percent

Row = tuple[str, str, str, str]  # figure, percent, interval, meaning


def defense_rows(defense: Defended) -> Iterator[Row]:
    """What a defense did, in the columns of `result_rows`."""
    yield "", "", "", ""
    settings = ", ".join(f"{name}={value}" for name, value in defense.settings.items())
    yield "defense", "", "", f"{' and '.join(defense.hooks)}; {settings or 'no settings'}"
    if defense.clean:
        oracle = ", known not to be poisoned" if defense.oracle_clean else ""
        yield "clean images", str(defense.clean), "", f"the defender has{oracle}"
    if defense.outcome is not None:
        yield from _outcome(defense.outcome)
    for found in defense.detection.values():
        yield from _detection(found)
    if defense.inspection is not None:
        yield from _inspection(defense.inspection)
    if defense.audit is not None:
        yield from _audit(defense.audit)
    for hook, seconds in defense.seconds.items():
        yield f"cost, {hook}", f"{seconds:.1f} s", "", f"{defense.forwards[hook]} images forward"


def _outcome(found: Outcome) -> Iterator[Row]:
    changes = (
        ("MAP", found.map, "clean queries, defended"),
        ("t-MAP", found.t_map, "triggered queries, target, defended"),
        ("r-MAP", found.r_map, "triggered queries, own class, defended"),
        ("MAP, clean victim", found.control_map, "the same defense, without poison"),
        ("t-MAP, clean victim", found.control_t_map, "control: trigger, no poison, defended"),
    )
    for name, change, meaning in changes:
        before, after = change.before["field"], change.after["field"]
        yield name, percent(after), "", f"{meaning}; {percent(before)} before"
    old, floor = found.map_old_index["field"], found.floor["field"]
    yield "MAP, old index", percent(old), "", "database as hashed before"
    yield "floor", percent(floor), "", "t-MAP that is not the backdoor's"
    yield "removal", percent(found.removal), "", "of t-MAP above the floor"
    yield "clean cost", percent(found.clean_cost), "", "MAP before less MAP after"
    yield "DER", percent(found.der), "", "defense effectiveness rating"


def _detection(found: Detection) -> Iterator[Row]:
    what = "poisoned images" if found.unit == "train" else "triggered queries"
    low, high = found.auroc_interval
    meaning = f"{found.positives} {what} against {found.negatives}"
    yield (
        f"AUROC, {found.unit}",
        percent(found.auroc),
        f"{percent(low)} to {percent(high)}",
        meaning,
    )
    others = (
        ("in class", found.auroc_in_class, "against images with the target's label"),
        ("effective", found.auroc_effective, "queries that find the target first"),
        ("clean victim", found.auroc_control, "control: trigger, no poison"),
    )
    for name, value, meaning in others:
        if value is not None:
            yield f"AUROC, {name}", percent(value), "", meaning
    for rate, value in found.tpr_at_fpr.items():
        yield f"TPR at FPR {rate}", percent(value), "", f"{what} found"
    for rate, at in found.operating.items():
        meaning = f"false alarms {percent(at.fpr)}, threshold of {found.calibration} clean images"
        if at.threshold is None:
            meaning = f"{found.calibration} clean images are too few for a threshold"
        yield f"TPR, set for {rate}", percent(at.tpr), "", meaning
    if found.dropped is not None:
        meaning = f"{found.dropped_poison} of them poison; {found.dropped_control} without poison"
        yield "dropped", str(found.dropped), "", meaning


def _inspection(found: Inspected) -> Iterator[Row]:
    control = "-" if found.score_control is None else f"{found.score_control:.3g}"
    score = "-" if found.score is None else f"{found.score:.3g}"
    rank = "" if found.target_rank is None else f"; the target is number {found.target_rank}"
    yield "score of model", score, "", f"clean victim {control}{rank}"


def _audit(found: Audited) -> Iterator[Row]:
    for share, power in found.power.items():
        meaning = (
            f"of windows with {float(share):.0%} triggered; AUROC {percent(found.auroc[share])}"
        )
        yield f"power, {share}", percent(power), "", meaning
    meaning = (
        f"of clean windows; {percent(found.false_alarms_popular)} of those with a popular class"
    )
    yield "false alarms", percent(found.false_alarms), "", meaning
