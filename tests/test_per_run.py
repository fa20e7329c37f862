"""``bench table --per-run``: one row per run, and what stands in it is what the record holds."""

import csv
import json
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest
from made_defenses import defended
from made_records import indexed, made, stored
from msgspec.structs import replace

from hashbackdoor_bench.cli import main
from hashbackdoor_bench.records import Dominant
from hashbackdoor_bench.registry import ATTACKS, VICTIMS
from hashbackdoor_bench.report.collection import collect
from hashbackdoor_bench.report.tables import runs as module
from hashbackdoor_bench.report.tables.layouts import tables
from hashbackdoor_bench.report.tables.runs import COLUMNS, per_run

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs" / "tables.md"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A suite of two attacks, of which one has a name that a spreadsheet would calculate."""
    labels = {}
    for attack, label in (("ciba", "=1+1"), ("tri", "Tri, ±")):
        for seed in (0, 1):
            record = made(attack=attack, seed=seed, t_map=0.6 + seed / 7)
            labels[stored(tmp_path / "mine", record)] = label
    indexed(tmp_path / "mine", labels)
    return tmp_path


def written(folder: Path, name: str, *more: str) -> Path:
    path = folder / "new" / name
    assert main(["table", str(folder / "mine"), "--per-run", str(path), *more]) == 0
    return path


@pytest.mark.parametrize("convention", ["field", "ciba"])
def test_every_run_is_a_row_with_the_numbers_of_its_record(folder, capsys, convention):
    path = written(folder, "runs.csv", "--convention", convention)
    assert capsys.readouterr().out.endswith("runs.csv: 4 runs\n")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["'=1+1"] * 2 + ["Tri, ±"] * 2
    for row in rows:
        record = json.loads(Path(row["path"]).read_text())
        assert (int(row["seed"]), int(row["bits"])) == (record["spec"]["seed"], 48)
        for name in ("map", "t_map", "backdoor_gain", "t_map_untriggered"):
            assert float(row[name]) == record["scores"][convention][name]
        ends = record["scores"]["field"]["intervals"]["t_map"]
        shown = [row["t_map_low"], row["t_map_high"]]
        assert shown == (list(map(str, ends)) if convention == "field" else ["", ""])
        assert row["convention"] == convention
        assert (row["t_map_dominant"], row["map_defended"]) == ("", "")


@pytest.mark.skipif(find_spec("pyarrow") is None, reason="pyarrow is not installed")
def test_parquet_holds_the_same_table_with_its_types(folder):
    found = pd.read_parquet(written(folder, "runs.parquet"))
    frame = per_run(collect([folder / "mine"]).frame)
    pd.testing.assert_frame_equal(found, frame, check_dtype=False)
    assert list(found["label"]) == ["=1+1"] * 2 + ["Tri, ±"] * 2
    assert found["t_map"].dtype.kind == "f"
    assert found["surrogate_bits"].dtype.kind == "i"


def test_without_pyarrow_a_sentence_says_what_to_install(folder, capsys, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    path = folder / "runs.parquet"
    assert main(["table", str(folder / "mine"), "--per-run", str(path)]) == 2
    assert 'pip install "hashbackdoor-bench[parquet]"' in capsys.readouterr().err
    assert not path.exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--per-run", "runs.xlsx"], "ends in .csv or .parquet"),
        (["--per-run", "mine/index.csv"], "index.csv is a suite's own file"),
        (["--per-run", "/proc/nothing/runs.csv"], "give a file in a folder to write"),
        (["--per-run", "runs.csv", "--format", "latex"], "--format is of a table"),
        (["--per-run", "runs.csv", "--layout", "pairs"], "--layout is of a table"),
        (["--per-run", "runs.csv", "--with-published"], "--with-published is of a table"),
        (["--caption", "Ours."], "are of --format latex"),
        (["--label", "tab:x", "--format", "html"], "not of --format html"),
        (["--format", "latex", "--label", "tab:x", "--label", "tab:y"], "make 1 table"),
    ],
)
def test_a_mistake_is_one_sentence(folder, capsys, given, words):
    assert main(["table", str(folder / "mine"), *given]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert len(err.splitlines()) == 1


def test_a_run_behind_a_defense_has_its_scores_behind_it(tmp_path):
    stored(tmp_path, defended("clp", t_map_after=0.21))
    (record,) = collect([tmp_path]).frame["record"]
    (row,) = per_run(collect([tmp_path]).frame).to_dict("records")
    assert row["t_map_defended"] == pytest.approx(0.21)
    assert row["t_map"] == record.scores.field.t_map != row["t_map_defended"]
    assert row["defense"] == "clp"


def untargeted(**spec):
    """A record with a score for the class that its triggered queries retrieve most."""
    record = made(**spec)
    seed = record.spec.seed
    found = Dominant(
        class_name="Bag", share=0.9, queries=200, t_map=0.7 + seed / 10, t_map_clean_victim=0.2,
        t_map_untriggered=0.1, backdoor_gain=0.5 + seed / 10,
    )  # fmt: skip
    return replace(record, retrieval=replace(record.retrieval, dominant=found))


def test_an_untargeted_attack_has_its_own_blocks_and_columns(tmp_path):
    for seed in (0, 1):
        stored(tmp_path, untargeted(attack="darkhash", seed=seed))
        stored(tmp_path, made(attack="tri", seed=seed))
    frame = collect([tmp_path]).frame
    (table,) = tables(frame, "pairs")
    blocks = {block.title: [(line.head, line.cells[0].text) for line in block.lines]
              for block in table.blocks}  # fmt: skip
    assert blocks["t-MAP@dominant"] == [("DarkHash", "75.0 ± 7.1")]
    assert blocks["gain@dominant"] == [("DarkHash", "+55.0 ± 7.1")]
    assert "@dominant, of attacks without a target of their own" in " ".join(table.caption)
    (strict,) = tables(frame, "pairs", "strict")  # the record has it under `field` only
    (targeted,) = tables(frame[frame["attack"] == "tri"], "pairs")
    for other in (strict, targeted):
        assert [block.title for block in other.blocks][-1] == "delta MAP"
    dominant = per_run(frame).set_index("attack")["t_map_dominant"]
    assert list(dominant["darkhash"]) == pytest.approx([0.7, 0.8])
    assert dominant["tri"].isna().all()


def test_the_documentation_explains_every_column():
    text = DOCS.read_text(encoding="utf-8")
    for column in COLUMNS:
        assert f"| `{column.name}` | {column.meaning} |" in text


def test_settings_hold_the_defaults_too_and_their_column_says_so():
    folder = ROOT / "results" / "quick" / "fashion-mini" / "csq-48"
    table = per_run(collect([folder]).frame)
    for name, known in (("attack", ATTACKS), ("victim", VICTIMS)):
        for method, settings in zip(table[name], table[f"{name}_settings"], strict=True):
            found, defaults = json.loads(settings), known.defaults(method)
            assert bool(found) == bool(defaults), method  # older records lack newer settings
            assert found.keys() <= defaults.keys()
    for column in COLUMNS:
        if column.name.endswith("_settings"):
            assert "defaults too" in column.meaning


def test_runs_with_a_defense_are_left_out_aloud_and_taken_by_name(tmp_path, capsys):
    records = {"none": made(), "clp": defended("clp"), "jpeg": defended("jpeg", seed=1)}
    for record in records.values():
        stored(tmp_path / "mine", record)
    path = written(tmp_path, "runs.csv")
    out, err = capsys.readouterr()
    assert out.endswith("runs.csv: 1 run\n")
    assert "note: 2 runs with a defense left out: `bench table --layout defense`" in err
    written(tmp_path, "runs.csv", "--where", "seed=0")
    assert "note: 1 run with a defense left out" in capsys.readouterr().err
    written(tmp_path, "runs.csv", "--where", "defense=clp", "--where", "defense=jpeg")
    out, err = capsys.readouterr()
    assert out.endswith("runs.csv: 2 runs\n")
    assert "left out" not in err
    with path.open(newline="", encoding="utf-8") as file:
        assert {row["defense"] for row in csv.DictReader(file)} == {"clp", "jpeg"}
    stored(tmp_path / "alone", records["clp"])
    capsys.readouterr()
    for command in (["table"], ["figure", "gains"], ["table", "--per-run", str(path)]):
        assert main([*command, str(tmp_path / "alone")]) == 2
        said = capsys.readouterr().err
        assert "1 run, none without a defense" in said
        assert "--where defense=NAME" in said


def test_a_tuned_run_has_the_strength_that_was_tuned(tmp_path):
    tuned = defended("clp", settings={"u": 3.0}, operating_point="tuned")
    ran = replace(tuned, defense=replace(tuned.defense, settings={"u": 5.0}))
    row = per_run(pd.DataFrame([collect([stored(tmp_path, ran)]).frame.iloc[0]])).iloc[0]
    assert json.loads(row["defense_settings"]) == {"u": 5.0}
    assert (row["operating_point"], row["aware"]) == ("tuned", "none")
