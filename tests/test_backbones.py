"""Backbones by name: those that people use, the sizes that they take, and their pooling."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from hashbackdoor_bench import VICTIMS, HashLoss, HashModel, RunSpec, UserError
from hashbackdoor_bench.network import Blueprint, bytes_for
from hashbackdoor_bench.spec import RECIPES

CPU = torch.device("cpu")
IMAGENET = [(0.485, 0.456, 0.406), (0.229, 0.224, 0.225)]
HALF = [(0.5, 0.5, 0.5), (0.5, 0.5, 0.5)]
CLIP = [(0.4815, 0.4578, 0.4082), (0.2686, 0.2613, 0.2758)]


class Known(NamedTuple):
    """What papers and code of a backbone say of it.

    ``size``: px of its published input. ``width``: F. ``colours``: mean and standard deviation.
    ``stages``: number of its stages. ``last``: channels and side of the last one. ``convs``: number
    of its convolutions. ``taken``: another size in px. ``refused``: one that it can't take, and
    why.
    """

    size: int
    width: int
    colours: list[tuple[float, ...]]
    stages: int
    last: tuple[int, int]
    convs: int
    taken: int
    refused: tuple[int, str] | None
    dropout: float = 0.0


CUT = "would not see the last"
BACKBONES = {
    "alexnet": Known(224, 4096, IMAGENET, 3, (256, 13), 5, 96, (32, "too small"), 0.5),
    "vgg11": Known(224, 4096, IMAGENET, 6, (512, 7), 10, 32, None, 0.5),
    "resnet18": Known(224, 512, IMAGENET, 5, (512, 7), 20, 32, None),
    "resnet50": Known(224, 2048, IMAGENET, 5, (2048, 7), 53, 32, None),
    "vit_small_patch16_224": Known(224, 384, HALF, 12, (384, 14), 1, 96, (100, f"{CUT} 4 of 100")),
    "vit_base_patch16_224": Known(224, 768, HALF, 12, (768, 14), 1, 96, (8, f"{CUT} 8 of 8")),
    "deit_small_patch16_224": Known(224, 384, IMAGENET, 12, (384, 14), 1, 96, (33, CUT)),
    "swin_tiny_patch4_window7_224": Known(224, 768, IMAGENET, 4, (768, 7), 1, 96, (50, CUT)),
    "convnext_tiny": Known(224, 768, IMAGENET, 4, (768, 7), 22, 96, (50, CUT)),
    "vit_small_patch14_dinov2": Known(518, 384, IMAGENET, 12, (384, 37), 1, 98, (96, "84 or 98")),
    "vit_base_patch32_clip_224": Known(224, 768, CLIP, 12, (768, 7), 1, 96, (48, "32 or 64")),
    "resnet50_clip": Known(224, 2048, CLIP, 5, (2048, 7), 55, 96, (60, "must match")),
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "known"), BACKBONES.items(), ids=list(BACKBONES))
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_backbone_by_name_runs_at_its_size_and_is_reloaded_equal(
    name: str, known: Known, tmp_path: Path
):
    torch.manual_seed(0)
    model = HashModel(name, 16, HashLoss, size=known.size).eval()
    x = torch.rand(1, 3, known.size, known.size)
    with torch.no_grad():
        z = model(x)
        maps = model.maps(x)
    assert z.shape == (1, 16)
    assert z.isfinite().all()
    assert model.head.in_features == known.width
    for found, expected in zip((model.mean, model.std), known.colours, strict=True):
        assert found.flatten().tolist() == pytest.approx(expected, abs=5e-5)
    if name != "alexnet":  # which is torchvision's
        config = timm.get_pretrained_cfg(name)
        assert model.mean.flatten().tolist() == pytest.approx(config.mean)
        assert model.std.flatten().tolist() == pytest.approx(config.std)
        assert config.input_size == (3, known.size, known.size)
    rates = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    assert max(rates, default=0.0) == known.dropout
    assert len(maps) == known.stages
    channels, side = known.last
    assert maps[-1].shape == (1, channels, side, side)
    assert len(model.channels()) == known.convs

    save_file(model.state_dict(), tmp_path / "model.safetensors")
    del model
    other = HashModel(name, 16, HashLoss, size=known.size).eval()
    with torch.no_grad():
        assert not torch.equal(other(x), z)
        other.load_state_dict(load_file(tmp_path / "model.safetensors"))
        assert torch.equal(other(x), z)
    assert bytes_for(name, known.taken) > 0
    if known.refused is not None:
        size, why = known.refused
        with pytest.raises(UserError, match=rf"{size}.*{why}.*--backbone|{why}.*--size") as error:
            bytes_for(name, size)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "convnext_atto"])
def test_pixels_outside_whole_patches_would_not_be_seen(name: str):
    patch = 16 if "16" in name else 4
    size = 8 * patch + 1
    with pytest.raises(UserError, match=f"{CUT} 1 of {size} px: take --size {8 * patch} or "):
        HashModel(name, 4, HashLoss, size=size)
    settings = {"img_size": size} if "vit" in name else {}
    network = timm.create_model(name, num_classes=0, **settings).eval()  # as timm lets them be
    plain, marked = torch.zeros(2, 1, 3, size, size)
    marked[..., -1, :] = 1
    with torch.no_grad():
        assert torch.equal(network(plain), network(marked))


# ---- pooling ------------------------------------------------------------------------------------


def pooled(name: str, size: int, pools: tuple[str | None, ...]) -> dict[str | None, HashModel]:
    """Networks of the same weights that pool in several ways."""
    models = {pool: HashModel(name, 4, HashLoss, size=size, pool=pool).eval() for pool in pools}
    state = models[None].backbone.state_dict()
    for model in models.values():
        model.backbone.load_state_dict(state)
    return models


POOLS = (None, "avg", "max", "flatten")


@pytest.mark.parametrize(
    ("name", "size", "own", "cells"),
    [
        ("cnn32", 32, "max", 64),
        ("resnet18", 64, "avg", 4),
        ("tf_efficientnet_lite0", 64, "avg", 4),
        ("swin_tiny_patch4_window7_224", 64, "avg", 4),
    ],
)
def test_features_are_pooled_from_the_last_map(name: str, size: int, own: str, cells: int):
    models, x = pooled(name, size, POOLS), torch.rand(2, 3, size, size)
    with torch.no_grad():
        features = {pool: model.features(x) for pool, model in models.items()}
    flat = features["flatten"]
    width = features[None].shape[1]
    assert flat.shape == (2, width * cells)
    assert bytes_for(name, size, "flatten") == bytes_for(name, size)
    last = "swin" in name  # timm's Swin has its channels last
    spots = flat.view(2, cells, width) if last else flat.view(2, width, cells).transpose(1, 2)
    torch.testing.assert_close(features["avg"], spots.mean(1))
    torch.testing.assert_close(features["max"], spots.amax(1))
    assert torch.equal(features[None], features[own])
    if name in ("cnn32", "resnet18"):  # whose last stage is the last map
        assert torch.equal(models[None].maps(x)[-1].flatten(1), flat)


def test_tokens_are_pooled_without_the_class_token_after_the_published_norm():
    models = pooled("vit_tiny_patch16_224", 64, POOLS)
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        features = {pool: model.features(x) for pool, model in models.items()}
    tokens = features["flatten"].view(2, 1 + 4 * 4, 192)
    assert torch.equal(features[None], tokens[:, 0])
    torch.testing.assert_close(features["avg"], tokens[:, 1:].mean(1))
    torch.testing.assert_close(features["max"], tokens[:, 1:].amax(1))


@pytest.mark.parametrize("pool", ["avg", "max", "flatten"])
@pytest.mark.parametrize("name", ["test_vit", "test_vit2", "test_vit3", "convnext_atto"])
def test_a_file_of_weights_fits_with_every_pooling(tmp_path: Path, name: str, pool: str):
    """They are published with a class token, an average, a layer that pools, and a map."""
    state = timm.create_model(name, img_size=64) if "vit" in name else timm.create_model(name)
    state = {key: torch.rand_like(value) for key, value in state.state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    model = HashModel(name, 4, HashLoss, size=64, weights=tmp_path / "w.safetensors", pool=pool)
    own = model.backbone.state_dict()
    assert all(torch.equal(own[key], state[key]) for key in own)
    rest = {key.split(".")[0] for key in state if key not in own}
    assert rest <= {"head", "attn_pool"} - ({"attn_pool"} if name != "test_vit3" else set())
    state.popitem()
    save_file(state | {"other": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="'other'"):
        HashModel(name, 4, HashLoss, size=64, weights=tmp_path / "w.safetensors", pool=pool)


@pytest.mark.parametrize(
    ("name", "size", "pool", "says"),
    [
        ("alexnet", 224, "max", "--pool max: alexnet flattens its last map"),
        ("vgg11", 64, "avg", "--pool avg: vgg11 flattens its last map"),
        ("resnet50_clip", 64, "avg", "--pool avg: backbone 'resnet50_clip' can't pool so"),
        ("levit_128s", 224, "max", "--pool max: backbone 'levit_128s' can't pool so"),
        ("inception_v3", 32, "max", "can't take images of 32 px"),
        ("vit_tiny_patch16_224", 40, "avg", "would not see the last 8 of 40 px"),
        ("resnet81", 64, "avg", "unknown backbone 'resnet81'"),
    ],
)
def test_what_cannot_be_pooled_is_told_from_what_has_the_wrong_size(name, size, pool, says):
    for ask in (
        lambda: HashModel(name, 4, HashLoss, size=size, pool=pool),
        lambda: bytes_for(name, size, pool),
    ):
        with pytest.raises(UserError) as error:
            ask()
        assert str(error.value).startswith(says) or says in str(error.value)
        assert "--backbone" in str(error.value) or "did you mean" in str(error.value)
        assert "\n" not in str(error.value)


# ---- keys ---------------------------------------------------------------------------------------


def blueprint(recipe: str = "frozen", method: str = "csq", **changes: object) -> Blueprint:
    settings = VICTIMS[method].resolve({})
    made = Blueprint(method, settings, 8, 4, 32, "cnn32", False, None, RECIPES[recipe][1], "0")
    return replace(made, **changes)


def test_pooling_and_a_hidden_layer_stand_in_keys_only_where_they_are_asked_for():
    plain, pool, hidden = blueprint(), blueprint(pool="avg"), blueprint(hidden=32)
    assert not {"pool", "hidden"} & (plain.inputs.keys() | plain.features.keys())
    assert pool.inputs == plain.inputs | {"pool": "avg"}
    assert hidden.inputs == plain.inputs | {"hidden": 32}
    assert pool.features == plain.features | {"pool": "avg"}
    assert hidden.features == plain.features  # they come before it
    fields = RunSpec().to_dict()
    assert not {"pool", "hidden", "surrogate_recipe"} & fields.keys()
    changed = RunSpec(pool="flatten", hidden=8, surrogate_recipe="scratch32").to_dict()
    assert changed == fields | {"pool": "flatten", "hidden": 8, "surrogate_recipe": "scratch32"}


# ---- a hidden layer -----------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [0, 7])
@pytest.mark.parametrize("method", list(VICTIMS))
def test_the_hash_layer_of_every_victim_is_reloaded_equal(tmp_path: Path, method: str, hidden: int):
    network = blueprint(method=method, hidden=hidden)
    head, loss = network.head(20, 50, CPU)
    tensors = {f"model.{name}": t for name, t in head.state_dict().items()}
    tensors |= {f"loss.{name}": t for name, t in loss.state_dict().items()}
    save_file({k: t.contiguous() for k, t in tensors.items()}, tmp_path / "w.safetensors")
    loaded = network.load_head(load_file(tmp_path / "w.safetensors"), {"train_size": 50}, CPU)
    features = torch.rand(3, 20)
    assert torch.equal(loaded(features), head.eval()(features))


def test_a_hidden_layer_is_linear_and_relu_before_the_hash_layer():
    model = HashModel("cnn32", 4, HashLoss, hidden=7).eval()
    x = torch.rand(2, 3, 32, 32)
    first, relu, last = model.head
    assert isinstance(relu, nn.ReLU)
    assert (first.in_features, first.out_features, last.out_features) == (128, 7, 4)
    f = model.features(x)
    expected = (f @ first.weight.T + first.bias).clamp(min=0) @ last.weight.T + last.bias
    torch.testing.assert_close(model(x), expected)
