"""Each rule of the contract of defenses, broken by one class that keeps all others."""

import re
from pathlib import Path

import pytest
import torch

from hashbackdoor_bench import Assumes, Defense, Inspection, Screening, plain_backward
from hashbackdoor_bench.checks import check_defense
from hashbackdoor_bench.cli import main
from hashbackdoor_bench.registry import Method

ALL = frozenset({"train", "weights", "queries", "database"})


class Sound(Defense):
    """Has every hook and keeps every promise, but for what ``how`` says."""

    assumes = Assumes(clean=2, sees=ALL)
    strength = "size"
    grid = (1.0, 2.0)
    how = ""

    def __init__(self, *, size: float = 1.0) -> None:
        self.size = size

    def screen(self, view):
        suspicion = view.train.images.float().mean((1, 2, 3))
        drop = suspicion > suspicion.median()
        if self.how == "nan suspicion":
            suspicion[0] = torch.nan
        if self.how == "drops all":
            drop = torch.ones_like(drop)
        if self.how == "random screen":
            suspicion = torch.rand(len(suspicion))
        if self.how == "changes images":
            view.train.images[0] = 0
        return Screening(suspicion[:5] if self.how == "short suspicion" else suspicion, drop)

    def backward(self, step):
        if self.how == "no gradients":
            return torch.zeros(())
        if self.how == "remembers twice":
            step.remember(torch.zeros(len(step.x), 8))
        if self.how == "changes x of a step":
            step.x[0] = 0
        loss = plain_backward(step)
        if self.how == "random gradients":
            for parameter in step.model.parameters():
                parameter.grad += torch.rand(())
        return loss

    def repair(self, view):
        import copy

        model = view.model if self.how == "repairs in place" else copy.deepcopy(view.model)
        with torch.no_grad():
            model.head.weight *= torch.rand(()) if self.how == "random repair" else 0.5
            if self.how == "nan weights":
                model.head.weight[0] = torch.nan
        return model.train() if self.how == "trains on" else model

    def purify(self, x, item):
        out = x / 2
        if self.how == "in place":
            return x.mul_(0.5)
        if self.how == "itself":
            return x
        if self.how == "out of range":
            out = out + 1
        if self.how == "batch" and len(x):
            out = out * x.mean()
        if self.how == "one draw for all" and len(x):
            out = (
                out
                * torch.rand(len(x), generator=torch.Generator().manual_seed(0))[
                    :, None, None, None
                ]
            )
        if self.how == "double":
            out = out.double()
        return out

    def suspect(self, x, item, view):
        found = x.mean((1, 2, 3))
        if self.how == "centred":
            return found - found.mean()
        return found[:1] if self.how == "one suspicion" else found

    def inspect(self, view):
        score = float(torch.rand(())) if self.how == "random score" else 1.0
        return Inspection(score, torch.zeros(2 if self.how == "two classes" else 3))

    def audit(self, window, view):
        if self.how == "first of window":
            return window[: len(window) // 3].float().mean()
        return window.float() if self.how == "many audits" else window.float().mean()


def findings(how: str, **changes: object) -> list[str]:
    cls = type("Broken", (Sound,), {"how": how, "__doc__": "Broken.", **changes})
    return [one.text for one in check_defense(Method("defense", "broken", cls))]


def test_a_sound_defense_keeps_all_promises():
    assert findings("") == []


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("nan suspicion", "NaN or infinite"),
        ("drops all", "drops all images"),
        ("random screen", "screenings of the same images differ"),
        ("changes images", "changes view.train.images"),
        ("short suspicion", r"must be \(90,\) of floats"),
        ("no gradients", "no gradients"),
        ("remembers twice", "step.remember 2 times"),
        ("changes x of a step", "changes step.x"),
        ("random gradients", "other gradients each time"),
        ("repairs in place", "changes view.model"),
        ("random repair", "other weights each time"),
        ("nan weights", "NaN or infinite"),
        ("trains on", "in training mode"),
        ("in place", "changes x in place"),
        ("itself", "returns x itself"),
        ("out of range", r"leaves \[0,1\]"),
        ("batch", "other images of the batch"),
        ("one draw for all", "order of the batch"),
        ("double", "as it was"),
        ("centred", "other images of the batch"),
        ("one suspicion", r"must be \(6,\)"),
        ("random score", "inspections of the same model differ"),
        ("two classes", r"must be \(3,\) or \(0,\)"),
        ("first of window", "order of the queries"),
        ("many audits", "one finite number"),
    ],
)
def test_a_broken_promise_is_named(how, words):
    import re

    found = findings(how)
    assert any(re.search(words, text) for text in found), found


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"assumes": Assumes(sees=frozenset({"train", "poison"}))}, "holds 'poison'"),
        ({"assumes": Assumes(sees=frozenset({"train"}), needs=frozenset({"luck"}))}, "'luck'"),
        ({"assumes": Assumes(sees=frozenset({"queries"}))}, "screen looks at training images"),
        ({"strength": "width"}, "'width', which is no hyper-parameter"),
        ({"grid": ()}, "strength and grid belong together"),
        ({"__doc__": ""}, "no docstring"),
        ({"quick": {"length": 3}}, "quick settings are wrong"),
    ],
    ids=lambda value: "",
)
def test_a_wrong_declaration_is_named(changes, words):
    assert any(words in text for text in findings("", **changes))


def test_a_defense_without_a_hook_is_refused():
    cls = type("Idle", (Defense,), {"__doc__": "Nothing."})
    assert "no hook" in check_defense(Method("defense", "idle", cls))[0].text


def test_check_show_and_list_know_defenses(tmp_path: Path, capsys):
    assert main(["check", "clp", "oracle"]) == 0
    assert "defense clp: keeps all" in capsys.readouterr().out
    assert main(["show", "defense", "clp"]) == 0
    out = capsys.readouterr().out
    for words in (
        "sigma_k",
        "standard deviations above the mean",
        "hooks",
        "grid of u",
        "channels",
    ):
        assert words in out
    assert main(["list", "defenses"]) == 0
    assert re.search(r"^strip +STRIP +STRIP: ", capsys.readouterr().out, re.MULTILINE)
    assert main(["new", "defense", "fewer-greys", "--dir", str(tmp_path)]) == 0
    path = tmp_path / "fewer_greys.py"
    assert f"bench run --plugin {path} --defense fewer_greys" in capsys.readouterr().out


def test_a_suite_file_takes_defenses_and_their_settings(tmp_path: Path):
    from hashbackdoor_bench.suites import find_suite

    (tmp_path / "mine.toml").write_text(
        'attack = ["badnets"]\nvictim = "csq"\ndefense = ["clp", "none"]\n'
    )
    runs = find_suite(str(tmp_path / "mine.toml")).runs
    assert [run.spec.defense for run in runs] == ["clp", "none"]
    (tmp_path / "mine.toml").write_text(
        'attack = ["badnets"]\ndefense = "clp"\nset.defense.u = [2, 3]\n'
    )
    runs = find_suite(str(tmp_path / "mine.toml")).runs
    assert [run.spec.defense_settings for run in runs] == [(("u", 2),), (("u", 3),)]
    (tmp_path / "mine.toml").write_text('defense = "clpp"\n')
    assert main(["suite", "plan", str(tmp_path / "mine.toml")]) == 2
