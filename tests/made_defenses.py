"""Records of defended runs that no run made, for tests of what is read from them."""

from math import isnan
from typing import Any

from made_records import made
from msgspec.structs import replace

from hashbackdoor_bench.records import (
    CONVENTIONS,
    AnchorDistances,
    Audited,
    Change,
    Defended,
    Detection,
    Histogram,
    Operating,
    Outcome,
    Record,
    worth,
)

CHANGING = {"screen", "backward", "repair", "purify"}


def defended(
    defense: str,
    hooks: tuple[str, ...] = ("repair",),
    *,
    map_after: float = 0.78,
    t_map_after: float = 0.2,
    control_map_after: float = 0.8,
    auroc: float = 0.75,
    clean: int = 150,
    control: bool = False,
    settings: dict[str, Any] | None = None,
    **run: Any,
) -> Record:
    """A record of a run with a defense, whose parts agree; what is not given is a default.

    Args:
        defense: its name.
        hooks: what it does.
        map_after: MAP with it, of every convention; ``strict`` has .01 less.
        t_map_after: t-MAP with it.
        control_map_after: MAP of the clean victim with it.
        auroc: of its suspicions.
        clean: number of clean images.
        control: whether it is a control.
        settings: its hyper-parameters.
        run: see `made`.
    """
    chosen = settings or {}
    record = made(defense=defense, defense_settings=tuple(sorted(chosen.items())), **run)
    steps = ["repair" if hook == "repair" else hook for hook in hooks if hook != "purify"]
    block = Defended(
        version=1,
        settings=chosen,
        hooks=hooks,
        sees=("weights",),
        control=control,
        clean=clean,
        clean_sha256="ab" * 32 if clean else None,
        seconds=dict.fromkeys(steps, 1.0),
        forwards=dict.fromkeys(steps, 3000),
        tuning=(0.01,) if record.spec.operating_point == "tuned" else (),
        outcome=(
            _outcome(record, hooks, map_after, t_map_after, control_map_after)
            if CHANGING & set(hooks)
            else None
        ),
        detection={
            unit: _detection(record, unit, auroc)
            for hook, unit in (("screen", "train"), ("suspect", "query"))
            if hook in hooks
        },
        audit=_audit() if "audit" in hooks else None,
    )
    return replace(record, defense=block)


def _each(value: float) -> dict[str, float | None]:
    return {name: value - 0.01 * (name == "strict") for name in CONVENTIONS}


def _outcome(
    record: Record,
    hooks: tuple[str, ...],
    map_after: float,
    t_map_after: float,
    control_map_after: float,
) -> Outcome:
    def before(name: str) -> dict[str, float | None]:
        return {one: getattr(record.scores[one], name) for one in CONVENTIONS}

    purified = _each(0.09)
    changes = {
        "map": Change(before("map"), _each(map_after)),
        "t_map": Change(before("t_map"), _each(t_map_after)),
        "r_map": Change(_each(0.05), _each(0.5)),
        "control_map": Change(before("map_clean_victim"), _each(control_map_after)),
        "control_t_map": Change(before("t_map_clean_victim"), purified),
    }
    floor = purified if "purify" in hooks else before("t_map_clean_victim")
    field = record.scores.field
    assert field.map is not None
    assert field.t_map is not None
    assert floor["field"] is not None
    follows = worth(
        {"map": field.map, "t_map": field.t_map},
        {"map": map_after, "t_map": t_map_after},
        floor["field"],
    )
    bits = record.spec.bits
    near = tuple(float(n == bits // 3) for n in range(bits + 1))
    return Outcome(
        **changes,
        map_old_index=_each(map_after - 0.01),
        floor=floor,
        **{name: None if isnan(value) else value for name, value in follows.items()},
        anchor=AnchorDistances(untriggered=near, triggered=near),
    )


def _detection(record: Record, unit: str, auroc: float) -> Detection:
    train = record.protocol.train
    queries = record.imperceptibility.query.images
    positives = record.threat.poisoned if unit == "train" else queries
    negatives = train - positives if unit == "train" else queries
    known = bool(positives)
    members = record.threat.target_images
    extra: dict[str, Any] = (
        {
            "auroc_in_class": auroc - 0.1 if known else None,
            "share_of_class": positives / members,
            "dropped": 450, "dropped_poison": positives // 2, "dropped_control": 300,
        }
        if unit == "train"
        else {
            "auroc_effective": auroc, "auroc_control": 0.5, "calibration": 75,
            "operating": {
                "0.01": Operating(threshold=None, fpr=0.0, tpr=0.0),
                "0.05": Operating(threshold=1.5, fpr=0.0625, tpr=0.75),
            },
        }
    )  # fmt: skip
    bins = Histogram(
        low=0.0, high=1.0, positive=(0.0, 0.5, 0.5), negative=(0.75, 0.25, 0.0),
        control=() if unit == "train" else (0.5, 0.25, 0.25),
    )  # fmt: skip
    return Detection(
        unit=unit,
        positives=positives,
        negatives=negatives,
        auroc=auroc if known else None,
        auroc_interval=(auroc - 0.05, auroc + 0.05) if known else (None, None),
        tpr_at_fpr={"0.01": 0.1 if known else None, "0.05": 0.3 if known else None},
        histogram=bins if known and positives % 4 == 0 and negatives % 4 == 0 else None,
        **extra,
    )


def _audit() -> Audited:
    return Audited(
        window=1000,
        draws=100,
        auroc={"0.05": 0.9, "0.5": 1.0},
        power={"0.05": 0.4, "0.5": 0.95},
        smallest_share=0.5,
        false_alarms=0.01,
        false_alarms_popular=0.2,
    )
