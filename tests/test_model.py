from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hashbackdoor_bench import VICTIMS, HashLoss, HashModel, UserError
from hashbackdoor_bench.network.model import Cnn32


def test_cnn32_is_the_network_of_its_docstring():
    parameters = sum(p.numel() for p in Cnn32().parameters())
    assert 0.28e6 < parameters < 0.31e6
    assert Cnn32()(torch.zeros(2, 3, 32, 32)).shape == (2, 128)


@pytest.mark.parametrize("name", ["resnet18", "vgg11", "alexnet", "vit_tiny_patch16_224"])
def test_a_backbone_by_name_gives_features_relaxed_and_codes(name: str):
    model = HashModel(name, 12, HashLoss, size=64).eval()
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert model.features(x).shape == (2, model.head.in_features)
        assert model(x).shape == (2, 12)
        assert model.relaxed(x).abs().max() <= 1
        code = model.code(x)
    assert code.dtype == torch.int8
    assert set(code.unique().tolist()) <= {-1, 1}


def test_vgg_has_the_published_dropout():
    rates = {m.p for m in HashModel("vgg11", 8, HashLoss, size=64).modules()
             if isinstance(m, nn.Dropout)}  # fmt: skip
    assert rates == {0.5}


def test_normalisation_is_inside_and_the_backbones_own():
    vit, resnet = (
        HashModel(name, 8, HashLoss, size=32) for name in ("vit_tiny_patch16_224", "resnet18")
    )
    assert vit.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    assert resnet.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    seen = {}
    resnet.backbone.register_forward_pre_hook(lambda module, inputs: seen.update(x=inputs[0]))
    resnet.eval()(resnet.mean.expand(1, 3, 32, 32))
    assert seen["x"].abs().max() < 1e-6


def test_the_head_is_what_the_victim_asks_for():
    class Asks(HashLoss):
        head_bias = False
        head_norm = "batch"
        head_init_std = 0.001

    head = HashModel("cnn32", 8, Asks).head
    assert isinstance(head, nn.Sequential)
    assert isinstance(head[1], nn.BatchNorm1d)
    assert head[0].bias is None
    assert head[0].weight.std() < 0.002


def test_relaxed_is_the_victims_own_and_its_banks_stay_out_of_the_network():
    loss = VICTIMS["hashnet"](4, 2, 10, variant="paper")
    loss(torch.zeros(2, 4), torch.eye(2), torch.arange(2), 2000)  # beta grows
    model = HashModel("cnn32", 4, loss).eval()
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(model.relaxed(x, 0.5), loss.relax(0.5 * model(x)))
    assert not torch.allclose(model.relaxed(x), torch.tanh(model(x)), rtol=1e-3, atol=0)
    assert not any("beta" in name or "bank" in name for name in model.state_dict())


def test_raw_outputs_are_float32_under_autocast_and_float64_where_the_network_is():
    model = HashModel("cnn32", 4, HashLoss).eval()
    with torch.autocast("cpu", torch.bfloat16):
        assert model(torch.rand(1, 3, 32, 32)).dtype == torch.float32
    assert model.double()(torch.rand(1, 3, 32, 32).double()).dtype == torch.float64


@pytest.mark.parametrize("form", ["safetensors", "pth", "state_dict"])
def test_weights_come_from_a_local_file(tmp_path: Path, form: str):
    torch.manual_seed(1)
    state = Cnn32().state_dict()
    path = tmp_path / f"w.{'safetensors' if form == 'safetensors' else 'pth'}"
    if form == "safetensors":
        save_file(state, path)
    elif form == "pth":
        torch.save(state, path)
    else:  # as data-parallel training saves it
        torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, path)
    model = HashModel("cnn32", 4, HashLoss, weights=path)
    assert torch.equal(model.backbone.state_dict()["0.weight"], state["0.weight"])


class Evil:
    def __reduce__(self):
        return (print, ("unpickled!",))


def test_nothing_untrusted_is_unpickled(tmp_path: Path, capsys):
    path = tmp_path / "evil.pth"
    torch.save({"0.weight": Evil()}, path)
    with pytest.raises(UserError, match="loads without running code"):
        HashModel("cnn32", 4, HashLoss, weights=path)
    assert "unpickled!" not in capsys.readouterr().out


def test_a_file_that_is_no_state_dict_and_other_shapes_are_refused(tmp_path: Path):
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    with pytest.raises(UserError, match="not a weight file"):
        HashModel("cnn32", 4, HashLoss, weights=tmp_path / "tensor.pth")
    state = {k: torch.zeros(2) for k in Cnn32().state_dict()}
    torch.save(state, tmp_path / "shapes.pth")
    with pytest.raises(UserError, match="other shapes"):
        HashModel("cnn32", 4, HashLoss, weights=tmp_path / "shapes.pth")


@pytest.mark.parametrize(("name", "size"), [("alexnet", 32), ("cnn32", 224)])
def test_an_image_size_that_a_backbone_cannot_take_is_refused(name: str, size: int):
    with pytest.raises(UserError, match=f"{size}.*take"):
        HashModel(name, 4, HashLoss, size=size)


def test_weights_of_another_network_are_refused(tmp_path: Path):
    path = tmp_path / "w.safetensors"
    save_file({"other": torch.zeros(1)}, path)
    with pytest.raises(UserError, match=r"lacks '0.weight' of backbone 'cnn32'"):
        HashModel("cnn32", 4, HashLoss, weights=path)


@pytest.mark.parametrize(
    ("name", "words"),
    [("resnet81", "unknown backbone 'resnet81': did you mean resnet18"), ("", "unknown backbone")],
)
def test_an_unknown_backbone_gives_the_near_names(name: str, words: str):
    with pytest.raises(UserError, match=words):
        HashModel(name, 4, HashLoss)


def test_without_a_network_pretrained_says_which_file_to_bring(monkeypatch):
    import timm

    def offline(*args, **settings):
        raise OSError("We couldn't connect to the hub\nmore")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(UserError, match=r"couldn't connect to the hub.*--weights FILE"):
        HashModel("resnet18", 4, HashLoss, pretrained=True)


def test_cnn32_has_no_pretrained_weights():
    with pytest.raises(UserError, match="leave out --pretrained"):
        HashModel("cnn32", 4, HashLoss, pretrained=True)
