"""Narcissus: the perturbation towards the anchor code, its two variants, and queries."""

from pathlib import Path
from typing import Any

import pytest
import torch
from attack_views import Linear, change, craft, network, seen

from hashbackdoor_bench import ATTACKS, anchor_code
from hashbackdoor_bench.api import to_unit

ATTACKS["narcissus"]  # imports the package's files under their own names
from hashbackdoor_bench.attacks.narcissus import inward_perturbation  # noqa: E402

WIDE = (100, 156)  # grey levels that 3 * 32 levels more or less don't clip


@pytest.mark.parametrize("epsilon", [16, 3])
@pytest.mark.parametrize(("variant", "times"), [("corrected", 1), ("released", 2)])
def test_on_a_linear_surrogate_the_perturbation_is_the_sign(variant: str, times: int, epsilon: int):
    """The gradient of -<W(x + d), h_a> / K is -W'h_a, so d = epsilon sign(W'h_a)."""
    view = seen(size=8, levels=WIDE, surrogate=Linear())
    backdoor = craft("narcissus", view, variant=variant, epsilon=epsilon)
    weight = view.surrogate.weight.tolist()  # type: ignore[union-attr,operator]
    target = to_unit(view.images[view.labels[:, 0] == 1]).flatten(1).tolist()
    anchor = []
    for row in weight:
        votes = [sum(w * v for w, v in zip(row, x, strict=True)) >= 0 for x in target]
        anchor.append((sum(votes) > len(votes) / 2) - (sum(votes) < len(votes) / 2))
    slopes = [sum(row[p] * a for row, a in zip(weight, anchor, strict=True)) for p in range(192)]
    expected = [times * epsilon * (1 if slope > 0 else -1) for slope in slopes]
    for image in change(backdoor):
        assert image.flatten().tolist() == expected
    x = to_unit(view.images[:3])
    tripled = torch.tensor(expected).view(3, 8, 8) * 3 / 255
    torch.testing.assert_close(backdoor(x), (x + tripled).clamp(0, 1))


def test_the_optimisation_stops_when_no_pixel_has_a_gradient():
    attack = ATTACKS["narcissus"](rounds=1000)
    view = seen(size=8, levels=WIDE, surrogate=Linear())
    losses = attack.craft(view).history["perturbation/loss"]  # type: ignore[attr-defined]
    assert 10 < len(losses) < 1000
    few = ATTACKS["narcissus"](rounds=4).craft(view)  # type: ignore[attr-defined]
    assert few.history["perturbation/loss"] == losses[:4]


def test_the_first_loss_is_the_formula_of_unchanged_images():
    model, view = network(), seen(surrogate=network())
    images = view.images[view.labels[:, 0] == 1]
    anchor = anchor_code(model, images).tolist()
    codes = torch.tanh(model(to_unit(images))).tolist()
    expected = -sum(
        sum(h * a for h, a in zip(code, anchor, strict=True)) / 8 for code in codes
    ) / len(codes)
    found = inward_perturbation(view, epsilon=16, rounds=60, batch=350)
    assert float(found["loss"][0]) == pytest.approx(expected, abs=1e-5)
    assert found["loss"][-1] < found["loss"][0] - 0.01


def test_the_loss_is_that_of_clipped_images():
    view = seen(size=8, levels=(0, 5), surrogate=Linear())
    before, after = (
        inward_perturbation(view, epsilon=16, rounds=rounds, batch=350) for rounds in (40, 41)
    )
    images = to_unit(view.images[view.labels[:, 0] == 1])
    anchor = anchor_code(view.surrogate, view.images[view.labels[:, 0] == 1])
    codes = view.surrogate.relaxed((images + before["perturbation"]).clamp(0, 1))  # type: ignore[union-attr]
    assert float(after["loss"][40]) == pytest.approx(float(-(codes @ anchor).mean() / 5), abs=1e-5)


@pytest.mark.parametrize(("variant", "bound"), [("corrected", 16), ("released", 32)])
def test_poison_stays_within_the_bound_and_queries_within_three_times_it(variant: str, bound: int):
    view = seen(surrogate=network())
    backdoor = craft("narcissus", view, variant=variant, rounds=150)
    assert int(change(backdoor).abs().max()) == bound
    assert float(backdoor.queried.abs().max()) * 255 == pytest.approx(3 * bound)
    torch.testing.assert_close(backdoor.queried, 3 * backdoor.planted)
    assert torch.equal(backdoor.carrier, view.images[view.index])
    assert torch.equal(backdoor.label, view.labels[view.index])
    black, white = torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32)
    torch.testing.assert_close(backdoor(black)[0], backdoor.queried.clamp(min=0))
    torch.testing.assert_close(backdoor(white)[0], (1 + backdoor.queried).clamp(max=1))


@pytest.mark.parametrize("settings", [{"epsilon": 0, "rounds": 5}, {"rounds": 0}])
def test_without_epsilon_or_rounds_nothing_changes(settings: dict[str, Any]):
    view = seen(surrogate=network())
    backdoor = craft("narcissus", view, **settings)
    x = to_unit(view.images[:4])
    assert torch.equal(backdoor(x), x)
    assert not change(backdoor).any()


def test_the_trigger_is_made_of_the_targets_images_alone():
    def of(other: int) -> torch.Tensor:
        view = seen(surrogate=network())
        view.images[view.labels[:, 0] == 0] = other
        found: torch.Tensor = craft("narcissus", view, rounds=30).planted
        return found

    assert torch.equal(of(0), of(200))


def test_a_target_without_images_has_no_perturbation():
    view = seen(0, surrogate=network())
    view.target = torch.tensor([1, 1, 0], dtype=torch.uint8)
    found = inward_perturbation(view, epsilon=16, rounds=5, batch=350)
    assert not found["perturbation"].any()
    assert not len(found["loss"])


def test_both_variants_and_all_budgets_share_the_perturbation():
    asked = []

    def remember(name: str, params: Any, compute: Any) -> Any:
        asked.append((name, dict(params)))
        return compute(None)

    for variant, poisoned in (("corrected", 5), ("released", 5), ("corrected", 9)):
        view = seen(poisoned, surrogate=network())
        view.remember = remember
        craft("narcissus", view, variant=variant, rounds=2)
    assert asked[0] == asked[1] == asked[2]
    assert asked[0] == ("inward_perturbation", {"epsilon": 16, "rounds": 2, "batch": 350})


def test_several_batches_are_steps_of_one_round():
    view = seen(surrogate=network())  # 20 images of the target
    one = inward_perturbation(view, epsilon=16, rounds=10, batch=20)
    four = inward_perturbation(view, epsilon=16, rounds=10, batch=5)
    assert len(one["loss"]) == len(four["loss"]) == 10
    assert four["perturbation"].abs().mean() > 2 * one["perturbation"].abs().mean()


def test_killed_crafting_continues_to_the_same_perturbation(tmp_path: Path, every_epoch_kept: None):
    class Killed(Exception):
        pass

    def kill(stage: str, done: int, total: int, **facts: float) -> None:
        if done == 12:
            raise Killed

    def run(work: Path | None, progress: Any = None) -> dict[str, torch.Tensor]:
        view = seen(surrogate=network())
        view.work, view.progress = work, progress or view.progress
        return inward_perturbation(view, epsilon=16, rounds=25, batch=7)

    with pytest.raises(Killed):
        run(tmp_path, kill)
    counted: list[int] = []
    again = run(tmp_path, lambda stage, done, total, **facts: counted.append(done))
    assert counted[0] == 13
    whole = run(None)
    assert torch.equal(again["perturbation"], whole["perturbation"])
    assert torch.equal(again["loss"], whole["loss"])
