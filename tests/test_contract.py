"""What every attack promises, run over the registry: a new file is tested before its own tests."""

from typing import Any

import pytest
import torch

from hashbackdoor_bench import ATTACKS, Attack, AttackerView, Backdoor, HashLoss, HashModel
from hashbackdoor_bench.api import generator, to_bytes, to_unit
from hashbackdoor_bench.poisoning import draw, inspect, planted, triggered

CPU = torch.device("cpu")
# settings that make crafting quick, by the name of the hyper-parameter
QUICK: dict[str, Any] = {
    "steps": 3, "perturbation_steps": 2, "width": 8, "epochs": 1, "label_steps": 3,
}  # fmt: skip


def attack(name: str) -> Attack:
    method = ATTACKS[name]
    known = {key: value for key, value in QUICK.items() if key in method.parameters}
    made: Attack = method(**known)
    return made


def view(name: str, size: int = 32) -> AttackerView:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (30, 3, size, size), generator=random, dtype=torch.uint8)
    labels = torch.eye(3, dtype=torch.uint8)[torch.arange(30) % 3]
    target = torch.tensor([0, 1, 0], dtype=torch.uint8)
    threat = attack(name).threat
    index = draw(labels, target, threat, 0.5, None, generator(0, "poison"))
    torch.manual_seed(0)
    surrogate = HashModel("cnn32", 8, HashLoss, size=size).eval().requires_grad_(False)
    knows = threat.knowledge == "surrogate"
    return AttackerView(images, labels, target, index, surrogate if knows else None)


def craft(name: str) -> tuple[AttackerView, Backdoor]:
    seen = view(name)
    return seen, attack(name).craft(seen)


every = pytest.mark.parametrize("name", list(ATTACKS))


@every
def test_poison_keeps_to_the_drawn_items_the_budget_and_the_label_rule(name: str):
    seen, backdoor = craft(name)
    inspect(backdoor, seen.labels, seen.target, seen.index, attack(name).threat)
    assert backdoor.carrier.shape == (len(backdoor.index), 3, 32, 32)
    assert len(backdoor.index) in (0, 5)  # half of ten


@every
@pytest.mark.parametrize("count", [0, 1, 5])
def test_triggers_give_new_tensors_in_range_for_any_batch(name: str, count: int):
    _, backdoor = craft(name)
    x = torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    before = x.clone()
    slots = torch.arange(min(count, len(backdoor.index)))
    for out, given in ((backdoor(x), x), (backdoor.plant(x[: len(slots)], slots), x[: len(slots)])):
        assert out.shape == given.shape
        assert out.dtype == given.dtype
        assert out.data_ptr() != x.data_ptr() or not len(out)
        assert ((out >= 0) & (out <= 1)).all()
    assert torch.equal(x, before)


@every
def test_crafting_is_deterministic_and_leaves_the_view_alone(name: str):
    seen = view(name)
    images, labels = seen.images.clone(), seen.labels.clone()
    first, second = attack(name).craft(seen), attack(name).craft(view(name))
    for key, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[key]), key
    assert torch.equal(seen.images, images)
    assert torch.equal(seen.labels, labels)


@every
def test_a_backdoor_comes_back_from_its_state(name: str):
    _, backdoor = craft(name)
    again = attack(name).restore(backdoor.state_dict())
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(backdoor(x), again(x))
    assert torch.equal(planted(backdoor, CPU), planted(again, CPU))


@every
def test_the_trigger_survives_storage_in_8_bits(name: str):
    seen, backdoor = craft(name)
    x = to_unit(seen.images[:4])
    stored = triggered(backdoor, x)
    assert torch.equal(to_bytes(stored).float() / 255, stored)
    assert (stored - backdoor(x)).abs().max() <= 0.5 / 255 + 1e-6


@every
def test_class_data_is_complete(name: str):
    made = attack(name)
    assert made.delivery in ("stamped", "files", "frozen")
    assert made.threat.label in ("clean", "dirty")
    assert issubclass(made.backdoor, Backdoor)
    assert ATTACKS.summary(name)


@every
def test_defaults_can_be_read_back_from_their_text(name: str):
    method = ATTACKS[name]
    values = method.resolve({})
    assert method.resolve({key: str(value) for key, value in values.items()}) == values


class Cheats(Attack):
    """Breaks one rule of `inspect`."""

    def __init__(self, how: str) -> None:
        self.how = how

    def craft(self, view: AttackerView) -> Backdoor:
        index, carrier = view.index, view.images[view.index]
        label, kind = view.labels[view.index].clone(), torch.zeros(len(view.index)).byte()
        if self.how == "label":
            label[0] = 1 - label[0]
        elif self.how == "index":
            index = (index + 1) % len(view.images)
            label = view.labels[index]
        elif self.how == "carrier":
            carrier = to_unit(carrier)
        else:
            kind[0] = 1
            label[0] = 1 - label[0]
        return Backdoor(index, carrier, label, kind)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("label", "changed a label"),
        ("index", "outside the index"),
        ("carrier", "uint8"),
        ("cover", "keeps its true label"),
    ],
)
def test_a_backdoor_that_breaks_its_word_is_refused(how: str, words: str):
    seen = view("badnets_clean")
    with pytest.raises(ValueError, match=words):
        inspect(Cheats(how).craft(seen), seen.labels, seen.target, seen.index,
                ATTACKS["badnets_clean"]().threat)  # fmt: skip


def test_a_dirty_label_must_be_the_targets():
    seen = view("badnets")
    label = seen.labels[seen.index]
    with pytest.raises(ValueError, match="target's tags"):
        inspect(Backdoor(seen.index, seen.images[seen.index], label), seen.labels, seen.target,
                seen.index, ATTACKS["badnets"]().threat)  # fmt: skip
