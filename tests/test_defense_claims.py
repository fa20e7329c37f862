"""What a record says of a defense is refused where it contradicts itself or the scores."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from made_defenses import defended

from hashbackdoor_bench import UserError
from hashbackdoor_bench.records import Defended, Record
from hashbackdoor_bench.report import check_record

Edit = Callable[[dict[str, Any]], object]

KINDS = {
    "repair": ("repair",),
    "purify": ("purify",),
    "filter": ("screen",),
    "training": ("backward",),
    "test": ("suspect",),
    "audit": ("audit",),
    "several": ("screen", "repair", "suspect"),
}


def record_of(kind: str, **changes: Any) -> Record:
    return defended("clp", KINDS[kind], settings={"u": 3.0}, **changes)


def edited(record: Record, change: Edit) -> Record:
    """The record after a change of the values of its defense."""
    values = msgspec.to_builtins(record.defense)
    change(values)
    return msgspec.structs.replace(record, defense=msgspec.convert(values, Defended))


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_sound_record_of_every_kind_of_defense_is_taken(kind: str):
    check_record(record_of(kind))
    check_record(record_of(kind, budget=0.2, clean=0, seed=3))


def test_a_removal_that_is_not_defined_may_be_missing():
    check_record(record_of("repair", t_map=0.12, t_map_after=0.1))  # .02 above the floor
    record = record_of("repair", t_map=0.12, t_map_after=0.1)
    with pytest.raises(UserError, match="removal was changed"):
        check_record(edited(record, outcome(removal=0.5)))


def outcome(**values: Any) -> Edit:
    return lambda found: found["outcome"].update(values)


def score(name: str, when: str, convention: str, value: float | None) -> Edit:
    return lambda found: found["outcome"][name][when].update({convention: value})


def train(**values: Any) -> Edit:
    return lambda found: found["detection"]["train"].update(values)


def query(**values: Any) -> Edit:
    return lambda found: found["detection"]["query"].update(values)


def at_five(**values: Any) -> Edit:
    return lambda found: found["detection"]["query"]["operating"]["0.05"].update(values)


@pytest.mark.parametrize(
    ("kind", "change", "says"),
    [
        ("repair", outcome(removal=0.99), "outcome.removal was changed"),
        ("repair", outcome(clean_cost=0.0), "outcome.clean_cost was changed"),
        ("repair", outcome(der=0.9), "outcome.der was changed"),
        ("repair", score("map", "after", "field", 0.9), "outcome.clean_cost|outcome.removal"),
        ("repair", score("t_map", "after", "field", 0.1), "strict is|outcome.removal was changed"),
        ("repair", score("t_map", "before", "field", 0.9), "before.field was changed.*scores"),
        ("repair", score("map", "before", "ciba", 0.9), "map.before.ciba was changed"),
        ("repair", score("control_map", "before", "field", 0.9), "control_map.before.field"),
        ("repair", score("r_map", "after", "field", 1.5), "r_map.after.field is 1.5"),
        ("repair", score("r_map", "after", "strict", 0.9), "r_map.after.strict is 0.9, above"),
        ("repair", lambda found: found["outcome"]["floor"].update(field=0.3), "floor.field was"),
        ("purify", score("control_t_map", "after", "field", 0.3), "floor.field was changed"),
        ("repair", lambda found: found["outcome"]["r_map"]["after"].pop("ciba"), "r_map.after is"),
        ("repair", lambda found: found["outcome"]["anchor"].update(triggered=[1.0]), "anchor.trig"),
        ("repair", lambda found: found.update(outcome=None), "outcome is missing"),
        ("test", lambda found: found.update(hooks=["repair", "suspect"]), "outcome is missing"),
        ("repair", lambda found: found.update(hooks=[]), "hooks is"),
        ("several", lambda found: found.update(hooks=["repair", "screen", "suspect"]), "hooks is"),
        ("repair", lambda found: found.update(hooks=["magic"]), "hooks is"),
        ("repair", lambda found: found["settings"].update(u=2.0), "settings.u is not that of spec"),
        ("repair", lambda found: found.update(tuning=[0.01]), "tuning has 1 strengths"),
        ("repair", lambda found: found.update(clean=0), "clean is 0"),
        ("repair", lambda found: found.update(clean=9999), "clean is 9999"),
        ("repair", lambda found: found.update(forwards={}), "defense.forwards is"),
        ("repair", lambda found: found["seconds"].update(repair=-1.0), "a time below 0"),
        ("filter", train(auroc=1.2), "train.auroc is 1.2"),
        ("filter", train(auroc_in_class=-0.1), "auroc_in_class is -0.1"),
        ("filter", train(auroc=None), "auroc is None of 180"),
        ("filter", train(auroc_interval=[0.9, 0.8]), "auroc_interval is 0.9"),
        ("filter", train(positives=179), "positives is 179, but threat.poisoned gives 180"),
        ("filter", train(negatives=2821), "negatives is 2821, but protocol.train gives 2820"),
        ("filter", train(dropped=200, dropped_poison=190), "dropped_poison is 190"),
        ("filter", train(dropped=50, dropped_poison=60), "dropped_poison is 60"),
        ("filter", train(dropped=2990, dropped_poison=100), "dropped_poison is 100"),
        ("filter", train(dropped=None), "doesn't say how many"),
        ("filter", train(unit="query"), "unit is query"),
        ("filter", train(tpr_at_fpr={"0.01": 0.5, "0.05": 0.3}), "falls as the false positive"),
        ("filter", train(tpr_at_fpr={"much": 0.5}), "the rate 'much'"),
        ("filter", train(tpr_at_fpr={"0.05": 1.5}), "0.05 is 1.5"),
        ("test", query(negatives=399), "negatives is 399"),
        ("test", query(auroc_control=2.0), "auroc_control is 2"),
        ("test", query(dropped=3), "drops queries"),
        ("test", at_five(fpr=0.0613), "fpr is 0.0613, which is not of 400 items"),
        ("test", at_five(tpr=1.5), "tpr is 1.5"),
        ("test", at_five(threshold=None), "threshold is None"),
        ("test", query(calibration=300), r"0.01.threshold is None, which 300 images"),
        ("test", lambda found: found["detection"].clear(), "defense.detection is"),
        ("test", lambda found: found["detection"]["query"]["histogram"].update(
            positive=[0.5, 0.0, 0.0]), "histogram.positive was changed"),
        ("test", lambda found: found["detection"]["query"]["histogram"].update(
            low=2.0), "histogram goes from 2 to 1"),
        ("audit", lambda found: found["audit"].update(smallest_share=0.05), "smallest_share was"),
        ("audit", lambda found: found["audit"].update(false_alarms=2.0), "false_alarms is 2"),
        ("audit", lambda found: found["audit"]["power"].update({"0.5": 1.1}), "power.0.5 is 1.1"),
        ("audit", lambda found: found["audit"]["auroc"].pop("0.5"), "audit.auroc is"),
    ],
)  # fmt: skip
def test_a_forged_value_is_refused_in_one_sentence(kind: str, change: Edit, says: str):
    with pytest.raises(UserError, match=says) as caught:
        check_record(edited(record_of(kind), change))
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")
