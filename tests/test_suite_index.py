"""A suite's index: no label that tables refuse, and no record leaves it in silence."""

import csv
from pathlib import Path

import pytest
from test_cli_suite import places, written
from test_suite_execution import cell, laid

from hashbackdoor_bench.cli import main
from hashbackdoor_bench.report import read_index
from hashbackdoor_bench.suites.index import write_index

pytestmark = pytest.mark.usefixtures("warm_workers")

ROW = '[[attack]]\nname = "{}"\nlabel = "{}"\nbudget = {}\n'
FIRST = ROW.format("clean", "Clean", 0) + ROW.format("identity", "One", 0.6)


def planned(tmp_path: Path, tiny: Path, rows: str, command: str = "plan", **more: str) -> int:
    path = written(tmp_path, tiny, rows)
    path = path.rename(path.with_stem(more.get("name", path.stem)))
    where = [*places(tmp_path), *(["--threads", more["threads"]] if "threads" in more else [])]
    return main(["suite", command, str(path), *where])


def labels(tmp_path: Path) -> list[tuple[str, str]]:
    with (tmp_path / "results/index.csv").open(encoding="utf-8") as file:
        return [(row["suite"], row["label"]) for row in csv.DictReader(file)]


# ---- labels -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attack", "label", "more", "says"),
    [
        ("tri", "Blended, mine", "", "'Blended, mine', but the attack of that record is Tri"),
        ("tri", "BadNets", "", "'BadNets', but the attack of that record is Tri"),
        ("tri", "Tri, epsilon=4", "", "'Tri, epsilon=4', which has epsilon="),
        ("tri", "x" * 201, "", "its label has more than 200 characters"),
        ("tri", "x" * 195, "set.attack.steps = [3, 4]", "its label has more than 200 characters"),
    ],
)
def test_a_label_that_tables_would_refuse_is_refused_before_anything_runs(
    tiny, tmp_path, capsys, attack, label, more, says
):
    rows = ROW.format("clean", "Clean", 0) + ROW.format(attack, label, 0.6) + more
    for command in ("plan", "run"):
        assert planned(tmp_path, tiny, rows, command) == 2
        (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("bench")]
        assert line.startswith("bench: suite small, attack[2]: tables would refuse the line of its")
        assert says in line
        assert line.endswith(": give this row another label.")
        assert not (tmp_path / "results").exists()


def test_one_label_of_two_attacks_is_refused(tiny, tmp_path, capsys):
    rows = ROW.format("tri", "Mine", "[0.3, 0.6]") + ROW.format("clean", "Mine, budget=0.3", 0)
    assert planned(tmp_path, tiny, rows) == 2
    assert "it labels clean 'Mine, budget=0.3', as another labels tri" in capsys.readouterr().err


@pytest.mark.parametrize("label", ["", "  "])
def test_a_blank_label_is_refused(tiny, tmp_path, capsys, label):
    assert planned(tmp_path, tiny, ROW.format("tri", label, 0.6)) == 2
    assert "attack[1].label: label is blank: give it a word" in capsys.readouterr().err


def test_a_victim_spelt_with_a_hyphen_keeps_its_label(tiny, tmp_path):
    layout = laid(tiny, tmp_path, [cell(tiny, victim="dhta-l2")])
    layout.done |= layout.tasks.keys()
    (tmp_path / "r").mkdir()
    (line,) = read_index(write_index(layout, tmp_path / "r")).lines.values()
    assert line.facts["victim"] == "dhta_l2"  # as in the record, or else the line is refused


# ---- records that are no longer of the suite ----------------------------------------------------


def test_a_row_that_is_added_or_removed_is_told_and_nothing_is_lost(tiny, tmp_path, capsys):
    more = FIRST + ROW.format("badnets", "Two", 0.6)
    assert planned(tmp_path, tiny, FIRST, "run") == 0
    assert planned(tmp_path, tiny, more, "run") == 0
    assert "no longer" not in capsys.readouterr().err
    assert labels(tmp_path) == [("small", "Clean"), ("small", "One"), ("small", "Two")]
    told = "note: 1 record of {} is no longer of suite small (rows 'Two'): tables list it under no "
    for command in ("plan", "run"):
        assert planned(tmp_path, tiny, FIRST, command) == 0
        assert told.format(tmp_path / "results/index.csv") in capsys.readouterr().err
    assert labels(tmp_path) == [("small", "Clean"), ("small", "One")]
    assert len(list((tmp_path / "results").rglob("*.json"))) == 3
    assert planned(tmp_path, tiny, more, "run") == 0
    assert len(labels(tmp_path)) == 3


def test_another_suite_of_the_same_name_is_refused_and_changes_nothing(tiny, tmp_path, capsys):
    assert planned(tmp_path, tiny, FIRST, "run") == 0
    before = (tmp_path / "results/index.csv").read_bytes()
    for command in ("plan", "run"):
        assert planned(tmp_path, tiny, ROW.format("badnets", "Two", 0.6), command) == 2
        err = capsys.readouterr().err
        assert "names 2 records of another suite small (rows 'Clean', 'One'): give your" in err
        assert "give another --results-dir" in err
    assert (tmp_path / "results/index.csv").read_bytes() == before
    assert len(list((tmp_path / "results").rglob("*.json"))) == 2


def test_the_same_runs_under_other_threads_do_not_take_the_labels(tiny, tmp_path, capsys):
    assert planned(tmp_path, tiny, FIRST, "run") == 0
    assert planned(tmp_path, tiny, FIRST, "run", threads="2") == 2
    err = capsys.readouterr().err
    assert "with other --threads or by other code, and they would lose their labels: give" in err
    assert len(labels(tmp_path)) == 2


def test_two_suites_share_a_folder_but_no_run(tiny, tmp_path, capsys):
    assert planned(tmp_path, tiny, FIRST, "run") == 0
    assert planned(tmp_path, tiny, ROW.format("badnets", "Two", 0.6), "run", name="other") == 0
    assert labels(tmp_path) == [("other", "Two"), ("small", "Clean"), ("small", "One")]
    assert planned(tmp_path, tiny, ROW.format("clean", "C", 0), "run", name="third") == 2
    assert "names records of suite small that are runs of this suite too" in capsys.readouterr().err


def test_a_file_that_is_no_index_is_not_overwritten(tiny, tmp_path, capsys):
    (tmp_path / "results").mkdir()
    (tmp_path / "results/index.csv").write_text("a,b\n1,2\n")
    assert planned(tmp_path, tiny, FIRST, "run") == 2
    assert "is no index of a suite" in capsys.readouterr().err
    assert (tmp_path / "results/index.csv").read_text() == "a,b\n1,2\n"
