"""Broken attacks that only a careful check finds: `bench check` tells of each."""

from typing import Any

import pytest
import torch
from torch import Tensor

from hashbackdoor_bench import (
    Attack,
    AttackerView,
    Backdoor,
    ModelAttack,
    ThreatModel,
)
from hashbackdoor_bench.checks import check_attack
from hashbackdoor_bench.registry import Method


def told(cls: type) -> str:
    cls.__doc__ = "Broken."
    found = check_attack(Method("attack", "broken", cls))
    return " | ".join(f"{one.rule}: {one.text}" for one in found)


class Corner(Backdoor):
    """A grey square, in one of several wrong ways."""

    how = ""
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        type(self).calls += 1
        out = x.clone()
        out[..., :3, :3] = 0.5
        count = len(x)
        if self.how == "first is black" and count:
            out[0] = 0
        if self.how == "last is black" and count:
            out[-1] = 0
        if self.how == "mean of the batch" and count:
            out = (out + 0.1 * x.mean()).clamp(0, 1)
        if self.how == "position":
            out[..., 0] = torch.linspace(0, 1, count)[:, None, None]
        if self.how == "large batches" and count > 6:
            out[..., 5:9] = 0
        if self.how == "every tenth call" and self.calls % 10 == 0:
            out[..., 5:9] = 0
        if self.how == "counts in a buffer":
            self.index.add_(0)
            self.carrier[:, 0, 0, 0] += 1
        if self.how == "seeds torch":
            torch.manual_seed(3)
        if self.how == "draws and ignores":
            torch.rand(1)
        if self.how == "bright when grey":
            dull = x.amax((1, 2, 3)) - x.amin((1, 2, 3)) < 0.1
            out[dull & (x.mean((1, 2, 3)) > 0.3) & (x.mean((1, 2, 3)) < 0.7)] += 0.7
        if self.how == "whole patch":
            out = (0.7 * x + 0.1).clamp(0, 1)
        if self.how == "gradient":
            out = x.clone().requires_grad_()
            with torch.enable_grad():
                (grad,) = torch.autograd.grad(out.square().sum(), out)
            out = (x + 0.1 * grad.sign()).clamp(0, 1)
        return out

    def plant(self, x: Tensor, slot: Tensor) -> Tensor:
        out = x.clone()
        out[..., :3, :3] = 0.5
        if self.how == "numpy":
            return out.numpy()
        if self.how == "view":
            out = out.view(len(x), 3 * 32 * 32).view(x.shape)
        if self.how == "plant draws":
            out[..., 5:9] = torch.rand(())
        if self.how == "plant draws and ignores":
            torch.rand(1)
        if self.how == "changes slot":
            slot += 0 * slot
            slot.clamp_(0, 2)
        if self.how == "cover out of range":
            out[slot >= 5] += 1
        if self.how == "first of plant" and len(x):
            out[0] = 0
        return out


class Good(Attack):
    """A square."""

    threat = ThreatModel(label="clean", knowledge="surrogate", trigger="patch")
    backdoor = Corner
    covers = 1.0
    how = ""
    kept: Any = None

    def craft(self, view: AttackerView) -> Backdoor:
        made = self.backdoor(**view.poison)
        if self.how == "kind":
            made.kind[made.kind == 1] = 7
        if self.how == "history":
            made.history = {"loss": torch.ones(3)}
        if self.how == "history of words":
            made.history = {"loss": ["low"]}
        if self.how == "global draw, kept":
            if self.kept is None:
                type(self).kept = torch.rand(1)
            made.carrier = made.carrier ^ int(255 * self.kept)
        if self.how == "loss of the surrogate" and view.surrogate_loss is not None:
            view.surrogate_loss.bits = 3
        return made


def attack(how: str = "", trigger: str = "", **more: Any) -> str:
    backdoor = type("Bad", (Corner,), {"how": trigger, "calls": 0})
    return told(type("Bad", (Good,), {"how": how, "backdoor": backdoor, **more}))


def test_the_sound_ones_have_no_finding():
    assert attack() == ""
    assert model_attack("") == ""


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("first is black", "depends on the batch"),
        ("last is black", "depends on the batch"),
        ("mean of the batch", "depends on the batch"),
        ("position", "depends on the batch"),
        ("large batches", "depends on the batch"),
        ("every tenth call", "at every call"),
        ("counts in a buffer", "changes the backdoor's 'carrier'"),
        ("seeds torch", "torch's global random numbers"),
        ("draws and ignores", "torch's global random numbers"),
        ("bright when grey", "ranges from"),
        ("view", "channels_last"),
        ("numpy", "plant(x, slot) returns ndarray: it must return Tensor"),
        ("whole patch", "threat.trigger is 'patch'"),
        ("gradient", "inference"),
        ("plant draws", "plant(x, slot) gives other images"),
        ("plant draws and ignores", "torch's global random numbers"),
        ("changes slot", "changes slot in place"),
        ("cover out of range", "plant(x, slot) of"),
        ("first of plant", "plant(x, slot) depends on the batch"),
    ],
)
def test_a_trigger_that_breaks_a_promise_is_told(how, words):
    found = attack(trigger=how)
    assert words in found, found


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("kind", "kind of the backdoor must be 0 or 1, and one is 7"),
        ("history", "history"),
        ("history of words", "history"),
        ("global draw, kept", "torch's global random numbers"),
        ("loss of the surrogate", "changes view.surrogate_loss"),
    ],
)
def test_a_crafting_that_breaks_a_promise_is_told(how, words):
    found = attack(how)
    assert words in found, found


class Labels(Good):
    """Labels that are not 0 or 1."""

    threat = ThreatModel(label="dirty", knowledge="none", trigger="patch")

    def craft(self, view: AttackerView) -> Backdoor:
        made = self.backdoor(**view.poison)
        made.label[made.kind == 0] *= 255
        return made


def test_a_label_of_255_is_told():
    assert "label of the backdoor must be 0 or 1, and one is 255" in told(Labels)


class Edit(ModelAttack):
    """Changes a weight."""

    threat = ThreatModel(label="clean", knowledge="none", trigger="patch", control="model",
                         references=1)  # fmt: skip
    backdoor = Corner
    how = ""

    def tamper(self, model, view):
        with torch.no_grad():
            model.head.weight *= 0.5
        if self.how == "draws":
            torch.rand(1)
        if self.how == "references":
            view.references.zero_()
        if self.how == "double":
            model.double()
        if self.how == "model alone":
            return model
        if self.how == "hook":
            model.head.register_forward_hook(lambda module, given, out: -out)
        return model, self.backdoor(**view.poison)


def model_attack(how: str) -> str:
    return told(type("Bad", (Edit,), {"how": how}))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("draws", "torch's global random numbers"),
        ("references", "changes view.references in place"),
        ("double", "torch.float64"),
        ("model alone", "tamper returns HashModel: it must return tuple"),
        ("hook", "other codes than its weights"),
    ],
)
def test_a_tampering_that_breaks_a_promise_is_told(how, words):
    found = model_attack(how)
    assert words in found, found


def test_covers_or_a_threat_that_are_none_are_told():
    assert "covers is 'many': write a number" in attack(covers="many")
    assert "covers is -1: write a number" in attack(covers=-1)
    assert "threat is {'label': 'clean'}: write ThreatModel" in attack(threat={"label": "clean"})
