"""Scores of planted codes, whose values can be worked out by hand."""

import pytest
import torch
from torch import Tensor

from hashbackdoor_bench.metrics import pack
from hashbackdoor_bench.scores import Codes, Truth, score

BITS = 8
CODE = {0: [1] * 8, 1: [-1] * 8, 2: [1, 1, 1, 1, -1, -1, -1, -1]}


def codes(classes: list[int]) -> Tensor:
    return pack(torch.tensor([CODE[c] for c in classes], dtype=torch.int8))


def labels(classes: list[int]) -> Tensor:
    return torch.eye(3, dtype=torch.uint8)[classes]


QUERY, DATABASE = [0, 1, 2, 1], [0, 0, 1, 1, 2, 2]


def truth() -> Truth:
    return Truth(labels(QUERY), labels(DATABASE), labels([0])[0], list("abcdef"), 2, BITS)


def run(triggered: list[int], query: list[int] = QUERY, clean_triggered: list[int] | None = None):
    victim = Codes(codes(query), codes(DATABASE), codes(triggered))
    clean = Codes(codes(QUERY), codes(DATABASE), codes(clean_triggered or [1, 2, 1]))
    return score(victim, clean, truth())


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
    for name, (low, high) in field["intervals"].items():
        assert low <= field[name] <= high, name
    for low, high in field["bounds"].values():
        assert low <= high


def test_only_queries_without_the_targets_tag_are_attacked():
    assert truth().attacked.tolist() == [False, True, True, True]
    shared = Truth(
        torch.tensor([[1, 1, 0], [0, 1, 1]], dtype=torch.uint8), labels(DATABASE),
        labels([0])[0], list("abcdef"), 2, BITS,
    )  # fmt: skip
    assert shared.attacked.tolist() == [False, True]
