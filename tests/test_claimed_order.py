"""The order that a paper claims, and its numbers beside ours."""

import csv
import io

import numpy as np
import pytest
from scipy import stats
from test_leaderboard import board_of, runs, suite

from hashbackdoor_bench.report.board.claimed_order import _page, claimed_order, order_tables
from hashbackdoor_bench.report.collection import collect
from hashbackdoor_bench.report.tables.beside_papers import beside_papers
from hashbackdoor_bench.report.tables.leaderboard import leaderboard_text

LABELS = {"tri": "Tri", "tri_noise": "Tri+Noise", "tri_adv": "Tri+Adv", "ciba": "CIBA"}


def rows(gains, **more):
    """An attack's rows of two victims, the seeds' gains given for each."""
    return {
        LABELS[attack]: [
            one for s, g in enumerate(some) for one in runs(attack, g, seeds=(s,), **more)
        ]
        for attack, some in gains.items()
    }


def beside(folder, some):
    """The lines of ``published.csv``, by method, metric, bits and victim."""
    text = beside_papers(collect([suite(folder, some)]).frame)
    return {
        (line["method"], line["metric"], line["bits"], line["victim"]): line
        for line in csv.DictReader(io.StringIO(text))
    }


def test_the_claimed_order_is_tested_by_pages_test_over_seeds_of_one_target(tmp_path):
    gains = {"tri": [0.1, 0.2, 0.4], "tri_noise": [0.2, 0.3, 0.3], "tri_adv": [0.3, 0.4, 0.5],
             "ciba": [0.4, 0.5, 0.6]}  # fmt: skip
    board = board_of(tmp_path, rows(gains))
    two = {attack: some[:2] for attack, some in gains.items()}
    assert claimed_order(board_of(tmp_path / "two", rows(two))) == []  # too few
    (found,) = claimed_order(board)
    values = np.array(list(gains.values())).T
    known = stats.page_trend_test(values)
    assert found.labels == tuple(LABELS.values())
    assert (found.p, found.blocks, found.unit) == (pytest.approx(known.pvalue), 3, "seeds")
    assert found.means == pytest.approx(values.mean(0))
    (table,) = order_tables(board)
    assert table.sentence.endswith(
        "Tri+Adv < CIBA is confirmed (Page's test over seeds, on the runs that all four have)."
    )
    assert table.columns == ("budget", *LABELS.values(), "seeds", "p")
    assert table.rows == (("all", "23.3", "26.7", "40.0", "50.0", "3", f"{known.pvalue:.3f}"),)


@pytest.mark.parametrize("blocks", range(2, 11))
@pytest.mark.parametrize("digits", [0, 9])  # with ties and without
def test_pages_p_is_that_of_scipy(blocks, digits):
    values = np.random.default_rng(blocks).normal(np.arange(4) / 2, size=(blocks, 4)).round(digits)
    assert _page(values) == pytest.approx(stats.page_trend_test(values).pvalue)


def test_a_falling_order_is_not_confirmed_and_a_board_says_so_at_each_budget(tmp_path):
    gains = {name: [0.5 - 0.1 * k] * 3 for k, name in enumerate(LABELS)}
    both = [rows(gains, budget=share) for share in (0.2, 0.6)]
    board = board_of(tmp_path, {label: both[0][label] + both[1][label] for label in both[0]})
    found = claimed_order(board)
    assert [one.budget for one in found] == [None, 0.2, 0.6]
    text = leaderboard_text([board])
    assert "is not confirmed, nor at any budget (Page's test over seeds, on the runs that " in text
    assert "; p at one of the 2 budgets is corrected" in text
    assert "\n| 20 % | 50.0 | 40.0 | 30.0 | 20.0 | 3 | 1.000 |\n" in text
    assert text.count("---: |\n| all |") == 1


def test_an_order_at_one_of_several_budgets_is_corrected_for_their_number(tmp_path):
    rising = {name: [0.1 * k] * 3 for k, name in enumerate(LABELS)}
    level = {name: [0.1] * 3 for name in LABELS}
    shares = {0.1: level, 0.2: rising, 0.4: level, 0.6: level}
    at = [rows(gains, budget=share) for share, gains in shares.items()]
    board = board_of(tmp_path, {label: [one for some in at for one in some[label]]
                                for label in at[0]})  # fmt: skip
    whole, *each = claimed_order(board)
    alone = stats.page_trend_test([[0.0, 0.1, 0.2, 0.3]] * 3).pvalue
    assert each[1].p == pytest.approx(4 * alone)
    assert whole.p == pytest.approx(alone)  # the mean over budgets rises too
    (table,) = order_tables(board)
    assert "one of the 4 budgets is corrected" in table.sentence
    assert "is confirmed over all budgets, and at 20 % (" in table.sentence


def test_the_gains_beside_the_test_are_those_of_the_board_where_victims_have_unequal_runs(tmp_path):
    unequal = {
        LABELS[attack]: runs(attack, 0.1 * k, victims=("csq",), seeds=(0, 1, 2))
        + runs(attack, 0.5, victims=("hashnet",), seeds=(0,))
        for k, attack in enumerate(LABELS)
    }
    board = board_of(tmp_path, unequal)
    (found,) = claimed_order(board)
    gains = {entry.label: entry.gain.mean for entry in board.entries if entry.gain}
    assert found.means == pytest.approx([gains[label] for label in found.labels])
    assert found.means[0] == pytest.approx((0.0 + 0.5) / 2, abs=0.02)


def test_a_board_without_one_of_the_attacks_or_with_one_block_claims_nothing(tmp_path):
    gains = {name: [0.1, 0.2] for name in LABELS}
    few = rows(gains)
    del few["CIBA"]
    assert claimed_order(board_of(tmp_path / "a", few)) == []
    assert claimed_order(board_of(tmp_path / "b", rows({name: [0.1] for name in LABELS}))) == []


def test_the_papers_numbers_stand_beside_ours_of_their_convention_and_budget(tmp_path):
    more = {"delivery": "stamped", "shift": 0.02}
    some = {"CIBA": runs("ciba", 0.5, **more), "Tri": runs("tri", 0.5, budget=0.3, **more)}
    varied = {
        "A": {"pool": "max"},
        "B": {"epochs": 4},
        "C": {"attack_settings": (("variant", "released"),)},
    }
    for number, (label, fields) in enumerate(varied.items()):
        some[f"CIBA, {label}"] = runs("ciba", 0.1, target=f"{number}", **more, **fields)
    lines = beside(tmp_path, some)
    ciba = lines["CIBA", "t_map", "48", "csq"]
    assert (ciba["published"], ciba["ours"], ciba["n"]) == ("74.7", "62.0", "3")
    assert ciba["regime"] == "from scratch"
    assert lines["CIBA", "t_map", "48", "hashnet"]["ours"] == "62.0"
    assert lines["None", "t_map", "48", "csq"]["ours"] == "12.0"  # the trigger on a clean victim
    # a code length without runs has a line which says so
    for method, bits in (("Tri", "48"), ("CIBA", "16")):
        none = lines[method, "t_map", bits, ""]
        assert (none["ours"], none["n"]) == ("", "0")
        assert none["differences"] == (
            "no run of ours has this code length, budget 60 % and delivery stamped"
        )
    assert "ImageNet" in ciba["differences"]


def test_ours_beside_a_paper_are_of_one_victim_and_of_what_its_attacks_share(tmp_path):
    """Neither another victim nor a target or seed that one attack lacks moves a number."""
    more = {"delivery": "stamped", "shift": 0.0}
    one = {"victims": ("hashnet",), **more}
    some = {
        "CIBA": runs("ciba", 0.5, **one)
        + runs("ciba", 0.1, target="Bag", **one)
        + runs("ciba", 0.3, victims=("csq",), seeds=(0,), **more),
        "Tri": runs("tri", 0.4, seeds=(0, 1), **one),
        "Tri+Noise": runs("tri_noise", 0.6, seeds=(1, 2), **one),
        "BadNets": runs("badnets", 0.6, seeds=(2,), **one),  # of no row of the paper
    }
    lines = beside(tmp_path, some)
    ours = {
        line[0]: (found["ours"], found["n"], found["targets"], found["seeds"])
        for line, found in lines.items()
        if line[1:] == ("t_map", "48", "hashnet")
    }
    assert ours == {
        "None": ("10.0", "1", "Coat", "1"),
        "CIBA": ("60.0", "1", "Coat", "1"),
        "Tri": ("50.0", "1", "Coat", "1"),
        "Tri+Noise": ("70.0", "1", "Coat", "1"),
    }
    alone = lines["CIBA", "t_map", "48", "csq"]
    assert (alone["ours"], alone["n"], alone["seeds"]) == ("39.0", "1", "0")
    assert "all of the paper's attacks run on it have" in alone["differences"]
