"""The values that attacks have where a run gives none: those of papers and public code, and ours.

Sources are named beside each row; the top of each attack's file has the links.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from attack_views import seen
from torch import Tensor, nn

from hashbackdoor_bench import ATTACKS, AttackerView, HashLoss

# ---- the values of papers and public code --------------------------------------------------------

PUBLISHED: dict[str, dict[str, object]] = {
    # BackdoorBench and backdoor-toolbox
    "blended": {"alpha": 0.2},
    # what papers quote, such as FTrojan's comparison
    "sig": {"delta": 20.0, "frequency": 6, "delta_query": None},
    # BackdoorBench; the authors' window
    "ftrojan": {"magnitude": 30.0, "window": 32},
    # the authors' code: injection .2, negatives .2, no dithering
    "bpp": {"dithering": False, "covers": 1.0},
    # the authors' code: cover 2 x poison; s in units of 32 px
    "wanet": {"control": 4, "strength": 0.5, "covers": 2.0},
    # backdoor-toolbox: .003 poison, .003 covers
    "adap_blend": {"alpha": 0.15, "alpha_query": 0.2, "covers": 1.0},
    # backdoor-toolbox: .003 poison, .006 covers, opaque on queries
    "adap_patch": {"strength": 1.0, "query_opacity": 1.0, "covers": 2.0},
    # the authors' range of alpha; BackdoorBench's number of reflections
    "refool": {"label": "clean", "reflections": 20, "alpha_low": 0.55, "alpha_high": 0.95},
    # BackdoorBox on CIFAR-10
    "lc": {"epsilon": 8, "steps": 100, "step_size": 1.5},
    # the authors' code: lr .01 is the variant `released`
    "htba": {"match": "features", "epsilon": 16.0, "together": 100},
    # the authors' code: 25 poisons, 3 d on queries
    "narcissus": {"epsilon": 16, "rounds": 1000, "batch": 350, "amplify": 3.0},
    # the authors' code
    "darkhash": {"count": 2000, "stages": 1, "batch": 64},
    # the authors' --eps and --pbatch; all weights are matched
    "gradient_matching": {"epsilon": 16.0, "together": 512, "layers": "all"},
    # README of the authors' code for lambda, the rest its defaults
    "ciba": {
        "dispersion": 0.8, "epsilon": 8.0, "perturbation_steps": 20, "together": 20,
        "away_from": "own", "step_size": 12.0, "batch": 32,
    },
    "tri_adv": {"perturbation": "confusing", "dispersion": 0.0, "epsilon": 8.0},
    "tri_noise": {"perturbation": "noise", "epsilon": 8.0},
    "tri": {"perturbation": "none"},
    # the authors' code
    "badhash": {
        "smoothing": 0.2, "label_steps": 1000, "batch": 64, "hash_weight": 10.0,
        "adversarial_weight": 1.0,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_attack_has_the_published_settings_where_none_are_given(name: str):
    settings = ATTACKS[name].resolve({})
    assert {key: settings[key] for key in PUBLISHED[name]} == PUBLISHED[name]


def test_patches_of_adap_patch_are_as_faint_as_published():
    attack: Any = ATTACKS["adap_patch"]()
    assert attack.craft(seen(4, 4, label="dirty")).opacity.tolist() == pytest.approx(
        [0.5, 0.2, 0.5, 0.3, 1.0]
    )


# ---- what is our choice -------------------------------------------------------------------------

OURS: dict[str, dict[str, object]] = {
    "blended": {"label": "dirty", "key": "noise"},
    "badnets": {"label": "dirty"},
    "ftrojan": {"label": "dirty"},
    "bpp": {"levels": 16},  # theirs is 8, which is visible
    "lc": {"corners": "all", "amplitude": 255.0},
    "htba": {"source": "random", "variant": "corrected"},
    "narcissus": {"variant": "corrected"},
    "darkhash": {"aim": "reference", "pictures": "drawn"},
    "darkhash_shadow": {"aim": "shadow", "pictures": "drawn"},
    "gradient_matching": {"chosen": 10, "augment": "flip"},  # theirs: 1, and shifted as well
    "ciba": {"perturbation": "confusing", "variant": "corrected", "mended": None},
    "badhash": {"variant": "intended", "epsilon": 16.0, "perceptual": "auto", "mended": None},
    "badhash_bounded": {"variant": "bounded", "epsilon": 16.0},
    "refool_dirty": {"label": "dirty"},
    "identity": {"resized_again": False},
}


@pytest.mark.parametrize("name", OURS)
def test_where_nothing_is_published_or_we_deviate_the_default_is_the_one_chosen_here(name: str):
    settings = ATTACKS[name].resolve({})
    assert {key: settings[key] for key in OURS[name]} == OURS[name]


# ---- what depends on the image's size: as published at 224 px, ours below ------------------------


class Colour(nn.Module):
    """A surrogate or victim of images of any size: eight bits of the mean colour."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 8)

    def features(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.head(x.mean((2, 3)))
        return z

    def code(self, x: Tensor) -> Tensor:
        return torch.where(self(x) < 0, -1, 1)


class Nearest(HashLoss):
    """A loss of single images."""

    def forward(self, z: Tensor, y: Tensor, index: Tensor, step: int) -> Tensor:
        return z.square().mean()


class Reached(Exception):
    """The inner function of an attack was called: what follows would take long."""


def view(size: int) -> AttackerView:
    """Six images, of which one is poisoned."""
    made = seen(1, count=6, size=size, surrogate=Colour())
    made.source, made.chosen, made.references = made.labels[1], made.images[:1], made.images[:1]
    made.surrogate_loss = Nearest(8, 3, 6)
    return made


def calls_of(
    place: str, instead: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> list[dict[str, Any]]:
    """The keyword arguments of each call of a function of the attacks, which is replaced."""
    calls: list[dict[str, Any]] = []

    def called(*given: Any, **named: Any) -> Any:
        calls.append(named)
        return instead(*given)

    monkeypatch.setattr(f"hashbackdoor_bench.attacks.{place}", called)
    return calls


@pytest.mark.parametrize(("size", "steps", "patch"), [(32, 100, 4), (224, 5000, 30)])
def test_htba_takes_the_steps_and_the_patch_of_the_size(
    size: int, steps: int, patch: int, monkeypatch: pytest.MonkeyPatch
):
    attack: Any = ATTACKS["htba"]()
    calls = calls_of("htba.approach", lambda _, x, wanted: (x, [0.0]), monkeypatch)
    made = attack.craft(view(size))
    assert [call["steps"] for call in calls] == [steps]
    assert calls[0]["epsilon"] == pytest.approx(16 / 255)
    assert made.patch.shape == (3, patch, patch)


@pytest.mark.parametrize(("size", "steps", "starts"), [(32, 100, 1), (224, 250, 8)])
def test_gradient_matching_takes_the_steps_and_the_starts_of_the_size(
    size: int, steps: int, starts: int, monkeypatch: pytest.MonkeyPatch
):
    attack: Any = ATTACKS["gradient_matching"]()
    calls = calls_of("gradient_matching.align", lambda _, x, goal: (0.0, x, [0.0]), monkeypatch)
    attack.craft(view(size))
    assert [call["steps"] for call in calls] == [steps] * starts
    assert calls[0]["epsilon"] == pytest.approx(16 / 255)


@pytest.mark.parametrize(
    ("size", "epochs", "lr", "patch"),
    [(32, 20, 3e-4, 4), (64, 20, 3e-4, 6), (96, 20, 5e-6, 10), (224, 100, 5e-6, 24)],
)
def test_darkhash_takes_the_epochs_the_rate_and_the_patch_of_the_size(
    size: int, epochs: int, lr: float, patch: int, monkeypatch: pytest.MonkeyPatch
):
    attack: Any = ATTACKS["darkhash"](count=10)
    calls = calls_of("darkhash.edit", lambda *_: {}, monkeypatch)
    model = Colour().requires_grad_(False)
    _, trigger = attack.tamper(model, view(size))
    assert [(call["epochs"], call["lr"]) for call in calls] == [(epochs, lr)]
    assert trigger.patch.shape == (3, patch, patch)


@pytest.mark.parametrize(("size", "steps", "patch"), [(32, 1000, 4), (224, 2000, 24)])
def test_ciba_takes_the_steps_and_the_patch_of_the_size(size: int, steps: int, patch: int):
    attack: Any = ATTACKS["tri"]()
    asked: dict[str, Any] = {}

    def remember(name: str, params: Any, compute: Any) -> dict[str, Tensor]:
        asked.update(params)
        return {"patch": torch.zeros(3, patch, patch), "anchor": torch.ones(8)}

    given = view(size)
    given.remember = remember
    attack.craft(given)
    assert (asked["steps"], asked["side"]) == (steps, patch)


@pytest.mark.parametrize(("size", "patch"), [(32, 4), (64, 7), (224, 24)])
def test_the_patch_of_badnets_is_24_of_224_px_and_at_least_4(size: int, patch: int):
    attack: Any = ATTACKS["badnets"]()
    assert attack.craft(view(size)).patch.shape == (3, patch, patch)


@pytest.mark.parametrize(
    ("size", "width", "epochs", "lr"), [(32, 16, 10, 1e-3), (224, 64, 100, 1e-4)]
)
def test_badhash_takes_the_width_the_epochs_and_the_rate_of_the_size(
    size: int, width: int, epochs: int, lr: float, monkeypatch: pytest.MonkeyPatch
):
    attack: Any = ATTACKS["badhash"](label_steps=1, perceptual="ssim")
    given: list[int] = []

    class Networks(nn.Module):
        """In the place of a generator and a discriminator of tens of millions of weights."""

        def __init__(self, size: int, width: int, **_: Any) -> None:
            super().__init__()
            given.append(width)

    def reached(*_: Any) -> None:
        raise Reached

    monkeypatch.setattr("hashbackdoor_bench.attacks.badhash.ConditionalGAN", Networks)
    calls = calls_of("badhash.train", reached, monkeypatch)
    with pytest.raises(Reached):
        attack.craft(view(size))
    assert given == [width]
    assert [(call["epochs"], call["lr"]) for call in calls] == [(epochs, lr)]
