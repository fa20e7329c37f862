"""Each rule of the contract, broken by one class that keeps all others."""

import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hashbackdoor_bench import (
    VICTIMS,
    Attack,
    AttackerView,
    Backdoor,
    HashLoss,
    Patch,
    ThreatModel,
)
from hashbackdoor_bench.api import to_unit
from hashbackdoor_bench.checks import Finding, check_attack, check_victim
from hashbackdoor_bench.cli import main
from hashbackdoor_bench.poisoning import inspect
from hashbackdoor_bench.registry import Method


class Square(Backdoor):
    """A grey square of its slot's shade, in one of several wrong ways."""

    how = ""

    def __init__(self, index, carrier, label, kind=None, *, shade=None):
        super().__init__(index, carrier, label, kind)
        shade = torch.linspace(0.2, 0.8, len(index)) if shade is None else shade
        if self.how == "unregistered":
            self.shade = torch.rand(1, generator=torch.Generator().manual_seed(id(self) % 999))
        else:
            self.register_buffer("shade", shade)

    def forward(self, x):
        if self.how == "in place":
            x[..., :3, :3] = 0.5
            return x.clone()
        if self.how == "itself":
            return x
        out = x.clone()
        out[..., :3, :3] = {
            "faint": x[..., :3, :3] + 1e-4,
            "random": torch.rand(()) if self.how == "random" else 0.5,
            "out of range": x[..., :3, :3] + 0.5,
            "nan": float("nan"),
            "batch": x.mean(),
            "unregistered": self.shade,
        }.get(self.how, 0.5)
        if self.how == "faint":
            return out.clamp(0, 1)
        return out.double() if self.how == "double" else out

    def plant(self, x, slot):
        if self.how in ("", "place"):
            out = x.clone()
            slot = torch.arange(len(x)) if self.how == "place" else slot
            out[..., :3, :3] = self.shade[slot].view(-1, 1, 1, 1)
            return out
        return self(x)


class Good(Attack):
    """A square."""

    threat = ThreatModel(label="clean", knowledge="surrogate", trigger="patch")
    backdoor = Square
    how = ""

    def __init__(self, *, side: int = 3) -> None:
        self.side = side

    def craft(self, view: AttackerView) -> Backdoor:
        index, label = view.index, view.labels[view.index].clone()
        kind = torch.zeros(len(index), dtype=torch.uint8)
        carrier = view.images[index]
        if self.how == "raises":
            raise RuntimeError("no luck")
        if self.how == "another class":
            return Patch(index, carrier, label, patch=carrier[:0].sum(0)[..., :2, :2].byte())
        if self.how == "label" and len(index):
            label[0] = 1 - label[0]
        if self.how == "cover" and len(index):
            kind[0], label[0] = 1, 1 - label[0]
        if self.how == "elsewhere":
            index = (index + 1) % len(view.images)
            label = view.labels[index]
        if self.how == "fewer":
            index, carrier, label, kind = index[1:], carrier[1:], label[1:], kind[1:]
        if self.how == "twice" and len(index) > 1:
            index = index[:1].expand(len(index)).clone()
        if self.how == "floats":
            carrier = to_unit(carrier)
        if self.how == "draws torch":
            torch.rand(1)
        if self.how == "draws numpy":
            np.random.rand()
        if self.how == "draws python":
            random.random()
        if self.how == "seed":
            carrier = carrier ^ torch.randint(0, 255, carrier.shape, dtype=torch.uint8)
        if self.how == "seed numpy":
            carrier = carrier ^ int(np.random.randint(1, 255))
        if self.how == "seed python":
            carrier = carrier ^ random.randrange(1, 255)
        if self.how == "images":
            view.images.zero_()
        if self.how == "labels":
            view.labels += 1
        if self.how == "surrogate":
            view.surrogate.train()
        if self.how == "weights":
            next(view.surrogate.parameters()).add_(1)
        return self.backdoor(index, carrier, label, kind)


NAMED = {"__doc__": "Bad.", "__module__": __name__}


def method(cls: type, name: str = "mine") -> Method[Any]:
    return Method("attack", name, cls)


def told(findings: list[Finding]) -> str:
    return " | ".join(f"{one.rule}: {one.text}" for one in findings)


def test_an_attack_that_keeps_all_rules_has_no_finding():
    assert check_attack(method(Good)) == []


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("raises", f"RuntimeError: no luck .line [0-9]+ of {__file__}"),
        ("another class", "craft returns a Patch, but backdoor is Square"),
        ("label", "clean-label attack changed a label"),
        ("cover", "covers of items that it was not given"),
        ("elsewhere", "outside the index"),
        ("fewer", "plant all items of view.planted"),
        ("twice", "is twice in the index"),
        ("floats", r"carrier is .*float32.* must be .*uint8"),
        ("draws torch", "draws from torch's global random numbers"),
        ("draws numpy", "draws from NumPy's global random numbers"),
        ("draws python", "draws from Python's global random numbers"),
        ("seed", "'carrier' differs when crafted twice"),
        ("seed numpy", "'carrier' differs when crafted twice"),
        ("seed python", "'carrier' differs when crafted twice"),
        ("images", "changes view.images in place"),
        ("labels", "changes view.labels in place"),
        ("surrogate", "training mode"),
        ("weights", "changes the weights of view.surrogate"),
    ],
)
def test_crafting_that_breaks_a_rule_is_told(how: str, words: str):
    text = told(check_attack(method(type("Bad", (Good,), {"how": how, **NAMED}))))
    assert re.search(words, text), text


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("in place", "changes x in place"),
        ("itself", "returns x itself"),
        ("faint", "grey levels is lost in rounding"),
        ("random", "other images at every call"),
        ("out of range", r"ranges from 0 to 1.5: end it with .clamp"),
        ("nan", "NaN"),
        ("batch", "depends on the batch"),
        ("double", "float64, not"),
        ("place", "plant(x, slot) depends on the batch: in reverse order"),
        ("unregistered", "gives another trigger for queries: store all"),
    ],
)
def test_a_trigger_that_breaks_a_rule_is_told(how: str, words: str):
    square = type("Bad", (Square,), {"how": how})
    found = told(check_attack(method(type("Bad", (Good,), {"backdoor": square, "__doc__": "B."}))))
    assert words.replace("\\", "") in found, found


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"threat": ThreatModel("pure", "none", "patch")}, "threat.label is 'pure'"),
        ({"delivery": "mail"}, "delivery is 'mail'"),
        ({"backdoor": int}, "name the class that craft returns"),
        ({"quick": {"steps": 2}}, "quick settings are wrong: unknown setting"),
        ({"__doc__": None}, "no docstring"),
        ({"__init__": lambda self, side=3: None}, "'side' can't be set with --set"),
    ],
)
def test_a_class_that_says_the_wrong_thing_is_told(changes: dict[str, Any], words: str):
    cls = type("Bad", (Good,), {"__doc__": "Bad.", **changes})
    assert words in told(check_attack(method(cls)))


def test_a_setting_without_default_or_of_another_type_is_told():
    class Bare(Good):
        """No default."""

        def __init__(self, *, side: int) -> None:
            self.side = side

    class Typed(Good):
        """A default of another type."""

        def __init__(self, *, side: int = 2.5) -> None:
            self.side = side

    assert "'side' has no default" in told(check_attack(method(Bare)))
    assert "2.5, is not of its declared type" in told(check_attack(method(Typed)))


def test_a_later_setting_that_does_not_exist_is_told():
    class Misspelt(Good):
        """A later setting that is none."""

        later = frozenset({"sied"})

    assert "'later' names 'sied'" in told(check_attack(method(Misspelt)))


def test_a_dirty_label_must_be_the_targets():
    class Dirty(Good):
        """Keeps the labels of other classes."""

        threat = ThreatModel(label="dirty", knowledge="none", trigger="patch")

    assert "must carry the target's tags" in told(check_attack(method(Dirty)))


def test_the_framework_itself_refuses_a_dishonest_label():
    bad = type("Bad", (Good,), {"how": "label"})
    from hashbackdoor_bench.checks.attack_trial import Trial

    seen = Trial(method(Good)).view()
    with pytest.raises(ValueError, match="changed a label"):
        inspect(bad().craft(seen), seen.labels, seen.target, seen.index, Good.threat)


class Pairs(HashLoss):
    """Pairwise likelihood, in one of several wrong ways."""

    how = ""

    def __init__(self, bits, classes, train_size, *, alpha: float = 0.3) -> None:
        super().__init__(bits, classes, train_size)
        self.alpha, self.seen = alpha, 0
        self.register_bank("bank", bits)
        self.register_buffer("centres", torch.ones(classes, bits))
        if self.how == "own bank":
            self.register_buffer("mine", torch.zeros(train_size, bits))

    def remember(self, z, y, index, step):
        if self.how == "remembers in place":
            y.add_(1)
        self.bank[index] = z
        if self.how == "own bank":
            self.mine[index] = z

    def forward(self, z, y, index, step):
        self.seen += self.how == "counts"
        if self.how == "in place":
            z.mul_(2)
        if self.how == "tensor":
            self.last = z.detach()
        if self.how == "graph":
            self.bank = self.bank.index_copy(0, index, z)
        if self.how == "writes":
            self.bank[index] = 2 * z.detach()
        similar = (y @ y.T > 0).float()
        theta = self.alpha * z @ z.T
        loss = F.binary_cross_entropy_with_logits(theta, similar)
        if self.how == "sum":
            return loss.view(1)
        if self.how == "double":
            return loss.double()
        if self.how == "detached":
            return F.binary_cross_entropy_with_logits(theta.detach(), similar)
        if self.how == "swapped":
            return F.binary_cross_entropy_with_logits(theta, 1 - similar)
        if self.how == "sign":
            return -loss
        if self.how == "without labels":
            return F.binary_cross_entropy_with_logits(theta, torch.eye(len(z)))
        if self.how == "overflow":
            return (torch.log(1 + torch.exp(theta)) - similar * theta).mean()
        if self.how == "one image":
            return loss / (len(z) - 1)
        if self.how == "counts":
            return loss * (1 + self.seen)
        if self.how == "half":
            return F.binary_cross_entropy_with_logits(theta[:2, :2], similar[:2, :2])
        return loss

    def items(self, z, y, index, step):
        if not self.how.startswith("items"):
            return None
        similar = (y @ y.T > 0).float()
        theta = self.alpha * z @ z.T
        pairs = F.binary_cross_entropy_with_logits(theta, similar, reduction="none")
        if self.how == "items in place":
            y.zero_()
        if self.how == "items write":
            self.centres.add_(1)
        wrong = {
            "items are pairs": pairs,
            "items are sums": pairs.sum(1),
            "items without labels": torch.where(y.sum(1) > 0, pairs.mean(1), 0),
            "items detached": pairs.mean(1).detach(),
            "items of another gradient": (pairs + theta - theta.detach()).mean(1),
        }
        return wrong.get(self.how, pairs.mean(1))

    def renewed(self, train_size):
        new = super().renewed(train_size)
        if self.how == "renewed itself":
            return self
        if self.how == "renewed by setting":
            new.alpha = 0.5
        if self.how == "renewed centres":
            new.centres.fill_(1)
        if self.how == "renewed and shared":
            new.centres = self.centres
        return new

    def relax(self, z):
        kinds = {"identity": z, "hard": z.sign(), "negative": -torch.tanh(z)}
        return kinds.get(self.how, torch.tanh(z))


@pytest.mark.parametrize("how", ["", "items"])
def test_a_victim_that_keeps_all_rules_has_no_finding(how: str):
    assert check_victim(method(type("Kept", (Pairs,), {"how": how, "__doc__": "Kept."}))) == []


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("in place", "forward changes z in place"),
        ("remembers in place", "remember changes y in place"),
        ("items in place", "items changes y in place"),
        ("tensor", "self.last is a tensor outside the state"),
        ("graph", "buffer 'bank' holds a graph"),
        ("writes", "forward changes 'bank': change it in remember"),
        ("items write", "items changes 'centres': change it in remember"),
        ("sum", "it is (1,) torch.float32, not ()"),
        ("double", "it is () torch.float64, not ()"),
        ("detached", "no gradient leads"),
        ("half", "its gradient is 0 for an image"),
        ("sign", "check the sign of the loss"),
        ("swapped", "how it finds similar pairs"),
        ("without labels", "how it finds similar pairs"),
        ("overflow", "with z around 10000, the loss is"),
        ("one image", "on a batch of one image, with z around 1, the loss is inf"),
        ("counts", "for the same batch: it must change no state"),
        ("counts", "after load_state_dict the loss is"),
        ("items are pairs", "on a usual batch items are (6, 6), not (6,)"),
        ("items are sums", "on a usual batch the items' mean is"),
        ("items without labels", "on a batch without labels the items' mean is 0"),
        ("items detached", "no gradient leads from items to z"),
        ("items of another gradient", "the items' mean has another gradient than the loss"),
        ("own bank", "'mine' is not an empty bank of 15 items: make it with register_bank"),
        ("renewed itself", "gives a Bad for 12 items: return the same class for 15 items"),
        ("renewed by setting", "self.alpha is 0.5 instead of 0.3"),
        (
            "renewed centres",
            "'centres' is changed by renewed: leave it as HashLoss.renewed copies it",
        ),
        ("renewed and shared", "'centres' is shared by the old and the renewed loss: copy it"),
        ("identity", "up to 1e+04: it must be (N,K) in [-1,1]"),
        ("hard", "relax(z) has no gradient"),
        ("negative", "other signs than z"),
    ],
)
def test_a_loss_that_breaks_a_rule_is_told(how: str, words: str):
    cls = type("Bad", (Pairs,), {"how": how, "__doc__": "Bad."})
    found = told(check_victim(method(cls)))
    assert words in found, found


@pytest.mark.parametrize("alpha", [0.1, 0.3, 1.0])
def test_a_published_loss_that_tells_classes_apart_by_few_bits_passes(alpha: float):
    assert check_victim(VICTIMS["greedyhash"], {"alpha": alpha}) == []


class Halves(HashLoss):
    """Each bit halves the items at random, without training, in one of several wrong ways."""

    trained = False
    how = ""

    def __init__(self, bits, classes, train_size, *, seed: int = 0) -> None:
        super().__init__(bits, classes, train_size)
        self.seed = seed
        self.register_buffer("size", torch.ones(()))
        if self.how == "norm":
            self.head_norm = "batch"
        if self.how == "no bias":
            self.head_bias = False

    def solve(self, features, y):
        draw = torch.Generator().manual_seed(self.seed)
        if self.how == "global seed":
            draw = None
        weight = torch.randn(self.bits, features.shape[1], generator=draw)
        if self.how == "global seed of NumPy":
            weight = weight + torch.from_numpy(np.random.randn(self.bits, 1)).float()
        bias = -(weight @ features.mean(0))
        if self.how == "drawn bias":
            bias = bias + torch.randn(self.bits)
        self.size.fill_((features @ weight.T + bias).abs().mean())
        if self.how == "outside":
            self.seen = float(self.size)
        if self.how == "features":
            features.sub_(1)
        if self.how == "labels":
            y.zero_()
        made = {
            "transposed": (weight.T, bias),
            "column": (weight, bias[:, None]),
            "double": (weight.double(), bias.double()),
            "double bias": (weight, bias.double()),
            "not finite": (weight, bias / 0),
            "one code": (weight, bias + 1e6),
        }
        return made.get(self.how, (weight, bias))

    def relax(self, z):
        if self.how == "hard":
            return z.sign()
        return torch.tanh(z / (getattr(self, "seen", 1.0) if self.how == "outside" else self.size))


def test_a_victim_without_training_that_keeps_all_rules_has_no_finding():
    assert check_victim(method(Halves)) == []


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("global seed", "solve makes two layers of the same features"),
        ("global seed of NumPy", "solve makes two layers of the same features"),
        ("drawn bias", "solve makes two layers of the same features"),
        ("features", "solve changes its arguments in place"),
        ("labels", "solve changes its arguments in place"),
        (
            "transposed",
            "solve returns (20, 8) torch.float32 and (8,) torch.float32: it must",
        ),
        ("column", "solve returns (8, 20) torch.float32 and (8, 1) torch.float32: it must"),
        ("double", "(8, 20) torch.float64 and (8,) torch.float64"),
        ("double bias", "(8, 20) torch.float32 and (8,) torch.float64"),
        ("not finite", "the hash layer is not finite"),
        ("one code", "all of 48 random items have the same code"),
        ("norm", "must be linear with a bias: leave out head_norm and head_bias"),
        ("no bias", "must be linear with a bias: leave out head_norm and head_bias"),
        ("outside", "relax differs after load_state_dict"),
        ("hard", "relax(z) has no gradient"),
    ],
)
def test_a_victim_without_training_that_breaks_a_rule_is_told(how: str, words: str):
    found = told(check_victim(method(type("Bad", (Halves,), {"how": how, "__doc__": "Bad."}))))
    assert words in found, found
    assert " | " not in found, found


FILE = '''"""{title}"""
import torch
from hashbackdoor_bench import ATTACKS, Attack, Patch, ThreatModel

@ATTACKS.register
class White(Attack):
    """A white square."""
    threat = ThreatModel(label="clean", knowledge="none", trigger="patch")
    backdoor = Patch

    def craft(self, view):
        white = torch.full((3, {side}, {side}), 255, dtype=torch.uint8)
        return Patch(view.index, view.images[view.index], view.{labels}, patch=white)
'''


def test_check_says_what_is_kept_and_what_failed_with_its_code(tmp_path: Path, capsys):
    good, bad = tmp_path / "white_good.py", tmp_path / "white_bad.py"
    good.write_text(FILE.format(title="Good.", side=4, labels="labels[view.index]"))
    bad.write_text(FILE.format(title="Bad.", side=4, labels="labels[view.index] * 0"))
    assert main(["check", str(good)]) == 0
    assert "attack white_good: keeps all 13 promises" in capsys.readouterr().out
    assert main(["check", str(bad)]) == 1
    out = capsys.readouterr().out
    assert "attack white_bad: Poison and covers are of the drawn items" in out
    assert "a clean-label attack changed a label" in out


def test_check_takes_a_name_and_refuses_a_wrong_one(capsys):
    assert main(["check", "badnets-clean", "csq"]) == 0
    assert "victim csq: keeps all 14 promises" in capsys.readouterr().out
    assert main(["check", "pca_sign"]) == 0
    assert "victim pca_sign: keeps all 3 promises" in capsys.readouterr().out
    assert main(["check", "cqs"]) == 2
    assert "unknown attack, victim or defense 'cqs': did you mean csq" in capsys.readouterr().err
    assert main(["check", "nowhere/mine.py"]) == 2
    assert "give the path of a Python file that exists" in capsys.readouterr().err
