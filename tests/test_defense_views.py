"""What a defender sees of a run, and what it does not."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest
import torch
from defended_runs import CPU, plan, spec
from planted import Planted, pictures, seen, triggered
from torch import Tensor, nn

from hashbackdoor_bench import DEFENSES, Assumes, Defense, Screening, UserError, to_unit
from hashbackdoor_bench.api import COVER, POISON
from hashbackdoor_bench.data import Split
from hashbackdoor_bench.stages import Cache, Plan, Run
from hashbackdoor_bench.stages.clean_images import draw_clean
from hashbackdoor_bench.stages.defender_views import view_of


def reachable(value: object, known: set[int]) -> Iterator[object]:
    """All that can be reached from an object by attributes, items and closures."""
    if id(value) in known or isinstance(value, str | int | float | bool | Path | type(None)):
        return
    known.add(id(value))
    yield value
    if isinstance(value, Tensor | torch.device | torch.dtype):
        return
    below: list[object] = []
    if isinstance(value, dict):
        below += [*value.keys(), *value.values()]
    elif isinstance(value, list | tuple | set | frozenset):
        below += list(value)
    elif is_dataclass(value):
        below += [getattr(value, field.name) for field in fields(value)]
    below += list(getattr(value, "__dict__", {}).values()) if not isinstance(value, type) else []
    below += [cell.cell_contents for cell in getattr(value, "__closure__", None) or ()]
    for one in below:
        yield from reachable(one, known)


def test_the_view_of_a_defender_reaches_no_query_trigger_poison_or_target(tiny, warm, method):
    views = []

    class Nosy(Defense):
        """Keeps its view."""

        assumes = Assumes(clean=3, sees=frozenset({"train", "weights", "queries", "database"}))

        def screen(self, view):
            views.append(view)
            return Screening(torch.zeros(len(view.train)), torch.zeros(len(view.train)).bool())

        def repair(self, view):
            views.append(view)
            return view.model

        def suspect(self, x, item, view):
            views.append(view)
            return torch.zeros(len(x))

        def inspect(self, view):
            from hashbackdoor_bench import Inspection

            views.append(view)
            return Inspection(0.0, torch.empty(0))

        def audit(self, window, view):
            views.append(view)
            return window.float().mean()

    made = Run(spec(tiny, defense=method(Nosy)), cache=warm, device=CPU)
    made.record()
    splits, backdoor = made.plan.splits, made.backdoor
    queries = {image.numpy().tobytes() for image in splits.query.images}
    hit = made.trigger(splits.query.images)
    queries |= {image.numpy().tobytes() for image in hit}
    index = backdoor.index.tolist()
    assert views
    stages = {view.title for view in views}
    assert {title.partition(" (")[0] for title in stages} >= {"repair", "inspect", "audit"}
    for view in views:
        assert view.poison is None
        for one in reachable(view, set()):
            assert not isinstance(one, Run | Plan | Split | Cache | type(backdoor))
            assert one is not made.plan.target
            if isinstance(one, Tensor) and one.dtype == torch.uint8 and one.ndim == 4:
                assert not queries & {image.contiguous().numpy().tobytes() for image in one}
            if isinstance(one, Tensor) and one.ndim == 1 and len(one) == len(index):
                assert one.tolist() != index


def test_only_a_control_sees_the_poison(tiny, warm):
    oracle = Run(spec(tiny, defense="oracle"), cache=warm, device=CPU)
    drop = oracle.make("victim's screening").tensors["drop"].bool()
    assert torch.equal(drop.nonzero().flatten(), oracle.backdoor.index.cpu())
    assert not oracle.make("clean victim's screening").tensors["drop"].any()
    others = [name for name in DEFENSES if "poison" in DEFENSES[name].cls.assumes.sees]
    assert all(DEFENSES[name].cls.control for name in others)


def test_an_image_that_covers_the_poison_is_none_of_it(tiny, warm):
    made = Run(spec(tiny, defense="oracle", attack="adap_blend"), cache=warm, device=CPU)
    drop = made.make("victim's screening").tensors["drop"].bool()
    kind = made.backdoor.kind.cpu()
    assert set(kind.tolist()) == {POISON, COVER}
    assert torch.equal(drop.nonzero().flatten(), made.backdoor.index.cpu()[kind == POISON].msort())


def test_training_images_are_as_delivered(tiny, warm):
    made = Run(spec(tiny, defense="spectral"), cache=warm, device=CPU)
    stage = made.plan.stages["victim's screening"]
    view = view_of("victim", "victim", made, stage, None)
    index, train = made.backdoor.index.cpu(), made.plan.splits.train
    untouched = torch.ones(len(train), dtype=torch.bool)
    untouched[index] = False
    assert torch.equal(view.train.images[untouched], train.images[untouched])
    expected = made.trigger(train.images[index])
    assert torch.equal(view.train.images[index], expected)
    assert torch.equal(view.train.labels[index], made.backdoor.label.cpu())


def test_clean_images_are_balanced_fixed_and_never_training_images(tiny, tmp_path):
    one = plan(tiny, tmp_path, defense="finetune").clean
    two = plan(tiny, tmp_path, defense="finetune", attack="badnets_clean").clean
    splits = plan(tiny, tmp_path).splits
    assert torch.equal(one.rows, two.rows)
    assert not one.oracle
    assert splits.database.labels[one.rows].sum(0).tolist() == [10, 10, 10]
    assert not {splits.database.ids[row] for row in one.rows.tolist()} & set(splits.train.ids)
    other = plan(tiny, tmp_path, defense="finetune", seed=1).clean
    assert not torch.equal(one.rows, other.rows)


def test_both_halves_of_the_clean_images_have_all_classes_and_no_image_in_common():
    view = seen(Planted())
    for half in (view.fitting, view.calibration):
        assert half.labels.sum(0).tolist() == [5] * 10
    assert not set(view.fitting.item.tolist()) & set(view.calibration.item.tolist())


def test_where_the_database_is_the_training_split_clean_images_are_not_poisoned(tiny, tmp_path):
    splits = plan(tiny, tmp_path).splits
    splits = replace(splits, database=splits.train)
    poisoned = torch.arange(0, 60, 2)
    found = draw_clean(splits, poisoned, 12, 0)
    assert found.oracle
    assert not torch.isin(found.rows, poisoned).any()
    with pytest.raises(UserError, match=r"31 clean images and there are 30.*--clean-share"):
        draw_clean(splits, poisoned, 31, 0)


def test_a_filter_never_drops_more_than_half_of_a_class():
    view = seen(Planted(), train=pictures(400, seed=3))
    greedy = Screening(torch.arange(400.0), torch.ones(400, dtype=torch.bool))
    found = view.guarded(greedy)
    for number in range(10):
        own = torch.arange(number, 400, 10)
        assert torch.equal(own[found.drop[own]], own[20:])


def test_anchors_and_radii_are_those_of_the_clean_images():
    view = seen(Planted())
    assert torch.equal(view.anchors.float(), view.model.anchors)
    assert (view.radius == 0).all()
    x = triggered(to_unit(view.clean.images))
    assert torch.equal(view.model.code(x)[0], view.anchors[3])


def test_a_module_in_a_view_is_frozen_and_in_eval_mode(tiny, warm):
    made = Run(spec(tiny, defense="finetune"), cache=warm, device=CPU)
    view = view_of("victim", "victim", made, made.plan.stages["repaired victim"], None)
    assert not view.model.training
    assert not any(p.requires_grad for p in view.model.parameters())
    assert isinstance(view.loss, nn.Module)
    assert view.loss.train_size == len(view.clean)
