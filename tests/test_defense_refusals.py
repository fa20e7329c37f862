"""A defense that does not fit a run is refused before anything is made."""

from dataclasses import replace

import pytest
import torch
from defended_runs import plan

from hashbackdoor_bench import Assumes, Defense, UserError
from hashbackdoor_bench.api import HOOKS
from hashbackdoor_bench.stages.resolving_defense import refuse_drawn


def test_a_class_of_which_too_few_clean_images_are_drawn_is_named(tiny, tmp_path):
    made = plan(tiny, tmp_path, defense="scan")
    labels = torch.tensor([[1, 0, 0]] * 5 + [[0, 1, 0]] * 2 + [[0, 0, 1]])
    with pytest.raises(UserError, match=r"scan needs 2 clean images of each class, and 1 of '2'"):
        refuse_drawn(made.defense, labels, made.splits)
    refuse_drawn(made.defense, labels[[0, 1, 5, 6, 7, 7]], made.splits)
    tags = replace(made.splits.train, labels=torch.ones_like(made.splits.train.labels))
    refuse_drawn(made.defense, labels, replace(made.splits, train=tags))
    first = replace(made.splits.train, labels=made.splits.train.labels * labels[0])
    refuse_drawn(made.defense, labels[:5], replace(made.splits, train=first))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"defense": "clpp"}, "unknown defense 'clpp'.*clp"),
        ({"defense": "ac"}, "ac needs 22 training images of a class, and this protocol has 20"),
        ({"defense": "clp", "defense_settings": (("v", 1.0),)}, "unknown setting of defense clp"),
        ({"defense": "clp", "defense_settings": (("u", -1.0),)}, r"defense\.u is -1"),
        ({"defense": "strip", "clean_share": 0.02}, r"strip asks for 4 clean images .*gives 1"),
        (
            {"defense": "finetune", "clean_share": 0.05},
            r"finetune asks for 2 clean images per class \(6\), and .*gives 3: give .*share 0\.1 ",
        ),
        (
            {"defense": "blur", "operating_point": "tuned", "clean_share": 0.05},
            r"blur with --operating-point tuned asks for 2 clean images per class \(6\)",
        ),
        ({"defense": "clp", "backbone": "vit_tiny_patch16_224", "size": 32}, "clp finds .*vgg"),
        ({"defense": "spectral", "operating_point": "tuned"}, "spectral trains a victim for each"),
        ({"defense": "strip", "operating_point": "tuned"}, "strip has no strength"),
        (
            {"defense": "clp", "defense_settings": (("u", 9.0),), "operating_point": "tuned"},
            r"--set defense\.u=9\.0 and --operating-point tuned exclude each other",
        ),
        ({"defense": "spectral", "attack": "darkhash"}, "darkhash edits .*never meet"),
    ],
    ids=lambda value: "",
)
def test_a_defense_that_does_not_fit_is_refused_before_anything_is_made(
    tiny, tmp_path, changes, sentence
):
    with pytest.raises(UserError, match=sentence):
        plan(tiny, tmp_path, **changes)


@pytest.mark.parametrize(
    ("assumed", "victim", "sentence"),
    [
        (Assumes(needs=frozenset({"item_gradient"})), "hashnet", "gradient for each image"),
        (Assumes(group=21), "csq", "needs 21 training images of a class.*has 20"),
        (Assumes(per_class=11), "csq", r"asks for 11 clean images per class \(33\).*gives 30"),
    ],
)
def test_what_a_defense_needs_is_looked_for(tiny, tmp_path, method, assumed, victim, sentence):
    class Needy(Defense):
        """Needs something."""

        assumes = assumed

        def purify(self, x, item):
            return x.clone()

    with pytest.raises(UserError, match=sentence):
        plan(tiny, tmp_path, defense=method(Needy), victim=victim)


def test_a_defense_with_a_misspelt_hook_is_refused(tiny, tmp_path, method):
    class Typo(Defense):
        """Would purify."""

        def purfy(self, x, item):
            return x.clone()

    with pytest.raises(UserError, match=r"defense typo has none of .*purify.*misspelt"):
        plan(tiny, tmp_path, defense=method(Typo))


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_that_is_not_overridden_is_no_hook_and_says_so_when_it_is_called(hook):
    inner = type("Own", (Defense,), {hook: lambda self, *given: None})
    outer = type("Heir", (inner,), {})
    assert inner.hooks() == outer.hooks() == (hook,)
    arguments = {"purify": 2, "suspect": 3, "audit": 2}.get(hook, 1)
    with pytest.raises(NotImplementedError):
        getattr(Defense(), hook)(*[None] * arguments)
