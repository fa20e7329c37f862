"""Broken defenses that only a careful check finds: `bench check` tells of each."""

import copy
from typing import Any

import pytest
import torch

from hashbackdoor_bench import (
    Assumes,
    Defense,
    Inspection,
    Screening,
    plain_backward,
)
from hashbackdoor_bench.checks import check_defense
from hashbackdoor_bench.registry import Method


def told(cls: type) -> str:
    cls.__doc__ = "Broken."
    found = check_defense(Method("defense", "broken", cls))
    return " | ".join(f"{one.rule}: {one.text}" for one in found)


class Sound(Defense):
    """Has every hook, and breaks one promise."""

    assumes = Assumes(clean=2, sees=frozenset({"train", "weights", "queries", "database"}))
    how = ""
    calls = 0

    def screen(self, view):
        suspicion = view.train.images.float().mean((1, 2, 3))
        if self.how == "loss":
            view.loss.bits = 3
        return Screening(suspicion, suspicion > suspicion.median())

    def backward(self, step):
        loss = plain_backward(step)
        with torch.no_grad():
            for parameter in step.model.parameters():
                if self.how == "zero gradients":
                    parameter.grad.zero_()
                if self.how == "steps by itself":
                    parameter.sub_(0.1 * parameter.grad)
        if self.how == "changes labels":
            step.y.zero_()
        if self.how == "backward draws":
            torch.rand(1)
        return loss

    def repair(self, view):
        model = copy.deepcopy(view.model)
        with torch.no_grad():
            model.head.weight *= 0.5
        if self.how == "hook":
            model.head.register_forward_hook(lambda module, given, out: -out)
        if self.how == "double":
            model.double()
        if self.how == "fresh clean images":
            assert len(view.clean.images)
        return model

    def purify(self, x, item):
        type(self).calls += 1
        out = x / 2
        if self.how == "changes numbers":
            item.zero_()
        if self.how == "large batches" and len(x) > 6:
            out = out / 2
        if self.how == "every tenth call" and self.calls % 10 == 0:
            out = out / 2
        return out

    def suspect(self, x, item, view):
        found = x.mean((1, 2, 3))
        if self.how == "large suspicion" and len(x) > 6:
            found = found + 1
        if self.how == "list":
            return found.tolist()
        if self.how == "whole numbers":
            return (255 * found).long()
        return found

    def inspect(self, view):
        per_class = torch.zeros(3)
        if self.how == "score alone":
            return 1.0
        if self.how == "nan class":
            per_class[0] = torch.nan
        if self.how == "random classes":
            per_class = torch.rand(3)
        return Inspection(1.0, per_class)

    def audit(self, window, view):
        if self.how == "changes window":
            window.zero_()
        found = window.float().mean()
        return found + torch.rand(()) if self.how == "random audit" else found


def defense(how: str, **more: Any) -> str:
    return told(type("Bad", (Sound,), {"how": how, "calls": 0, **more}))


def test_the_sound_one_has_no_finding():
    assert defense("") == ""


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("loss", "view.loss"),
        ("zero gradients", "gradients that are all 0"),
        ("steps by itself", "changes the weights"),
        ("changes labels", "changes step.y"),
        ("backward draws", "torch's global random numbers"),
        ("hook", "other codes than its weights"),
        ("double", "torch.float64"),
        ("changes numbers", "changes item in place"),
        ("large batches", "other images of the batch"),
        ("every tenth call", "at every call"),
        ("large suspicion", "other images of the batch"),
        ("list", "suspect returns list: it must return Tensor"),
        ("score alone", "inspect returns float: it must return Inspection"),
        ("whole numbers", "of floats"),
        ("nan class", "per_class"),
        ("random classes", "inspections of the same model differ"),
        ("changes window", "changes window in place"),
        ("random audit", "audits of the same window differ"),
    ],
)
def test_a_defense_that_breaks_a_promise_is_told(how, words):
    found = defense(how)
    assert words in found, found


def test_a_defense_that_declares_no_clean_images_gets_none():
    more = {"assumes": Assumes(sees=frozenset({"train", "weights", "queries", "database"}))}
    found = defense("fresh clean images", **more)
    assert "AssertionError" in found, found
