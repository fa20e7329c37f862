"""Runs on a GPU that isn't there: nothing is left on the CPU, and no step waits; see `pretend`."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pretend import GPU, OnGpu, WrongDevice, pretend_gpu, waits
from test_pipeline import spec
from torch import Tensor, nn

from hashbackdoor_bench import ATTACKS, VICTIMS, HashLoss, HashModel
from hashbackdoor_bench.network import blueprint as blueprint
from hashbackdoor_bench.network.training import encode, fit
from hashbackdoor_bench.network.training_set import TrainingSet
from hashbackdoor_bench.progress import silent
from hashbackdoor_bench.report.pictures import draw_missing
from hashbackdoor_bench.spec import Recipe
from hashbackdoor_bench.stages.cache import Cache
from hashbackdoor_bench.stages.pipeline import Run, run
from hashbackdoor_bench.stages.plan import Plan


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("gpu"))


def quick(attack: str, **changes: Any) -> tuple[tuple[str, Any], ...]:
    return tuple({**ATTACKS[attack].cls.quick, **changes}.items())


TRAINED = [name for name in VICTIMS if VICTIMS[name].cls.trained]


def least(attack: str) -> int:
    """The smallest images that an attack takes, in px."""
    return 32 if attack.startswith(("badhash", "ftrojan")) else 16


def training(poisoned: int, items: int) -> TrainingSet:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 255, (items, 3, 16, 16), generator=random, dtype=torch.uint8)
    labels = torch.eye(2, dtype=torch.uint8)[torch.arange(items) % 2]
    slot = torch.full((items,), -1)
    slot[:poisoned] = torch.arange(poisoned)

    def stamp(x: Tensor, slots: Tensor) -> Tensor:
        assert isinstance(x, OnGpu)
        assert isinstance(slots, OnGpu)
        return x / 2

    return TrainingSet(images, labels, slot, images[:poisoned].clone(), stamp)


@pytest.mark.parametrize(
    "mistake",
    [
        lambda x, y: x + y,
        lambda x, y: torch.stack([x, y]),
        lambda x, y: y[x.long()],
        lambda x, y: nn.functional.mse_loss(y, x),
        lambda x, y: nn.Linear(3, 3)(x),
        lambda x, y: nn.Linear(3, 3).to(GPU)(y),
        lambda x, y: x.numpy(),
        lambda x, y: np.asarray(x),
        lambda x, y: torch.rand(3, generator=torch.Generator(), device=GPU),
        lambda x, y: x.uniform_(generator=torch.Generator()),
    ],
)
def test_the_pretence_refuses_what_cuda_refuses(mistake: Any):
    with pretend_gpu():
        x, y = torch.zeros(3, device=GPU), torch.zeros(3)
        with pytest.raises(WrongDevice):
            mistake(x, y)


def test_the_pretence_allows_what_cuda_allows_and_comes_back():
    with pretend_gpu():
        x, y = torch.zeros(3, device=GPU), torch.arange(3.0)
        x.copy_(y)
        assert x[torch.tensor([2])].device == GPU
        assert (x + torch.tensor(1)).device == GPU
        layer = nn.Linear(3, 2).to(GPU)
        layer(x).sum().backward()
        assert layer.weight.device == layer.weight.grad.device == GPU
        assert type(x.cpu()) is Tensor
        assert x.cpu().numpy().tolist() == [0, 1, 2]


@pytest.mark.parametrize("attack", list(ATTACKS))
def test_a_run_keeps_every_tensor_where_it_belongs(tiny: Path, tmp_path: Path, cache, attack: str):
    given = spec(tiny, attack=attack, attack_settings=quick(attack), size=least(attack))
    if ATTACKS[attack].cls.pointwise:
        given = replace(given, surrogate="csq")
    with pretend_gpu():
        record, _, stages = run(
            given, cache=cache, results=tmp_path, device="cuda", draw=draw_missing
        )
    assert record.device == "a GPU that isn't there"
    state = stages.backdoor.state_dict()
    assert state
    assert all(isinstance(x, OnGpu) for x in state.values())


def test_its_numbers_are_those_of_the_cpu(tiny: Path, tmp_path: Path, monkeypatch):
    adam = torch.optim.Adam  # the fused one rounds in another order
    monkeypatch.setattr(torch.optim, "Adam", lambda *args, fused, **more: adam(*args, **more))
    given = spec(tiny, attack="ciba", attack_settings=quick("ciba"), precision="float32")
    plain, *_ = run(given, cache=Cache(tmp_path / "cpu"), results=tmp_path, device="cpu")
    with pretend_gpu():
        found, *_ = run(given, cache=Cache(tmp_path / "gpu"), results=tmp_path / "g", device="cuda")
    assert found.scores == plain.scores


@pytest.mark.usefixtures("every_epoch_kept")
@pytest.mark.parametrize(
    ("victim", "optimizer"),
    [*((name, "adam") for name in TRAINED), ("csq", "sgd"), ("csq", "rmsprop")],
)
def test_training_goes_on_from_a_checkpoint_there_and_waits_only_between_epochs(
    tmp_path: Path, victim: str, optimizer: str
):
    def trained(items: int, *stops: int) -> tuple[int, dict[str, Tensor]]:
        """Trains to each of the epochs, always with new objects; waits, and the weights."""
        place = tmp_path / f"{items}-{len(stops)}"
        data = training(items // 2, items)
        with pretend_gpu():
            waits.clear()
            for epochs in stops:
                torch.manual_seed(0)
                loss: HashLoss = VICTIMS[victim](16, 2, items).to(GPU)
                model = HashModel("cnn32", 16, loss).to(GPU)
                recipe = Recipe(
                    epochs, 4, optimizer, 1e-3, 1e-3, schedule="constant", augment="crop",
                    precision="float32",
                )  # fmt: skip
                fit(model, loss, data, recipe, seed="s", size=16, checkpoint=place)
            found = waits.total()
            encode(model, data.images, size=16, batch_size=2)
            assert waits.total() <= found + 2  # there and back
            return found, {name: x.cpu() for name, x in model.state_dict().items()}

    few, whole = trained(8, 2)
    assert 0 < few == trained(16, 2)[0]
    _, resumed = trained(8, 1, 2)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_gpu_encodes_many_small_images_at_once(tiny: Path, tmp_path: Path, monkeypatch):
    sizes = []
    monkeypatch.setattr(
        blueprint, "encode", lambda *args, batch_size, **more: sizes.append(batch_size)
    )
    given = spec(tiny, attack="clean", size=32)
    for device in ("cpu", "cuda"):
        with pretend_gpu():
            plan = Plan(given, cache=Cache(tmp_path), device=torch.device(device))
            network, _ = plan.victim.fresh(60, torch.device(device))
            plan.victim.codes(network, plan.splits.query.images, progress=silent, stage="")
    assert sizes == [64, 1024]


@pytest.mark.parametrize(
    ("attack", "names"),
    [("ciba", ("steps", "perturbation_steps")), ("badhash", ("label_steps",))],
)
def test_a_step_of_crafting_waits_for_nothing(tiny: Path, tmp_path: Path, attack: str, names: Any):
    counts = []
    for steps in (2, 6):
        settings = quick(attack, **dict.fromkeys(names, steps))
        given = spec(tiny, attack=attack, attack_settings=settings, size=least(attack))
        with pretend_gpu():
            waits.clear()
            assert Run(given, cache=Cache(tmp_path / str(steps)), device=GPU).backdoor
        counts.append(waits.copy())
    assert counts[0] == counts[1]
