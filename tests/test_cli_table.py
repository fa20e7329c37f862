import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from made_records import indexed, made, stored

from hashbackdoor_bench.cli import main


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A suite "mine" of two attacks, two victims and two seeds, in the working folder's results."""
    folder = tmp_path / "results" / "mine"
    labels = {
        stored(
            folder, made(attack=attack, victim=victim, seed=seed, t_map=t_map + seed / 50)
        ): label
        for attack, label, t_map in (("tri", "Tri & co", 0.4), ("ciba", "CIBA", 0.7))
        for victim in ("hashnet", "csq")
        for seed in (0, 1)
    }
    indexed(folder, labels)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.parametrize("layout", ["ciba", "pairs", "transfer", "leaderboard"])
@pytest.mark.parametrize(
    ("kind", "label"),
    [
        ("text", "Tri & co"), ("md", "Tri &amp; co"), ("latex", r"Tri \& co"),
        ("csv", "Tri & co"), ("html", "Tri &amp; co"),
    ],
)  # fmt: skip
def test_every_layout_comes_in_every_format(
    suite: Path, capsys: pytest.CaptureFixture[str], layout: str, kind: str, label: str
):
    before = sorted(suite.rglob("*"))
    assert main(["table", "mine", "--layout", layout, "--format", kind]) == 0
    out, err = capsys.readouterr()
    assert label in out
    assert err == ""
    assert sorted(suite.rglob("*")) == before


def test_rows_and_columns_stand_in_the_order_of_the_suite(
    suite: Path, capsys: pytest.CaptureFixture[str]
):
    main(["table", "mine", "--format", "csv"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert list(dict.fromkeys(row["row"] for row in rows)) == ["Tri & co", "CIBA"]
    assert list(dict.fromkeys(row["column"] for row in rows)) == ["HashNet", "CSQ"]


def test_no_number_is_cut_off_in_a_narrow_place(suite: Path, capsys: pytest.CaptureFixture[str]):
    main(["table", "mine", "--layout", "leaderboard"])
    out = capsys.readouterr().out
    assert "…" not in out
    assert "surrogate" in out


def test_where_and_convention_reach_the_table(suite: Path, capsys: pytest.CaptureFixture[str]):
    given = ["--where", "victim=csq", "--where", "seed=1", "--convention", "strict"]
    main(["table", "mine", "--format", "csv", *given])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert {(row["column"], row["n"], row["convention"]) for row in rows} == {
        ("CSQ", "1", "strict")
    }
    (t_map,) = [row["mean"] for row in rows if row["block"] == "t-MAP" and row["row"] == "CIBA"]
    assert float(t_map) == pytest.approx(71)  # .7, .02 for the seed, -.01 for the convention


def test_published_rows_come_when_asked_for(suite: Path, capsys: pytest.CaptureFixture[str]):
    main(["table", "mine", "--layout", "ciba", "--format", "md"])
    assert "published" not in capsys.readouterr().out
    main(["table", "mine", "--layout", "ciba", "--format", "md", "--with-published"])
    assert "| CIBA (published) | 51.8 | 53.7 | 74.7 | 77.7 |" in capsys.readouterr().out


def test_a_damaged_record_is_told_and_the_table_made(
    suite: Path, capsys: pytest.CaptureFixture[str]
):
    path = next(suite.rglob("ciba-s0*.json"))
    values = json.loads(path.read_text())
    values["scores"]["field"]["t_map"] = 0.99
    path.write_text(json.dumps(values))
    assert main(["table", "mine"]) == 0
    out, err = capsys.readouterr()
    assert f"note: {path.relative_to(Path.cwd()).as_posix()} is left out" in err
    assert "(n = 1)" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "no such file"),
        (["mine", "--where", "victim=cqs"], "victim is one of csq, hashnet"),
        (["mine", "--layout", "pairs", "--with-published"], "--layout ciba has"),
        (["mine", "--format", "docx"], "docx"),
        ([], "Missing argument"),
    ],
)
def test_a_mistake_is_one_sentence(
    suite: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
):
    assert main(["table", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert len(err.splitlines()) == 1


def test_tables_need_no_torch(suite: Path):
    code = (
        "import sys; from hashbackdoor_bench.cli import main; "
        "code = main(['table', 'mine', '--format', 'latex']); "
        "sys.exit(code or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert done.returncode == 0


def test_the_choices_of_the_options_are_what_there_is():
    from hashbackdoor_bench.cli.table import FORMATS, LAYOUTS
    from hashbackdoor_bench.records import CONVENTIONS
    from hashbackdoor_bench.report.captions import CONVENTION_RULES
    from hashbackdoor_bench.report.tables.layouts import LAYOUTS as MADE
    from hashbackdoor_bench.report.tables.typeset import WRITERS

    assert set(LAYOUTS) == {"ciba", "defense", *MADE}
    assert set(FORMATS) == {"text", *WRITERS}
    assert set(CONVENTION_RULES) == set(CONVENTIONS)
