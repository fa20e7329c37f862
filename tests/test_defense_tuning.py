"""The tuned strength of a defense, and the images on which it is found."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from defended_runs import CPU, plan, spec
from planted import Planted, pictures, seen

from hashbackdoor_bench import DEFENSES, Assumes, DefenderView, Defense, UserError
from hashbackdoor_bench.registry import Method
from hashbackdoor_bench.stages import Run, defending
from hashbackdoor_bench.stages.resolving_defense import ResolvedDefense


def test_a_tuned_defense_has_the_largest_strength_that_costs_two_points(tiny, warm, tmp_path):
    made = Run(spec(tiny, defense="clp", operating_point="tuned"), cache=warm, device=CPU)
    facts, grid = made.make("victim's tuning").facts, DEFENSES["clp"].cls.grid
    allowed = [u for u, loss in zip(grid, facts["losses"], strict=True) if loss <= defending.COST]
    assert facts["strength"] == (allowed[-1] if allowed else grid[0])
    assert made.record().defense.settings == {"u": facts["strength"]}
    assert made.record().spec.operating_point == "tuned"


class Blackout(Defense):
    """Makes the first queries black."""

    strength = "first"

    def __init__(self, *, first: int = 0) -> None:
        self.first = first

    def purify(self, x, item):
        return torch.where(torch.isin(item, DARKENED[: self.first])[:, None, None, None], 0, x)


DARKENED = pictures(100, seed=5).item  # the numbers of the clean images of `seen`


@pytest.mark.parametrize(("grid", "strength"), [
    ((0, 100, 1), 1),  # the last that is allowed
    ((0, 2, 100), 0),  # two of a hundred cost 1.4 points, with an interval beyond 2
    ((3, 100, 50), 3),  # none is allowed: the weakest
])  # fmt: skip
def test_a_strength_is_allowed_if_the_upper_end_of_its_loss_is(
    monkeypatch, tmp_path, grid, strength
):
    view = seen(Planted())
    cls = type("Blackout", (Blackout,), {"grid": grid})
    chosen = ResolvedDefense(Method("defense", "blackout", cls), {"first": 0}, True, 100)
    monkeypatch.setattr(defending, "view_of", lambda *given: view)
    made: Any = SimpleNamespace(plan=SimpleNamespace(defense=chosen, stages=("victim",)))
    stage: Any = None
    _, facts = defending.tune("victim", made, stage, tmp_path)
    assert facts["strength"] == strength
    for first, upper in zip(grid, facts["losses"], strict=True):
        black = view.average_precisions(purify=cls(first=first).purify)
        losses = [1 - float(value) for value in black]
        mean = sum(losses) / 100
        spread = (sum((value - mean) ** 2 for value in losses) / 100) ** 0.5
        assert upper == pytest.approx(mean + 1.96 * spread / 10, abs=0.012)


def test_a_repair_is_tuned_on_images_that_it_was_not_given(tiny, warm, tmp_path, method):
    given = []

    class Learns(Defense):
        """Remembers what it is given, and changes nothing."""

        assumes = Assumes(per_class=2)
        strength = "rate"
        grid = (1.0, 2.0)

        def __init__(self, *, rate: float = 1.0) -> None:
            self.rate = rate

        def repair(self, view):
            given.append(set(view.clean.item.tolist()))
            return view.model

    searched = []
    measure = DefenderView.average_precisions

    def watched(self, *arguments):
        searched.append(set(self.clean.item.tolist()))
        return measure(self, *arguments)

    name = method(Learns)
    with pytest.raises(UserError, match=r"asks for 4 clean images per class \(12\).* gives 9"):
        plan(tiny, tmp_path, defense=name, operating_point="tuned", clean_share=0.15)
    made = Run(spec(tiny, defense=name, operating_point="tuned"), cache=warm, device=CPU)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DefenderView, "average_precisions", watched)
        made.make("victim's tuning")
    assert given == [given[0]] * 2
    assert searched == [searched[0]] * 3  # before, and at each strength
    assert len(given[0]) == len(searched[0]) == 15
    assert not given[0] & searched[0]
    made.make("repaired victim")
    assert given[2] == given[0] | searched[0]


def test_the_loss_of_a_purifier_is_that_of_the_same_images():
    view = seen(Planted())
    assert view.map() == 1.0
    spoilt = view.average_precisions(purify=lambda x, item: torch.zeros_like(x))
    assert float(spoilt.mean()) < 0.5
    same = view.average_precisions(purify=lambda x, item: x)
    assert torch.equal(same, view.average_precisions())
