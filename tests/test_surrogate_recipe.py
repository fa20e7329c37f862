"""Victim and surrogate may be trained by recipes of their own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from hashbackdoor_bench import RunSpec, UserError
from hashbackdoor_bench.network.cnn32 import Cnn32
from hashbackdoor_bench.spec import RECIPES
from hashbackdoor_bench.stages.cache import Cache
from hashbackdoor_bench.stages.pipeline import Run
from hashbackdoor_bench.stages.plan import Plan

CPU = torch.device("cpu")


def planned(tiny: Path, folder: Path, **changes: Any) -> Plan:
    spec = RunSpec(
        dataset="lists", lists=str(tiny), root=str(tiny), size=16, top_k=20, bits=8,
        attack="tri", victim="dpsh", surrogate="hashnet", precision="float32",
    )  # fmt: skip
    return Plan(replace(spec, **changes), cache=Cache(folder), device=CPU)


def recipes(plan: Plan) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of the victim's and the surrogate's recipe, but for the precision."""
    both = (plan.victim.recipe.to_dict(), plan.surrogate.recipe.to_dict())
    for one in both:
        del one["precision"]
    return both


def keys(plan: Plan) -> dict[str, str]:
    return {name: stage.key for name, stage in plan.stages.items()}


def named(name: str, **changes: Any) -> dict[str, Any]:
    fields = replace(RECIPES[name][1], **changes).to_dict()
    del fields["precision"]
    return fields


CASES: list[dict[str, Any]] = [
    {},
    {"epochs": 3, "batch_size": 8},
    {"victim": "hashnet", "surrogate": "dpsh"},
    {"victim": "csq", "surrogate": "hashnet", "epochs": 3},
    {"recipe": "scratch32"},
    {"surrogate_recipe": "scratch32_rmsprop", "recipe": "scratch32", "lr": 0.01},
    {"recipe": "scratch32", "surrogate_recipe": "scratch32_rmsprop", "surrogate_bits": 12},
    {"surrogate_recipe": "scratch32_rmsprop", "epochs": 2},
    {"surrogate_backbone": "resnet18", "pool": "avg", "size": 32, "hidden": 9},
    {"attack": "badnets", "surrogate": None},
]


@pytest.mark.parametrize("changes", CASES, ids=str)
def test_a_resolved_spec_means_the_same_run(tiny, tmp_path, changes):
    first = planned(tiny, tmp_path, **changes)
    again = Plan(first.spec, cache=Cache(tmp_path), device=CPU)
    assert again.spec == first.spec
    assert keys(again) == keys(first)
    assert recipes(again) == recipes(first)


def test_each_method_is_trained_as_it_needs(tiny, tmp_path):
    victim, surrogate = recipes(planned(tiny, tmp_path))
    assert victim == named("scratch32_rmsprop")
    assert surrogate == named("scratch32")
    assert recipes(planned(tiny, tmp_path, victim="hashnet", surrogate="dpsh")) == (
        named("scratch32"), named("scratch32_rmsprop"),
    )  # fmt: skip


def test_a_recipe_is_for_both_unless_the_surrogate_has_its_own(tiny, tmp_path):
    assert recipes(planned(tiny, tmp_path, recipe="scratch32")) == (named("scratch32"),) * 2
    own = planned(tiny, tmp_path, recipe="scratch32", surrogate_recipe="scratch32_rmsprop")
    assert recipes(own) == (named("scratch32"), named("scratch32_rmsprop"))


def test_overrides_belong_to_the_victims_recipe_alone(tiny, tmp_path):
    changes = {"epochs": 3, "batch_size": 8, "lr": 0.02, "augment": "none"}
    plan = planned(tiny, tmp_path, **changes)
    victim, surrogate = recipes(plan)
    assert surrogate == named("scratch32")
    assert (victim["epochs"], victim["batch_size"], victim["augment"]) == (3, 8, "none")
    same = planned(tiny, tmp_path, recipe="scratch32", epochs=3)
    assert recipes(same) == (named("scratch32", epochs=3),) * 2
    assert plan.victim.recipe.precision == plan.surrogate.recipe.precision == "float32"


def test_a_surrogates_recipe_changes_what_depends_on_it_and_no_clean_victim(tiny, tmp_path):
    plain = keys(planned(tiny, tmp_path, recipe="scratch32"))
    changes = {"recipe": "scratch32", "surrogate_recipe": "scratch32_rmsprop"}
    other = keys(planned(tiny, tmp_path, **changes))
    changed = {name for name in plain if plain[name] != other[name]}
    assert {"surrogate", "backdoor", "victim"} <= changed
    assert "clean victim" not in changed


def test_a_frozen_victim_has_a_surrogate_that_is_trained_from_scratch(tiny, tmp_path):
    save_file(Cnn32().state_dict(), tmp_path / "w.safetensors")
    spec = planned(
        tiny, tmp_path, victim="csq", recipe="frozen", surrogate_recipe="scratch32", epochs=1,
        weights=str(tmp_path / "w.safetensors"), attack_settings=(("steps", 2),),
    ).spec  # fmt: skip
    run = Run(spec, cache=Cache(tmp_path), device=CPU)
    assert "surrogate's features" not in run.plan.stages
    whole, head = (set(run.make(name).tensors) for name in ("surrogate", "victim"))
    assert "model.backbone.0.weight" in whole
    assert not any("backbone" in name for name in head)


def test_pooling_is_the_victims_and_that_of_a_surrogate_with_the_same_backbone(tiny, tmp_path):
    plan = planned(tiny, tmp_path, size=32, pool="flatten", hidden=9)
    assert (plan.victim.pool, plan.surrogate.pool) == ("flatten", "flatten")
    plan = planned(tiny, tmp_path, size=32, pool="flatten", hidden=9, surrogate_backbone="resnet18")
    assert (plan.victim.pool, plan.surrogate.pool) == ("flatten", None)
    assert (plan.victim.hidden, plan.surrogate.hidden) == (9, 9)


def starts(plan: Plan) -> list[tuple[bool, str]]:
    """Whether victim and surrogate start from published weights, and the name of their file."""
    return [(one.pretrained, Path(one.weights or "").name) for one in (plan.victim, plan.surrogate)]


def test_a_surrogate_may_start_from_published_weights_of_its_own(tiny, tmp_path):
    hub, none = (True, ""), (False, "")
    other = {"backbone": "resnet18", "size": 32}
    assert starts(planned(tiny, tmp_path, **other)) == [none, none]
    own = planned(tiny, tmp_path, **other, surrogate_pretrained=True)
    assert starts(own) == [none, hub]
    assert own.spec.pretrained_backbones == {"resnet18"}
    same = planned(tiny, tmp_path, **other, pretrained=True, surrogate_pretrained=True)
    assert same.spec.surrogate_pretrained is None  # says nothing new, and leaves old keys alone
    assert starts(same) == starts(planned(tiny, tmp_path, **other, pretrained=True)) == [hub, hub]
    without = planned(tiny, tmp_path, **other, pretrained=True, surrogate_pretrained=False)
    assert starts(without) == [hub, none]
    assert keys(without)["surrogate"] == keys(planned(tiny, tmp_path, **other))["surrogate"]
    assert keys(without)["victim"] != keys(same)["victim"]  # its poison is of another surrogate
    patch = planned(tiny, tmp_path, **other, attack="badnets", surrogate_pretrained=True)
    assert patch.spec.surrogate_pretrained is None  # it trains no surrogate
    mixed = planned(tiny, tmp_path, pretrained=True, backbone="resnet18", size=32,
                    surrogate_backbone="cnn32", surrogate_pretrained=False)  # fmt: skip
    assert starts(mixed) == [hub, none]
    assert mixed.spec.pretrained_backbones == {"resnet18"}


def test_a_file_of_weights_is_the_surrogates_too_unless_it_has_a_start_of_its_own(tiny, tmp_path):
    save_file(Cnn32().state_dict(), tmp_path / "w.safetensors")
    file = {"weights": str(tmp_path / "w.safetensors")}
    assert starts(planned(tiny, tmp_path, **file)) == [(False, "w.safetensors")] * 2
    own = planned(tiny, tmp_path, **file, surrogate_pretrained=False)
    assert starts(own) == [(False, "w.safetensors"), (False, "")]
    assert own.spec.surrogate_pretrained is False


MIXED = {
    "recipe": "frozen", "surrogate_recipe": "scratch32", "backbone": "tf_efficientnet_lite0",
    "surrogate_backbone": "cnn32", "size": 32,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"surrogate_recipe": "scratch"}, "unknown recipe 'scratch': did you mean scratch32"),
        (
            {"surrogate_recipe": "frozen"},
            "or take another --surrogate-recipe.",
        ),
        (
            MIXED | {"pretrained": True},
            "backbone 'cnn32' has no published weights: add --no-surrogate-pretrained",
        ),
        (
            {"surrogate_recipe": "finetune224"},
            "fine-tuned from random weights at a learning rate of 1e-05: add "
            "--surrogate-pretrained, or take --surrogate-recipe scratch32",
        ),
        ({"pool": "maximum"}, "unknown --pool 'maximum': did you mean max"),
        ({"hidden": -1}, "--hidden"),
    ],
)
def test_recipes_and_weights_that_do_not_go_together_are_refused_in_planning(
    tiny, tmp_path, changes, says
):
    with pytest.raises(UserError) as error:
        planned(tiny, tmp_path, **changes)
    assert says in str(error.value)
