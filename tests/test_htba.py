"""HTBA: its perturbations and pairing against brute force, and what its poison hides."""

import itertools
from typing import Any

import pytest
import torch
from attack_views import seen as random_view
from hashbackdoor_bench.attacks.htba_matching import approach, distances, pairing
from hashbackdoor_bench.attacks.htba_patch import RoamingPatch, coloured_patch, paste_at
from torch import Tensor, nn

from hashbackdoor_bench import ATTACKS, AttackerView, UserError, to_unit
from hashbackdoor_bench.checks.attack_trial import Trial
from hashbackdoor_bench.poisoning import planted

CPU = torch.device("cpu")


class Pixels(nn.Module):
    """A surrogate whose features, outputs and codes are the pixels: f(x) = x."""

    def features(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def relaxed(self, x: Tensor) -> Tensor:
        return 2 * x.flatten(1) - 1


class Colours(nn.Module):
    """A surrogate whose features see the red channel, its outputs the green, its codes the blue."""

    def features(self, x: Tensor) -> Tensor:
        return x[:, 0].flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 1].flatten(1)

    def relaxed(self, x: Tensor) -> Tensor:
        return 2 * x[:, 2].flatten(1) - 1


class Sums(nn.Module):
    """A surrogate whose features are running sums of pixels: the nearest source may change."""

    def features(self, x: Tensor) -> Tensor:
        return x.flatten(1).cumsum(1)


def near(x: Tensor, wanted: Tensor, **more: Any) -> tuple[Tensor, list[float]]:
    settings: dict[str, Any] = {"match": "features", "epsilon": 1.0, "steps": 60, "released": False}
    model: Any = Pixels()
    return approach(model, x, wanted, **{**settings, **more}, progress=lambda *_: None)


def images(count: int, seed: int) -> Tensor:
    return torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))


def craft(**settings: Any) -> tuple[Any, AttackerView]:
    trial = Trial(ATTACKS["htba"])
    seen = trial.view()
    return ATTACKS["htba"](**{"steps": 3, **settings}).craft(seen), seen


def crafted_at_8_px(surrogate: nn.Module, **settings: Any) -> tuple[Any, AttackerView]:
    """Five carriers of class 0 that shall look like sources of class 1, two at a time."""
    seen = random_view(size=8, surrogate=surrogate)
    seen.source = seen.labels[1]
    return ATTACKS["htba"](epsilon=255, together=2, **settings).craft(seen), seen


def patched_sources(seen: AttackerView, patch: Tensor) -> dict[tuple[int, int, int], Tensor]:
    """Each image of the source class with the patch: by its row, and the patch's upper left."""
    side, found = patch.shape[-1], {}
    places = range(seen.size - side + 1)
    for row in (seen.labels == seen.source).all(1).nonzero().flatten().tolist():
        for top, left in itertools.product(places, places):
            found[row, top, left] = seen.images[row].clone()
            found[row, top, left][:, top : top + side, left : left + side] = patch
    return found


@pytest.mark.parametrize(("match", "channel"), [("features", 0), ("z", 1), ("code", 2)])
def test_what_is_matched_is_that_of_patched_sources_at_several_places_and_the_rest_stays(
    match: str, channel: int
):
    made, seen = crafted_at_8_px(Colours(), match=match, steps=60)
    candidates = patched_sources(seen, made.patch)
    channels = torch.stack([image[channel] for image in candidates.values()]).int()
    if match == "code":
        channels = 255 * (channels > 127)  # the code agrees most where it is saturated
    chosen = []
    for carrier, original in zip(made.carrier, seen.images[seen.index], strict=True):
        rest = [other for other in range(3) if other != channel]
        assert torch.equal(carrier[rest], original[rest])
        far = (carrier[channel].int() - channels).abs().amax((1, 2))
        assert int(far.min()) <= 2
        chosen.append(list(candidates)[int(far.argmin())])
    assert len({row for row, _, _ in chosen}) > 1
    assert len({(top, left) for _, top, left in chosen}) > 1


def test_the_released_variant_first_goes_a_fiftieth_of_the_way_to_a_patched_source():
    made, seen = crafted_at_8_px(Pixels(), variant="released", steps=1)
    sources = torch.stack(list(patched_sources(seen, made.patch).values())).double()
    for carrier, original in zip(made.carrier, seen.images[seen.index].double(), strict=True):
        expected = original + 0.01 * 2 * (sources - original)
        far = (carrier - expected).abs().flatten(1).amax(1)
        assert int((far <= 0.501).sum()) == 1  # rounded to 8 bits


def test_each_step_pairs_anew_by_the_least_sum_and_goes_along_the_gradients_sign():
    x, wanted, model = images(3, 0).double(), images(3, 1).double(), Sums()
    given: Any = model
    found, curve = approach(
        given, x, wanted,
        match="features", epsilon=0.3, steps=10, released=False, progress=lambda *_: None,
    )  # fmt: skip
    goal, d, orders, means = model.features(wanted), torch.zeros_like(x), [], []
    for step in range(10):
        changed = (x + d).requires_grad_()
        own = model.features(changed)
        cost = [[(own[i] - goal[j]).square().sum() for j in range(3)] for i in range(3)]
        sums = {
            order: sum(cost[i][j] for i, j in enumerate(order))
            for order in itertools.permutations(range(3))
        }
        least, order = min((float(value.detach()), order) for order, value in sums.items())
        (gradient,) = torch.autograd.grad(sums[order], changed)
        d = d - 0.03 * 0.5 ** (step // 2) * gradient.sign()  # halved at each fifth of the steps
        d = (x + d.clamp(-0.3, 0.3)).clamp(0, 1) - x
        orders.append(order)
        means.append(least / 3)
    assert orders[0] != (0, 1, 2)
    assert len(set(orders)) > 1
    assert torch.allclose(found, x + d, atol=1e-9)
    assert curve == pytest.approx(means)


def test_with_pixels_as_features_and_a_large_epsilon_poison_becomes_the_patched_sources():
    x, wanted = images(3, 0), images(3, 1)
    found, curve = near(x, wanted, steps=200)
    order = pairing(distances(found.flatten(1), wanted.flatten(1), "features"))
    assert sorted(order.tolist()) == [0, 1, 2]
    assert torch.allclose(found, wanted[order], atol=0.02)
    assert curve[0] > 100 * curve[-1]


def test_outputs_are_matched_likewise_and_codes_by_their_signs():
    x, wanted = images(2, 0), (images(2, 1) > 0.5).float()
    for match in ("z", "code"):
        found, _ = near(x, wanted, match=match, steps=200)
        order = pairing(distances(found.flatten(1), wanted.flatten(1), "z"))
        assert torch.allclose(found, wanted[order], atol=0.02), match


def test_the_released_step_is_the_raw_gradient():
    x, wanted = images(1, 0), images(1, 1)
    found, _ = near(x, wanted, steps=1, released=True)
    assert torch.allclose(found, x - 0.01 * 2 * (x - wanted), atol=1e-6)


def test_the_pairing_is_the_best_of_all_permutations_even_with_equal_distances():
    for seed in range(20):
        cost = torch.randint(4, (3, 3), generator=torch.Generator().manual_seed(seed)).float()
        least = min(
            sum(float(cost[row, column]) for row, column in enumerate(order))
            for order in itertools.permutations(range(3))
        )
        order = pairing(cost)
        assert sorted(order.tolist()) == [0, 1, 2]
        assert float(cost[torch.arange(3), order].sum()) == least


def test_distances_are_squared_norms_or_minus_the_mean_agreement_of_bits():
    a, b = images(2, 0).flatten(1), images(3, 1).flatten(1)
    for row, column in itertools.product(range(2), range(3)):
        pairs = list(zip(a[row].tolist(), b[column].tolist(), strict=True))
        square = sum((p - q) ** 2 for p, q in pairs)
        agreement = -sum(p * q for p, q in pairs) / len(pairs)
        assert float(distances(a, b, "z")[row, column]) == pytest.approx(square, rel=1e-4)
        assert float(distances(a, b, "code")[row, column]) == pytest.approx(agreement, rel=1e-4)


@pytest.mark.parametrize("match", ["features", "z", "code"])
def test_poison_stays_within_epsilon_of_its_carrier_everywhere(match: str):
    made, seen = craft(match=match, epsilon=7, steps=30)  # steps of 21 px in all
    before, after = seen.images[seen.index].int(), planted(made, CPU).int()
    assert 0 < int((after - before).abs().max()) <= 7


def test_without_steps_or_epsilon_poison_is_the_original():
    for settings in ({"steps": 0}, {"epsilon": 0}):
        made, seen = craft(**settings)
        assert torch.equal(planted(made, CPU), seen.images[seen.index])


def test_no_label_is_changed_and_nothing_is_planted_but_queries_are_patched():
    made, seen = craft()
    assert torch.equal(made.label, seen.labels[seen.index])
    x = to_unit(made.carrier)
    kept = made.plant(x, torch.arange(len(x)))
    assert torch.equal(kept, x)
    assert kept.data_ptr() != x.data_ptr()
    changed = (made(x) != x).any(1)  # (P,S,S)
    assert 0 < int(changed.sum((1, 2)).max()) <= 16  # at 32 px the patch has 4 x 4 px


def test_a_query_has_one_place_and_queries_have_many():
    made, seen = craft()
    x = to_unit(seen.images)
    together = made(x)
    places = set()
    for number, image in enumerate(x):
        alone = made(image[None])[0]
        assert torch.equal(alone, together[number])
        row, column = (alone != image).any(0).nonzero().amin(0).tolist()
        places.add((row, column))
    assert len(places) > len(x) / 2


def test_the_patch_stands_at_its_place_and_nowhere_else():
    patch = coloured_patch(4, torch.Generator().manual_seed(0)).float() / 255
    x, place = images(3, 2), torch.tensor([0, 4, 8])
    out = paste_at(x, patch, place)
    for number, (row, column) in enumerate([(0, 0), (1, 1), (2, 2)]):
        expected = x[number].clone()
        expected[:, row : row + 4, column : column + 4] = patch
        assert torch.equal(out[number], expected)


def test_sources_are_of_the_source_class_alone():
    trial = Trial(ATTACKS["htba"])
    seen = trial.view()
    assert seen.source is not None
    rows = ATTACKS["htba"]().sources(seen)
    assert seen.labels[rows].tolist() == [seen.source.tolist()] * 10
    seen.source = None
    rows = ATTACKS["htba"]().sources(seen)
    assert len(rows) == 20
    assert not (seen.labels[rows] & seen.target).any()
    seen.source = torch.zeros_like(seen.target)
    with pytest.raises(UserError, match="has no training image"):
        ATTACKS["htba"]().sources(seen)


def test_the_backdoor_is_restored_from_its_state():
    made, seen = craft()
    again = ATTACKS["htba"]().restore(made.state_dict())
    assert isinstance(again, RoamingPatch)
    x = to_unit(seen.images[:5])
    assert torch.equal(again(x), made(x))
    assert len(again(x[:0])) == 0
