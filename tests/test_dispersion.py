"""How far the codes of poison are apart: the bound of CIBA's Theorem 1, the record, the figure."""

from itertools import product
from pathlib import Path

import pytest
import torch
from made_records import dispersed, made, stored
from msgspec.structs import replace
from scipy.stats import spearmanr
from test_pipeline import CPU, spec
from torch import Tensor

from hashbackdoor_bench import ATTACKS, UserError
from hashbackdoor_bench.metrics import distances, most_dispersed
from hashbackdoor_bench.network import sign
from hashbackdoor_bench.records import (
    Record,
    read_record,
    record_key,
)
from hashbackdoor_bench.report.collection import collect
from hashbackdoor_bench.report.consistency import check_record
from hashbackdoor_bench.report.figures.catalog import figures
from hashbackdoor_bench.report.figures.finished import Unfilled
from hashbackdoor_bench.stages.cache import Cache
from hashbackdoor_bench.stages.pipeline import Run, run

_ = ATTACKS["ciba"]  # makes the modules of attacks importable
from hashbackdoor_bench.attacks.ciba_perturbations import objective  # noqa: E402


def every(count: int, bits: int) -> list[Tensor]:
    """All ways of giving ``count`` images codes of ±1: (M,K) each."""
    return [
        torch.tensor(values, dtype=torch.float64).view(count, bits)
        for values in product((-1.0, 1.0), repeat=count * bits)
    ]


# ---- the bound ----------------------------------------------------------------------------------


def test_distances_are_those_of_all_ordered_pairs():
    draw = torch.Generator().manual_seed(0)
    codes, own = torch.rand(2, 5, 7, generator=draw, dtype=torch.float64).mul(2).sub(1)
    a, c = codes.tolist(), own.tolist()

    def apart(one: list[float], other: list[float]) -> float:
        return (7 - sum(p * q for p, q in zip(one, other, strict=True))) / 2

    found = distances(codes, own)
    assert found["l_a"] == pytest.approx(sum(map(apart, a, c)) / 5)
    pairs = [(i, j) for i in range(5) for j in range(5) if i != j]
    assert found["l_c"] == pytest.approx(sum(apart(a[i], a[j]) for i, j in pairs) / (5 * 4))
    assert found["l_a_share"] == pytest.approx(found["l_a"] / 7)
    assert found["l_c_share"] == pytest.approx(found["l_c"] / most_dispersed(5, 7))
    assert found["l_c"] == pytest.approx(float(objective(codes, own, 1.0)))
    assert distances(codes[:1], own[:1])["l_c"] is None


@pytest.mark.parametrize(
    ("count", "bits"), [(2, 1), (3, 1), (4, 1), (5, 1), (2, 3), (3, 3), (4, 2)]
)
def test_the_largest_dispersion_is_twice_what_the_paper_prints(count: int, bits: int):
    largest = max(float(objective(codes, codes, 1.0)) for codes in every(count, bits))
    printed = bits * (count**2 - count % 2) / (4 * count * (count - 1))
    assert largest == pytest.approx(2 * printed)
    assert largest == pytest.approx(most_dispersed(count, bits))


@pytest.mark.parametrize("weight", [0.3, 0.8])
@pytest.mark.parametrize(("count", "bits"), [(2, 1), (3, 1), (4, 1), (5, 1), (2, 2), (3, 2)])
def test_the_bound_is_reached_if_and_only_if_the_clean_codes_are_most_dispersed(
    count: int, bits: int, weight: float
):
    most, codes = most_dispersed(count, bits), every(count, bits)
    bound = weight * most + (1 - weight) * bits
    for own in codes:
        largest = max(float(objective(perturbed, own, weight)) for perturbed in codes)
        reached = float(objective(own, own, 1.0)) == pytest.approx(most)
        assert (largest == pytest.approx(bound)) is bool(reached)
        assert largest <= bound + 1e-9


# ---- the record ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crafted(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Record, Path]:
    """A run of CIBA on tiny data, its record, and the record's path."""
    folder = tmp_path_factory.mktemp("crafted")
    record, path, stages = run(
        spec(tiny, surrogate_bits=16, precision="float32"),
        cache=Cache(folder / "cache"),
        results=folder / "results",
        device="cpu",
    )
    return stages, record, path


def test_a_record_of_ciba_says_how_far_its_poison_is_apart(crafted: tuple[Run, Record, Path]):
    stages, record, path = crafted
    found = record.dispersion
    assert found is not None
    assert found.images == record.threat.poisoned
    assert found.surrogate.plain.hard.l_a == 0
    assert found.victim.plain.hard.l_a == 0
    assert found.surrogate.plain.relaxed.l_a > 0  # relaxed codes are no ±1
    train, backdoor = stages.plan.splits.train.images, stages.backdoor
    made_ = stages.make("surrogate")
    surrogate = stages.plan.surrogate.load(made_.tensors, made_.facts, CPU)
    victim = stages.network("victim")
    plain, carrier = train[backdoor.index] / 255, backdoor.carrier / 255
    stamped = backdoor(carrier)
    for network, name in ((surrogate, "surrogate"), (victim, "victim")):
        with torch.no_grad():
            own = network(plain)
            for shown, x in (("plain", plain), ("perturbed", carrier), ("stamped", stamped)):
                z = network(x)
                told = getattr(getattr(found, name), shown)
                for kind, expected in (
                    ("hard", distances(sign(z), sign(own))),
                    ("relaxed", distances(torch.tanh(z), torch.tanh(own))),
                ):
                    for key, value in expected.items():
                        assert getattr(getattr(told, kind), key) == pytest.approx(value, abs=1e-3)
    assert read_record(path) == record
    check_record(record)


def test_the_dispersion_enters_no_key(crafted: tuple[Run, Record, Path], tiny: Path):
    stages, record, _ = crafted
    assert set(record.artifacts) == set(stages.plan.stages)
    assert "dispersion" not in record.artifacts
    assert record.key == record_key(record.spec, record.artifacts)


def test_an_attack_that_perturbs_nothing_has_no_dispersion(tiny: Path, tmp_path: Path):
    for changes in ({"attack": "badnets_clean"}, {"budget": 0.0}):
        stages = Run(spec(tiny, **changes), cache=Cache(tmp_path), device=CPU)
        assert stages.record().dispersion is None


# ---- the report ---------------------------------------------------------------------------------


def test_distances_that_no_codes_have_are_refused():
    good = dispersed(made(), 0.5, 0.4)
    check_record(good)
    assert good.dispersion is not None
    with pytest.raises(UserError, match=r"dispersion\.victim\.plain\.relaxed\.l_c_share is 1.5"):
        check_record(dispersed(made(), 0.5, 1.5))
    with pytest.raises(UserError, match=r"dispersion\.images is 3"):
        check_record(replace(good, dispersion=replace(good.dispersion, images=3)))


def test_the_figure_shows_gain_against_dispersion_and_its_correlation(tmp_path: Path):
    shares, t_maps = (0.1, 0.4, 0.3, 0.8, 0.7), (0.2, 0.5, 0.55, 0.9, 0.6)
    for seed, (share, t_map) in enumerate(zip(shares, t_maps, strict=True)):
        record = made(seed=seed, t_map=t_map, attack="ciba")
        stored(tmp_path, dispersed(record, share, 1 - share))
    frame = collect([tmp_path]).frame
    (drawn,) = figures("dispersion-reached", frame)
    left, right = drawn.figure.axes
    (marks, _) = left.lines
    assert sorted(marks.get_xdata()) == pytest.approx(sorted(100 * s for s in shares))
    assert sorted(right.lines[0].get_xdata()) == pytest.approx(
        sorted(100 - 100 * s for s in shares)
    )
    rho = spearmanr(shares, t_maps).statistic
    said = " ".join(drawn.caption)
    assert f"surrogate: Spearman's rank correlation {rho:.2f} over n = 5" in said
    assert f"victim: Spearman's rank correlation {-rho:.2f} over n = 5" in said


def test_records_without_dispersion_cannot_fill_the_figure(tmp_path: Path):
    stored(tmp_path, made())
    with pytest.raises(Unfilled, match="sound dispersion"):
        figures("dispersion-reached", collect([tmp_path]).frame)
