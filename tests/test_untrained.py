"""Methods without training: PCA-sign against NumPy, and how a run gets its hash layer."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from formulas import sign_of
from hashbackdoor_bench.victims import pca_sign
from pretend import GPU, OnGpu, pretend_gpu
from torch import Tensor

from hashbackdoor_bench import VICTIMS, UserError
from hashbackdoor_bench.network.blueprint import Blueprint
from hashbackdoor_bench.network.training_set import TrainingSet
from hashbackdoor_bench.progress import silent
from hashbackdoor_bench.spec import RECIPES

CPU = torch.device("cpu")
ROTATIONS = pytest.mark.parametrize("rotation", ["random", "itq", "none"])


def features(items: int = 400, width: int = 20, seed: int = 0) -> Tensor:
    """(T,F) float32 in eight clusters, the variance of the directions falling from 9 to 1."""
    draw = torch.Generator().manual_seed(seed)
    spread = torch.linspace(3, 1, width)
    centres = torch.randn(8, width, generator=draw)
    mixing = torch.linalg.qr(torch.randn(width, width, generator=draw)).Q
    x = centres[torch.arange(items) % 8] + torch.randn(items, width, generator=draw)
    return 5 + x * spread @ mixing


def layer(x: Tensor, bits: int = 8, **settings: Any) -> tuple[Tensor, Tensor]:
    """Weights and biases."""
    return VICTIMS["pca_sign"](bits, 2, len(x), **settings).solve(x, torch.zeros(len(x), 2))


def components(x: Tensor, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Principal directions (K,F) and components (T,K) by NumPy, from the singular values of x."""
    centred = x.double().numpy() - x.double().numpy().mean(0)
    directions = np.linalg.svd(centred, full_matrices=False)[2][:bits]
    directions *= [[sign_of(row.sum())] for row in directions]
    return directions, centred @ directions.T


def test_without_rotation_outputs_are_the_principal_components() -> None:
    x = features()
    weight, bias = layer(x, rotation="none")
    directions, expected = components(x, 8)
    np.testing.assert_allclose(weight, directions, atol=1e-6)
    z = x @ weight.T + bias
    np.testing.assert_allclose(z, expected, atol=1e-4)
    assert z.mean(0).abs().max() < 1e-5
    covariance = z.T @ z / len(z)
    assert torch.allclose(covariance, covariance.diagonal().diag(), atol=1e-3)
    spread = covariance.diagonal()
    assert (spread[:-1] > spread[1:]).all()


def test_codes_of_a_cloud_are_balanced_and_uncorrelated() -> None:
    draw = torch.Generator().manual_seed(1)
    x = 3 + torch.randn(4000, 10, generator=draw) * torch.linspace(3, 1, 10)
    weight, bias = layer(x, bits=6, rotation="none")
    code = torch.where(x @ weight.T + bias >= 0, 1.0, -1.0)
    assert code.mean(0).abs().max() < 0.06  # four standard errors
    assert (code.T @ code / 4000 - torch.eye(6)).abs().max() < 0.06


@pytest.mark.parametrize("rotation", ["random", "itq"])
def test_a_rotation_turns_the_principal_components(rotation: str) -> None:
    x = features()
    weight, bias = layer(x, rotation=rotation)
    directions, _ = components(x, 8)
    turn = weight.double().numpy() @ directions.T  # R'
    np.testing.assert_allclose(turn @ turn.T, np.eye(8), atol=1e-5)
    np.testing.assert_allclose(weight, turn @ directions, atol=1e-5)  # in their space
    assert np.abs(turn - np.eye(8)).max() > 0.3
    assert (x @ weight.T + bias).mean(0).abs().max() < 1e-5


def test_a_random_rotation_evens_out_the_variance_and_is_that_of_its_seed() -> None:
    x = features()
    weights = [layer(x, rotation_seed=seed)[0] for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.allclose(weights[0], weights[2], atol=0.1)

    def unevenness(rotation: str, seed: int) -> float:
        weight, bias = layer(x, rotation=rotation, rotation_seed=seed)
        return float((x @ weight.T + bias).var(0).log().std())

    turned = np.mean([unevenness("random", seed) for seed in range(10)])
    assert turned < 0.6 * unevenness("none", 0)


def test_random_rotations_have_no_preferred_direction() -> None:
    turns = torch.stack([pca_sign.random_rotation(4, seed) for seed in range(400)])
    assert turns.mean(0).abs().max() < 0.1  # four standard errors; without the signs of R, .4
    assert (turns.square().mean(0) - 1 / 4).abs().max() < 0.07
    assert 100 < (torch.linalg.det(turns) > 0).sum() < 300


def error(code: np.ndarray, turned: np.ndarray) -> float:
    """|B - V R| squared."""
    return float(((code - turned) ** 2).sum())


def test_itq_is_its_two_steps_and_each_lowers_the_error_of_the_codes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = features()
    directions, v = components(x, 8)
    turn = layer(x)[0].double().numpy() @ directions.T  # R' at the start
    errors = []
    for steps in range(12):
        monkeypatch.setattr(pca_sign, "STEPS", steps)
        found = layer(x, rotation="itq")[0].double().numpy() @ directions.T
        np.testing.assert_allclose(found, turn, atol=1e-4)
        code = np.where(v @ turn.T >= 0, 1, -1)
        errors.append(error(code, v @ turn.T))
        left, _, right = np.linalg.svd(code.T @ v)  # S~ and S'
        turn = (right.T @ left.T).T
        errors.append(error(code, v @ turn.T))  # the best rotation for these codes
    assert all(later <= earlier + 1e-6 for earlier, later in pairwise(errors))
    assert errors[-1] < 0.98 * errors[0]


def test_the_preset_itq_is_that_rotation_after_fifty_steps() -> None:
    x = features()
    preset = VICTIMS["itq"](8, 2, 400).solve(x, torch.zeros(400, 2))[0]
    assert torch.equal(preset, layer(x, rotation="itq")[0])
    assert not torch.allclose(preset, layer(x)[0], atol=0.01)
    assert pca_sign.STEPS == 50


@ROTATIONS
def test_relax_divides_by_the_mean_size_of_training_outputs(rotation: str) -> None:
    x = features()
    loss = VICTIMS["pca_sign"](8, 2, 400, rotation=rotation)
    weight, bias = loss.solve(x, torch.zeros(400, 2))
    z = x @ weight.T + bias
    torch.testing.assert_close(loss.relax(z), torch.tanh(z / z.abs().mean()))


@ROTATIONS
def test_labels_do_not_matter(rotation: str) -> None:
    x = features()
    one = VICTIMS["pca_sign"](8, 2, 400, rotation=rotation).solve(x, torch.zeros(400, 2))
    two = VICTIMS["pca_sign"](8, 2, 400, rotation=rotation).solve(x, torch.eye(2).repeat(200, 1))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize(
    ("x", "most"),
    [
        (features(400, 20), 20),
        (features(6, 20), 5),
        (features(400, 20)[:, [0, 1, 2, 3, 4, 0, 1]], 5),
        (features(400, 20)[torch.arange(400) % 4], 3),
        (torch.ones(30, 20), 0),
    ],
    ids=["few features", "few images", "repeated features", "repeated images", "equal images"],
)
def test_more_bits_than_directions_are_refused(x: Tensor, most: int) -> None:
    words = rf"of {len(x)} training images vary in only {most} directions: give --bits {most} or"
    with pytest.raises(UserError, match=rf"--bits {most + 1}: the features {words}"):
        layer(x, bits=most + 1)
    if most:
        assert torch.isfinite(layer(x, bits=most)[0]).all()


# --- in a run ------------------------------------------------------------------------------------


def blueprint(**changes: Any) -> Blueprint:
    settings = VICTIMS["pca_sign"].resolve({"rotation": "none"})
    recipe = replace(RECIPES["frozen"][1], precision="float32")
    made = Blueprint("pca_sign", settings, 8, 2, 32, "cnn32", True, None, recipe, "s")
    return replace(made, **changes)


def training_set(kept: Tensor | None = None) -> TrainingSet:
    slot = torch.full((400,), -1)
    slot[[3, 8, 13]] = torch.tensor([2, 0, 1])
    labels = torch.eye(2, dtype=torch.uint8)[torch.arange(400) % 2]
    return TrainingSet(features(), labels, slot, 60 * features(3, seed=9), kept=kept)


@pytest.mark.parametrize("half", [False, True], ids=["all", "half of the items"])
def test_the_hash_layer_is_made_from_the_features_of_what_is_shown_with_the_poison(
    half: bool,
) -> None:
    kept = (torch.arange(400) < 200) if half else None
    items = training_set(kept)
    tensors, facts = blueprint().train(
        items,
        CPU,
        checkpoint=None,
        progress=silent,
        stage="train",  # type: ignore[arg-type]
    )
    x = features()
    x[[3, 8, 13]] = items.overlay[[2, 0, 1]]
    weight, bias = layer(x[:200] if half else x, rotation="none")
    assert torch.equal(tensors["model.head.weight"], weight)
    assert torch.equal(tensors["model.head.bias"], bias)
    assert not torch.allclose(weight, layer(features(), rotation="none")[0], atol=0.1)
    assert facts == {"losses": [], "train_size": 400}
    assert tensors["loss.size"] > 1
    head = blueprint().load_head(tensors, facts, CPU)
    torch.testing.assert_close(head(x), x @ weight.T + bias, rtol=1e-4, atol=1e-3)


def test_on_a_gpu_the_layer_is_solved_on_the_cpu_and_put_back() -> None:
    expected, _ = blueprint().train(
        training_set(),
        CPU,
        checkpoint=None,  # type: ignore[arg-type]
        progress=silent,
        stage="train",
    )
    with pretend_gpu():
        found, _ = blueprint().train(
            training_set(),
            GPU,
            checkpoint=None,  # type: ignore[arg-type]
            progress=silent,
            stage="train",
        )
        assert all(isinstance(tensor, OnGpu) for tensor in found.values())
        assert all(torch.equal(found[name].cpu(), expected[name]) for name in expected)


@pytest.mark.parametrize(
    "changes",
    [{"hidden": 4}, *({"recipe": RECIPES[name][1]} for name in RECIPES if name != "frozen")],
    ids=str,
)
def test_it_is_refused_where_something_would_have_to_be_trained(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"victim pca_sign isn't trained.*--recipe frozen"):
        blueprint(**changes).check()
