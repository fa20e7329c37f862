"""The rules of the leaderboard, on records that no run made."""

import re
import subprocess
import sys
from math import sqrt
from pathlib import Path
from statistics import stdev
from typing import Any

import pytest
from made_records import indexed, made, rounded, stored
from msgspec.structs import replace
from scipy import stats

from hashbackdoor_bench.cli import main
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.records import LEAST_ABOVE, Record, Visibility
from hashbackdoor_bench.report.board import rules, wording
from hashbackdoor_bench.report.board.boards import Board, boards
from hashbackdoor_bench.report.board.entries import Entry
from hashbackdoor_bench.report.collection import collect
from hashbackdoor_bench.report.statistics import LEVEL
from hashbackdoor_bench.report.tables.leaderboard import (
    board_table,
    leaderboard_tables,
    leaderboard_text,
)
from hashbackdoor_bench.report.tables.parts import Cell, Table

RULES = Path(__file__).parents[1] / "results" / "RULES.md"
SMALL_CLASS = {"target_images": 250, "budget": 180 / 250}
NOISE = (-0.01, 0.0, 0.01)  # of three seeds


def runs(
    attack: str,
    gain: float,
    *,
    victims: tuple[str, ...] = ("csq", "hashnet"),
    seeds: tuple[int, ...] = (0, 1, 2),
    threat: dict[str, Any] | None = None,
    **more: Any,
) -> list[Record]:
    """An attack's records; its gain moves by ``NOISE`` over seeds."""
    found = []
    for victim in victims:
        for seed in seeds:
            t_map = 0.1 + gain + NOISE[seed]
            record = made(attack=attack, victim=victim, seed=seed, t_map=t_map, **more)
            changed = replace(record.threat, **(threat or {}))
            found.append(replace(record, threat=changed))
    return found


def suite(folder: Path, rows: dict[str, list[Record]], name: str = "quick") -> Path:
    """A suite's folder of these rows, by label."""
    place = folder / name
    labels = {stored(place, record): label for label, some in rows.items() for record in some}
    indexed(place, labels)
    return place


def board_of(folder: Path, rows: dict[str, list[Record]]) -> Board:
    (board,) = boards(collect([suite(folder, rows)]).frame, ["quick"])
    return board


def entry_of(board: Board, label: str) -> Entry:
    (entry,) = (one for one in board.entries if one.label == label)
    return entry


def test_the_headline_is_the_mean_over_victims_and_seeds(tmp_path):
    rows = {"A": runs("a", 0.4, victims=("csq",)) + runs("a", 0.6, victims=("hashnet",))}
    board = board_of(tmp_path, rows)
    row = entry_of(board, "A")
    assert row.gain is not None
    assert row.gain.mean == pytest.approx(0.5)
    assert [gain.mean for gain in row.gains if gain] == pytest.approx([0.4, 0.6])
    assert [gain.deviation for gain in row.gains if gain] == pytest.approx([stdev(NOISE)] * 2)
    # both victims have the same noise of a seed, so three seeds are three numbers
    reach = stats.t.isf(0.025, 2) * stdev(NOISE) / sqrt(3)
    assert row.gain.high == pytest.approx(0.5 + reach)


def test_attacks_that_differ_by_less_than_their_noise_tie(tmp_path):
    best, other = runs("a", 0.6), runs("b", 0.6, seeds=(1,)) + runs("b", 0.59, seeds=(0,))
    other += runs("b", 0.58, seeds=(2,))
    board = board_of(tmp_path, {"A": best, "B": other, "C": runs("c", 0.1)})
    assert [(row.label, row.place) for row in board.entries] == [
        ("A", (1, 2)), ("B", (1, 2)), ("C", (3, 3))
    ]  # fmt: skip


def test_rows_stand_by_gain_though_a_wide_range_begins_higher(tmp_path):
    wide = [
        record
        for gain, seed in ((0.35, 0), (0.8, 1), (0.01, 2))
        for record in runs("w", gain, seeds=(seed,))
    ]
    rows = {"Wide": wide, "First": runs("a", 0.8), "Second": runs("b", 0.7, seeds=(0, 1, 2))}
    board = board_of(tmp_path, rows)
    assert [(row.label, row.place) for row in board.entries] == [
        ("First", (1, 2)), ("Second", (2, 3)), ("Wide", (1, 3))
    ]  # fmt: skip


def test_a_board_is_one_delivery(tmp_path):
    rows = {"A": runs("a", 0.5), "B": runs("b", 0.8, delivery="stamped")}
    both = boards(collect([suite(tmp_path, rows)]).frame, ["quick"])
    found = {board.delivery: [(row.label, row.place) for row in board.entries] for board in both}
    assert found == {"files": [("A", (1, 1))], "stamped": [("B", (1, 1))]}


def test_dirty_labels_and_other_regimes_stand_on_boards_of_their_own(tmp_path):
    frozen = {"recipe": "frozen", "pretrained": True}
    rows = {
        "Clean": runs("clean", 0.0, threat={"trigger": "none"}),
        "A": runs("a", 0.5),
        "B": runs("b", 0.8, threat={"label": "dirty"}),
        "C": runs("a", 0.2, **frozen),
    }
    found = boards(collect([suite(tmp_path, rows)]).frame, ["quick"])
    assert {board.title: [one.label for one in board.entries] for board in found} == {
        "delivery files, clean labels, from scratch": ["A", "Clean"],
        "delivery files, dirty labels, from scratch": ["B", "Clean"],
        "delivery files, clean labels, frozen": ["C"],
    }
    written = leaderboard_text(found)
    assert all(board.title in written for board in found)


def test_the_headline_over_budgets_weighs_each_victim_and_budget_the_same(tmp_path):
    def of(attack: str, gains: dict[float, float]) -> list[Record]:
        return [one for b, gain in gains.items() for one in runs(attack, gain, budget=b)]

    more = runs("a", 0.6, victims=("csq",), seeds=(1,), budget=0.2, target="Bag")
    rows = {"A": of("a", {0.1: 0.3, 0.2: 0.6}) + more, "B": of("b", {0.1: 0.1, 0.2: 0.2})}
    board = board_of(tmp_path, rows)
    one, other = board.entries
    assert board.budgets == (0.1, 0.2)
    assert (one.label, one.place, one.why) == ("A", (1, 1), "")
    assert (other.label, other.why) == ("B", "1 of 13 runs missing")
    assert one.gain is not None
    assert one.gain.mean == pytest.approx((0.3 + 0.6) / 2)
    assert one.gain.n == 13
    assert [gain.n for gain in one.gains if gain] == [7, 6]


def test_a_control_has_no_budget_and_adds_no_cells_to_a_board_over_budgets(tmp_path):
    attack = [one for share in (0.1, 0.2) for one in runs("a", 0.3, budget=share)]
    control = runs("clean", 0.0, threat={"trigger": "none"}, budget=0.6)
    board = board_of(tmp_path, {"A": attack, "Clean": control})
    assert board.budgets == (0.1, 0.2)
    (one, other) = board.entries
    assert (one.label, one.why, one.place) == ("A", "", (1, 1))
    assert other.why == "a control: it has no trigger"
    assert "| 10–20 % |" in leaderboard_text([board])


def unpoisoned(records: list[Record]) -> list[Record]:
    """The same of an attack that poisons no image."""
    none = Visibility(images=0, max=None, l2=None, psnr=None, ssim=None)
    return [
        replace(
            one,
            threat=replace(one.threat, poisoned=0, budget=0.0),
            imperceptibility=replace(one.imperceptibility, poison=none),
        )
        for one in records
    ]


@pytest.mark.parametrize(
    ("threat", "poisons", "why"),
    [
        ({}, False, "a control: nothing is poisoned"),
        ({"control": "model"}, False, "it edits the victim instead of poisoning its data"),
        ({"trigger": "none", "chosen": 10}, True, "it attacks 10 chosen queries, not all"),
    ],
)
def test_what_cannot_be_compared_stands_apart_and_adds_no_cells(tmp_path, threat, poisons, why):
    attack = [one for share in (0.1, 0.2) for one in runs("a", 0.3, budget=share)]
    other = runs("b", 0.5, threat=threat, budget=0.6)
    other = other if poisons else unpoisoned(other)
    board = board_of(tmp_path, {"A": attack, "B": other})
    assert board.budgets == (0.1, 0.2)
    assert [(one.label, one.place, one.why) for one in board.entries] == [
        ("A", (1, 1), ""), ("B", None, why)
    ]  # fmt: skip
    assert not board.entries[1].complete


def test_an_edited_model_has_no_place_where_attacks_have_one_budget_each_either(tmp_path):
    edited = unpoisoned(runs("b", 0.5, threat={"control": "model"}))
    board = board_of(tmp_path, {"A": runs("a", 0.3), "B": edited})
    assert [(one.label, one.place) for one in board.entries] == [("A", (1, 1)), ("B", None)]
    assert "| the victim | patch |" in leaderboard_text([board])


def test_a_row_says_of_which_method_the_attackers_surrogate_is(tmp_path):
    rows = {
        "Own": runs("a", 0.5),
        "One": runs("b", 0.5, surrogate="dpsh"),
        "Some": runs("c", 0.5, victims=("csq",), surrogate="dpsh")
        + runs("c", 0.5, victims=("hashnet",)),
        "None": runs("d", 0.5, knowledge="none"),
    }
    board = board_of(tmp_path, rows)
    shown = {one.label: wording.knowledge(one) for one in board.entries}
    assert shown == {
        "Own": "surrogate: as the victim", "One": "surrogate: DPSH",
        "Some": "surrogate: several methods", "None": "none",
    }  # fmt: skip


def test_a_board_over_budgets_says_how_many_runs_an_attack_has_and_of_what(tmp_path):
    crossed = [one for share in (0.1, 0.2) for one in runs("a", 0.3, budget=share)]
    said = wording.caption(board_of(tmp_path / "1", {"A": crossed}))
    assert said.endswith("Each attack: 12 runs.")
    turned = [
        *runs("a", 0.3, victims=("csq",), seeds=(0,), target="Bag", budget=0.1),
        *runs("a", 0.3, victims=("csq",), seeds=(1,), target="Coat", budget=0.2),
        *runs("a", 0.3, victims=("hashnet",), seeds=(0,), target="Bag", budget=0.2),
        *runs("a", 0.3, victims=("hashnet",), seeds=(1,), target="Coat", budget=0.1),
    ]
    said = wording.caption(board_of(tmp_path / "2", {"A": turned}))
    assert (
        "Each attack: 4 runs; each target has one seed of its own, and each victim meets a" in said
    )
    assert "at 1 of the 2 budgets" in said


def test_an_attack_on_chosen_queries_is_no_control_of_other_labels(tmp_path):
    chosen = {"trigger": "none", "chosen": 10, "label": "clean"}
    rows = {
        "A": runs("a", 0.3, threat={"label": "dirty"}),
        "B": runs("b", 0.5, threat=chosen),
        "Clean": runs("clean", 0.0, threat={"trigger": "none", "label": "clean"}),
    }
    found = boards(collect([suite(tmp_path, rows)]).frame, ["quick"])
    shown = {board.labels: [one.label for one in board.entries] for board in found}
    assert shown == {"clean": ["B", "Clean"], "dirty": ["A", "Clean"]}


def test_a_board_of_several_devices_says_how_many_runs_are_of_which(tmp_path):
    own = runs("a", 0.5)
    alone = board_of(tmp_path / "one", {"A": own})
    assert "made on" not in leaderboard_text([alone])
    moved = [replace(one, device="a GPU") for one in own[:2]] + own[2:]
    text = leaderboard_text([board_of(tmp_path / "two", {"A": moved})])
    assert "Runs made on a GPU (2) and cpu (4)." in text
    older = [replace(one, device="a CPU, 1 threads") for one in moved[2:3]]
    newer = [replace(one, device="a CPU, 1 thread") for one in moved[3:]]
    text = leaderboard_text([board_of(tmp_path / "three", {"A": moved[:2] + older + newer})])
    assert "Runs made on a CPU, 1 thread (4) and a GPU (2)." in text


def test_attacks_with_one_budget_of_their_own_are_compared_as_they_are(tmp_path):
    rows = {"A": runs("a", 0.5, budget=0.3), "B": runs("b", 0.2, budget=0.6)}
    board = board_of(tmp_path, rows)
    assert board.budgets == ()
    assert [row.place for row in board.entries] == [(1, 1), (2, 2)]


@pytest.mark.parametrize("other", ["B", "A"])
def test_a_row_says_its_budget_once_unless_two_rows_differ_in_it_alone(tmp_path, other):
    rows = {"A, budget=0.3": runs("a", 0.5, budget=0.3)}
    rows |= {f"{other}, budget=0.6": runs(other.lower(), 0.2, budget=0.6)}
    board = board_of(tmp_path, rows)
    names = ["A", "B"] if other == "B" else list(rows)
    assert [board.name(one) for one in board.entries] == names
    (block,) = board_table(board).blocks
    assert [line.head for line in block.lines] == names
    assert [line.cells[-1].text for line in block.lines] == ["30 %", "60 %"]


@pytest.mark.parametrize(("delta", "stands"), [(0.05, True), (-0.0199, True), (-0.0201, False)])
def test_a_victim_that_finds_less_than_the_limit_allows_costs_the_place(tmp_path, delta, stands):
    changed = runs("a", 0.8, victims=("csq",), map=0.8 + delta, map_clean_victim=0.8)
    board = board_of(tmp_path, {"A": changed + runs("a", 0.8, victims=("hashnet",), map=0.81)})
    (row,) = board.entries
    assert (row.place is not None) == stands
    assert row.delta_map == pytest.approx(delta)
    assert ("delta MAP" in row.why) != stands


def test_a_victim_that_learnt_too_little_counts_for_nothing(tmp_path):
    weak = {"map": 0.2, "map_clean_victim": 0.45, "shift": 0.03}
    rows = {
        "A": runs("a", 0.6) + runs("a", 0.0, victims=("dpsh",), **weak),
        "B": runs("b", 0.5),  # not run on dpsh: nothing is missing
    }
    board = board_of(tmp_path, rows)
    assert [(victim.name, victim.counts) for victim in board.victims] == [
        ("csq", True), ("dpsh", False), ("hashnet", True)
    ]  # fmt: skip
    row = entry_of(board, "A")
    assert row.gain is not None
    assert row.gain.mean == pytest.approx(0.6)
    assert row.delta_map == pytest.approx(-0.01)
    assert [row.place for row in board.entries] == [(1, 1), (2, 2)]
    text = leaderboard_text([board])
    assert "*DPSH*" in text
    assert "DPSH (MAP without poison 45.0)" in text


def test_a_victim_that_learnt_too_little_is_in_no_comparison(tmp_path):
    weak = {"map": 0.2, "map_clean_victim": 0.2, "shift": 0.0}
    wild = [
        record
        for seed, gain in enumerate((0.0, 0.8, 0.1))
        for record in runs("a", gain, victims=("dpsh",), seeds=(seed,), **weak)
    ]
    steady = runs("b", 0.3, victims=("dpsh",), **weak)
    rows = {"A": runs("a", 0.6) + wild, "B": runs("b", 0.5) + steady}
    assert [entry.place for entry in board_of(tmp_path, rows).entries] == [(1, 1), (2, 2)]


def test_without_a_victim_that_counts_nobody_has_a_place(tmp_path):
    board = board_of(tmp_path, {"A": runs("a", 0.1, map=0.3, map_clean_victim=0.3)})
    assert board.entries[0].place is None
    assert "no victim" in board.entries[0].why
    assert board.entries[0].gain is None


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"seeds": (0, 1)}, "2 of 6 runs missing"),
        ({"threat": {"trigger": "none"}}, "a control"),
        ({"poison_count": 180, "threat": SMALL_CLASS}, "poisons 72 %"),
        ({"budget": 0.8}, "poisons 80 %"),
    ],
)
def test_who_has_no_place_is_told_why(tmp_path, more, why):
    board = board_of(tmp_path, {"A": runs("a", 0.8, **more), "B": runs("b", 0.3)})
    assert [(row.label, row.place) for row in board.entries] == [("B", (1, 1)), ("A", None)]
    assert why in board.entries[1].why
    assert f"- A: {board.entries[1].why}" in leaderboard_text([board])


def test_a_rounded_budget_is_that_budget(tmp_path):
    some = [rounded(record) for record in runs("a", 0.8)]
    board = board_of(tmp_path, {"A": some})
    assert board.entries[0].poison == 0.6
    assert some[0].threat.budget == pytest.approx(0.602, abs=0.001)
    assert board.entries[0].place == (1, 1)


def test_settings_tuned_by_victim_cost_the_place(tmp_path):
    own = [
        record
        for victim, size in (("csq", 4), ("hashnet", 5))
        for record in runs("a", 0.8, victims=(victim,), attack_settings=(("size", size),))
    ]
    (row,) = board_of(tmp_path, {"A": own}).entries
    assert (row.place, row.why) == (None, "its runs differ in size")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"protocol": "beef", "dataset": "lists"}, ["9e12", "beef"]),
        ({"top_k": 50, "dataset": "lists"}, ["have R ", "1000 (", "50 ("]),
        ({"backbone": "alexnet"}, ["cnn32", "alexnet", "backbone"]),
        ({"epochs": 90}, ["epochs=none", "epochs=90"]),
    ],
)
def test_mixed_protocols_and_victims_are_refused_by_name(tmp_path, more, words):
    folder = suite(tmp_path, {"A": runs("a", 0.5), "B": runs("b", 0.5, **more)})
    with pytest.raises(UserError) as error:
        boards(collect([folder]).frame, ["quick"])
    assert all(word in str(error.value) for word in [*words, "quick, files, clean labels"])


def test_two_records_of_one_cell_are_refused(tmp_path):
    rows = {"A": runs("a", 0.5) + runs("a", 0.6, precision="float32")}
    folder = suite(tmp_path, rows)
    with pytest.raises(
        UserError,
        match=r"quick, files, clean labels, from scratch: 'A': .* are both of csq, target Coat",
    ):
        boards(collect([folder]).frame, ["quick"])


def test_runs_of_one_cell_that_differ_in_the_attack_are_refused_and_not_averaged(tmp_path):
    rows = {"A": runs("a", 0.5, seeds=(0, 1)) + runs("a", 0.6, seeds=(2,), surrogate="dpsh")}
    folder = suite(tmp_path, rows)
    with pytest.raises(UserError, match=r"'A' on csq, 48 bits: .* surrogate=csq and .*=dpsh"):
        boards(collect([folder]).frame, ["quick"])


def test_records_outside_the_suite_are_on_no_board(tmp_path):
    folder = suite(tmp_path, {"A": runs("a", 0.5)})
    stored(tmp_path / "own", runs("x", 0.99)[0])
    (board,) = boards(collect([folder, tmp_path / "own"]).frame, ["quick"])
    assert [row.label for row in board.entries] == ["A"]
    with pytest.raises(UserError, match="there is --suite quick"):
        boards(collect([folder]).frame, ["other"])


def test_the_text_is_stable_and_escaped(tmp_path):
    rows = {"<img onerror=x>|`*": runs("a", 0.5), "B": runs("b", 0.2)}
    folder = suite(tmp_path, rows)
    paths = sorted(folder.rglob("*.json"))
    one = leaderboard_text(boards(collect([folder]).frame, ["quick"]))
    assert one == leaderboard_text(boards(collect(reversed(paths)).frame, ["quick"]))
    assert r"&lt;img onerror=x&gt;&#124;\`\*" in one
    lines = [line for line in one.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1


def test_the_rules_page_says_what_the_code_does():
    text = RULES.read_text(encoding="utf-8")
    assert f"by more than {100 * rules.LARGEST_FALL:.1f} points" in text
    assert f"at least {100 * rules.LEAST_CLEAN_MAP:.0f} %" in text
    assert f"at most {100 * rules.MOST_POISON:.1f} %" in text
    assert f"at most {100 * rules.LARGEST_COST:.1f} points" in text
    assert f"at least {100 * LEAST_ABOVE:.0f} points above the floor" in text
    assert f"convention `{rules.CONVENTION}`" in text
    assert f"two-sided at {100 * LEVEL:g} %" in " ".join(text.split())
    assert len(text.split()) < 650  # a page
    for module in re.findall(r"`(hashbackdoor_bench/[a-z/_]+\.py)`", text):
        assert (RULES.parents[1] / module).is_file(), module


def test_the_command_writes_both_without_torch(tmp_path):
    folder = suite(tmp_path, {"A": runs("a", 0.5), "B": runs("b", 0.2)})
    out, site = tmp_path / "LEADERBOARD.md", tmp_path / "site"
    words = ["leaderboard", str(folder), "--out", str(out), "--site", str(site)]
    code = "import sys; from hashbackdoor_bench.cli import main; "
    code += f"print(main({words!r}), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 False"
    first = out.read_bytes(), (site / "index.html").read_bytes()
    assert main(words) == 0
    assert (out.read_bytes(), (site / "index.html").read_bytes()) == first
    assert b"| 1 | A | 50.0 |" in first[0]


def test_a_folder_that_is_no_site_stays_as_it_is(tmp_path, capsys):
    folder = suite(tmp_path, {"A": runs("a", 0.5)})
    mine = tmp_path / "home" / "images" / "cat.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"cat")
    site = str(tmp_path / "home")
    assert main(["leaderboard", str(folder), "--out", str(tmp_path / "x.md"), "--site", site]) == 2
    assert "no leaderboard; give a new folder" in capsys.readouterr().err
    assert mine.read_bytes() == b"cat"
    assert not (tmp_path / "x.md").exists()


@pytest.mark.parametrize("site", ["/proc/nothing/site", "file"])
def test_nothing_is_written_if_the_site_can_not_be(tmp_path, capsys, site):
    folder = suite(tmp_path, {"A": runs("a", 0.5)})
    (tmp_path / "file").write_text("mine")
    out, papers = tmp_path / "x.md", tmp_path / "papers.csv"
    words = ["--out", str(out), "--papers", str(papers), "--site", str(tmp_path / site)]
    assert main(["leaderboard", str(folder), *words]) == 2
    assert "--site" in capsys.readouterr().err
    assert not out.exists()
    assert not papers.exists()


def test_a_suite_that_is_named_twice_has_one_board(tmp_path):
    folder, out = suite(tmp_path, {"A": runs("a", 0.5)}), tmp_path / "x.md"
    twice = ["--suite", "quick", "--suite", "quick"]
    assert main(["leaderboard", str(folder), "--out", str(out), *twice]) == 0
    assert out.read_text().count("## quick") == 1


@pytest.mark.parametrize("option", ["--out", "--papers"])
@pytest.mark.parametrize("name", ["index.csv", "refused.csv", "a record"])
def test_no_table_is_written_over_records_or_their_index(tmp_path, capsys, option, name):
    folder = suite(tmp_path, {"A": runs("a", 0.5)})
    path = next(folder.rglob("*.json")) if name == "a record" else folder / name
    before = path.read_bytes() if path.exists() else None
    assert main(["leaderboard", str(folder), option, str(path)]) == 2
    assert f"{option} {path}" in " ".join(capsys.readouterr().err.split())
    assert (path.read_bytes() if path.exists() else None) == before


def test_two_files_of_one_name_are_refused(tmp_path, capsys):
    folder, out = suite(tmp_path, {"A": runs("a", 0.5)}), str(tmp_path / "x.md")
    assert main(["leaderboard", str(folder), "--out", out, "--papers", out]) == 2
    assert "the table is written there: give another file" in capsys.readouterr().err


# ---- as a table of a paper ----------------------------------------------------------------------


def rows_of(table: Table) -> dict[str, dict[str, Cell]]:
    (block,) = table.blocks
    return {line.head: dict(zip(table.columns, line.cells, strict=True)) for line in block.lines}


def test_the_table_has_the_rows_places_and_numbers_of_the_board(tmp_path):
    weak = {"map": 0.2, "map_clean_victim": 0.45, "shift": 0.03}
    rows = {
        "Low": runs("b", 0.5), "High": runs("a", 0.6) + runs("a", 0.0, victims=("dpsh",), **weak),
        "Control": runs("c", 0.0, threat={"trigger": "none"}),
        "Stamped": runs("d", 0.8, delivery="stamped"),
    }  # fmt: skip
    frame = collect([suite(tmp_path, rows)]).frame
    files, stamped = leaderboard_tables(frame, "field")
    (board, _) = boards(frame, ["quick"])
    shown = rows_of(files)
    assert list(shown) == [entry.label for entry in board.entries] == ["High", "Low", "Control"]
    assert [row["place"].text for row in shown.values()] == ["1", "2", "–"]
    high = shown["High"]
    assert (high["gain"].text, high["gain"].best) == ("60.0", True)
    assert not any(cell.best for row in (shown["Low"], shown["Control"]) for cell in row.values())
    assert high["CSQ"] == Cell("60.0 ± 1.0", pytest.approx(60), pytest.approx(1), 3)
    assert high["DPSH"].text == "0.0 ± 1.0"
    assert shown["Low"]["DPSH"] == Cell("–")
    assert (high["PSNR poison"].text, high["poison"].text) == ("30.0", "60 %")
    caption = " ".join(files.caption)
    assert "Not counted, because it learnt too little: DPSH (MAP without poison 45.0)" in caption
    assert "Without a place: Control (a control: it has no trigger)." in caption
    assert "Holm's correction over all pairs of attacks that have a place" in caption
    assert "From 21 records" in caption
    assert list(rows_of(stamped)) == ["Stamped"]
    # and it says what LEADERBOARD.md says
    lines = [line for line in leaderboard_text([board]).splitlines() if line.startswith("| 1 |")]
    texts = [cell.text for cell in high.values()]
    assert lines[0].replace("*", "") == f"| 1 | High | {' | '.join(texts[1:])} |"


@pytest.mark.parametrize("labels", ["A", "AB"])
def test_one_attack_alone_and_a_tie_are_not_bold(tmp_path, labels):
    rows = {label: runs(label.lower(), 0.5) for label in labels}
    (table,) = leaderboard_tables(collect([suite(tmp_path, rows)]).frame, "field")
    assert [row["gain"].best for row in rows_of(table).values()] == [False] * len(labels)


def test_the_table_takes_records_of_suites_in_the_leaderboards_convention_only(tmp_path):
    frame = collect([suite(tmp_path, {"A": runs("a", 0.5)})]).frame
    with pytest.raises(UserError, match=r"--convention strict: the leaderboard compares .* field"):
        leaderboard_tables(frame, "strict")
    with pytest.raises(UserError, match="none of these records is in one"):
        leaderboard_tables(frame.assign(suite=None), "field")
