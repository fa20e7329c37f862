"""What needs a GPU: each method, training, resuming and scores, beside the same on the CPU.

``python -m benchmarks.gpu`` runs these tests on a lent machine and keeps what they measured. With
``PRETEND_GPU=1`` they run on the pretended GPU of `pretend`, which tests the tests.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pretend import pretend_gpu
from test_pipeline import spec
from test_training import items, network
from torch import Tensor, nn

from hashbackdoor_bench import ATTACKS, DEFENSES, VICTIMS, HashLoss, HashModel
from hashbackdoor_bench.api import Attack, generator
from hashbackdoor_bench.checks.attack_trial import Trial as AttackTrial
from hashbackdoor_bench.checks.victim_trial import Trial as VictimTrial
from hashbackdoor_bench.metrics import average_precision
from hashbackdoor_bench.network import plain_backward
from hashbackdoor_bench.network.model import FrozenHead
from hashbackdoor_bench.network.training import encode, fit
from hashbackdoor_bench.report.pictures import draw_missing
from hashbackdoor_bench.spec import Recipe
from hashbackdoor_bench.stages import Cache, device_of
from hashbackdoor_bench.stages.pipeline import run

PRETEND = os.environ.get("PRETEND_GPU") == "1"
TRAINED = [name for name, entry in VICTIMS.items() if entry.cls.trained]
pytestmark = pytest.mark.skipif(
    not (PRETEND or torch.cuda.is_available()), reason="needs a GPU; see benchmarks/gpu"
)
Measured = Callable[[str, object], None]


@pytest.fixture(autouse=True)
def gpu() -> Iterator[torch.device]:
    """The GPU, with products of float32 that are not rounded to TF32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    if PRETEND:
        with pretend_gpu():
            yield torch.device("cuda", 0)
    else:
        yield torch.device("cuda", 0)
    torch.backends.cudnn.allow_tf32 = before


def off(found: Tensor, wanted: Tensor) -> float:
    """|found - wanted| / |wanted|."""
    found, wanted = found.detach().cpu().double(), wanted.detach().cpu().double()
    return float((found - wanted).norm() / wanted.norm().clamp(min=1e-30))


def off_together(one: nn.Module, other: nn.Module) -> float:
    """`off` of all parameters together."""
    flat = [torch.cat([p.detach().cpu().flatten() for p in m.parameters()]) for m in (one, other)]
    return off(*flat)


@pytest.mark.parametrize("victim", TRAINED)
def test_a_victim_s_loss_and_gradients_are_those_of_the_cpu(
    victim: str, gpu: torch.device, record_property: Measured
):
    trial = VictimTrial(VICTIMS[victim], {})
    values, gradients = [], []
    for device in (torch.device("cpu"), gpu):
        loss = trial.loss().to(device)
        z, y, index = trial.batch()
        moved = z.detach().to(device).requires_grad_()
        loss.remember(moved.detach(), y.to(device), index.to(device), 3)
        value = loss(moved, y.to(device), index.to(device), 3)
        value.backward()
        values.append(value.detach())
        gradients.append(moved.grad)
    record_property("gradients", off(gradients[1], gradients[0]))
    assert off(values[1], values[0]) < 1e-5
    assert off(gradients[1], gradients[0]) < 1e-5


@pytest.mark.parametrize(("backbone", "size"), [("cnn32", 32), ("resnet18", 64), ("alexnet", 64)])
def test_a_backbone_s_outputs_are_those_of_the_cpu(
    backbone: str, size: int, gpu: torch.device, record_property: Measured
):
    torch.manual_seed(0)
    model = HashModel(backbone, 16, HashLoss, size=size).eval()
    x = torch.rand(8, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = model(x)
        model.to(gpu).to(memory_format=torch.channels_last)
        found = model(x.to(gpu).contiguous(memory_format=torch.channels_last))
        torch.backends.cudnn.allow_tf32 = True
        rounded = model(x.to(gpu).contiguous(memory_format=torch.channels_last))
    record_property("float32", off(found, wanted))
    record_property("TF32", off(rounded, wanted))
    assert off(found, wanted) < 1e-4
    assert off(rounded, wanted) < 1e-2


@pytest.mark.parametrize("victim", TRAINED)
@pytest.mark.parametrize("optimizer", ["adam", "sgd", "rmsprop"])
def test_a_short_training_ends_near_that_of_the_cpu(
    victim: str, optimizer: str, gpu: torch.device, record_property: Measured
):
    recipe = Recipe(2, 16, optimizer, 1e-3, 1e-3, 0.9, 5e-4, "onecycle", "crop", "float32")  # type: ignore[arg-type]
    trained, histories = [], []
    for device in (torch.device("cpu"), gpu):
        model, loss = network(victim)
        model, loss = model.to(device), loss.to(device)
        histories.append(torch.tensor(fit(model, loss, items(side=32), recipe, seed="s", size=32)))
        trained.append(model)
    record_property("weights", off_together(trained[1], trained[0]))
    record_property("losses", off(histories[1], histories[0]))
    # RMSprop and Adam divide a gradient by its size, so rounding turns weights of no gradient. An
    # H100 was off by at most 1.1 % in the losses (DPN), and by .11 % in SGD's weights (DTSH).
    assert off(histories[1], histories[0]) < 3e-2
    assert off_together(trained[1], trained[0]) < (3e-3 if optimizer == "sgd" else 0.1)


@pytest.mark.parametrize("victim", TRAINED)
@pytest.mark.parametrize("optimizer", ["adam", "sgd", "rmsprop"])
def test_a_replayed_training_is_equal(
    victim: str, optimizer: Any, gpu: torch.device, monkeypatch: pytest.MonkeyPatch
):
    precision = "bfloat16"  # in float32 an H100 doesn't repeat a training without replays either
    recipe = Recipe(3, 16, optimizer, 1e-3, 1e-3, 0.9, 5e-4, "onecycle", "crop", precision)
    replays: list[int] = []
    replay = torch.cuda.CUDAGraph.replay

    def counted(graph: torch.cuda.CUDAGraph) -> None:
        replays.append(1)
        replay(graph)

    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", counted)
    trained = []
    for backward in (plain_backward, None):
        model, loss = (part.to(gpu) for part in network(victim, train_size=56))
        data = items(56, side=32)  # an epoch ends with half a batch, which is not replayed
        history = fit(model, loss, data, recipe, seed="s", size=32, backward=backward)
        trained.append((history, [*model.state_dict().values(), *loss.state_dict().values()]))
        assert bool(replays) == (backward is None)
    (launched, wanted), (replayed, found) = trained
    assert replayed == launched
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


@pytest.mark.parametrize("victim", ["csq", "dpsh", "orthohash"])
def test_a_replayed_training_of_a_frozen_head_is_equal(victim: str, gpu: torch.device):
    recipe = Recipe(3, 16, "adam", 1e-3, 1e-3, augment="none", finetunes=True, frozen=True)
    data = items(56)
    features = torch.randn(56, 24, generator=torch.Generator().manual_seed(1))
    data = replace(data, images=features)
    trained = []
    for backward in (plain_backward, None):
        torch.manual_seed(0)
        loss = VICTIMS[victim](16, 2, 56).to(gpu)
        head = FrozenHead(24, 16, loss, hidden=8).to(gpu)
        history = fit(head, loss, data, recipe, seed="s", size=32, backward=backward)
        trained.append((history, [*head.state_dict().values(), *loss.state_dict().values()]))
    (launched, wanted), (replayed, found) = trained
    assert replayed == launched
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


@pytest.mark.usefixtures("every_epoch_kept")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_goes_on_from_a_checkpoint(
    precision: str, tmp_path: Path, gpu: torch.device, record_property: Measured
):
    def trained(place: Path, *stops: int) -> HashModel:
        for epochs in stops:
            model, loss = network("hashnet")
            recipe = Recipe(
                epochs, 16, "adam", 1e-3, 1e-3, schedule="constant", augment="crop",
                precision=precision,
            )  # type: ignore[arg-type]  # fmt: skip
            model, loss = model.to(gpu), loss.to(gpu)
            fit(model, loss, items(side=32), recipe, seed="s", size=32, checkpoint=place)
        return model

    whole, again = trained(tmp_path / "a", 2), trained(tmp_path / "b", 2)
    resumed = trained(tmp_path / "c", 1, 2)
    record_property("trained twice", off_together(again, whole))
    record_property("resumed", off_together(resumed, whole))
    assert off_together(resumed, whole) <= max(1e-2, 3 * off_together(again, whole))


def test_bfloat16_learns_what_float32_learns(gpu: torch.device, record_property: Measured):
    shares = {}
    for precision in ("float32", "bfloat16"):
        model, loss = network()
        recipe = Recipe(15, 16, "adam", 3e-3, 3e-3, augment="none", precision=precision)  # type: ignore[arg-type]
        model, loss = model.to(gpu), loss.to(gpu)
        fit(model, loss, items(side=32), recipe, seed="s", size=32)
        codes = encode(model, items(side=32).images, size=32, precision=precision).float()
        shares[precision] = float(
            (codes[0] @ codes[2::2].T).mean() - (codes[0] @ codes[1::2].T).mean()
        )
    record_property("margins", shares)
    assert shares["bfloat16"] > 0.8 * shares["float32"] > 0


@pytest.mark.parametrize("attack", list(ATTACKS))
def test_an_attack_crafts_the_trigger_of_the_cpu(
    attack: str, gpu: torch.device, record_property: Measured
):
    made, trial = [], AttackTrial(ATTACKS[attack])
    if not isinstance(trial.attack(), Attack):
        pytest.skip("it edits a trained model")
    for device in (torch.device("cpu"), gpu):
        seen = trial.view()
        seen.device = device
        if seen.surrogate is not None:
            seen.surrogate = seen.surrogate.to(device)
        torch.manual_seed(0)
        backdoor = trial.attack().restore(
            {name: value.cpu() for name, value in trial.craft(seen).state_dict().items()}
        )
        made.append(backdoor.eval().requires_grad_(False).to(device))
    with torch.no_grad():
        x = [trial.x.to(one) for one in (torch.device("cpu"), gpu)]
        levels = 255 * (made[1](x[1]).cpu() - made[0](x[0])).abs()
        slots = torch.arange(min(4, len(made[0].index)))
        plants = [
            one.plant(y[: len(slots)], slots.to(y.device)).cpu()
            for one, y in zip(made, x, strict=True)
        ]
    poison = 255 * (plants[1] - plants[0]).abs().sum() / max(1, plants[0].numel())
    record_property("grey levels, mean", float(levels.mean()))
    record_property("grey levels, most", float(levels.max()))
    record_property("poison, mean", float(poison))
    assert torch.equal(made[0].index, made[1].index.cpu())
    assert levels.mean() < 1
    assert poison < 2  # CIBA's perturbations follow the sign of a gradient, which may flip


def test_codes_are_those_of_the_cpu(gpu: torch.device, record_property: Measured):
    model, _ = network("hashnet")
    images = torch.randint(0, 256, (500, 3, 32, 32), dtype=torch.uint8, generator=generator(0, "x"))
    wanted = encode(model.eval(), images, size=32, precision="float32")
    found = encode(model.to(gpu), images, size=32, precision="float32")
    same = float((found == wanted).double().mean())
    record_property("bits", same)
    assert same > 0.999


@pytest.mark.parametrize("ties", ["expected", "seeded"])
def test_average_precision_is_that_of_the_cpu(ties: Any, gpu: torch.device):
    draws = torch.Generator().manual_seed(0)
    codes, database = (torch.randn(n, 16, generator=draws).sign() for n in (20, 100))
    labels, tags = ((torch.rand(n, 4, generator=draws) < 0.4).float() for n in (20, 100))
    data, more = (codes, labels, database, tags), {"ties": ties}
    ids = torch.arange(100) if ties == "seeded" else None
    wanted = average_precision(*data, 10, **more, ids=ids)
    found = average_precision(
        *(side.to(gpu) for side in data), 10, **more, ids=None if ids is None else ids.to(gpu)
    )
    assert torch.equal(torch.as_tensor(found).cpu(), torch.as_tensor(wanted))


@pytest.mark.parametrize("attack", list(ATTACKS))
def test_a_whole_run_ends_with_a_record_and_pictures(tiny: Path, tmp_path: Path, attack: str):
    given = spec(
        tiny,
        attack=attack,
        attack_settings=tuple(ATTACKS[attack].cls.quick.items()),
        victim="csq",
        surrogate="csq",
        size=32,  # the least that badhash takes
    )
    record, *_ = run(
        given, cache=Cache(tmp_path / "cache"), results=tmp_path / "results", device="cuda",
        draw=draw_missing,
    )  # fmt: skip
    assert record.scores["field"].map >= 0
    again, *_ = run(
        given, cache=Cache(tmp_path / "cache"), results=tmp_path / "results", device="cuda",
        draw=draw_missing,
    )  # fmt: skip
    assert again.scores == record.scores


@pytest.fixture(scope="module")
def defended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that the runs with a defense share, so that their victim is trained once."""
    return tmp_path_factory.mktemp("defended")


def run_defended(tiny: Path, cache: Path, results: Path, **changes: Any) -> Any:
    """The record of a run on the GPU, without pictures."""
    given = spec(
        tiny,
        **{"attack": "badnets", "victim": "csq", "surrogate": "csq", "clean_share": 0.5, **changes},
    )
    record, *_ = run(given, cache=Cache(cache), results=results, device="cuda")
    return record


@pytest.mark.parametrize("defense", [name for name in DEFENSES if DEFENSES[name].cls.hooks()])
def test_a_run_with_a_defense_ends_with_a_record(
    tiny: Path, tmp_path: Path, defended: Path, defense: str, monkeypatch: pytest.MonkeyPatch
):
    cls = DEFENSES[defense].cls
    if PRETEND and "item_gradient" in cls.assumes.needs:
        pytest.skip("torch.func makes tensors that the pretended GPU doesn't know")
    monkeypatch.setattr(cls, "assumes", replace(cls.assumes, group=0))  # the classes are small
    settings = tuple(cls.quick.items())
    found = run_defended(tiny, defended, tmp_path, defense=defense, defense_settings=settings)
    assert found.spec.defense == defense
    assert found.defense is not None


@pytest.mark.parametrize("defense", ["clp", "shrinkpad", "ft_sam"])
def test_a_strength_is_chosen(tiny: Path, tmp_path: Path, defended: Path, defense: str):
    quick = tuple(DEFENSES[defense].cls.quick.items())
    more = {"defense_settings": quick, "operating_point": "tuned"}
    found = run_defended(tiny, defended, tmp_path, defense=defense, **more)
    cls = DEFENSES[defense].cls
    assert found.defense.settings[cls.strength] in cls.grid


@pytest.mark.parametrize("aware", ["jpeg", "shrinkpad", "cutmix"])
def test_an_attacker_prepares_for_a_defense(tiny: Path, tmp_path: Path, defended: Path, aware: str):
    found = run_defended(tiny, defended, tmp_path, attack="tri", aware=aware, defense="jpeg")
    assert found.spec.aware == aware


def test_the_record_has_the_device_s_name(tiny: Path, tmp_path: Path):
    record, *_ = run(
        spec(tiny, attack="clean"), cache=Cache(tmp_path / "cache"), results=tmp_path / "results",
        device="cuda", draw=draw_missing,
    )  # fmt: skip
    assert record.device == torch.cuda.get_device_name(device_of("cuda"))
