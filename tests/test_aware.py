"""An attacker who expects a defense: his trigger is made behind it, or his surrogate by it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from attack_views import Linear, craft, seen
from safetensors.torch import save_file
from torch import nn

from hashbackdoor_bench import DEFENSES, RunSpec, UserError, anchor_code, jpeg, paste
from hashbackdoor_bench.checks.attack import prepares
from hashbackdoor_bench.checks.attack_trial import Trial
from hashbackdoor_bench.network.cnn32 import Cnn32
from hashbackdoor_bench.registry import ATTACKS, Method
from hashbackdoor_bench.stages.building import clean_items
from hashbackdoor_bench.stages.cache import Cache
from hashbackdoor_bench.stages.pipeline import Run
from hashbackdoor_bench.stages.plan import Plan, attacker_of
from hashbackdoor_bench.stages.stage import Stage

CPU = torch.device("cpu")
SHRINK = DEFENSES["shrinkpad"](pad=1 / 4)
ITEM = torch.arange(1000, 1004)


def pictures(count: int = 4, size: int = 16) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(2))


class Bent(Linear):
    """The linear surrogate with a smooth code that bends, so that its gradient depends on x."""

    std = torch.ones(1, 3, 1, 1)

    def relaxed(self, x, sharpness=1.0):
        return torch.tanh(sharpness * super().relaxed(x) / 20)


# ---- what the attacker's network is shown -------------------------------------------------------


def test_an_attacker_who_expects_no_purifier_sees_the_very_same_images():
    x = pictures()
    assert seen().purified(x, ITEM) is x


def test_jpeg_changes_what_the_surrogate_sees_and_passes_the_gradient_straight_through():
    x, view = pictures().requires_grad_(), replace(seen(), purify=DEFENSES["jpeg"]().purify)
    out = view.purified(x, ITEM)
    assert torch.allclose(out, jpeg(x.detach(), 75), atol=1e-6)
    assert not torch.allclose(out, x, atol=0.02)
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    (gradient,) = torch.autograd.grad((out * weight).sum(), x)
    assert torch.equal(gradient, weight)


def test_the_gradient_through_shrinkpad_is_its_own_by_finite_differences():
    x = pictures(2, 8).double().requires_grad_()
    view = replace(seen(), purify=SHRINK.purify)
    assert torch.autograd.gradcheck(lambda x: view.purified(x, ITEM[:2]), (x,))


def test_shrinkpad_puts_each_image_where_its_number_says():
    x = pictures()
    small = nn.functional.interpolate(x, (12, 12), mode="bilinear", antialias=True).clamp(0, 1)
    out = SHRINK.purify(x, ITEM)
    for own, image, number in zip(out, small, ITEM.tolist(), strict=True):
        chance = torch.Generator().manual_seed(number)
        top, left = torch.randint(5, (2,), generator=chance).tolist()
        ground = torch.zeros(3, 16, 16)
        ground[:, top : top + 12, left : left + 12] = image
        assert torch.equal(own, ground)


# ---- CIBA's patch -------------------------------------------------------------------------------


def test_the_patchs_gradient_is_taken_where_jpeg_leaves_the_images():
    from hashbackdoor_bench.attacks.ciba_patch import patch_gradient

    model, x, patch = Bent(size=16), pictures(), torch.rand(3, 4, 4)
    anchor = torch.tensor([1.0, -1, 1, 1, -1])
    found = patch_gradient(model, x, patch, anchor, 0.5, lambda x: x + (jpeg(x, 30) - x).detach())
    for image, gradient in zip(jpeg(paste(x, patch), 30), found, strict=True):
        slope = 1 - torch.tanh(0.5 * model.weight @ image.flatten() / 20) ** 2  # (K,)
        whole = -((anchor * slope) @ model.weight).view(3, 16, 16)[:, -4:, -4:]
        assert torch.allclose(gradient, whole / whole.norm(), atol=1e-5)


def test_a_purifier_draws_anew_for_each_image_in_each_step():
    drawn: list[int] = []

    def purify(x, item):
        drawn.extend(item.tolist())
        return x * 0.5

    craft("tri", replace(seen(surrogate=Bent(size=32)), purify=purify), steps=3, batch=4)
    assert len(set(drawn)) == 12


@pytest.mark.parametrize(("defense", "strength"), [("shrinkpad", 1 / 4), ("blur", 12.0)])
def test_a_patch_that_is_made_behind_a_purifier_fits_it_better(defense, strength):
    """Its loss behind the purifier, on the images it was made for, is smaller."""
    own = DEFENSES[defense](**{DEFENSES[defense].cls.strength: strength})
    model = Bent(size=32)
    view = seen(surrogate=model)
    anchor = anchor_code(model, view.images[(view.labels == view.target).all(1)])
    x, item = view.images.float() / 255, torch.arange(len(view.images))

    def loss(purify):
        made = craft(
            "tri", replace(view, purify=purify), steps=40, batch=16, patch=12, step_size=150.0
        )
        out = torch.stack([own.purify(made(x), item + 1000 * k) for k in range(8)]).flatten(0, 1)
        return float(-(model.relaxed(out) @ anchor.float()).mean() / 5)

    assert loss(own.purify) < loss(None) - 0.02


def test_an_attack_that_declares_a_purifier_and_ignores_it_fails_the_check():
    class Deaf(ATTACKS["tri"].cls):  # type: ignore[name-defined,misc]
        """Args:"""

        def craft(self, view):
            return super().craft(replace(view, purify=None))

    (problem,) = prepares(Trial(Method("attack", "deaf", Deaf, {"perturbation": "none"})))
    assert "a purifier changes nothing" in problem
    assert not list(prepares(Trial(ATTACKS["tri"])))


# ---- runs ---------------------------------------------------------------------------------------


def spec(tiny: Path, **changes: Any) -> RunSpec:
    plain = RunSpec(
        dataset="lists", lists=str(tiny), root=str(tiny), size=16, top_k=20, bits=8,
        attack="tri", victim="hashnet", recipe="scratch32", epochs=1, precision="float32",
        attack_settings=(("steps", 4),),
    )  # fmt: skip
    return replace(plain, **changes)


def planned(tiny: Path, folder: Path, **changes: Any) -> Plan:
    return Plan(spec(tiny, **changes), cache=Cache(folder), device=CPU)


def keys(plan: Plan) -> dict[str, str]:
    return {name: stage.key for name, stage in plan.stages.items()}


@pytest.mark.parametrize(
    ("aware", "surrogate"), [("jpeg", False), ("shrinkpad", False), ("cutmix", True)]
)
def test_what_an_attacker_expects_changes_his_stages_and_no_clean_victim(
    tiny, tmp_path, aware, surrogate
):
    plain, other = (keys(planned(tiny, tmp_path, aware=name)) for name in ("none", aware))
    changed = {name for name in plain if plain[name] != other[name]}
    assert {"backdoor", "victim"} <= changed
    assert ("surrogate" in changed) == surrogate
    assert "clean victim" not in changed


def test_attackers_who_expect_different_purifiers_share_no_patch(tiny, tmp_path):
    row = Stage(
        "optimise_patch", "shared", "", (), lambda plan, keys: {}, lambda run, stage, work: ({}, {})
    )
    plans = [planned(tiny, tmp_path, aware=name) for name in ("none", "jpeg", "blur")]
    shared = [plan.shared("optimise_patch", {}, row) for plan in plans]
    assert len({one.key for one in shared}) == 3
    assert len({attacker_of(one.inputs) for one in shared}) == 3
    for plan, one in zip(plans, shared, strict=True):
        assert attacker_of(plan.stages["backdoor"].inputs) == attacker_of(one.inputs)


def test_the_surrogate_is_trained_with_the_gradients_that_are_expected(tiny, tmp_path):
    run = Run(spec(tiny, aware="cutmix"), cache=Cache(tmp_path), device=CPU)
    found = run.make("surrogate").tensors
    settings = {"checkpoint": tmp_path / "none", "progress": lambda *a, **k: None, "stage": ""}
    blueprint, items = run.plan.surrogate, clean_items(run)
    mixed, _ = blueprint.train(items, CPU, backward=DEFENSES["cutmix"]().backward, **settings)
    plain, _ = blueprint.train(items, CPU, **settings)
    assert all(torch.equal(found[name], mixed[name]) for name in mixed)
    assert not all(torch.equal(found[name], plain[name]) for name in plain)


def test_the_purifier_that_is_expected_reaches_the_trigger_of_a_run(tiny, tmp_path):
    patches = []
    for aware in ("none", "shrinkpad"):
        run = Run(spec(tiny, aware=aware), cache=Cache(tmp_path), device=CPU)
        patches.append(run.make("backdoor").tensors["patch"])
        assert run.plan.spec.aware == aware
    assert not torch.equal(*patches)


@pytest.mark.parametrize(("changes", "message"), [
    ({"aware": "clp"}, r"--aware clp: .* does neither: choose jpeg"),
    ({"aware": "jpg"}, r"unknown defense 'jpg': did you mean jpeg"),
    ({"aware": "jpeg", "attack": "badnets"}, r"badnets doesn't optimise .* --attack ciba"),
    ({"aware": "cutmix", "attack": "badnets"}, r"badnets trains no network"),
    ({"aware": "cutmix", "surrogate_recipe": "frozen"}, r"give another --surrogate-recipe"),
    ({"aware": "dpsgd"}, r"--aware dpsgd: it needs a gradient for each .* choose a --surrogate"),
])  # fmt: skip
def test_an_attacker_who_cannot_prepare_is_refused(tiny, tmp_path, changes, message):
    save_file(Cnn32().state_dict(), tmp_path / "w.safetensors")
    if "surrogate_recipe" in changes:
        changes = {**changes, "weights": str(tmp_path / "w.safetensors")}
    with pytest.raises(UserError, match=message):
        planned(tiny, tmp_path, **{"attack_settings": (), **changes})
