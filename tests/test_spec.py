import json
from dataclasses import asdict, fields, replace

import pytest

from hashbackdoor_bench import RunSpec, UserError
from hashbackdoor_bench.spec import RECIPES, Recipe, canonical, digest

OTHER = {
    "attack": "tri", "victim": "csq", "bits": 16, "dataset": "cifar10@0", "lists": "/l",
    "root": "/r", "top_k": 10, "size": 32, "target": "1", "budget": 0.5, "poison_count": 3,
    "delivery": "files", "seed": 1, "backbone": "resnet18", "pretrained": True, "weights": "/w",
    "recipe": "ciba", "epochs": 3, "batch_size": 8, "lr": 0.5, "augment": "none",
    "precision": "float32", "surrogate": "csq", "surrogate_backbone": "resnet18",
    "surrogate_bits": 8, "attack_settings": (("epsilon", 4.0),),
    "victim_settings": (("alpha", 0.2),),
    "tolerance": 0.05, "weights_by_order": True, "pool": "avg", "hidden": 16,
    "surrogate_recipe": "frozen", "defense": "blur", "defense_settings": (("sigma", 2.0),),
    "clean_share": 0.1, "operating_point": "tuned", "aware": "jpeg", "surrogate_pretrained": True,
}  # fmt: skip


@pytest.mark.parametrize("name", [field.name for field in fields(RunSpec)])
def test_every_field_changes_the_key(name: str):
    assert replace(RunSpec(), **{name: OTHER[name]}).key != RunSpec().key


@pytest.mark.parametrize("name", ["root", "lists", "weights"])
@pytest.mark.parametrize("path", ["/a\udcff", "/a\udce9b"])
def test_a_path_that_a_record_cannot_hold_is_refused(name: str, path: str):
    with pytest.raises(UserError, match=rf"--{name} /a\\.*ln -s"):
        RunSpec(**{name: path})
    RunSpec(**{name: "/a\u3000\U0001f600"})


def test_fields_that_are_younger_than_schema_1_leave_old_keys_alone():
    younger = {"tolerance", "weights_by_order", "pool", "hidden", "surrogate_recipe", "defense",
               "defense_settings", "clean_share", "operating_point", "aware",
               "surrogate_pretrained"}  # fmt: skip
    assert not younger & RunSpec().to_dict().keys()


def test_a_spec_comes_back_from_json():
    spec = RunSpec(attack_settings=(("epsilon", 4.0), ("patch", None)))
    assert RunSpec.from_dict(json.loads(json.dumps(asdict(spec)))) == spec


def test_a_field_that_does_not_exist_is_refused():
    with pytest.raises(UserError, match=r"victm.*victim"):
        RunSpec.from_dict({"victm": "csq"})


def test_a_field_of_another_type_is_refused_by_its_name():
    with pytest.raises(UserError, match="bits: expected `int`, got `str`"):
        RunSpec.from_dict({"bits": "48"})


@pytest.mark.parametrize(
    "wrong",
    [{"bits": 0}, {"budget": -0.1}, {"budget": float("nan")}, {"seed": -1}, {"poison_count": -1},
     {"poison_count": 10**400}, {"surrogate_bits": 0}, {"pretrained": True, "weights": "w"},
     {"clean_share": 1.1}, {"operating_point": "best"}],
    ids=lambda wrong: ",".join(wrong),
)  # fmt: skip
def test_a_value_outside_its_range_is_refused(wrong):
    with pytest.raises(UserError, match=f"--{next(iter(wrong)).replace('_', '-')}"):
        RunSpec(**wrong)


def test_canonical_json_does_not_depend_on_the_order_of_keys_and_refuses_nan():
    assert canonical({"b": 1, "a": [1.5, None]}) == '{"a":[1.5,null],"b":1}'
    assert digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
    with pytest.raises(ValueError, match="JSON"):
        canonical(float("nan"))
    with pytest.raises(TypeError, match="set is no JSON value"):
        canonical({"a": {1}})


def test_a_changed_learning_rate_keeps_the_ratio_to_the_heads():
    recipe = RunSpec(recipe="ciba", lr=5e-4).training("scratch32")
    assert recipe.head_lr / recipe.lr == pytest.approx(10)
    assert recipe.epochs == RECIPES["ciba"][1].epochs


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch_size": 0}, {"augment": "mixup"}])
def test_a_recipe_outside_its_range_is_refused(wrong):
    with pytest.raises(UserError, match=f"--{next(iter(wrong)).replace('_', '-')}"):
        replace(RECIPES["scratch32"][1], **wrong)


def test_published_recipes_are_the_published_ones():
    assert RECIPES["ciba"][1] == Recipe(
        200, 24, "sgd", 1e-4, 1e-3, 0.9, 5e-4, "constant", "rrc", "auto", True, deep_head=True
    )
    assert RECIPES["badhash"][1] == Recipe(
        100, 128, "rmsprop", 1e-5, 1e-5, 0.0, 1e-5, "constant", "none", "auto", True
    )
    assert RECIPES["finetune224"][1].lr == 1e-5
