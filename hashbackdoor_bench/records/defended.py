"""The part of a record that says what a defense did; see `schema`.

Scores have the conventions of `Scores` by name; shares are of one. None is an undefined number, and
a part of a hook that the defense doesn't have is None too.
"""

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from hashbackdoor_bench.records.schema import Count, Hash, Interval, Part, Shares, Text

LEAST_ABOVE = 0.05  # t-MAP above the floor, below which removal is not defined

ByConvention = dict[Text, float | None]


class Change(Part, frozen=True):
    """A score without and with the defense."""

    before: ByConvention
    after: ByConvention


class AnchorDistances(Part, frozen=True):
    """Attacked queries by their Hamming distance 0..K to the target's anchor, as shares."""

    untriggered: Shares
    triggered: Shares


class Outcome(Part, frozen=True):
    """The scores of a defense that changes codes.

    Attributes:
        map: MAP of clean queries on the poisoned victim.
        t_map: MAP of triggered queries, to which the target's items are relevant.
        r_map: MAP of triggered queries, to which the items of their own class are relevant.
        map_old_index: MAP of clean queries of the defended network in the database as the
            undefended one hashed it.
        floor: t-MAP that is not due to the backdoor: of the clean victim, which is purified if the
            defense purifies.
        control_map: MAP of the clean victim.
        control_t_map: t-MAP of the clean victim.
        removal: the part of t-MAP above the floor that the defense takes away; None where less than
            .05 is above the floor.
        clean_cost: MAP before less MAP after.
        der: defense effectiveness rating: [max(0, t-MAP before - after) - max(0, MAP before -
            after) + 1] / 2, as in BackdoorBench.
        anchor: of the defended network; None in records of older code.
    """

    map: Change
    t_map: Change
    r_map: Change
    map_old_index: ByConvention
    floor: ByConvention
    control_map: Change
    control_t_map: Change
    removal: float | None
    clean_cost: float | None
    der: float | None
    anchor: AnchorDistances | None = None


def worth(
    before: Mapping[str, float], after: Mapping[str, float], floor: float
) -> dict[str, float]:
    """Removal, clean cost and DER, see `Outcome`, of ``map`` and ``t_map`` before and after."""
    above = before["t_map"] - floor
    fallen, cost = before["t_map"] - after["t_map"], before["map"] - after["map"]
    return {
        "removal": fallen / above if above >= LEAST_ABOVE else math.nan,
        "clean_cost": cost,
        "der": (max(0.0, fallen) - max(0.0, cost) + 1) / 2,
    }


class Histogram(Part, frozen=True):
    """Suspicions in equal bins from ``low`` to ``high``, as shares; the outer bins hold the rest.

    ``control`` are the triggered queries on the clean victim; it is empty for training images.
    """

    low: float
    high: float
    positive: tuple[float, ...]
    negative: tuple[float, ...]
    control: tuple[float, ...] = ()


class Operating(Part, frozen=True):
    """What a threshold does that was set on ``calibration`` clean images of the defender.

    ``threshold`` is None where they are too few for the intended rate, so nothing is above it.
    """

    threshold: float | None
    fpr: float | None
    tpr: float | None


class Detection(Part, frozen=True, kw_only=True):
    """How well suspicions tell poisoned training images, or triggered queries, from clean ones.

    Attributes:
        unit: ``train`` or ``query``.
        positives: number of poisoned images, or triggered queries.
        negatives: number of the others.
        auroc: AUROC over all.
        auroc_interval: its 95 % interval, over items.
        auroc_in_class: of training images, against those of the target's label.
        auroc_effective: of queries, for those whose nearest item is the target's.
        auroc_control: of queries, on the clean victim.
        tpr_at_fpr: true positive rate by false positive rate.
        operating: by intended false positive rate.
        calibration: number of images on which thresholds were set.
        share_of_class: poison's share of the images with the target's label, as delivered.
        dropped: number of training images that were dropped.
        dropped_poison: how many of them are poison.
        dropped_control: number of images that are dropped from the clean training set.
        histogram: of all suspicions; None without items, and in records of older code.
    """

    unit: Text
    positives: Count
    negatives: Count
    auroc: float | None
    auroc_interval: Interval
    auroc_in_class: float | None = None
    auroc_effective: float | None = None
    auroc_control: float | None = None
    tpr_at_fpr: dict[Text, float | None]
    operating: dict[Text, Operating] = msgspec.field(default_factory=dict)
    calibration: Count = 0
    share_of_class: float | None = None
    dropped: Count | None = None
    dropped_poison: Count | None = None
    dropped_control: Count | None = None
    histogram: Histogram | None = None


class Inspected(Part, frozen=True):
    """What an inspection of the model says.

    Attributes:
        score: larger for a model that is more likely backdoored.
        score_control: of the clean victim.
        per_class: the same for each class as the target; empty if there is no such.
        target_rank: place of the target among the classes, from 1; None without ``per_class``.
    """

    score: float | None
    score_control: float | None
    per_class: tuple[float | None, ...]
    target_rank: Count | None


class Audited(Part, frozen=True):
    """What an audit of windows of queries says, by the share of triggered queries in a window.

    Attributes:
        window: number of queries in a window.
        draws: number of windows of each kind.
        auroc: AUROC of windows against windows without triggered queries.
        power: share of windows above the threshold of rate .01, set on the defender's images.
        smallest_share: smallest share whose power is .9 or more; None if there is none.
        false_alarms: the same share of windows of clean queries.
        false_alarms_popular: the same where one class is searched for twice as often.
    """

    window: Count
    draws: Count
    auroc: dict[Text, float | None]
    power: dict[Text, float | None]
    smallest_share: float | None
    false_alarms: float | None
    false_alarms_popular: float | None


class Defended(Part, frozen=True, kw_only=True):
    """The defense of a run.

    Attributes:
        version: version of its algorithm.
        settings: its hyper-parameters, with the strength that was chosen if it is tuned.
        hooks: what it does, see `Defense`.
        sees: what the defender sees, see `Assumes`.
        control: whether it is a control and no defense.
        clean: number of the defender's clean images.
        clean_sha256: hash of their ids.
        oracle_clean: whether they are training images that are known not to be poisoned, because
            the database has no others.
        seconds: time of each of its stages on the poisoned victim, when it was made.
        forwards: images that went through networks in each of them.
        tuning: upper ends of the intervals of the loss of MAP, on the clean images, for each
            strength of the grid; empty unless it is tuned.
        outcome: scores, if it changes codes.
        detection: of training images or queries, if it screens or suspects; by unit.
        inspection: of the model.
        audit: of windows of queries.
    """

    version: Count
    settings: dict[Text, Any]
    hooks: tuple[Text, ...]
    sees: tuple[Text, ...] = ()
    control: bool = False
    clean: Count = 0
    clean_sha256: Hash | None = None
    oracle_clean: bool = False
    seconds: dict[Text, float]
    forwards: dict[Text, Count]
    tuning: tuple[float | None, ...] = ()
    outcome: Outcome | None = None
    detection: dict[Text, Detection] = msgspec.field(default_factory=dict)
    inspection: Inspected | None = None
    audit: Audited | None = None
