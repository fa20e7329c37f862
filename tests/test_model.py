from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hashbackdoor_bench import VICTIMS, HashLoss, HashModel, UserError
from hashbackdoor_bench.network import Channel, bytes_for
from hashbackdoor_bench.network.cnn32 import Cnn32


def test_cnn32_is_the_network_of_its_docstring():
    parameters = sum(p.numel() for p in Cnn32().parameters())
    assert 0.28e6 < parameters < 0.31e6
    assert Cnn32()(torch.zeros(2, 3, 32, 32)).shape == (2, 128)


@pytest.fixture(scope="module")
def networks() -> dict[str, HashModel]:
    """Networks of 4 bits for 64 px that were built for a test: VGG takes two seconds."""
    return {}


@pytest.fixture
def built(request: pytest.FixtureRequest, networks: dict[str, HashModel]) -> HashModel:
    """The network of a name, which tests share and leave as it is."""
    name = request.param
    if name not in networks:
        networks[name] = HashModel(name, 4, HashLoss, size=64).eval()
    return networks[name]


@pytest.mark.parametrize(
    "built", ["resnet18", "vgg11_bn", "alexnet", "vit_tiny_patch16_224"], indirect=True
)
def test_a_backbone_by_name_gives_features_relaxed_and_codes(built: HashModel):
    model, x = built, torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert model.features(x).shape == (2, model.head.in_features)
        assert model(x).shape == (2, 4)
        assert model.relaxed(x).abs().max() <= 1
        code = model.code(x)
    assert code.dtype == torch.int8
    assert set(code.unique().tolist()) <= {-1, 1}


@pytest.mark.parametrize("built", ["vgg11_bn"], indirect=True)
def test_vgg_has_the_published_dropout(built: HashModel):
    rates = {module.p for module in built.modules() if isinstance(module, nn.Dropout)}
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
    loss.remember(torch.zeros(2, 4), torch.eye(2), torch.arange(2), 2000)  # beta grows
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


NOT_TAKEN = [("alexnet", 32), ("cnn32", 224), ("cnn32", 2), ("inception_v3", 32)]


@pytest.mark.parametrize(("name", "size"), NOT_TAKEN)
def test_an_image_size_that_a_backbone_cannot_take_is_refused(name: str, size: int):
    for ask in (lambda: HashModel(name, 4, HashLoss, size=size), lambda: bytes_for(name, size)):
        with pytest.raises(UserError, match=f"{size}.*--backbone"):
            ask()


@pytest.mark.parametrize("size", [96, 128, 160])
@pytest.mark.parametrize("name", ["cnn32", "resnet18", "vit_tiny_patch16_224"])
def test_a_backbone_is_asked_which_sizes_it_takes_without_building_it(name: str, size: int):
    before = torch.get_rng_state()
    asked = bytes_for(name, size)
    assert torch.equal(torch.get_rng_state(), before)
    model = HashModel(name, 4, HashLoss, size=size)
    state = model.backbone.state_dict().values()
    assert asked == sum(t.numel() * t.element_size() for t in state)
    assert model.eval()(torch.rand(1, 3, size, size)).shape == (1, 4)


@pytest.mark.parametrize(
    ("name", "words"),
    [("resnet81", "unknown backbone 'resnet81': did you mean resnet18"), ("", "unknown backbone")],
)
def test_an_unknown_backbone_gives_the_near_names(name: str, words: str):
    with pytest.raises(UserError, match=words):
        HashModel(name, 4, HashLoss)


# ---- stages and convolutions ----


SHAPES = {  # of one image of 64 px
    "cnn32": [(32, 64), (64, 32), (128, 16)],
    "alexnet": [(64, 15), (192, 7), (256, 3)],
    "resnet18": [(64, 32), (64, 16), (128, 8), (256, 4), (512, 2)],
    "vgg11_bn": [(64, 64), (128, 32), (256, 16), (512, 8), (512, 4), (512, 2)],
    "efficientnet_lite0": [(16, 32), (24, 16), (40, 8), (112, 4), (320, 2)],
    "convnext_atto": [(40, 16), (80, 8), (160, 4), (320, 2)],
    "vit_tiny_patch16_224": [(192, 4)] * 12,
    "swin_tiny_patch4_window7_224": [(96, 16), (192, 8), (384, 4), (768, 2)],
}


@pytest.mark.parametrize(("built", "shapes"), SHAPES.items(), indirect=["built"], ids=list(SHAPES))
def test_maps_are_the_outputs_of_the_stages(built: HashModel, shapes: list[tuple[int, int]]):
    model, x = built, torch.rand(2, 3, 64, 64)
    maps = model.maps(x)
    assert [tuple(m.shape) for m in maps] == [(2, c, side, side) for c, side in shapes]
    assert all(m.dtype == torch.float32 for m in maps)
    maps[-1].sum().backward()  # a defense may train on them
    assert next(model.backbone.parameters()).grad is not None
    model.zero_grad()


def test_the_last_map_of_a_network_gives_its_features():
    x = torch.rand(2, 3, 64, 64)
    cnn, resnet = (HashModel(name, 4, HashLoss, size=64).eval() for name in ("cnn32", "resnet18"))
    with torch.no_grad():
        assert torch.equal(cnn.maps(x)[-1].amax((2, 3)), cnn.features(x))
        torch.testing.assert_close(resnet.maps(x)[-1].mean((2, 3)), resnet.features(x))


def test_the_tokens_of_a_transformer_lie_where_their_patches_do():
    model = HashModel("vit_tiny_patch16_224", 4, HashLoss, size=64).eval()
    for block in model.backbone.blocks:  # only the embedding of each patch is left
        for branch in (block.attn.proj, block.mlp.fc2):
            nn.init.zeros_(branch.weight)
            nn.init.zeros_(branch.bias)
    plain, changed = torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64)
    changed[:, :, 16:32, 48:64] = 1  # patch in row 1, column 3
    with torch.no_grad():
        moved = (model.maps(plain)[-1] - model.maps(changed)[-1]).abs().sum(1)[0]
    assert moved.nonzero().tolist() == [[1, 3]]


def test_a_map_is_what_the_stage_put_out_though_the_next_layer_works_in_place():
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stage, self.after = nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True)

        def forward(self, x):
            return self.after(self.stage(x)).mean((2, 3))

    model = HashModel("cnn32", 4, HashLoss)
    model.backbone, model._stages = InPlace(), ("stage",)
    x = torch.rand(2, 3, 32, 32)
    (found,) = model.maps(x)
    assert torch.equal(found, model.backbone.stage((x - model.mean) / model.std))
    assert (found < 0).any()


def test_a_backbone_without_maps_gives_an_empty_list():
    model = HashModel("hrnet_w18_small", 4, HashLoss, size=64).eval()
    assert model.maps(torch.rand(1, 3, 64, 64)) == []
    assert {channel.stage for channel in model.channels()} == {0}


def named(model: HashModel) -> dict[str, tuple[str | None, int]]:
    """Names of convolutions and their normalisations, in the order of `channels`, and stages."""
    names = {module: name for name, module in model.backbone.named_modules()}
    return {
        names[one.conv]: (None if one.norm is None else names[one.norm], one.stage)
        for one in model.channels()
    }


@pytest.mark.parametrize(
    ("built", "count", "some"),
    [
        ("cnn32", 6, {"0": ("1", 0), "3": ("4", 0), "7": ("8", 1), "17": ("18", 2)}),
        ("alexnet", 5, {"features.0": (None, 0), "features.3": (None, 1),
                        "features.6": (None, 2), "features.10": (None, 2)}),
        ("resnet18", 20, {"conv1": ("bn1", 0), "layer1.0.conv1": ("layer1.0.bn1", 1),
                          "layer2.0.downsample.0": ("layer2.0.downsample.1", 2),
                          "layer4.1.conv2": ("layer4.1.bn2", 4)}),
        ("vgg11_bn", 10, {"features.0": ("features.1", 0), "features.25": ("features.26", 4),
                          "pre_logits.fc1": (None, 6)}),
        ("efficientnet_lite0", 49, {"conv_stem": ("bn1", 0),
                                    "blocks.1.0.conv_dw": ("blocks.1.0.bn2", 1),
                                    "conv_head": ("bn2", 5)}),
        ("convnext_atto", 40, {"stem.0": ("stem.1", 0),  # most are 1x1, in its MLPs
                               "stages.0.blocks.0.conv_dw": ("stages.0.blocks.0.norm", 0),
                               "stages.1.downsample.1": (None, 1)}),
        ("vit_tiny_patch16_224", 1, {"patch_embed.proj": (None, 0)}),
    ],
    indirect=["built"],
)  # fmt: skip
def test_channels_pair_convolutions_with_their_norms(built: HashModel, count: int, some: dict):
    found = named(built)
    assert len(found) == count
    assert {conv: found[conv] for conv in some} == some


class Tangled(nn.Module):
    """Declares its layers the wrong way round, and wires them in several ways."""

    def __init__(self) -> None:
        super().__init__()
        self.unused, self.last, self.twice = (nn.Conv2d(4, 4, 1) for _ in range(3))
        self.norm_of_last, self.norm_of_first = nn.BatchNorm2d(4), nn.LayerNorm(4)
        self.after_relu, self.of_sum = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.first = nn.Conv2d(3, 4, 1)
        self.relu, self.stage = nn.ReLU(inplace=True), nn.Identity()

    def forward(self, x):
        x = self.norm_of_first(self.first(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = self.after_relu(self.relu(self.twice(x)))
        x = self.stage(self.of_sum(self.twice(x) + x))
        return self.norm_of_last(self.last(x)).mean((2, 3))


def test_channels_follow_the_image_and_not_the_order_of_modules():
    model = HashModel("cnn32", 4, HashLoss)
    net = model.backbone = Tangled()
    model._stages = ("stage",)
    net.after_relu.eval()  # frozen alone
    running = net.norm_of_last.running_mean.clone()
    assert model.channels() == [
        Channel(net.first, net.norm_of_first, 0),  # a view of the output is the output
        Channel(net.twice, None, 0),  # changed in place, and added to something
        Channel(net.last, net.norm_of_last, 1),
    ]
    assert torch.equal(net.norm_of_last.running_mean, running)
    assert net.training
    assert not net.after_relu.training
