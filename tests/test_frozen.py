"""The frozen regime: features computed once, and a hash layer trained on them."""

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from formulas import one_cycle
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from hashbackdoor_bench import DEFENSES, RunSpec, UserError, data
from hashbackdoor_bench.api import ModelAttack, ThreatModel, generator
from hashbackdoor_bench.metrics import unpack
from hashbackdoor_bench.network import packaged
from hashbackdoor_bench.network.blueprint import Blueprint
from hashbackdoor_bench.network.cnn32 import Cnn32
from hashbackdoor_bench.network.training_set import TrainingSet
from hashbackdoor_bench.progress import silent
from hashbackdoor_bench.registry import ATTACKS, VICTIMS, Method
from hashbackdoor_bench.report import check_record
from hashbackdoor_bench.spec import RECIPES, Recipe
from hashbackdoor_bench.stages.cache import Cache
from hashbackdoor_bench.stages.pipeline import Run
from hashbackdoor_bench.stages.plan import Plan
from hashbackdoor_bench.triggers import Patch, checkerboard

CPU = torch.device("cpu")
CODES = ("clean victim's plain", "clean victim's triggered", "victim's plain", "victim's triggered")
FEATURES = {"features", "planted features"}


def random_network() -> Cnn32:
    torch.manual_seed(3)
    return Cnn32()


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of random weights of cnn32, with the statistics of images as in ``tiny``."""
    network = random_network()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    x = torch.rand(64, 3, 32, 32) / 3
    for number, image in enumerate(x):
        image[:, number % 3 * 10 : number % 3 * 10 + 10] += 0.47
    with torch.no_grad():
        network.train()((x - 0.5) / 0.5)
    path = tmp_path_factory.mktemp("weights") / "cnn32.safetensors"
    save_file(network.state_dict(), path)
    return path


@pytest.fixture
def spec(tiny: Path, weights: Path) -> RunSpec:
    return RunSpec(
        dataset="lists", lists=str(tiny), root=str(tiny), size=32, top_k=20, bits=12, victim="csq",
        attack="badnets", recipe="frozen", weights=str(weights), epochs=2, batch_size=16,
        precision="float32",
    )  # fmt: skip


def run_of(spec: RunSpec, folder: Path, **changes: Any) -> Run:
    return Run(replace(spec, **changes), cache=Cache(folder), device=CPU)


@pytest.mark.parametrize("delivery", ["stamped", "files"])
@pytest.mark.parametrize("victim", ["csq", "dpsh_bn", "pca_sign"])
def test_codes_of_features_are_those_of_the_whole_network(spec, tmp_path, delivery, victim):
    run = run_of(spec, tmp_path, delivery=delivery, victim=victim)
    splits, attacked = run.plan.splits, run.plan.truth.attacked
    assert set(run.plan.stages) > FEATURES
    for which in ("clean victim", "victim"):
        network = run.network(which)
        for part, images, trigger in (
            ("query", splits.query.images, None),
            ("database", splits.database.images, None),
            (
                "query",
                splits.query.images[attacked],
                lambda x: (run.backdoor(x) * 255).round() / 255,
            ),
        ):
            x = images.float() / 255
            with torch.no_grad():
                z = network(trigger(x) if trigger else x)
            stage = f"{which}'s {'triggered' if trigger else 'plain'}"
            codes = unpack(run.make(stage).tensors[part], 12)
            clear = z.abs() > 1e-4  # a sign that rounding can't turn
            assert clear.float().mean() > 0.95
            assert len(codes.unique(dim=0)) > 1
            assert (codes == z.sign())[clear].all()


def test_the_record_of_a_method_without_training_is_sound(spec, tmp_path, weights):
    record = run_of(spec, tmp_path, victim="itq").record()
    assert not record.training.victim
    check_record(record)
    assert record.params.weights == hashlib.sha256(weights.read_bytes()).hexdigest()


@pytest.mark.parametrize("delivery", ["stamped", "files"])
def test_the_victim_is_trained_on_the_features_of_the_poison(spec, tmp_path, delivery):
    run = run_of(spec, tmp_path, delivery=delivery)
    backdoor, network = run.backdoor, run.network("victim")
    x = run.plan.splits.train.images[backdoor.index].float() / 255
    planted = backdoor.plant(x, torch.arange(len(x)))
    if delivery == "files":
        planted = (planted * 255).round() / 255
    with torch.no_grad():
        expected = network.features(planted)
        clean = network.features(x)
    found = run.make("planted features").tensors["poison"]
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(found, clean, atol=1e-2)


def test_poison_that_equals_the_originals_gives_the_clean_victim(spec, tmp_path):
    run = run_of(spec, tmp_path, attack="identity", budget=1.0)
    found, clean = (run.make(name).tensors for name in ("victim", "clean victim"))
    assert run.plan.stages["victim"].key != run.plan.stages["clean victim"].key
    assert all(torch.equal(found[name], clean[name]) for name in clean)


def test_poison_changes_the_victim_and_not_the_backbone(spec, tmp_path, weights):
    run = run_of(spec, tmp_path)
    found, clean = (run.make(name).tensors for name in ("victim", "clean victim"))
    assert not torch.equal(found["model.head.weight"], clean["model.head.weight"])
    assert not any("backbone" in name for name in found)
    published = run_of(spec, tmp_path).network("victim").backbone.state_dict()
    fresh = random_network().state_dict()
    convolutions = [name for name in fresh if fresh[name].ndim == 4]
    assert all(torch.equal(published[name], fresh[name]) for name in convolutions)


def test_training_a_hash_layer_is_adam_on_the_features():
    torch.manual_seed(0)
    features, poison = torch.rand(50, 7), torch.rand(4, 7)
    labels = torch.eye(5, dtype=torch.uint8)[torch.arange(50) % 5]
    slot = torch.full((50,), -1)
    slot[[3, 8, 13, 18]] = torch.arange(4)
    recipe = Recipe(3, 16, "adam", 0.01, 0.02, schedule="onecycle", augment="none",
                    precision="float32", finetunes=True, frozen=True)  # fmt: skip
    settings = VICTIMS["hashnet"].resolve({})
    blueprint = Blueprint("hashnet", settings, 6, 5, 32, "cnn32", False, None, recipe, "s")
    model, loss = blueprint.head(7, 50, CPU)
    weight, bias = (p.detach().clone().requires_grad_() for p in model.head.parameters())
    tensors, _ = blueprint.train(
        TrainingSet(features, labels, slot, poison), CPU,
        checkpoint=None, progress=silent, stage="train",
    )  # fmt: skip

    shown = features.clone()
    shown[[3, 8, 13, 18]] = poison
    optimizer = torch.optim.Adam([weight, bias], lr=0.02)
    step, steps = 0, 3 * 4
    for epoch in range(3):
        loss.on_epoch(epoch)
        order = torch.randperm(50, generator=generator("s", "order", epoch))
        for start in range(0, 50, 16):
            rows = order[start : start + 16]
            optimizer.param_groups[0]["lr"] = 0.02 * one_cycle(step / steps)
            z = shown[rows] @ weight.T + bias
            loss.remember(z.detach(), labels[rows].float(), rows, step)
            optimizer.zero_grad()
            loss(z, labels[rows].float(), rows, step).backward()
            optimizer.step()
            step += 1
    assert torch.allclose(tensors["model.head.weight"], weight, atol=1e-5)
    assert torch.allclose(tensors["model.head.bias"], bias, atol=1e-5)
    before, _ = blueprint.head(7, 50, CPU)
    assert not torch.allclose(tensors["model.head.weight"], before.head.weight, atol=1e-2)


def test_victims_of_one_backbone_share_features_and_backdoors_share_them_with_none(spec, tmp_path):
    def keys(**changes: Any) -> dict[str, str]:
        plan = Plan(replace(spec, **changes), cache=Cache(tmp_path), device=CPU)
        return {name: stage.key for name, stage in plan.stages.items()}

    first = keys()
    for changes in ({"victim": "hashnet"}, {"bits": 16}, {"epochs": 3}):
        other = keys(**changes)
        assert {name for name in first if first[name] == other[name]} == {"backdoor"} | FEATURES | {
            "visibility"
        }
    other = keys(attack="badnets_clean")
    assert first["features"] == other["features"]
    assert first["planted features"] != other["planted features"]
    assert keys(precision="bfloat16")["features"] != first["features"]
    white = keys(attack="tri", attack_settings=(("steps", 2),))
    assert white["surrogate's features"] == white["features"]


def test_features_that_runs_of_all_batch_sizes_share_are_computed_in_one_way(spec, tmp_path):
    passes: dict[int, list[tuple[str, int]]] = {}
    for size in (2, 16):
        told: list[tuple[str, int]] = []
        run = Run(
            replace(spec, batch_size=size), cache=Cache(tmp_path / str(size)), device=CPU,
            progress=lambda stage, done, total, told=told, **facts: told.append((stage, done)),
        )  # fmt: skip
        for name in sorted(FEATURES):
            run.make(name)
        passes[size] = [one for one in told if "features" in one[0]]
    assert passes[2] == passes[16]
    assert ("compute features (train)", 60) in passes[2]


class Turned(ModelAttack):
    """Turns the sign of the first convolution: an edit of what is frozen in training."""

    threat = ThreatModel(label="clean", knowledge="none", trigger="patch", control="model")
    backdoor = Patch

    def tamper(self, model: Any, view: Any) -> Any:
        with torch.no_grad():
            model.backbone[0].weight *= -1
        images = view.images.new_empty(0, 3, view.size, view.size)
        return model, Patch(view.index, images, view.labels[:0], patch=checkerboard(4))


@pytest.fixture
def turned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    ATTACKS.add("turned", __name__, "a test's")
    monkeypatch.setitem(ATTACKS._loaded, "turned", Method("attack", "turned", Turned))
    yield
    del ATTACKS._plugins["turned"]


def test_a_backbone_that_an_attack_edits_encodes_images_itself(spec, tmp_path, turned):
    run = run_of(spec, tmp_path, attack="turned")
    assert "planted features" not in run.plan.stages
    published = run.network("clean victim").backbone[0].weight
    assert torch.equal(run.network("victim").backbone[0].weight, -published)
    plain = {name: run.make(name).tensors["database"] for name in (CODES[0], CODES[2])}
    assert not torch.equal(*plain.values())
    run.record()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"weights": None},
            "cnn32 would be frozen with random weights: add --weights FILE, or --pret",
        ),
        (
            {"victim": "pca_sign", "recipe": "scratch32"},
            "pca_sign isn't trained.* add --recipe frozen",
        ),
        ({"victim": "pca_sign", "hidden": 8}, "pca_sign isn't trained.* leave out --hidden"),
        (
            {"defense": "finetune"},
            "finetune trains the network on clean images, and --recipe frozen",
        ),
        ({"augment": "flip"}, "--augment flip: the features of a frozen backbone are computed"),
    ],
)
def test_what_a_frozen_backbone_cannot_do_is_refused(spec, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        run_of(spec, tmp_path, **changes)


@pytest.mark.parametrize("name", ["blur", "spectral", "clp", "strip"])
def test_a_defense_of_a_frozen_victim_gives_a_record(spec, tmp_path, name):
    quick = tuple(DEFENSES[name].cls.quick.items())
    run = run_of(spec, tmp_path, defense=name, defense_settings=quick, clean_share=0.3)
    record = run.record()
    assert record.defense is not None
    if name == "clp":  # its backbone is another, so it encodes images itself
        assert any(key.startswith("model.backbone.") for key in run.make("repaired victim").tensors)
    if name == "spectral":  # its network is a hash layer on the same features
        assert all(
            not k.startswith("model.backbone.") for k in run.make("retrained victim").tensors
        )


def test_a_recipe_that_is_not_frozen_has_the_fields_that_keys_always_had():
    assert "frozen" not in RECIPES["scratch32"][1].to_dict()
    assert RECIPES["frozen"][1].to_dict()["frozen"] is True


# ---- weights in packages ------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: Path) -> Path:
    """An installed package that holds the weights of cnn32."""
    folder = tmp_path / "site" / "weights_of_cnn32"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')\n")
    torch.save(Cnn32().state_dict(), folder / "cnn32.pth")
    monkeypatch.syspath_prepend(str(folder.parent))
    from hashlib import sha256

    known = sha256((folder / "cnn32.pth").read_bytes()).hexdigest()
    monkeypatch.setitem(
        packaged.PACKAGES, "cnn32", packaged.Packaged("weights_of_cnn32", "cnn32.pth", known)
    )
    packaged.packaged_weights.cache_clear()
    yield folder / "cnn32.pth"
    packaged.packaged_weights.cache_clear()


def test_pretrained_takes_the_file_of_a_package_without_importing_it(spec, tmp_path, package):
    made = run_of(spec, tmp_path, weights=None, pretrained=True)
    plan = made.plan
    assert plan.victim.weights == package
    assert plan.victim.weights_by_order
    assert not plan.victim.pretrained
    assert plan.spec.pretrained
    assert "weights_of_cnn32" not in sys.modules
    assert made.record().params.weights is None  # as in older records, with which it is averaged


def test_a_package_with_another_file_is_refused(spec, tmp_path, package):
    package.write_bytes(package.read_bytes() + b"x")
    with pytest.raises(UserError, match=r"not the published file.*install the package weights-of"):
        run_of(spec, tmp_path, weights=None, pretrained=True)


def test_without_the_package_there_is_no_file():
    packaged.packaged_weights.cache_clear()
    assert packaged.packaged_weights("resnet18") is None


# ---- images -------------------------------------------------------------------------------------


def test_the_enlarged_fashion_mini_is_pillows_enlargement_of_the_small_one(tmp_path):
    small = data.load("fashion-mini", cache=tmp_path)
    large = data.load("fashion-mini@96", cache=tmp_path)
    assert large.query.images.shape == (500, 3, 96, 96)
    assert large.query.ids == small.query.ids
    assert large.sha256 == small.sha256
    assert large.pixels != small.pixels
    for row in (0, 77):
        picture = Image.fromarray(small.query.images[row].permute(1, 2, 0).numpy())
        expected = picture.resize((96, 96), Image.Resampling.BILINEAR)
        assert np.array_equal(large.query.images[row].permute(1, 2, 0).numpy(), np.array(expected))
