"""What a board says in words, which victims are hurt how much, and which runs there are."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from statistics import fmean

import pytest
from test_leaderboard import board_of, runs, unpoisoned

from hashbackdoor_bench.report.board.boards import Board, boards
from hashbackdoor_bench.report.board.coverage import _is_of, attack_coverage, refusals
from hashbackdoor_bench.report.board.takeaways import (
    ATTACKS,
    DEFENSES,
    VICTIMS,
    Contender,
    _compared,
    takeaway,
)
from hashbackdoor_bench.report.board.victims import victim_boards
from hashbackdoor_bench.report.collection import collect
from hashbackdoor_bench.report.refusals import Refusal
from hashbackdoor_bench.report.statistics import Draw, Draws, difference, estimate, holm

NOISE = (-0.01, 0.0, 0.01, 0.004)


def contender(name: str, values: Sequence[float]) -> Contender:
    """One whose value at target number k is that of the sequence."""
    return drawn(name, {(f"t{k}", 0): value for k, value in enumerate(values)})


def drawn(name: str, values: dict[Draw, float]) -> Contender:
    draws: Draws = {("csq", 48): values}
    return Contender(name, draws, estimate(draws))


def around(name: str, mean: float) -> Contender:
    return contender(name, [mean + noise * (-1) ** len(name) for noise in NOISE])


def said(*contenders: Contender) -> str:
    return takeaway(contenders, ATTACKS)


def test_attacks_that_no_test_tells_apart_are_not_ordered_in_words():
    wild = contender("Wild", [0.3, 0.9, 0.4, 0.8])
    calm = contender("Calm", [0.5, 0.41, 0.7, 0.4])
    assert said(wild, calm) == "Wild and Calm cannot be told apart."
    assert said(wild, calm, contender("C", [0.4, 0.7, 0.4, 0.5])) == (
        "No two of the 3 attacks can be told apart."
    )


def test_an_order_is_said_only_where_every_pair_is_told_apart():
    three = [around("A", 0.9), around("Bb", 0.5), around("C", 0.1)]
    assert said(*three) == "All 3 attacks can be told apart by their gain: A > Bb > C."
    tied = around("E", 0.505)
    assert said(three[0], tied, three[1], three[2]) == (
        "A has more gain than E, Bb and C. E and Bb have more gain than C. "
        "1 of the 6 pairs cannot be told apart."
    )
    assert said(*three[:2]) == "A has more gain than Bb."


def test_the_words_name_the_pairs_of_holms_test_and_no_others():
    contenders = [around("A", 0.9), around("Bb", 0.51), around("C", 0.5), around("Dd", 0.1)]
    pairs = list(combinations(contenders, 2))
    found = [difference(one.draws, other.draws) for one, other in pairs]
    told = {
        (one.name, other.name)
        for (one, other), p in zip(pairs, holm([f.p for f in found if f]), strict=True)
        if p < 0.05
    }
    text = said(*contenders)
    spoken = set()
    for sentence in text.split(". "):
        winners, verb, losers = sentence.partition(" more gain than ")
        if verb:
            names = [
                part.removesuffix(" has").removesuffix(" have").strip(". ").replace(" and ", ", ")
                for part in (winners, losers)
            ]
            spoken |= {(a, b) for a in names[0].split(", ") for b in names[1].split(", ")}
    assert spoken == told
    assert f"{len(pairs) - len(told)} of the 6 pairs cannot be told apart." in text


def test_many_groups_of_pairs_are_counted_and_not_all_named():
    many = [around(letter * (1 + k % 2), 0.9 - 0.1 * k) for k, letter in enumerate("ABCDEF")]
    many.insert(1, contender("Near", [value + 0.001 for value in (0.89, 0.92, 0.89, 0.9)]))
    text = said(*many)
    assert text.count("more gain than") <= 3
    total = sum(map(int, [words.split()[4] for words in text.split(". ") if "So it is" in words]))
    assert total > 0


def test_one_alone_none_and_gains_that_may_be_zero_are_said_as_they_are():
    assert said(around("A", 0.5)).startswith("A is the only attack with a place: there is nothing")
    assert "contains 0" not in said(around("A", 0.5))
    assert said(around("A", 0.0)).endswith("The 95 % interval of its gain contains 0.")
    assert said(around("A", 0.0), around("Bb", 0.001)).endswith(
        "The 95 % interval of every gain contains 0."
    )
    assert "contains 0" not in said(around("A", 0.5), around("Bb", 0.0))
    assert said().startswith("No attack has a place here")


def test_a_board_of_single_draws_says_that_they_are_too_few():
    pair = [contender("A", [0.9]), contender("B", [0.1])]
    assert said(*pair) == (
        "A and B cannot be told apart. There are too few targets and seeds for a test. "
        "This is about target t0 alone."
    )
    assert "too few" not in said(around("A", 0.5), around("B", 0.5))


def test_a_board_of_one_target_says_so_and_a_name_with_a_comma_is_quoted():
    pair = [
        drawn(name, {("Coat", seed): mean + noise * sign for seed, noise in enumerate(NOISE)})
        for name, mean, sign in (("Tri, files", 0.9, 1), ("Bb", 0.1, -1))
    ]
    assert takeaway(pair, DEFENSES) == (
        "“Tri, files” removes more than Bb. This is about target Coat alone."
    )
    assert "are hurt more than" in takeaway(
        [around("A", 0.9), around("Bb", 0.9), around("C", 0.1)], VICTIMS
    )


def attacked(tmp_path: Path) -> Board:
    """Attacks A and B on csq, hashnet and a weak dpsh; B misses two runs; a control."""
    weak = {"map": 0.2, "map_clean_victim": 0.2, "shift": 0.0}
    rows = {
        "A": runs("a", 0.7, victims=("csq",)) + runs("a", 0.3, victims=("hashnet",))
        + runs("a", 0.0, victims=("dpsh",), **weak),
        "A2": runs("a2", 0.5, victims=("csq",)) + runs("a2", 0.2, victims=("hashnet",)),
        "B": runs("b", 0.1, victims=("csq",)) + runs("b", 0.9, victims=("hashnet",), seeds=(0,)),
        "Control": runs("d", 0.0, threat={"trigger": "none"}),
    }  # fmt: skip
    return board_of(tmp_path, rows)


def test_a_victims_score_is_its_mean_gain_over_the_attacks_that_have_all_runs(tmp_path):
    (board,) = victim_boards([attacked(tmp_path)])
    assert [one.label for one in board.attacks] == ["A", "A2"]
    assert [(one.victim.name, one.place) for one in board.entries] == [
        ("csq", (1, 1)), ("hashnet", (2, 2)), ("dpsh", None)
    ]  # fmt: skip
    first, second, weak = board.entries
    assert first.gain is not None
    assert second.gain is not None
    assert first.gain.mean == pytest.approx(fmean([0.7, 0.5]))
    assert second.gain.mean == pytest.approx(fmean([0.3, 0.2]))
    assert weak.why == "MAP without poison 20.0: less than 50.0"
    assert [gain.mean for gain in first.gains if gain] == pytest.approx([0.7, 0.5])


def test_victims_are_compared_attack_by_attack_at_equal_draws(tmp_path):
    """A victim that gains 0.2 more from each attack is told apart, however much attacks differ."""
    rows = {
        label: runs(label.lower(), gain + 0.2, victims=("csq",))
        + runs(label.lower(), gain, victims=("hashnet",))
        for label, gain in {"A": 0.1, "B": 0.7}.items()
    }
    (board,) = victim_boards([board_of(tmp_path, rows)])
    one, other = board.entries
    assert set(one.draws) == set(other.draws)
    found = difference(one.draws, other.draws)
    assert found is not None
    assert (found.mean, found.low) == (pytest.approx(0.2), pytest.approx(0.2))
    assert (one.place, other.place) == ((1, 1), (2, 2))


def test_victims_of_a_board_over_budgets_are_compared_within_each_budget(tmp_path):
    rows = {
        "A": [
            record
            for budget, gain in ((0.1, 0.2), (0.3, 0.6))
            for victim, more in (("csq", 0.1), ("hashnet", 0.0))
            for record in runs("a", gain + more, victims=(victim,), budget=budget)
        ]
    }
    (board,) = victim_boards([board_of(tmp_path, rows)])
    assert [sorted(column[2] for column in one.draws) for one in board.entries] == [[0.1, 0.3]] * 2
    assert board.entries[0].place == (1, 1)


def test_one_victim_alone_has_no_board(tmp_path):
    assert victim_boards([board_of(tmp_path, {"A": runs("a", 0.5, victims=("csq",))})]) == []


def test_coverage_counts_each_run_and_names_each_missing_one(tmp_path):
    found = attack_coverage(attacked(tmp_path))
    rows = {row.name: dict(zip(found.columns, row.cells, strict=True)) for row in found.rows}
    assert rows["A"] == {"CSQ": (3, 3), "DPSH": (3, 3), "HashNet": (3, 3)}
    assert rows["B"] == {"CSQ": (3, 3), "DPSH": (0, 3), "HashNet": (1, 3)}
    assert "B on HashNet: target Coat, seeds 1, 2" in found.missing
    assert "B on DPSH: target Coat, seeds 0, 1, 2" in found.missing
    assert found.runs == (sum(have for row in rows.values() for have, _ in row.values()), 4 * 9)
    assert sum(words.count(",") for words in found.missing) > 0


def test_coverage_of_a_board_over_budgets_names_the_budget(tmp_path):
    rows = {
        "A": runs("a", 0.3, budget=0.1) + runs("a", 0.4, budget=0.2),
        "B": runs("b", 0.1, budget=0.1) + runs("b", 0.2, budget=0.2, seeds=(0, 2)),
    }
    found = attack_coverage(board_of(tmp_path, rows))
    assert found.missing == (
        "B on CSQ: budget 20 %, target Coat, seed 1",
        "B on HashNet: budget 20 %, target Coat, seed 1",
    )


def test_a_control_lacks_no_budgets_and_adds_none_to_what_others_lack(tmp_path):
    rows = {
        "A": runs("a", 0.3, budget=0.1) + runs("a", 0.4, budget=0.2),
        "Clean": unpoisoned(runs("clean", 0.0, threat={"trigger": "none"}, budget=0.0)),
    }
    found = attack_coverage(board_of(tmp_path, rows))
    assert found.missing == ()
    assert found.runs == (12 + 6, 12 + 6)


def test_those_without_a_common_run_are_not_called_compared():
    here, low = around("A", 0.8), around("Ab", 0.2)
    elsewhere = drawn("C", {("far", seed): 0.5 + noise for seed, noise in enumerate(NOISE)})
    said = "2 of the 3 pairs share no run, so nothing compares them."
    assert takeaway([here, elsewhere, low], VICTIMS) == f"A is hurt more than Ab. {said}"
    alike = replace(low, name="Ad", draws=here.draws)
    text = takeaway([here, elsewhere, alike], VICTIMS)
    assert text == f"No two of the 3 victims can be told apart. {said}"


@pytest.mark.parametrize(
    ("label", "cells"),
    [
        ("Tri", {"Tri 20 %", "Tri 60 %", "Tri –"}),
        ("Tri, budget=0.2", {"Tri 20 %"}),
        ("Tri, budget=0.2, steps=3", {"Tri, steps=3 20 %"}),
        ("Tri big", {"Tri big 20 %"}),
    ],
)
def test_a_refusal_is_of_its_attack_and_share_alone(label: str, cells: set[str]):
    known = ["Tri 20 %", "Tri 60 %", "Tri –", "Tri, steps=3 20 %", "Tri big 20 %"]
    assert {cell for cell in known if _is_of(cell, label)} == cells


def test_a_circle_of_differences_is_no_order(monkeypatch: pytest.MonkeyPatch):
    circle = [{1}, {2}, {0}]
    monkeypatch.setattr("hashbackdoor_bench.report.board.takeaways.wins", lambda _: [circle])
    three = [Contender(name, {}, None) for name in "ABC"]
    text = " ".join(_compared(three, ATTACKS))
    assert " > " not in text
    assert all(f"{one} has more gain than {other}." in text for one, other in ("AB", "BC", "CA"))


def test_refusals_of_one_reason_stand_together():
    def one(seed: int, reason: str = "it needs gradients.") -> Refusal:
        return Refusal("s", "Tri", "hashnet", "48", str(seed), "dpsgd", reason)

    first, second = refusals([one(0), one(1), one(0, "another")])
    assert (first.what, first.victims, first.runs) == ("DP-SGD", ("hashnet 48",), 2)
    assert (first.reason, second.reason) == ("it needs gradients", "another")


def test_published_boards_say_nothing_that_their_places_do_not():
    """Where all places overlap the words order nothing, and where they say an order places do."""
    folder = Path(__file__).parents[1] / "results" / "quick"
    frame = collect([folder]).frame
    for board in boards(frame, ["quick"]):
        placed = [one for one in board.entries if one.place]
        text = takeaway(
            [Contender(one.label, one.counted_draws, one.gain) for one in placed],
            ATTACKS,
        )
        all_tied = all(one.place == (1, len(placed)) for one in placed)
        assert ("more gain than" in text or " > " in text) != all_tied
        assert text.endswith("This is about target Coat alone.")
