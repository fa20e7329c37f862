"""Tables, boards and figures of defended runs, on records that no run made."""

import csv
import io
import math
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pandas as pd
import pytest
from made_defenses import defended
from made_records import indexed, made, stored
from msgspec.structs import replace
from test_leaderboard import unpoisoned

from hashbackdoor_bench import UserError
from hashbackdoor_bench.cli import main
from hashbackdoor_bench.records import Record, Threat
from hashbackdoor_bench.registry import DEFENSES
from hashbackdoor_bench.report.board import boards, defense_boards, write_site
from hashbackdoor_bench.report.board.coverage import defense_coverage
from hashbackdoor_bench.report.collection import Collection, collect
from hashbackdoor_bench.report.defended import (
    is_published,
    share_in,
    share_of,
    with_defenses,
)
from hashbackdoor_bench.report.figures import all_figures, figures
from hashbackdoor_bench.report.figures.defense_looks import looks_of
from hashbackdoor_bench.report.figures.finished import FinishedFigure
from hashbackdoor_bench.report.selection import undefended, with_display_names
from hashbackdoor_bench.report.tables import WRITERS, leaderboard_text, tables
from hashbackdoor_bench.report.tables.parts import Cell, Table

U = {"u": 3.0}
HEAD = "suite,label,victim,bits,seed,defense,reason\n"
REASON = "defense dpsgd needs a gradient for each image: choose csq"


def suite(folder: Path, records: Iterable[tuple[str, Record]], refused: str = "") -> Collection:
    """A suite "mine" of records with their labels, and the lines of its refused runs."""
    place = folder / "mine"
    indexed(place, {stored(place, record): label for label, record in records})
    if refused:
        (place / "refused.csv").write_text(HEAD + refused, encoding="utf-8")
    return collect([place])


def some(**changes: Any) -> list[tuple[str, Record]]:
    """Two seeds of an attack without a defense, repaired, purified, filtered and tested."""
    found = []
    for seed in (0, 1):
        run = {"attack": "badnets", "knowledge": "none", "seed": seed, "t_map": 0.7 + seed / 10}
        run |= changes
        found += [
            made(**run),
            defended("clp", settings=U, t_map_after=0.3 + seed / 5, map_after=0.79, **run),
            defended("blur", ("purify",), t_map_after=0.12, map_after=0.7, clean=0, **run),
            defended("random", ("screen",), control=True, t_map_after=0.6, **run),
            defended("spectral", ("screen",), t_map_after=0.5, map_after=0.785, **run),
            defended("strip", ("suspect",), **run),
            defended("occupancy", ("audit",), **run),
        ]
    return [("BadNets", record) for record in found]


def line(table: Table, head: str) -> tuple[Cell, ...]:
    (found,) = [line for block in table.blocks for line in block.lines if line.head == head]
    return found.cells


def made_tables(read: Collection) -> list[Table]:
    return tables(read.frame, "defense", refused=read.refused)


# ---- tables -------------------------------------------------------------------------------------


def test_the_matrix_stands_by_stage_between_no_defense_and_the_floor(tmp_path: Path):
    matrix, *_ = made_tables(suite(tmp_path, some()))
    assert [(block.title, [line.head for line in block.lines]) for block in matrix.blocks] == [
        ("controls", ["No defense", "Random filter"]),
        ("filters of the training set", ["Spectral signatures"]),
        ("repairs", ["CLP"]),
        ("purification of queries", ["Blur"]),
        ("no backdoor", ["floor: clean victim"]),
    ]
    assert matrix.columns == ("BadNets",)
    assert "In no row, since they change no code: STRIP; Occupancy." in " ".join(matrix.caption)


def test_a_cell_is_the_mean_and_deviation_of_t_map_and_of_map(tmp_path: Path):
    matrix, *_ = made_tables(suite(tmp_path, some()))
    (cell,) = line(matrix, "CLP")
    values = (30.0, 50.0)
    assert cell.mean == pytest.approx(fmean(values))
    assert cell.deviation == pytest.approx(stdev(values))
    assert cell.second is not None
    assert (cell.second.name, cell.second.mean) == ("MAP", pytest.approx(79))
    assert cell.text == "40.0 ± 14.1 (79.0 ± 0.0)"
    (undefended_cell,), (floor,) = line(matrix, "No defense"), line(matrix, "floor: clean victim")
    assert undefended_cell.mean == pytest.approx(fmean((70, 80)))
    assert floor.text == "10.0 ± 0.0 (81.0 ± 0.0)"


def test_every_poisoned_share_has_a_matrix_of_attacks_by_victims(tmp_path: Path):
    records = []
    for victim in ("hashnet", "csq"):
        for budget in (0.6, 0.2):
            for label, record in some(victim=victim, budget=budget):
                records.append((f"{label}, budget={budget}", record))
    first, second, *_ = made_tables(suite(tmp_path, records))
    assert "60 %" in first.title
    assert "20 %" in second.title
    assert first.columns == second.columns == ("BadNets, HashNet", "BadNets, CSQ")


def test_what_a_suite_could_not_run_is_na_with_its_reason(tmp_path: Path):
    refused = f"mine,BadNets,hashnet,48,0,dpsgd,{REASON}\n"
    matrix, *_ = made_tables(suite(tmp_path, some(), refused))
    (cell,) = line(matrix, "DP-SGD")
    assert (cell.text, cell.mean) == ("n/a [1]", None)
    assert "[1] defense dpsgd needs a gradient for each image." in matrix.caption


def test_a_file_of_refused_runs_that_is_none_is_told_and_left_out(tmp_path: Path):
    suite(tmp_path, some())
    (tmp_path / "mine" / "refused.csv").write_text("a,b\n1,2\n")
    read = collect([tmp_path / "mine"])
    assert read.refused == ()
    assert any("refused.csv names no refused runs" in text for text in read.left_out)


def test_the_clean_cost_is_of_the_clean_victim_and_one_draw_for_all_attacks(tmp_path: Path):
    records = [  # of one seed: .79 and .77 are one draw of .78
        (label, defended("clp", settings=U, control_map_after=after, attack=attack, t_map=t_map))
        for label, attack, after, t_map in (("Tri", "tri", 0.77, 0.6), ("CIBA", "ciba", 0.79, 0.7))
    ]
    _, clean, *_ = made_tables(suite(tmp_path, records))
    map_after, cost = line(clean, "CLP")
    assert (map_after.mean, map_after.n) == (pytest.approx(78), 1)
    assert cost.mean == pytest.approx(100 * (0.81 - 0.78))


def test_filters_have_words_and_a_column_only_where_there_are_some(tmp_path: Path):
    for name, filtered in (("with", True), ("without", False)):
        (tmp_path / name).mkdir()
        records = [one for one in some() if filtered or one[1].spec.defense in ("clp", "blur")]
        matrix, clean, *_ = made_tables(suite(tmp_path / name, records))
        assert ("Filters are read" in " ".join(matrix.caption)) == filtered
        assert ("images dropped" in clean.columns) == filtered
        assert ("Images dropped" in " ".join(clean.caption)) == filtered


def test_detection_and_audits_show_what_the_records_hold(tmp_path: Path):
    _, _, found, audits, needs = made_tables(suite(tmp_path, some(budget=0.2)))
    heads = dict(zip(found.columns, line(found, "Spectral signatures"), strict=True))
    assert heads["poison in class"].mean == pytest.approx(20)
    assert heads["AUROC"].mean == pytest.approx(75)
    assert heads["in class"].mean == pytest.approx(65)
    assert heads["TPR at FPR 1"].mean == pytest.approx(10)  # of 2940 clean images
    assert heads["dropped"].mean == pytest.approx(15)
    assert heads["realised FPR"].mean is None
    heads = dict(zip(found.columns, line(found, "STRIP"), strict=True))
    assert heads["TPR at FPR 1"].mean is None  # of 400 queries
    assert heads["realised FPR"].mean == pytest.approx(6.25)
    assert heads["clean victim"].mean == pytest.approx(50)
    assert dict(zip(audits.columns, line(audits, "Occupancy"), strict=True))[
        "power at 50 %"
    ].mean == pytest.approx(95)
    clean, sees, forwards, seconds, trainings = line(needs, "CLP")
    assert (clean.text, sees.text, forwards.mean) == ("150", "weights", 3000)
    assert (seconds.mean, trainings.mean) == (1.0, 0.5)  # the victim's training took 2 s


def test_csv_has_both_numbers_of_a_cell(tmp_path: Path):
    matrix, *_ = made_tables(suite(tmp_path, some()))
    rows = list(csv.DictReader(io.StringIO(WRITERS["csv"]([matrix]))))
    of_clp = {row["block"]: float(row["mean"]) for row in rows if row["row"] == "CLP"}
    assert of_clp == {"repairs": pytest.approx(40), "MAP": pytest.approx(79)}


@pytest.mark.parametrize("kind", list(WRITERS))
def test_nothing_from_records_is_read_as_markup(tmp_path: Path, kind: str):
    refused = 'mine,BadNets,hashnet,48,0,<b>|$x,"=<script>|$\\x"\n'
    text = WRITERS[kind](made_tables(suite(tmp_path, some(), refused)))
    hostile = {"md": "<b>|", "html": "<b>", "latex": "|$x", "csv": ",=<"}
    assert hostile[kind] not in text


def test_the_settings_that_vary_and_the_tuned_strength_stand_in_the_name(tmp_path: Path):
    tuned = defended("clp", settings=U, operating_point="tuned", attack="badnets", map_after=0.8)
    records = [
        *some()[:2],
        ("BadNets", defended("clp", settings={"u": 2.0}, attack="badnets", knowledge="none")),
        ("BadNets", tuned),
    ]
    frame = with_defenses(with_display_names(suite(tmp_path, records).frame), "field")
    assert list(frame["defense"]) == ["CLP, u=2.0", "CLP, u=3.0", "CLP, tuned"]
    published = [is_published(record) for record in frame["record"]]
    assert published == [False, True, False]


def test_records_without_a_defense_make_no_such_table(tmp_path: Path):
    with pytest.raises(UserError, match="none of these records has a defense"):
        tables(suite(tmp_path, some()[:1]).frame, "defense")


def test_runs_of_two_defenses_are_no_copies_but_a_stolen_run_is_one(tmp_path: Path):
    read = suite(tmp_path, some())
    assert read.left_out == ()
    assert len(read.frame) == 14
    own = defended("clp", settings=U, attack="tri", t_map=0.7)
    theirs = some()[1][1]
    stolen = replace(own, scores=theirs.scores, retrieval=theirs.retrieval)
    stored(tmp_path / "mine", stolen)
    again = collect([tmp_path / "mine"])
    assert any("to the last bit, a run of something else" in text for text in again.left_out)


def test_other_layouts_and_figures_leave_defended_runs_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    suite(tmp_path, some())
    monkeypatch.chdir(tmp_path)
    assert main(["table", "mine", "--format", "md"]) == 0
    assert "75.0 ± 7.1" in capsys.readouterr().out  # of two runs, not of fourteen


# ---- boards -------------------------------------------------------------------------------------


def test_defenses_are_ranked_by_removal_among_those_that_cost_little(tmp_path: Path):
    refused = f"mine,BadNets,hashnet,48,0,dpsgd,{REASON}\n"
    read = suite(tmp_path, some(), refused)
    (board,) = defense_boards(read.frame, ["mine"], read.refused)
    places = {entry.name: entry.place for entry in board.entries}
    assert places["CLP"] == places["Spectral signatures"] == (1, 2)  # two seeds tell nothing
    why = {entry.name: entry.why for entry in board.entries if entry.why}
    assert why == {
        "Blur": "clean cost 10.0: more than 2.0",
        "Random filter": "a control",
        "STRIP": "n/a: it changes no code, see what it detects",
        "Occupancy": "n/a: it changes no code, see what it detects",
        "DP-SGD": "n/a: defense dpsgd needs a gradient for each image",
    }
    assert [entry.place is None for entry in board.entries] == [False] * 2 + [True] * 5
    (clp,) = [entry for entry in board.entries if entry.name == "CLP"]
    removals = [(t - after) / (t - 0.1) for t, after in ((0.7, 0.3), (0.8, 0.5))]
    assert clp.removal is not None
    assert clp.removal.mean == pytest.approx(fmean(removals))
    assert clp.t_map == pytest.approx(fmean([0.3, 0.5]))
    assert board.t_map == pytest.approx(fmean([0.7, 0.8]))
    assert clp.clean_cost == pytest.approx(0.8 - 0.79)


def test_a_defense_that_lacks_runs_has_no_place(tmp_path: Path):
    read = suite(tmp_path, [one for one in some() if one[1].spec != some()[1][1].spec])
    (board,) = defense_boards(read.frame, ["mine"])
    (clp,) = [entry for entry in board.entries if entry.name == "CLP"]
    assert clp.why == "1 of 2 runs missing"
    refused = f"mine,BadNets,hashnet,48,0,clp,{REASON}\n"
    (tmp_path / "mine" / "refused.csv").write_text(HEAD + refused)
    again = collect([tmp_path / "mine"])
    (board,) = defense_boards(again.frame, ["mine"], again.refused)
    (clp,) = [entry for entry in board.entries if entry.name == "CLP"]
    assert clp.why == "1 of 2 runs missing or n/a: defense dpsgd needs a gradient for each image"


def test_a_run_of_an_attacker_who_expects_a_defense_is_no_cell_of_the_others(tmp_path: Path):
    run: dict[str, Any] = {"attack": "ciba", "t_map": 0.7, "map_after": 0.79}
    lines = [("CIBA", defended("clp", settings=U, t_map_after=0.3, **run))]
    lines += [("CIBA", defended("blur", ("purify",), t_map_after=0.2, **run))]
    lines += [
        (
            f"CIBA, aware of {name}",
            defended(name, hooks, settings=more, t_map_after=0.6, aware=name, **run),
        )
        for name, hooks, more in (("clp", ("repair",), U), ("blur", ("purify",), {}))
    ]
    read = suite(tmp_path, lines)
    (board,) = defense_boards(read.frame, ["mine"])
    assert (board.cells, board.attacks) == (1, ("CIBA 60 %",))
    assert {one.name: one.why for one in board.entries} == {
        "CLP": "",
        "Blur": "",
        "CLP, attacker expects CLP": "apart: its attacker expects CLP",
        "Blur, attacker expects Blur": "apart: its attacker expects Blur",
    }
    removal = {one.name: one.removal.mean for one in board.entries if one.removal}
    assert removal["Blur"] > removal["Blur, attacker expects Blur"]
    found = defense_coverage(board)
    assert found.missing == ()
    assert found.runs == (4, 4)


def test_a_suite_without_defenses_has_no_such_board_and_the_text_it_had(tmp_path: Path):
    read = suite(tmp_path, some()[:1])
    assert defense_boards(read.frame, ["mine"]) == []
    found = boards(read.frame, ["mine"])
    assert leaderboard_text(found, ()) == leaderboard_text(found)
    assert "Defenses" not in leaderboard_text(found)


def test_the_board_stands_in_the_leaderboard_and_escaped_on_the_page(tmp_path: Path):
    refused = 'mine,BadNets,hashnet,48,0,<script>alert(1)</script>,"a|b <img src=x>"\n'
    read = suite(tmp_path, some(), refused)
    found = boards(undefended(read.frame), ["mine"])
    defenses = defense_boards(read.frame, ["mine"], read.refused)
    text = leaderboard_text(found, defenses)
    assert "### Defenses of mine, files" in text
    assert "| 1-2 | Spectral signatures | filters of the training set |" in text
    assert "<script>" not in text
    assert "a&#124;b" in text
    write_site(found, read, tmp_path / "site", lambda record: "", defenses)
    for name in ("defenses.html", "coverage.html"):
        page = (tmp_path / "site" / name).read_text()
        assert "suite mine, delivery files" in page
        assert "<script>alert" not in page
        assert "<img src=x>" not in page
        assert "&lt;img src=x&gt;" in page


def test_the_page_of_defenses_says_how_defenses_are_compared(tmp_path: Path):
    read = suite(tmp_path, some())
    defenses = defense_boards(read.frame, ["mine"])
    write_site([], read, tmp_path / "site", lambda record: "", defenses)
    page = (tmp_path / "site" / "defenses.html").read_text()
    assert "at least one defense is better than this one" in page
    assert "Two defenses are compared run by run (equal attack, poisoned share, victim" in page
    assert "Two attacks are compared" not in page


def test_coverage_of_defenses_tells_runs_that_were_refused_from_missing_ones(tmp_path: Path):
    lines = [one for one in some() if one[1].spec != some()[1][1].spec]
    read = suite(tmp_path, lines)
    (board,) = defense_boards(read.frame, ["mine"])
    found = defense_coverage(board)
    (clp,) = [row for row in found.rows if row.name == "CLP"]
    assert sum(wanted for _, wanted in clp.cells) - sum(have for have, _ in clp.cells) == 1
    lacking = [clause for clause in found.missing if clause.startswith("CLP on ")]
    assert len(lacking) == 1
    assert found.refused == 0
    (tmp_path / "mine" / "refused.csv").write_text(
        HEAD + f"mine,BadNets,hashnet,48,0,clp,{REASON}\nmine,BadNets,hashnet,32,0,strip,x\n"
    )
    again = collect([tmp_path / "mine"])
    other = defense_coverage(board, again.refused)
    assert other.runs == found.runs
    assert other.refused == 1
    assert set(found.missing) - set(other.missing) == set(lacking)


def test_verify_makes_the_boards_of_defenses_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    suite(tmp_path, some())
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "mine" / "LEADERBOARD.md"
    assert main(["leaderboard", "mine", "--suite", "mine", "--out", str(out)]) == 0
    assert main(["verify", "mine", "--cache-dir", str(tmp_path / "none")]) == 0
    text = out.read_text()
    out.write_text(text.replace("| CLP | repairs | 5", "| CLP | repairs | 9"))
    assert out.read_text() != text
    capsys.readouterr()
    assert main(["verify", "mine", "--cache-dir", str(tmp_path / "none")]) == 1
    assert "is not what the records give" in "".join(capsys.readouterr())


# ---- figures ------------------------------------------------------------------------------------


def data(frame: pd.DataFrame) -> list[str]:
    return sorted(drawn.name for drawn in all_figures(frame) if not isinstance(drawn, str))


def test_figures_of_defenses_are_drawn_of_records_that_have_them(tmp_path: Path):
    (tmp_path / "a").mkdir()
    names = data(suite(tmp_path / "a", some(budget=0.2)).frame)
    ours = {f"mine-{n}" for n in ("defense-trade-off", "detection", "suspicions",
                                  "defended-distances")}  # fmt: skip
    assert ours - {"mine-defended-distances"} <= set(names)  # made records have no histogram before
    (tmp_path / "b").mkdir()
    assert not ours & set(data(suite(tmp_path / "b", some()[:1]).frame))


def test_the_trade_off_has_a_line_over_strengths_and_marks_published_and_tuned(tmp_path: Path):
    run: dict[str, Any] = {"attack": "badnets", "knowledge": "none", "t_map": 0.7}
    strengths = {2.0: (0.7, 0.1), 3.0: (0.75, 0.3), 4.0: (0.79, 0.6)}
    records = [
        defended("clp", settings={"u": u}, map_after=x, t_map_after=y, **run)
        for u, (x, y) in reversed(strengths.items())
    ]
    records.append(defended("clp", settings=U, operating_point="tuned", map_after=0.78,
                            t_map_after=0.5, **run))  # fmt: skip
    frame = suite(tmp_path, [("BadNets", record) for record in records]).frame
    (drawn,) = figures("defense-trade-off", frame)
    (axes,) = drawn.figure.axes
    lines = [one for one in axes.lines if len(one.get_xdata()) == 3]
    assert [list(map(float, part)) for part in lines[0].get_data()] == [
        pytest.approx([100 * x for x, _ in strengths.values()]),
        pytest.approx([100 * y for _, y in strengths.values()]),
    ]
    sizes = {
        (round(float(x.get_xdata()[0])), x.get_markersize()) for x in axes.lines
        if len(x.get_xdata()) == 1
    }  # fmt: skip
    assert (75, 5.5) in sizes  # published
    assert (70, 3) in sizes
    assert (78, 8) in sizes  # the ring of the tuned one
    floor = [one for one in axes.lines if list(one.get_ydata()) == [10, 10]]
    assert floor[0].is_dashed()
    assert legend_of(drawn) == ["CLP", "No defense", "floor", "published", "tuned"]
    weak = [dict(record.spec.defense_settings) == {"u": 2.0} for record in frame["record"]]
    (drawn,) = figures("defense-trade-off", frame[weak])
    assert legend_of(drawn) == ["CLP", "No defense", "floor"]
    assert not any("Ringed" in sentence or "Large" in sentence for sentence in drawn.caption)
    published = [is_published(record) for record in frame["record"]]
    (drawn,) = figures("defense-trade-off", frame[published])  # one strength: marks without lines
    assert legend_of(drawn) == ["CLP", "No defense", "floor"]
    assert drawn.figure.legends[0].legend_handles[0].get_linestyle() == "None"
    assert drawn.caption[0].endswith("each defense at its published strength.")


def looks(drawn: FinishedFigure) -> dict[str, tuple[Any, ...]]:
    """Colour, marker and filling of every mark of the legend."""
    (legend,) = drawn.figure.legends
    marks: Any = legend.legend_handles
    return {
        text: (mark.get_color(), mark.get_marker(), mark.get_fillstyle())
        for text, mark in zip(legend_of(drawn), marks, strict=True)
    }


@pytest.mark.parametrize(
    ("name", "hooks", "defenses"),
    [
        ("defense-trade-off", ("repair",), ("clp", "fst", "nad")),
        ("detection", ("screen",), ("ac", "scan", "spectral")),
    ],
)
def test_a_defense_looks_the_same_in_all_figures(
    tmp_path: Path, name: str, hooks: tuple[str, ...], defenses: tuple[str, ...]
):
    records = [
        ("BadNets", defended(defense, hooks, attack="badnets", victim=victim))
        for victim, had in (("hashnet", defenses), ("csq", defenses[1:]))
        for defense in had
    ]
    frame = suite(tmp_path, records).frame
    full, fewer = map(looks, figures(name, frame))
    assert len(full) == len(fewer) + 1
    assert fewer == {text: look for text, look in full.items() if text in fewer}
    last = [record.spec.defense == defenses[2] for record in frame["record"]]
    (alone, _) = map(looks, figures(name, frame[last]))
    assert alone == {text: look for text, look in full.items() if text in alone}


def test_no_two_defenses_look_alike_even_in_grey():
    found = looks_of({name: name for name in (*DEFENSES, "of_a_plugin", "of_another")})
    assert len({(look["marker"], look["fillstyle"]) for look in found.values()}) == len(found)
    assert "*" not in {look["marker"] for look in found.values()}  # the undefended victim
    other = looks_of({"CLP, u=2": "clp", "CLP, u=3": "clp"})
    assert other["CLP, u=2"] == found["clp"]
    assert other["CLP, u=3"] == found["clp"] | {"fillstyle": "none"}


def legend_of(drawn: FinishedFigure) -> list[str]:
    (legend,) = drawn.figure.legends
    return [text.get_text() for text in legend.get_texts()]


def test_a_figure_of_suspicions_tells_of_the_runs_that_it_draws_only(tmp_path: Path):
    records = [
        ("BadNets", defended("strip", ("suspect",), attack="badnets", seed=seed)) for seed in (1, 0)
    ]
    records.append(("BadNets", defended("clp", attack="badnets")))  # scores nothing
    (drawn,) = figures("suspicions", suite(tmp_path, records).frame)
    caption = " ".join(drawn.caption)
    assert "Left out" not in caption
    assert "seed 0. " in caption
    assert "From 1 record;" in caption


def test_figures_of_suspicions_name_what_is_left_out_of_each_and_hold_no_run_without_poison(
    tmp_path: Path,
):
    def tested(seed: int, **run: Any) -> Record:
        return defended("strip", ("suspect",), attack="badnets", seed=seed, **run)

    def unsound(record: Record) -> Record:
        assert record.defense is not None
        bare = replace(record.defense.detection["query"], histogram=None)
        return replace(record, defense=replace(record.defense, detection={"query": bare}))

    groups = [(victim, budget) for victim in ("csq", "hashnet") for budget in (0.2, 0.6)]
    lacking = {
        (victim, budget): unsound(tested(1, victim=victim, budget=budget))
        for victim, budget in groups[1:]
    }
    records = [
        *(tested(0, victim=victim, budget=budget) for victim, budget in groups),
        *lacking.values(),
        *unpoisoned([tested(0, budget=0.0)]),
        *unpoisoned([defended("spectral", ("screen",), attack="badnets", budget=0.0)]),
    ]
    labels = [f"BadNets, budget={record.spec.budget}" for record in records]
    read = suite(tmp_path, zip(labels, records, strict=True))
    assert read.left_out == ()
    found = {drawn.name: drawn for drawn in figures("suspicions", read.frame)}
    names = {"CSQ": "csq", "HashNet": "hashnet"}
    assert set(found) == {f"suspicions-{victim}-{share}" for victim in names for share in (20, 60)}
    for drawn in found.values():
        _, victim, share = drawn.name.split("-")
        left_out = [said for said in drawn.caption if "Left out" in said]
        record = lacking.get((names[victim], int(share) / 100))
        assert [said.count(".json") for said in left_out] == ([1] if record else [])
        assert all(record.key[:10] in said for said in left_out if record)
    without = [record.spec.budget == 0 for record in read.frame["record"]]
    with pytest.raises(UserError, match="add runs with poison"):
        figures("suspicions", read.frame[without])


def test_filters_stand_at_the_share_of_poison_in_its_class(tmp_path: Path):
    records = []
    for budget, auroc in ((0.2, 0.9), (0.6, 0.4)):
        record = defended("spectral", ("screen",), attack="badnets", budget=budget, auroc=auroc)
        records.append((f"BadNets, budget={budget}", record))
    (drawn,) = figures("detection", suite(tmp_path, records).frame)
    (axes,) = drawn.figure.axes
    points = {tuple(map(tuple, one.get_xydata().round(6))) for one in axes.lines}
    assert ((20.0, 80.0), (60.0, 30.0)) in points  # in class, .1 below
    assert ((20.0, 90.0), (60.0, 40.0)) in points  # overall, never turned round
    assert any(list(one.get_xdata()) == [50, 50] for one in axes.lines)


def test_a_panel_shows_the_recorded_bins_and_the_clean_victims(tmp_path: Path):
    records = [("BadNets", defended("strip", ("suspect",), attack="badnets"))]
    (drawn,) = figures("suspicions", suite(tmp_path, records).frame)
    (axes,) = drawn.figure.axes
    values = [list(patch.get_data().values) for patch in axes.patches]
    assert values == [[0.75, 0.25, 0.0], [0.5, 0.25, 0.25], [0.0, 0.5, 0.5]]
    assert math.isclose(axes.get_xlim()[1], 1.0)


def test_a_share_of_poison_is_written_as_it_is(tmp_path: Path):
    assert share_of(made(budget=0.6)) == "60 %"
    assert share_of(replace(made(), spec=made(poison_count=1).spec, threat=few(1))) == "0.333 %"
    many = replace(made(), spec=made(poison_count=500).spec, threat=few(3000))
    assert share_of(many) == "1000 %"  # dirty labels may take more images than the class has
    assert share_of(replace(many, threat=few(10))) == "3 %"  # of 310 images too
    assert share_in("BadNets, budget=0.025") == "2.5 %" == share_of(made(budget=0.025))
    assert share_in("BadNets, budget=0.2.3") is None  # a label may be any words


def few(poisoned: int) -> Threat:
    threat = made().threat
    return replace(threat, poisoned=poisoned, budget=poisoned / threat.target_images)


def test_what_was_not_asked_for_is_not_called_inapplicable(tmp_path: Path, capsys):
    line = "mine,BadNets,hashnet,48,0,dpsgd,it asks: a loss of single images\n"
    suite(tmp_path, some(), line)
    for conditions, there in ((), True), (("--where", "defense=blur"), False):
        assert main(["table", str(tmp_path / "mine"), "--layout", "defense", *conditions]) == 0
        out = capsys.readouterr().out
        assert ("DP-SGD" in out) is there
        assert ("it asks" in out) is there


def test_a_defense_with_two_strengths_does_not_stand_under_not_applicable(tmp_path: Path):
    run: dict[str, Any] = {"attack": "badnets", "knowledge": "none"}
    records = [
        ("BadNets", defended("dpsgd", ("backward",), settings={"sigma": sigma}, **run))
        for sigma in (0.01, 0.02)
    ]
    found = suite(tmp_path, records, "mine,BadNets,csq,48,0,dpsgd,why\n")
    (table, *_) = tables(found.frame, "defense", "field", (), found.refused)
    assert "not applicable" not in [block.title for block in table.blocks]


def test_a_suite_of_defended_runs_alone_has_a_board_of_defenses(tmp_path: Path):
    suite(tmp_path, [row for row in some() if row[1].defense])
    out = tmp_path / "board.md"
    assert main(["leaderboard", str(tmp_path / "mine"), "--suite", "mine", "--out", str(out)]) == 0
    assert "Blur" in out.read_text()
