"""Files of weights: what fits a backbone is loaded completely, and all else is refused."""

import os
import time
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from hashbackdoor_bench import HashLoss, HashModel, RunSpec, UserError
from hashbackdoor_bench.network import Blueprint
from hashbackdoor_bench.network.cnn32 import Cnn32
from hashbackdoor_bench.spec import RECIPES


def load(name: str, file: Path, size: int = 64, **options) -> HashModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch's, on interpolation
        return HashModel(name, 4, HashLoss, size=size, weights=file, **options)


def numbered(network: Callable[[], nn.Module]) -> dict[str, torch.Tensor]:
    """Tensors of a network's names and shapes that hold 0 to 250 again and again.

    To draw the weights of VGG takes ten times as long.
    """
    with torch.device("meta"):
        state = network().state_dict()
    count = torch.arange(251.0)
    return {
        name: count.repeat(t.numel() // 251 + 1)[: t.numel()].to(t.dtype).view(t.shape).clone()
        for name, t in state.items()
    }


def saved(tmp_path: Path, state: object) -> Path:
    torch.save(state, tmp_path / "w.pth")
    return tmp_path / "w.pth"


def same(model: HashModel, state: dict[str, torch.Tensor]) -> set[str]:
    """Names of the network's tensors that are not the file's."""
    own = model.backbone.state_dict()
    return {key for key in own if key not in state or not torch.equal(own[key], state[key])}


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "efficientnet_lite0", "regnetx_002"])
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_every_tensor_but_the_classifiers_is_loaded(tmp_path, name, ending):
    state = timm.create_model(name).state_dict()
    file = tmp_path / f"w.{ending}"
    save_file(state, file) if ending == "safetensors" else torch.save(state, file)
    assert same(load(name, file), state) == set()


def test_a_vit_of_another_input_size_is_loaded_with_resized_positions(tmp_path):
    source = timm.create_model("vit_tiny_patch16_224")
    nn.init.constant_(source.pos_embed, 0.25)
    state = source.state_dict()
    model = load("vit_tiny_patch16_224", saved(tmp_path, state), 128)
    assert same(model, state) == {"pos_embed"}
    assert model.backbone.pos_embed.shape == (1, 1 + 8 * 8, 192)
    torch.testing.assert_close(model.backbone.pos_embed, torch.full((1, 65, 192), 0.25))


def test_torchvisions_vgg_is_loaded(tmp_path):
    state = numbered(torchvision.models.vgg11)
    model = load("vgg11", saved(tmp_path, state))
    own = model.backbone.state_dict()
    assert torch.equal(own["features.0.weight"], state["features.0.weight"])
    assert torch.equal(own["pre_logits.fc1.weight"].flatten(1), state["classifier.0.weight"])


def test_torchvisions_alexnet_is_loaded_without_its_classifier(tmp_path):
    state = numbered(torchvision.models.alexnet)
    assert same(load("alexnet", saved(tmp_path, state)), state) == set()


WRONG = [
    ("resnet34", "resnet18"),
    ("convnext_pico", "convnext_femto"),
    ("regnetx_004", "regnetx_002"),
]


@pytest.mark.parametrize(("wrong", "name"), WRONG)
def test_the_file_of_a_deeper_network_is_refused(tmp_path, wrong, name, capfd):
    file = saved(tmp_path, timm.create_model(wrong).state_dict())
    with pytest.raises(UserError, match=rf"does not fit backbone '{name}': .*give the file of"):
        load(name, file)
    assert capfd.readouterr().err == ""  # timm's log of all names is not shown


def test_tensors_too_many_are_counted_and_named(tmp_path):
    state = timm.create_model("resnet34").state_dict()
    own = timm.create_model("resnet18", num_classes=0).state_dict()
    left = [key for key in state if key not in own and not key.startswith("fc.")]
    with pytest.raises(UserError, match=rf"it has {len(left)} tensors \('{left[0]}', .*too many"):
        load("resnet18", saved(tmp_path, state))


def test_missing_tensors_are_counted_and_named(tmp_path):
    save_file({"other": torch.zeros(1)}, tmp_path / "w.safetensors")
    says = r"'cnn32': it lacks 30 tensors \('0\.weight', .* it has 1 tensors \('other'\) too many"
    with pytest.raises(UserError, match=says):
        HashModel("cnn32", 4, HashLoss, weights=tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"'cnn32': it has 1 tensors \('other'\) too many"):
        load("cnn32", saved(tmp_path, Cnn32().state_dict() | {"other": torch.zeros(1)}))
    state = timm.create_model("resnet18").state_dict()
    del state["layer2.0.bn1.weight"]
    with pytest.raises(UserError, match=r"lacks 1 tensors \('layer2\.0\.bn1\.weight'\)"):
        load("resnet18", saved(tmp_path, state))


@pytest.mark.parametrize("name", ["cnn32", "resnet18"])
def test_other_names_in_the_same_order_are_offered_and_loaded_on_request(tmp_path, name):
    source = Cnn32() if name == "cnn32" else timm.create_model(name)
    for tensor in source.state_dict().values():
        tensor.copy_(torch.rand(tensor.shape)) if tensor.is_floating_point() else None
    state = source.state_dict()
    renamed = {f"net.x{i}": value for i, value in enumerate(state.values())}
    file = saved(tmp_path, renamed)
    first = next(iter(state))
    says = rf"\('net\.x0' where '{first}' is expected\).* add --weights-by-order"
    with pytest.raises(UserError, match=says):
        load(name, file)
    assert same(load(name, file, weights_by_order=True), state) == set()


def test_the_first_name_that_differs_is_the_one_that_is_told(tmp_path):
    state = Cnn32().state_dict()
    names = list(state)
    renamed = {key.replace(names[3], "other"): value for key, value in state.items()}
    with pytest.raises(UserError, match=rf"\('other' where '{names[3]}' is expected\)"):
        load("cnn32", saved(tmp_path, renamed))


def test_an_order_that_does_not_fit_is_refused(tmp_path):
    state = dict(reversed(Cnn32().state_dict().items()))
    with pytest.raises(UserError, match=r"don't have the shapes of backbone 'cnn32'"):
        load("cnn32", saved(tmp_path, state), weights_by_order=True)
    state = Cnn32().state_dict() | {"a": torch.zeros(3), "b": torch.zeros(3)}  # no classifier
    with pytest.raises(UserError, match="don't have the shapes"):
        load("cnn32", saved(tmp_path, state), weights_by_order=True)
    save_file(Cnn32().state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="sorted by name"):
        load("cnn32", tmp_path / "w.safetensors", weights_by_order=True)


def special(tmp_path: Path, what: str) -> Path:
    file = tmp_path / "w.pth"
    if what == "pipe":
        os.mkfifo(file)
    elif what == "linked pipe":
        os.mkfifo(tmp_path / "pipe")
        file.symlink_to("pipe")
    elif what == "folder":
        file.mkdir()
    elif what == "device":
        file.symlink_to("/dev/zero")
    elif what == "huge":
        with file.open("wb") as out:
            out.truncate(10**12)  # sparse
    elif what == "bomb":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("data.pkl", bytes(10**8))
    elif what == "view":  # one number, seen as a terabyte
        torch.save({"0.weight": torch.zeros(1).expand(2**38)}, file)
    return file


@pytest.mark.parametrize("what", ["pipe", "linked pipe", "folder", "device", "huge", "none"])
def test_what_is_no_regular_file_of_this_size_is_refused_at_once(tmp_path, what):
    file = special(tmp_path, what)
    recipe = RECIPES["scratch32"][1]
    network = Blueprint("hashnet", {}, 4, 2, 32, "cnn32", False, file, recipe, "0")
    for ask in (lambda: load("cnn32", file), network.check):
        start = time.perf_counter()
        with pytest.raises(UserError, match=r"--weights .*give"):
            ask()
        assert time.perf_counter() - start < 5


@pytest.mark.parametrize("what", ["bomb", "view"])
def test_a_small_file_of_large_tensors_is_refused_before_they_are_made(tmp_path, what):
    with pytest.raises(UserError, match="MB of tensors are more than"):
        load("cnn32", special(tmp_path, what))


@pytest.mark.parametrize(
    "state",
    [
        {},
        [],
        {"epoch": 3},
        {"state_dict": 5},
        {"0.weight": [1, 2]},
        "text",
        None,
        {3: torch.ones(1)},
    ],
    ids=repr,
)
def test_what_holds_no_tensors_with_names_is_refused(tmp_path, state):
    with pytest.raises(UserError, match=r"--weights .*w\.pth"):
        load("cnn32", saved(tmp_path, state))


def test_damaged_files_of_weights_are_refused(tmp_path):
    torch.manual_seed(0)
    for ending in ("pth", "safetensors"):
        file = tmp_path / f"w.{ending}"
        state = Cnn32().state_dict()
        save_file(state, file) if ending == "safetensors" else torch.save(state, file)
        whole = file.read_bytes()
        for number in range(60):
            damaged = bytearray(whole)
            at = int(torch.randint(min(len(whole), 3000), (1,)))
            damaged[at] ^= 1 << number % 8
            file.write_bytes(damaged if number % 3 else damaged[:at])
            with suppress(UserError):  # one sentence, or a flipped bit of a number
                load("cnn32", file)


def test_the_order_of_weights_stands_in_keys_only_where_it_is_asked_for(tmp_path):
    file = saved(tmp_path, Cnn32().state_dict())
    recipe = RECIPES["scratch32"][1]
    network = Blueprint("hashnet", {}, 4, 2, 32, "cnn32", False, file, recipe, "0")
    assert "weights_by_order" not in network.inputs
    assert replace(network, weights_by_order=True).inputs["weights_by_order"] is True
    with pytest.raises(UserError, match="--weights-by-order needs a file"):
        replace(network, weights=None, weights_by_order=True).check()
    assert RunSpec(weights=str(file), weights_by_order=True).to_dict()["weights_by_order"]
