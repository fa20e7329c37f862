"""Attacks whose poison hides among covers, attacks on the trained model, and what is refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hashbackdoor_bench import (
    ATTACKS,
    Attack,
    AttackerView,
    Backdoor,
    ModelAttack,
    Patch,
    RunSpec,
    ThreatModel,
    UserError,
    checkerboard,
)
from hashbackdoor_bench.api import COVER, POISON, generator
from hashbackdoor_bench.checks import check_attack
from hashbackdoor_bench.cli.result import result_table
from hashbackdoor_bench.method_files import Description
from hashbackdoor_bench.metrics import compare
from hashbackdoor_bench.network.augmentation import centre_crop
from hashbackdoor_bench.poisoning import choose_covers, inspect, planted
from hashbackdoor_bench.records import read_record
from hashbackdoor_bench.registry import Method
from hashbackdoor_bench.stages import Cache, Plan, run
from hashbackdoor_bench.stages.pictures import images_of

CPU = torch.device("cpu")


class Hidden(Attack):
    """A checkerboard on the target's images, and on covers of other classes."""

    threat = ThreatModel(label="clean", knowledge="none", trigger="patch")
    backdoor = Patch
    covers = 0.5

    def craft(self, view: AttackerView) -> Backdoor:
        rows = view.planted
        return Patch(rows, view.images[rows], view.labels[rows], view.kind, patch=checkerboard(4))


class Lying(Hidden):
    """Gives its covers the target's label."""

    def craft(self, view: AttackerView) -> Backdoor:
        made = super().craft(view)
        made.label[made.kind == COVER] = view.target
        return made


class Greedy(Hidden):
    """Makes covers of its own choice."""

    def craft(self, view: AttackerView) -> Backdoor:
        made = super().craft(view)
        if len(view.covers):
            made.index[-1] = next(i for i in range(len(view.images)) if i not in view.planted)
            made.label[-1] = view.labels[made.index[-1]]
        return made


class Flipped(ModelAttack):
    """Turns the sign of the first bit: an edit that any code shows."""

    threat = ThreatModel(label="clean", knowledge="none", trigger="patch", control="model")
    backdoor = Patch

    def tamper(self, model: Any, view: AttackerView) -> tuple[Any, Backdoor]:
        head = model.head[0] if isinstance(model.head, torch.nn.Sequential) else model.head
        with torch.no_grad():
            head.weight[0] *= -1
            head.bias[0] *= -1
        none = view.index
        images = view.images.new_empty(0, 3, view.size, view.size)
        return model, Patch(none, images, view.labels[:0], patch=checkerboard(4))


class Training(Hidden):
    """Declares a control that nothing gives."""

    threat = ThreatModel(label="clean", knowledge="none", trigger="patch", control="training")


class Pretender(Hidden):
    """Poisons, and declares control of the model."""

    threat = ThreatModel(label="clean", knowledge="none", trigger="patch", control="model")


def method(cls: type) -> Method[Any]:
    return Method("attack", cls.__name__.lower(), cls)


def told(cls: type) -> str:
    return " | ".join(f"{one.rule}: {one.text}" for one in check_attack(method(cls)))


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The attacks of this file under their names."""
    for cls in (Hidden, Lying, Flipped, Training):
        name = cls.__name__.lower()
        ATTACKS.add(name, __name__, Description("a test's", ""))
        monkeypatch.setitem(ATTACKS._loaded, name, method(cls))
    yield
    for cls in (Hidden, Lying, Flipped, Training):
        del ATTACKS._plugins[cls.__name__.lower()]


def spec(tiny: Path, attack: str, **changes: Any) -> RunSpec:
    base: dict[str, Any] = {
        "dataset": "lists", "lists": str(tiny), "root": str(tiny), "size": 16, "top_k": 20,
        "bits": 12, "epochs": 1, "batch_size": 16, "victim": "csq", "attack": attack,
        "delivery": "files",
    }  # fmt: skip
    return RunSpec(**{**base, **changes})


# ---- covers -------------------------------------------------------------------------------------


def test_covers_are_neither_poison_nor_of_the_targets_class():
    rows = torch.eye(3, dtype=torch.uint8)[torch.arange(60) % 3]
    rows[1, 0] = 1  # an image of another class that has the target's tag too
    target = torch.tensor([1, 0, 0], dtype=torch.uint8)
    poison = torch.arange(2, 32, 3)
    for seed in range(20):
        covers = choose_covers(rows, target, poison, 1.5, generator(seed, "covers"))
        assert len(covers) == 15
        assert covers.tolist() == sorted(set(covers.tolist()))
        assert not set(covers.tolist()) & set(poison.tolist())
        assert not rows[covers, 0].any()


def test_more_covers_than_there_are_images_are_refused():
    rows = torch.eye(2, dtype=torch.uint8)[torch.arange(20) % 2]
    with pytest.raises(UserError, match=r"12 images are to be covers and .* has 10 of other"):
        choose_covers(rows, rows[0], torch.arange(0, 12, 2), 2.0, generator(0))


def test_an_attack_with_covers_keeps_the_contract():
    assert told(Hidden) == ""


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (Lying, "a cover image keeps its true label"),
        (Greedy, "covers of items that it was not given"),
        (Training, "threat.control='training'"),
        (Pretender, "derive it from Attack for 'poison'"),
    ],
)
def test_a_broken_promise_is_told(cls: type, words: str):
    assert words in told(cls)


def test_poison_in_the_place_of_a_cover_is_refused():
    view = trial_view()
    made = Hidden().craft(view)
    made.kind.fill_(POISON)
    with pytest.raises(ValueError, match="outside the index"):
        inspect(made, view.labels, view.target, view.index, Hidden.threat, covers=view.covers)


def trial_view() -> AttackerView:
    from hashbackdoor_bench.checks.attack_trial import Trial

    view = Trial(method(Hidden)).view()
    assert len(view.covers) == 3  # half of five, rounded up
    return view


def test_covers_are_counted_measured_and_shown_apart_from_poison(
    tiny: Path, tmp_path: Path, registered: None
):
    with_covers, path, stages = run(
        spec(tiny, "hidden"), cache=Cache(tmp_path / "c"), results=tmp_path, device="cpu"
    )
    threat = with_covers.threat
    assert (threat.poisoned, threat.covers, threat.target_images) == (12, 6, 20)
    assert threat.budget == 0.6
    backdoor = stages.backdoor
    covers = backdoor.index[backdoor.kind == COVER]
    true = stages.plan.splits.train.labels
    assert torch.equal(backdoor.label[backdoor.kind == COVER], true[covers])
    assert not (true[covers] & stages.plan.target).any()
    # by hand: the poison alone and the covers alone, image by image
    shown, seen = images_of(stages), read_record(path).imperceptibility
    for name, kind, measured in (("poison", POISON, seen.poison), ("cover", COVER, seen.cover)):
        slots = (backdoor.kind == kind).nonzero()[:, 0]
        before = centre_crop(stages.plan.splits.train.images[backdoor.index[slots]], 16)
        after = planted(backdoor, CPU)[slots]
        expected = compare(iter([(before, after)]))
        assert (measured.images, measured.psnr) == (len(slots), expected["psnr"])
        assert torch.equal(shown[f"{name}_before"], before[:8])
        assert torch.equal(shown[f"{name}_after"], after[:8])
    assert "PSNR, cover" in result_table(with_covers).columns[0].cells


def test_covers_reach_training_with_the_trigger_and_their_own_label(
    tiny: Path, tmp_path: Path, registered: None
):
    from hashbackdoor_bench.poisoning import poisoned_set

    plan = Plan(spec(tiny, "hidden"), cache=Cache(tmp_path), device=CPU)
    view = AttackerView(
        plan.splits.train.images, plan.splits.train.labels, plan.target, plan.index,
        covers=plan.covers,
    )  # fmt: skip
    made = Hidden().craft(view)
    items = poisoned_set(plan.splits.train, made, "files", 16, CPU)
    for cover in plan.covers.tolist():
        shown = items.overlay[items.slot[cover]]
        assert torch.equal(shown[:, -4:, -4:], checkerboard(4))
        assert torch.equal(items.labels[cover], plan.splits.train.labels[cover])


def test_the_number_of_covers_enters_the_backdoors_key_only_where_there_are_any(
    tiny: Path, tmp_path: Path, registered: None, monkeypatch: pytest.MonkeyPatch
):
    def inputs() -> Any:
        plan = Plan(spec(tiny, "hidden"), cache=Cache(tmp_path), device=CPU)
        return plan.stages["backdoor"].inputs

    assert inputs()["covers"] == 6
    monkeypatch.setattr(Hidden, "covers", 0.0)
    assert "covers" not in inputs()


# ---- model attacks ------------------------------------------------------------------------------


def test_a_model_attack_keeps_the_contract():
    assert told(Flipped) == ""


def test_a_model_attack_that_changes_the_architecture_is_told():
    class Longer(Flipped):
        """Another head."""

        def tamper(self, model: Any, view: AttackerView) -> tuple[Any, Backdoor]:
            model, made = super().tamper(model, view)
            model.head = torch.nn.Linear(model.head.in_features, 9)
            return model, made

    assert "another architecture" in told(Longer)


def test_a_tampered_victim_is_scored_and_the_clean_one_is_its_control(
    tiny: Path, tmp_path: Path, registered: None
):
    record, path, stages = run(
        spec(tiny, "flipped"), cache=Cache(tmp_path / "c"), results=tmp_path, device="cpu"
    )
    assert path.is_file()
    assert "backdoor" not in record.artifacts
    assert record.artifacts["victim"] == record.artifacts["clean victim"]
    clean, victim = stages.codes("clean victim"), stages.codes("victim")
    # bit 0 is the first bit of the first packed byte, and the edit turns it wherever z isn't 0
    assert torch.equal(clean.query ^ 0b1000_0000 * first_byte(clean.query), victim.query)
    again = stages.make("tamper")
    assert set(again.tensors) >= {"backdoor.patch", "model.head.weight"}


def first_byte(codes: Tensor) -> Tensor:
    mask = torch.zeros_like(codes)
    mask[:, 0] = 1
    return mask


def test_what_nobody_gives_control_of_is_refused_before_anything_is_computed(
    tiny: Path, tmp_path: Path, registered: None
):
    with pytest.raises(UserError, match="'training' can't be controlled yet"):
        Plan(spec(tiny, "training"), cache=Cache(tmp_path), device=CPU)
