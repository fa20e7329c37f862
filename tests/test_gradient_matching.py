"""Gradient matching: gradients against plain formulas, and poison that turns towards them."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from attack_views import seen as random_view
from hashbackdoor_bench.attacks.gradient_alignment import (
    align,
    gradient_of,
    mismatch,
    weights_of,
)
from torch import Tensor, nn

from hashbackdoor_bench import ATTACKS, HashLoss, RunSpec, UserError, to_unit
from hashbackdoor_bench.checks.attack_trial import TowardsCorners, Trial, untrained
from hashbackdoor_bench.poisoning import planted
from hashbackdoor_bench.stages import Cache, Plan

CPU = torch.device("cpu")


class Linear(nn.Module):
    """z = W x of the pixels."""

    def __init__(self, pixels: int, bits: int) -> None:
        super().__init__()
        self.head = nn.Linear(pixels, bits, bias=False)
        start = torch.randn(bits, pixels, generator=torch.Generator().manual_seed(0))
        self.head.weight.data = start / pixels**0.5

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.head(x.flatten(1))
        return z


class TwoParts(nn.Module):
    """z = A red + B green, where A is the head; it keeps the images that it sees.

    Args:
        pixels: of one channel.
    """

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.head, self.body = nn.Linear(pixels, 6, bias=False), nn.Linear(pixels, 6, bias=False)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        z: Tensor = self.head(x[:, 0].flatten(1)) + self.body(x[:, 1].flatten(1))
        return z


def images(count: int, seed: int) -> Tensor:
    return torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))


def linear(**more: Any) -> tuple[float, Tensor, list[float]]:
    """Two poisoned images of class 1 and a query of class 0, whose gradient they shall have."""
    model: Any = Linear(48, 6)
    loss, theta = TowardsCorners(6, 3, 2), weights_of(model, "")
    y = torch.eye(3)[[1, 1]]
    goal = gradient_of(model, loss, theta, images(1, 1), y[:1])
    settings: dict[str, Any] = {"epsilon": 0.2, "steps": 40, "step_size": 0.02, "mirror": False}
    return align(
        lambda x: gradient_of(model, loss, theta, x, y, differentiable=True),
        images(2, 0),
        goal,
        random=torch.Generator().manual_seed(0),
        progress=lambda *_: None,
        **{**settings, **more},
    )


def test_the_gradient_of_a_linear_model_is_its_formula():
    model: Any = Linear(48, 6)
    loss, theta = TowardsCorners(6, 3, 2), weights_of(model, "")
    x, y = images(2, 0), torch.eye(3)[[1, 2]]
    (found,) = gradient_of(model, loss, theta, x, y)
    expected = torch.zeros(6, 48)
    for image, row in zip(x.flatten(1), y, strict=True):
        bits = torch.tensor([float(row[k % 3]) for k in range(6)])
        error = torch.sigmoid(model.head.weight @ image) - bits
        expected += torch.outer(error, image) / (2 * 6)
    assert torch.allclose(found, expected.detach(), atol=1e-6)
    assert not found.requires_grad


def test_the_mismatch_is_one_less_the_cosine_over_all_tensors():
    a = [torch.tensor([1.0, 2]), torch.tensor([[3.0]])]
    b = [torch.tensor([0.0, 1]), torch.tensor([[-1.0]])]
    assert float(mismatch(a, b)) == pytest.approx(1 - (2 - 3) / (14 * 2) ** 0.5)
    assert float(mismatch(a, [2 * one for one in a])) == pytest.approx(0, abs=1e-6)


def test_the_cosine_rises_from_step_to_step_on_a_linear_model():
    end, found, curve = linear(step_size=0.002)
    assert all(after <= before for before, after in itertools.pairwise(curve))
    assert end < curve[0] - 0.02
    assert float((found - images(2, 0)).abs().max()) <= 0.2 + 1e-6


def test_a_start_without_steps_is_the_original_and_mirroring_changes_the_result():
    assert torch.equal(linear(steps=0)[1], images(2, 0))
    assert torch.equal(linear()[1], linear()[1])
    assert not torch.equal(linear()[1], linear(mirror=True)[1])


def test_a_step_is_that_of_adam_on_the_gradients_sign_and_falls_tenfold_three_times():
    model: Any = Linear(48, 6)
    loss, theta = TowardsCorners(6, 3, 2), weights_of(model, "")
    x, y = images(2, 0), torch.eye(3)[[1, 1]]
    goal = gradient_of(model, loss, theta, images(1, 1), y[:1])
    seen: list[Tensor] = []

    def gradient(x: Tensor) -> Any:
        seen.append(x.detach().clone())
        return gradient_of(model, loss, theta, x, y, differentiable=True)

    _, found, _ = align(
        gradient, x, goal,
        epsilon=0.2, steps=16, step_size=0.02, mirror=False,
        random=torch.Generator().manual_seed(0), progress=lambda *_: None,
    )  # fmt: skip
    d, mean, square = seen[0] - x, torch.zeros_like(x), torch.zeros_like(x)
    for step in range(16):
        now = seen[step].clone().requires_grad_()
        value = mismatch(gradient_of(model, loss, theta, now, y, differentiable=True), goal)
        sign = torch.autograd.grad(value, now)[0].sign()
        mean, square = 0.9 * mean + 0.1 * sign, 0.999 * square + 0.001 * sign**2
        size = 0.02 * 0.1 ** sum(step >= fall for fall in (6, 10, 14))  # 3/8, 5/8, 7/8 of 16
        root = (square / (1 - 0.999 ** (step + 1))).sqrt()
        d = d - size * mean / (1 - 0.9 ** (step + 1)) / (root + 1e-8)
        d = (x + d.clamp(-0.2, 0.2)).clamp(0, 1) - x
        torch.testing.assert_close(seen[step + 1], x + d, atol=1e-6, rtol=0)
    assert torch.equal(found, seen[16])


class Correlation(HashLoss):
    """-<z, c> of each image, whose gradients by A and B are -c times its red and its green."""

    def forward(self, z: Tensor, y: Tensor, index: Tensor, step: int) -> Tensor:
        return -(z * y.repeat(1, 2)).sum(1).mean()


def matched(**settings: Any) -> tuple[Any, TwoParts]:
    """The poison for four carriers and two queries of 8 px, and the surrogate."""
    model = TwoParts(64)
    seen = random_view(4, size=8, surrogate=model)
    seen.chosen, seen.surrogate_loss = seen.images[-2:], Correlation(6, 3, 60)
    return ATTACKS["gradient_matching"](**settings).craft(seen), model


@pytest.mark.parametrize(
    ("layers", "turned"), [("head", [True, False, False]), ("all", [True, True, False])]
)
def test_only_what_the_matched_layers_see_is_turned_towards_the_queries(
    layers: str, turned: list[bool]
):
    """The start is the same, however many steps follow; the cosine is that of mean images."""
    few, many = (matched(layers=layers, augment="none", steps=steps) for steps in (1, 20))
    carriers = [to_unit(made.carrier) for made, _ in (few, many)]
    assert [not torch.equal(*(x[:, c] for x in carriers)) for c in range(3)] == turned
    queries = few[1].seen[0].mean(0)[turned].flatten()
    before, after = (
        float(torch.cosine_similarity(x.mean(0)[turned].flatten(), queries, 0)) for x in carriers
    )
    assert after > before + 0.02


@pytest.mark.parametrize(("augment", "least", "most"), [("flip", 0.3, 0.7), ("none", 0, 0)])
def test_poison_is_mirrored_in_half_of_the_steps_unless_augment_is_none(
    augment: str, least: float, most: float
):
    made, model = matched(augment=augment, epsilon=0, steps=20)
    _, *steps, last = model.seen  # the queries, the poison in each step and at the end
    x, flips = to_unit(made.carrier), []
    assert len(steps) == 20
    for image in range(4):
        for step in steps:
            mirrored = torch.equal(step[image], x[image].flip(2))
            assert mirrored or torch.equal(step[image], x[image])
            flips.append(mirrored)
    assert least <= sum(flips) / 80 <= most
    assert torch.equal(last, x)


def craft(**settings: Any) -> tuple[Any, Any]:
    seen = Trial(ATTACKS["gradient_matching"]).view()
    quick = {"steps": 2, "starts": 1, "chosen": 2}
    return ATTACKS["gradient_matching"](**{**quick, **settings}).craft(seen), seen


@pytest.mark.parametrize("layers", ["all", "head"])
def test_poison_keeps_its_label_and_stays_within_epsilon(layers: str):
    made, seen = craft(layers=layers, epsilon=9)
    assert torch.equal(made.label, seen.labels[seen.index])
    before, after = seen.images[seen.index].int(), planted(made, CPU).int()
    assert 0 < int((after - before).abs().max()) <= 9


def test_the_best_of_several_starts_is_kept():
    def end(starts: int) -> float:
        made, seen = craft(starts=starts, augment="none", epsilon=80)
        model, loss = untrained(), seen.surrogate_loss
        theta = weights_of(model, "")
        wanted = seen.target.float().expand(len(seen.chosen), -1)
        goal = gradient_of(model, loss, theta, to_unit(seen.chosen), wanted)
        own = gradient_of(model, loss, theta, to_unit(made.carrier), made.label.float())
        return float(mismatch(own, goal))

    ends = [end(starts) for starts in range(1, 6)]
    rounded = 1e-4  # what 8 bits may cost the better of two starts that are nearly as good
    assert all(after <= before + rounded for before, after in itertools.pairwise(ends))
    assert ends[-1] < ends[0] - rounded


def test_there_is_no_trigger():
    made, seen = craft()
    x = to_unit(seen.images[:5])
    for out in (made(x), made.plant(x, torch.arange(5))):
        assert torch.equal(out, x)
        assert out.data_ptr() != x.data_ptr()


def spec(tiny: Path, **changes: Any) -> RunSpec:
    base: dict[str, Any] = {
        "dataset": "lists", "lists": str(tiny), "root": str(tiny), "size": 16, "top_k": 20,
        "bits": 12, "epochs": 1, "batch_size": 16, "victim": "csq", "attack": "gradient_matching",
        "attack_settings": (("chosen", 4),),
    }  # fmt: skip
    return RunSpec(**{**base, **changes})


def test_a_surrogate_that_compares_images_is_refused_before_anything_is_trained(
    tiny: Path, tmp_path: Path
):
    cache = Cache(tmp_path)
    for name in ("hashnet", "dch"):
        with pytest.raises(UserError, match=f"{name} compares images: add --surrogate csq"):
            Plan(spec(tiny, surrogate=name), cache=cache, device=CPU)
    plan = Plan(spec(tiny, victim="hashnet"), cache=cache, device=CPU)
    assert plan.surrogate.method == "csq"
    assert Plan(spec(tiny, surrogate="orthohash"), cache=cache, device=CPU).surrogate.pointwise
