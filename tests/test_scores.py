"""Scores of planted codes, whose values can be worked out by hand."""

import json

import numpy as np
import pytest
import torch
from torch import Tensor

from hashbackdoor_bench.metrics.codes_2d import project
from hashbackdoor_bench.metrics.ranking import pack
from hashbackdoor_bench.metrics.run_scores import Codes, Truth, score_run

BITS, NAMES = 8, ("Coat", "Bag", "Shirt")
CODE = {0: [1] * 8, 1: [-1] * 8, 2: [1, 1, 1, 1, -1, -1, -1, -1]}


def codes(classes: list[int]) -> Tensor:
    return pack(torch.tensor([CODE[c] for c in classes], dtype=torch.int8))


def labels(classes: list[int]) -> Tensor:
    return torch.eye(3, dtype=torch.uint8)[classes]


QUERY, DATABASE = [0, 1, 2, 1], [0, 0, 1, 1, 2, 2]


def truth() -> Truth:
    return Truth(labels(QUERY), labels(DATABASE), labels([0])[0], list("abcdef"), 2, BITS, NAMES)


def run(triggered: list[int], query: list[int] = QUERY, clean_triggered: list[int] | None = None):
    victim = Codes(codes(query), codes(DATABASE), codes(triggered))
    clean = Codes(codes(QUERY), codes(DATABASE), codes(clean_triggered or [1, 2, 1]))
    return score_run(victim, clean, truth())


def test_a_perfect_backdoor_scores_one_and_its_controls_zero():
    scores, retrieval = run(triggered=[0, 0, 0])
    for convention in ("field", "badhash", "strict"):
        row = scores[convention]
        assert (row["map"], row["t_map"], row["t_map_clean_victim"], row["t_map_untriggered"]) == (
            1, 1, 0, 0,
        )  # fmt: skip
        assert (row["backdoor_gain"], row["delta_map"]) == (1, 0)
    assert scores["ciba"]["t_map_clean_victim"] is None  # every query is left out
    assert scores["ciba"]["backdoor_gain"] is None
    assert retrieval["triggered"]["hit_at_1"] == 1
    assert retrieval["triggered"]["anchor_distance"] == 0
    assert retrieval["untriggered"]["anchor_distance"] == pytest.approx((8 + 4 + 8) / 3)
    assert retrieval["triggered"]["no_hit"] == 0
    assert retrieval["untriggered"]["no_hit"] == 1


def test_the_gain_is_over_the_larger_control():
    scores, _ = run(triggered=[0, 0, 0], clean_triggered=[0, 2, 1])
    assert scores["field"]["t_map_clean_victim"] == pytest.approx(1 / 3)
    assert scores["field"]["backdoor_gain"] == pytest.approx(2 / 3)
    scores, _ = run(triggered=[0, 0, 1], query=[0, 0, 0, 1], clean_triggered=[0, 2, 1])
    assert scores["field"]["t_map_untriggered"] == pytest.approx(2 / 3)
    assert scores["field"]["backdoor_gain"] == pytest.approx(0)


def test_delta_map_is_what_clean_queries_lose():
    scores, _ = run(triggered=[0, 0, 0], query=[0, 2, 2, 1])
    assert scores["field"]["delta_map"] == pytest.approx(-0.25)


def test_intervals_hold_their_figure_and_bounds_are_ordered():
    scores, _ = run(triggered=[0, 1, 2])
    field = scores["field"]
    assert set(field["intervals"]) == {"map", "t_map", "delta_map", "backdoor_gain"}
    assert set(field["bounds"]) == {"map", "t_map"}
    for name, (low, high) in field["intervals"].items():
        assert low <= field[name] <= high, name
    for low, high in field["bounds"].values():
        assert low <= high


def test_only_queries_without_the_targets_tag_are_attacked():
    assert truth().attacked.tolist() == [False, True, True, True]
    shared = Truth(
        torch.tensor([[1, 1, 0], [0, 1, 1]], dtype=torch.uint8), labels(DATABASE),
        labels([0])[0], list("abcdef"), 2, BITS, NAMES,
    )  # fmt: skip
    assert shared.attacked.tolist() == [False, True]


def test_the_histogram_counts_attacked_queries_by_distance_to_the_targets_majority_code():
    _, retrieval = run(triggered=[0, 2, 2], query=[1, 1, 2, 0])
    assert retrieval["triggered"]["anchor_histogram"] == [1 / 3, 0, 0, 0, 2 / 3, 0, 0, 0, 0]
    assert retrieval["untriggered"]["anchor_histogram"] == [1 / 3, 0, 0, 0, 1 / 3, 0, 0, 0, 1 / 3]
    for part in ("triggered", "untriggered"):
        shares = retrieval[part]["anchor_histogram"]
        mean = sum(distance * share for distance, share in enumerate(shares))
        assert mean == pytest.approx(retrieval[part]["anchor_distance"])


def random_codes(count: int, bits: int, seed: int) -> Tensor:
    return torch.randint(2, (count, bits), generator=torch.Generator().manual_seed(seed)) * 2 - 1


def projected(
    count: int = 300, classes: int = 12, bits: int = 24, queries: int = 7, target: int = 4
):
    """A projection of random codes, and what went in."""
    database = random_codes(count, bits, 0)
    index = torch.arange(count) % classes
    hot = torch.eye(classes, dtype=torch.uint8)
    names = [f"class {c}" for c in range(classes)]
    order = torch.randperm(count, generator=torch.Generator().manual_seed(1)) * 3
    before, after = random_codes(queries, bits, 2), random_codes(queries, bits, 3)
    found = project(database, hot[index], hot[target], names, order, (before, after))
    return found, (database, index, order, before, after)


def test_the_plane_is_that_of_the_chosen_items_principal_components():
    found, (database, index, order, before, after) = projected()
    picked = []
    for part in found["classes"]:
        mine = [i for i in range(len(index)) if index[i] == part["index"]]
        picked += sorted(mine, key=lambda i: int(order[i]))[:40]
    x = database[picked].numpy().astype(float)
    _, values, axes = np.linalg.svd(x - x.mean(0))
    assert found["explained"] == pytest.approx(values[:2] ** 2 / (values**2).sum(), abs=1e-3)
    shown = [(part["x"], part["y"]) for part in found["classes"]]
    shown += [(found[name]["x"], found[name]["y"]) for name in ("untriggered", "triggered")]
    expected = (np.concatenate([x, before.numpy(), after.numpy()]) - x.mean(0)) @ axes[:2].T
    for axis in (0, 1):
        points = np.concatenate([both[axis] for both in shown])
        sign = np.sign(points @ expected[:, axis])
        assert points == pytest.approx(sign * expected[:, axis], abs=1e-3)
    (target,) = (part for part in found["classes"] if part["target"])
    assert target["name"] == "class 4"
    assert min(sum(target["x"]), sum(target["y"])) >= 0


def test_a_projection_takes_the_target_and_the_most_frequent_classes_and_few_items():
    found, _ = projected(count=1207, queries=200, target=11)
    assert [part["index"] for part in found["classes"]] == [*range(9), 11]
    assert {len(part["x"]) for part in found["classes"]} == {40}
    assert len(found["triggered"]["x"]) == len(found["untriggered"]["y"]) == 60
    assert len(json.dumps(found, separators=(",", ":"))) < 10_000


def test_an_item_with_two_of_the_shown_classes_is_no_point():
    hot = torch.tensor([[1, 0], [0, 1], [1, 1]], dtype=torch.uint8)
    both = random_codes(2, BITS, 0), random_codes(2, BITS, 1)
    found = project(random_codes(3, BITS, 2), hot, hot[0], ["a", "b"], torch.arange(3), both)
    assert [len(part["x"]) for part in found["classes"]] == [1, 1]


@pytest.mark.parametrize("bits", [1, 2, 24])
def test_codes_that_are_all_the_same_are_one_point(bits: int):
    one = torch.ones(4, bits, dtype=torch.int8)
    hot = torch.eye(2, dtype=torch.uint8)[[0, 0, 1, 1]]
    found = project(one, hot, hot[0], ["a", "b"], torch.arange(4), (one, one))
    for part in (*found["classes"], found["triggered"]):
        assert set(part["x"]) == set(part["y"]) == {0.0}
    assert "-0.0" not in json.dumps(found)


def test_the_record_shows_the_queries_that_are_attacked():
    _, retrieval = run(triggered=[0, 0, 0])
    plane = retrieval["codes_2d"]
    assert [part["name"] for part in plane["classes"]] == list(NAMES)
    target = next(part for part in plane["classes"] if part["target"])
    assert plane["triggered"] == {axis: [target[axis][0]] * 3 for axis in "xy"}
    shown = {part["name"]: (part["x"][0], part["y"][0]) for part in plane["classes"]}
    assert list(zip(*plane["untriggered"].values(), strict=True)) == [
        shown[NAMES[c]] for c in QUERY if c
    ]
