"""Whether what a record says of its defense is possible, and agrees with itself and the scores."""

import math
from collections.abc import Mapping
from itertools import pairwise

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.records import (
    CONVENTIONS,
    Audited,
    Defended,
    Detection,
    Histogram,
    Inspected,
    Outcome,
    Record,
    worth,
)
from hashbackdoor_bench.report.claims import ROUNDING, agree, near, whole, within
from hashbackdoor_bench.spec import RunSpec
from hashbackdoor_bench.text import quoted

CHANGING = {"screen", "backward", "repair", "purify"}  # hooks that give other codes
SUSPECTING = {"screen": "train", "suspect": "query"}  # hook -> unit of its suspicions
# In the order of a run, see `api.Defense`, which imports torch.
HOOKS = ("screen", "backward", "repair", "purify", "suspect", "inspect", "audit")
SAME = {  # change -> the score that it is without the defense
    "map": "map",
    "t_map": "t_map",
    "control_map": "map_clean_victim",
    "control_t_map": "t_map_clean_victim",
}
POWER = 0.9  # that the smallest share of an audit must reach


def check_defense(record: Record) -> None:
    """Refuse results of a defense that contradict one another or the record.

    Raises:
        UserError: what contradicts what.
    """
    found, spec = record.defense, record.spec
    if (found is None) != (spec.defense == RunSpec.defense):
        raise UserError(f"spec.defense is {quoted(spec.defense)}, which its results don't fit.")
    if found is None:
        return
    hooks = set(found.hooks)
    if not hooks or found.hooks != tuple(hook for hook in HOOKS if hook in hooks):
        raise UserError(f"defense.hooks is {quoted(found.hooks)}, which no defense has.")
    for part, there, needed in (
        ("outcome", found.outcome is not None, bool(hooks & CHANGING)),
        ("inspection", found.inspection is not None, "inspect" in hooks),
        ("audit", found.audit is not None, "audit" in hooks),
    ):
        if there != needed:
            raise UserError(
                f"defense.{part} is {'there' if there else 'missing'}, which the hooks "
                f"{', '.join(found.hooks)} don't fit."
            )
    units = sorted(SUSPECTING[hook] for hook in hooks if hook in SUSPECTING)
    agree("defense.detection", sorted(found.detection), units, "defense.hooks")
    _settings(record, found)
    if found.outcome is not None:
        _outcome(record, found.outcome, purifies="purify" in hooks)
    for unit, detection in found.detection.items():
        _detection(f"defense.detection.{unit}", unit, detection, record)
    if found.inspection is not None:
        _inspection(record, found.inspection)
    if found.audit is not None:
        _audit(found.audit)


def _settings(record: Record, found: Defended) -> None:
    given = dict(record.spec.defense_settings)
    tuned = record.spec.operating_point == "tuned"
    changed = {
        name for name in {*given, *found.settings} if given.get(name) != found.settings.get(name)
    }
    if len(changed) > int(tuned):
        raise UserError(f"defense.settings.{min(changed)} is not that of spec.defense_settings.")
    if bool(found.tuning) != tuned:
        raise UserError(
            f"defense.tuning has {len(found.tuning)} strengths, but spec.operating_point is "
            f"{quoted(record.spec.operating_point)}."
        )
    if (found.clean > 0) != (found.clean_sha256 is not None):
        raise UserError(f"defense.clean is {found.clean}, which defense.clean_sha256 doesn't fit.")
    held = record.protocol.train if found.oracle_clean else record.protocol.database
    within("defense.clean", found.clean, 0, held)
    agree("defense.forwards", sorted(found.forwards), sorted(found.seconds), "defense.seconds")
    if any(value < 0 for value in found.seconds.values()):
        raise UserError("defense.seconds has a time below 0.")


# ---- scores -------------------------------------------------------------------------------------


def _outcome(record: Record, found: Outcome, *, purifies: bool) -> None:
    """Scores must be shares, those before the defense the record's, and the rest follow."""
    changes = {
        f"{name}.{when}": getattr(getattr(found, name), when)
        for name in (*SAME, "r_map")
        for when in ("before", "after")
    }
    for name, values in (
        *changes.items(),
        ("map_old_index", found.map_old_index),
        ("floor", found.floor),
    ):
        _shares(f"defense.outcome.{name}", values)
    for convention in CONVENTIONS:
        scores = record.scores[convention]
        for name, score in SAME.items():
            claimed = changes[f"{name}.before"][convention]
            near(
                f"defense.outcome.{name}.before.{convention}", claimed, getattr(scores, score),
                f"scores.{convention}.{score}",
            )  # fmt: skip
        when = "after" if purifies else "before"
        near(
            f"defense.outcome.floor.{convention}", found.floor[convention],
            changes[f"control_t_map.{when}"][convention], f"control_t_map.{when}",
        )  # fmt: skip
    _worth(found)
    if found.anchor is not None:
        for name in ("untriggered", "triggered"):
            what = f"defense.outcome.anchor.{name}"
            shares = getattr(found.anchor, name)
            agree(what, len(shares), record.spec.bits + 1, "spec.bits")
            _sum_to_one(what, [share for share in shares if share is not None])


def _shares(what: str, values: Mapping[str, float | None]) -> None:
    """A score by convention, of which ``strict`` is never above ``field``."""
    agree(what, sorted(values), sorted(CONVENTIONS), "the schema")
    for convention, value in values.items():
        within(f"{what}.{convention}", value, 0, 1)
    field, strict = values["field"], values["strict"]
    if field is not None and strict is not None and strict > field + ROUNDING:
        raise UserError(f"{what}.strict is {strict:g}, above {field:g} of field.")


def _worth(found: Outcome) -> None:
    """Removal, clean cost and DER follow from the scores of the convention ``field``."""
    before, after = (
        {name: _number(getattr(getattr(found, name), when)["field"]) for name in ("map", "t_map")}
        for when in ("before", "after")
    )
    follows = worth(before, after, _number(found.floor["field"]))
    for name, value in follows.items():
        known = None if math.isnan(value) else value
        near(f"defense.outcome.{name}", getattr(found, name), known, "the scores")


def _number(value: float | None) -> float:
    return math.nan if value is None else value


# ---- detection ----------------------------------------------------------------------------------


def _detection(what: str, unit: str, found: Detection, record: Record) -> None:
    agree(f"{what}.unit", found.unit, unit, "its name")
    positives, negatives = found.positives, found.negatives
    if unit == "train":
        poisoned = record.threat.poisoned
        agree(f"{what}.positives", positives, poisoned, "threat.poisoned")
        rest = record.protocol.train - poisoned
        agree(f"{what}.negatives", negatives, rest, "protocol.train")
    else:
        queries = record.imperceptibility.query.images
        agree(f"{what}.positives", positives, queries, "imperceptibility.query.images")
        agree(f"{what}.negatives", negatives, queries, "imperceptibility.query.images")
    names = ("auroc", "auroc_in_class", "auroc_effective", "auroc_control", "share_of_class")
    for name in names:
        within(f"{what}.{name}", getattr(found, name), 0, 1)
    low, high = found.auroc_interval
    within(f"{what}.auroc_interval", low, 0, 1 if high is None else high)
    within(f"{what}.auroc_interval", high, 0, 1)
    if (found.auroc is None) != (not positives or not negatives):
        raise UserError(f"{what}.auroc is {found.auroc} of {positives} against {negatives} items.")
    for rate, tpr in found.tpr_at_fpr.items():
        _rate(f"{what}.tpr_at_fpr", rate)
        within(f"{what}.tpr_at_fpr.{rate}", tpr, 0, 1)
    by_rate = [tpr for _, tpr in sorted(found.tpr_at_fpr.items(), key=lambda one: float(one[0]))]
    rising = [tpr for tpr in by_rate if tpr is not None]
    if any(one > other + ROUNDING for one, other in pairwise(rising)):
        raise UserError(f"{what}.tpr_at_fpr falls as the false positive rate grows.")
    _operating(what, found)
    _dropped(what, found, record.protocol.train)
    if found.histogram is not None:
        _histogram(f"{what}.histogram", found.histogram, found)


def _rate(what: str, text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 < rate < 1:
        raise UserError(f"{what} has the rate {quoted(text)}, which is not between 0 and 1.")
    return rate


def _operating(what: str, found: Detection) -> None:
    """Rates at a threshold are of whole items, and too few images give no threshold."""
    for name, at in found.operating.items():
        rate, place = _rate(f"{what}.operating", name), f"{what}.operating.{name}"
        for part, value, count in (
            ("fpr", at.fpr, found.negatives),
            ("tpr", at.tpr, found.positives),
        ):
            within(f"{place}.{part}", value, 0, 1)
            if value is not None and not whole(value * count):
                raise UserError(f"{place}.{part} is {value:g}, which is not of {count} items.")
        needed = math.ceil((1 - rate) * (found.calibration + 1) - 1e-9)
        if (at.threshold is None) != (needed > found.calibration):
            raise UserError(
                f"{place}.threshold is {at.threshold}, which {found.calibration} images don't give."
            )
        if at.threshold is None and (at.fpr or at.tpr):
            raise UserError(f"{place} finds items without a threshold.")


def _dropped(what: str, found: Detection, train: int) -> None:
    counts = (found.dropped, found.dropped_poison, found.dropped_control)
    if found.unit != "train":
        if counts != (None, None, None):
            raise UserError(f"{what} drops queries, which no defense does.")
        return
    dropped, poison, control = counts
    if dropped is None or poison is None or control is None:
        raise UserError(f"{what} doesn't say how many images are dropped.")
    within(f"{what}.dropped_poison", poison, max(0, dropped - found.negatives), dropped)
    within(f"{what}.dropped_poison", poison, 0, found.positives)
    within(f"{what}.dropped", dropped, 0, train)
    within(f"{what}.dropped_control", control, 0, train)


def _histogram(what: str, found: Histogram, of: Detection) -> None:
    if not found.low <= found.high:
        raise UserError(f"{what} goes from {found.low:g} to {found.high:g}.")
    for name, count in (
        ("positive", of.positives),
        ("negative", of.negatives),
        ("control", of.positives),
    ):
        shares = getattr(found, name)
        if shares or name != "control":
            agree(f"{what}.{name}", len(shares), len(found.positive), "its positive items")
            _sum_to_one(f"{what}.{name}", shares)
            if not all(whole(share * count) for share in shares):
                raise UserError(f"{what}.{name} is not of {count} items.")


def _sum_to_one(what: str, shares: "list[float] | tuple[float, ...]") -> None:
    for share in shares:
        within(what, share, 0, 1)
    if shares:
        near(what, sum(shares), 1.0, "its being shares")


# ---- models and windows -------------------------------------------------------------------------


def _inspection(record: Record, found: Inspected) -> None:
    if found.per_class:
        classes = record.protocol.classes
        agree("defense.inspection.per_class", len(found.per_class), classes, "protocol.classes")
        within("defense.inspection.target_rank", found.target_rank, 1, classes)
    if bool(found.per_class) != (found.target_rank is not None):
        raise UserError("defense.inspection.target_rank doesn't follow from its per_class.")


def _audit(found: Audited) -> None:
    what = "defense.audit"
    agree(f"{what}.auroc", sorted(found.auroc), sorted(found.power), f"{what}.power")
    for name in ("auroc", "power"):
        for share, value in getattr(found, name).items():
            _rate(f"{what}.{name}", share)
            within(f"{what}.{name}.{share}", value, 0, 1)
    for name in ("false_alarms", "false_alarms_popular"):
        within(f"{what}.{name}", getattr(found, name), 0, 1)
    reached = [
        float(share) for share, power in found.power.items() if power is not None and power >= POWER
    ]
    near(
        f"{what}.smallest_share", found.smallest_share, min(reached, default=None), f"{what}.power"
    )
