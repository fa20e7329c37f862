"""Looking into the trainings of records: what is seen, what is told, and that nothing changes."""

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hashbackdoor_bench.benchmarks.taking.__main__ import main
from hashbackdoor_bench.benchmarks.taking.predictors import correlation, links
from hashbackdoor_bench.benchmarks.taking.probe import Probe
from test_pipeline import CPU, spec
from torch import Tensor

from hashbackdoor_bench import HashLoss, HashModel, TrainStep
from hashbackdoor_bench.network import Blueprint
from hashbackdoor_bench.stages import VICTIM, Cache, Run, run


@pytest.fixture(scope="module")
def looked(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A cache, and a folder of records of two seeds and what was seen of them."""
    place = tmp_path_factory.mktemp("taking")
    for seed in (0, 1):
        asked = spec(tiny, attack="tri", seed=seed, epochs=2, delivery="files")
        run(asked, cache=Cache(place / "cache"), results=place / "two", device="cpu", threads=1)
    output = place / "new/folder"
    words = [str(place / "two"), "--cache-dir", str(place / "cache"), "--output", str(output)]
    result = CliRunner().invoke(main, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return place, place / "two"


def test_every_epoch_is_seen_and_the_last_is_the_victim_that_was_scored(
    looked: tuple[Path, Path], tiny: Path
):
    place, _ = looked
    runs = json.loads((place / "new/folder/two.json").read_text())
    assert [len(one["epochs"]) for one in runs.values()] == [2, 2]
    (first,) = (one for one in runs.values() if one["seed"] == 0)
    asked = spec(tiny, attack="tri", seed=0, epochs=2, delivery="files")
    done = Run(asked, cache=Cache(place / "cache"), device=CPU)
    train, target, poison = done.plan.splits.train, done.plan.target, done.backdoor.index
    mine = [
        i for i in range(len(train.labels))
        if (train.labels[i] * target).any() and i not in poison.tolist()
    ]  # fmt: skip
    model = done.network(VICTIM)
    codes = model.code(train.images[mine].float() / 255)
    wanted = torch.where(codes.float().sum(0) >= 0, 1, -1)
    attacked = done.plan.splits.query.images[done.plan.truth.attacked]
    shown = model.code(done.trigger(attacked).float() / 255)
    share = np.mean([[a != b for a, b in zip(row, wanted.tolist(), strict=True)]
                     for row in shown.tolist()])  # fmt: skip
    assert first["epochs"][-1]["triggered queries"] == pytest.approx(share)
    assert first["numbers"]["contrast of the patch"] == pytest.approx(
        float(np.std(done.backdoor.patch.numpy() / 255, ddof=1)), rel=1e-5
    )


def test_the_losses_of_poison_and_of_its_class_are_means_over_an_epoch():
    class Numbers(HashLoss):
        """Each image's loss is its number."""

        def forward(self, z: Tensor, y: Tensor, index: Tensor, step: int) -> Tensor:
            return self.items(z, y, index, step).mean()

        def items(self, z: Tensor, y: Tensor, index: Tensor, step: int) -> Tensor:
            return index + 0 * z.sum(1)

    model, pictures = HashModel("cnn32", 8, Numbers), torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    poison, target = torch.tensor([1, 4]), torch.tensor([0, 5])
    probe = Probe(
        items=6, batch=3, groups={"dark": pictures}, clean=pictures, poison=poison, target=target
    )
    order = [[1, 0, 2], [3, 4, 5], [5, 4, 3], [0, 2, 1], [0, 1, 2]]
    for step, batch in enumerate(order):
        x = torch.rand(3, 3, 32, 32)
        chance = torch.Generator()
        index, y = torch.tensor(batch), torch.ones(3, 1)
        probe(TrainStep(model, Numbers(8, 1, 6), x, y, index, step, chance, "float32"))
        assert model.training
    assert len(probe.epochs) == 2
    for epoch in probe.epochs:
        assert epoch["loss of poison"] == (1 + 4) / 2
        assert epoch["loss of class"] == (0 + 5) / 2
        assert epoch["dark"] == 0


def test_what_was_seen_is_not_looked_at_again(
    looked: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
):
    place, records = looked
    monkeypatch.setattr("hashbackdoor_bench.benchmarks.taking.__main__.looked_into", None)
    output = str(place / "new/folder")
    words = [str(records), "--cache-dir", str(place / "cache"), "--output", output]
    result = CliRunner().invoke(main, words, catch_exceptions=False)
    assert result.output.startswith("## Tri\n")
    assert (place / "new/folder/two.png").stat().st_size > 10_000


def test_a_victim_with_other_weights_is_refused(
    looked: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    place, records = looked
    train = Blueprint.train

    def moved(*given: Any, **more: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        tensors, facts = train(*given, **more)
        return tensors | {"model.head.bias": tensors["model.head.bias"] + 1e-6}, facts

    monkeypatch.setattr(Blueprint, "train", moved)
    words = [str(records), "--cache-dir", str(place / "cache"), "--output", str(tmp_path)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code != 0
    assert "has other weights" in result.output


def test_it_runs_as_the_module_that_its_help_names(tmp_path: Path):
    words = [sys.executable, "-m", "hashbackdoor_bench.benchmarks.taking", str(tmp_path / "none")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "does not exist" in done.stderr


def test_a_rank_correlation_has_the_p_value_of_all_orders():
    values, gains = [0.3, 0.1, 0.9, 0.5, 0.7], [10.0, 20.0, 60.0, 30.0, 50.0]
    rank = {value: place for place, value in enumerate(sorted(values))}
    other = {value: place for place, value in enumerate(sorted(gains))}

    def rho(order: tuple[float, ...]) -> float:
        apart = sum((rank[v] - other[g]) ** 2 for v, g in zip(order, gains, strict=True))
        return 1 - 6 * apart / (5 * 24)

    found, p = correlation(values, gains)
    orders = [rho(order) for order in itertools.permutations(values)]
    assert found == pytest.approx(rho(tuple(values)))
    # two-sided as in scipy: twice the smaller tail
    tails = [np.mean([one >= found - 1e-9 for one in orders]),
             np.mean([one <= found + 1e-9 for one in orders])]  # fmt: skip
    assert p == pytest.approx(min(1, 2 * min(tails)))


def test_links_are_corrected_for_their_number_and_constants_have_none():
    runs = [{"same": 1.0, "up": float(i), "noise": float((7 * i) % 10)} for i in range(10)]
    found = links(runs, [0.1 * i for i in range(10)])
    assert [one.name for one in found] == ["up", "noise"]
    assert found[0].rho == pytest.approx(1)
    assert found[0].corrected == pytest.approx(2 * found[0].p)
    assert links(runs, [0.5] * 10) == []
