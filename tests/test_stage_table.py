"""The table of stages: what it promises to the plan, the pipeline, suites and records."""

from pathlib import Path

import pytest
import torch

from hashbackdoor_bench import RunSpec
from hashbackdoor_bench.stages import (
    GROUPS,
    STAGES,
    VERSIONS,
    Cache,
    Plan,
    attacker_of,
    keys_of,
    table,
)
from hashbackdoor_bench.stages.plan import PlannedStage

CPU = torch.device("cpu")


def plan(tiny: Path, tmp_path: Path, attack: str = "tri") -> Plan:
    spec = RunSpec(
        attack=attack, victim="csq", dataset="lists", lists=str(tiny), root=str(tiny), size=16,
        top_k=20, bits=12, epochs=1,
    )  # fmt: skip
    return Plan(spec, cache=Cache(tmp_path), device=CPU)


def test_names_are_distinct_and_needs_stand_higher_up():
    names = [stage.name for stage in STAGES]
    assert len(set(names)) == len(names)
    for number, stage in enumerate(STAGES):
        assert set(stage.needs) <= set(names[:number]), stage.name
        assert stage.kind in VERSIONS


def test_a_stage_sees_no_key_but_those_that_it_needs(tiny, tmp_path, monkeypatch):
    """An input that is read and not declared in ``needs`` is a KeyError, not a silent reuse."""
    careless = [table.Stage(s.name, s.kind, s.title, (), s.inputs, s.build, s.when) for s in STAGES]
    monkeypatch.setattr("hashbackdoor_bench.stages.plan.STAGES", careless)
    with pytest.raises(KeyError):
        _ = plan(tiny, tmp_path).stages


def test_every_key_follows_from_the_keys_of_what_it_needs(tiny, tmp_path):
    stages = plan(tiny, tmp_path).stages
    for stage in stages.values():
        for need in stage.needs:
            text = repr(stage.inputs)
            unused = (
                stage.row.name == "victim" and need == "backdoor" and not stage.inputs["poison"]
            )
            assert unused or stages[need].key in text, f"{stage.row.name} forgets {need}"


def test_without_poison_the_victim_is_the_clean_victim(tiny, tmp_path):
    stages = plan(tiny, tmp_path, "clean").stages
    for name in ("victim", "victim's plain", "victim's triggered"):
        assert stages[name].key == stages[f"clean {name}"].key


def test_groups_are_counted_in_the_order_of_a_run():
    assert GROUPS == (
        "features", "train surrogate", "craft backdoor", "train clean victim",
        "train poisoned victim", "tamper with victim", "codes", "scores", "visibility",
        "tuning", "screening", "train defended clean victim", "repair", "suspicions", "inspection",
        "audit", "train defended victim", "outcome",
    )  # fmt: skip


def test_what_attacks_share_is_kept_for_a_run_by_its_attacker(tiny, tmp_path):
    one = plan(tiny, tmp_path)
    backdoor: PlannedStage = one.stages["backdoor"]
    assert attacker_of(backdoor.inputs) in keys_of(one)
    assert attacker_of(one.stages["clean victim"].inputs) is None
    assert attacker_of(plan(tiny, tmp_path, "ciba").stages["backdoor"].inputs) == attacker_of(
        backdoor.inputs
    )
