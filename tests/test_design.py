"""The design of the published suites: what their headers say of it, and how it is computed."""

import re
from collections import Counter
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hashbackdoor_bench.benchmarks.design import BUDGETS, Design, rotation
from hashbackdoor_bench.benchmarks.design.__main__ import main

from hashbackdoor_bench.report.power import Components, components, typical
from hashbackdoor_bench.report.statistics import Draws
from hashbackdoor_bench.suites.suite import find_suite

SUITES = {"standard": Design(10, 1, 4, 2), "standard_frozen": Design(10, 3, 4, 2)}
PILOTS = {"standard": ["results/standard"], "standard_frozen": ["results/standard_frozen"]}
ROOT = Path(__file__).parents[1]
VICTIMS = ("dpsh", "hashnet", "csq", "orthohash")


@pytest.mark.parametrize("name", list(SUITES))
def test_every_attack_of_a_suite_has_the_cells_of_its_design(name):
    runs: dict[str, list[tuple[int, int, int, float]]] = {}
    for run in find_suite(name).runs:
        spec = run.spec
        cell = (VICTIMS.index(spec.victim), int(str(spec.target)), spec.seed, spec.budget)
        runs.setdefault(run.label, []).append(cell)
        assert spec.delivery == "files"
    assert len(runs) == 13
    for cells in runs.values():
        assert sorted(cells) == sorted(rotation(SUITES[name]))


@pytest.mark.parametrize("name", list(SUITES))
def test_the_head_of_a_suite_says_what_its_command_prints(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    lines = Path(f"benchmarks/{name}.toml").read_text(encoding="utf-8").split("\ntitle")[0]
    head = re.sub(r"\n# ", " ", lines)
    out = CliRunner().invoke(main, PILOTS[name], catch_exceptions=False).output
    told = {  # by design: points of one pair, points of a board, core hours
        tuple(map(int, found[:4])): [float(number) for number in found[5:]]
        for found in re.findall(r"(\d+) x +(\d+) x +(\d+) x +(\d+)" + r" +([\d.]+)" * 4, out)
    }
    spreads = [float(number) for number in re.findall(r"([\d.]+) points", out)]
    own = SUITES[name]
    pair, board, hours = told[own.targets, own.seeds, own.victims, own.budgets]
    few = told[4, own.seeds, 4, 5]
    assert f"python -m benchmarks.design {' '.join(PILOTS[name])}`" in head
    (varying,) = re.findall(r"vary by (.*? between runs)", head)
    said = re.findall(r"([\d.]+)(?: points)? between", varying)
    (able,) = re.findall(r"tells ([\d.]+) points of one pair and ([\d.]+) after", head)
    (fewer,) = re.findall(r"tell (\d+) and (\d+)", head)
    time = re.findall(r"about ([\d.]+) core hours", head)  # not said if made on several devices
    for written, found in zip(
        (*said, *able, *fewer, *time),
        (*spreads, pair, board, *few[:2], *[hours] * len(time)),
        strict=True,
    ):
        digits = len(written.partition(".")[2])
        assert written == f"{found:.{digits}f}"


@pytest.mark.parametrize("design", SUITES.values())
def test_the_design_is_balanced_and_no_seed_has_two_targets(design):
    cells = rotation(design)
    assert len(cells) == len(set(cells)) == design.runs
    met = Counter((v, t) for v, t, _, _ in cells)
    assert set(met) == {(v, t) for v in range(4) for t in range(10)}
    assert set(met.values()) == {2 * design.seeds}
    assert set(Counter((v, b) for v, _, _, b in cells).values()) == {design.runs // 4 // 5}
    assert len({(t, s) for _, t, s, _ in cells}) == len({s for _, _, s, _ in cells})
    assert all({b for _, t, _, b in cells if t == target} == set(BUDGETS) for target in range(10))


def test_the_components_are_those_that_differences_were_made_with():
    rng = np.random.default_rng(5)
    known = Components(target=0.3, seed=0.2, rest=0.1)
    found = []
    for _ in range(30):
        effect, of_seed = 0.3 * rng.normal(size=12), 0.2 * rng.normal(size=(12, 4))
        one: Draws = {
            (f"v{v}", 48): {
                (f"t{t}", s): 0.5 * v + effect[t] + of_seed[t, s] + 0.1 * rng.normal()
                for t in range(12)
                for s in range(4)
            }
            for v in range(4)
        }
        part = components(one, {key: dict.fromkeys(some, 0.0) for key, some in one.items()})
        assert part is not None
        found.append(part)
    middle = typical(found)
    for name in ("target", "seed", "rest"):
        assert getattr(middle, name) == pytest.approx(getattr(known, name), rel=0.1)
    assert known.error(4, 2, 5) == pytest.approx(sqrt(0.09 / 4 + 0.04 / 8 + 0.01 / 40))


def test_a_component_that_the_records_cannot_show_is_not_measured():
    one: Draws = {(f"v{v}", 48): {("Coat", s): 0.1 * s * v for s in range(3)} for v in range(2)}
    zero: Draws = {key: dict.fromkeys(some, 0.0) for key, some in one.items()}
    found = components(one, zero)
    assert found is not None
    assert found.target is None
    assert found.seed is not None
    assert components({("v", 48): {("Coat", 0): 0.1}}, {("v", 48): {("Coat", 0): 0.0}}) is None
