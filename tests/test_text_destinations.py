"""Names from outside in everything that the commands print and write, and how streams show it."""

import ast
import csv
import io
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from made_records import indexed, made, stored
from markdown_it import MarkdownIt
from PIL import Image

from hashbackdoor_bench.cli import main
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.report.escaping import for_csv, for_file_name
from hashbackdoor_bench.text import listed, one_line, quoted, sentence, visible

PACKAGE = Path(__file__).parents[1] / "hashbackdoor_bench"
BENCH = [sys.executable, "-m", "hashbackdoor_bench"]
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
NASTY = "[/dog] $a_b^c$ \\frac{<blink>&|%#\x1b[31m\u202e\r\nx` 猫 العربية 😀"
SHOWN = "[/dog] $a_b^c$ \\frac{<blink>&|%#\\x1b[31m\\u202e x` 猫 العربية 😀"
FORMULA = "=cmd|' /C calc'!A0"


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a suite whose labels, targets and suite's name are nasty."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "results" / "quick"
    labels = {}
    for attack, label in (("badnets", NASTY), ("tri", FORMULA), ("ciba", "plain")):
        for seed in (0, 1):
            record = made(attack=attack, seed=seed, target=NASTY, t_map=0.5 + 0.1 * seed)
            labels[stored(folder, record)] = label
    indexed(folder, labels)
    return folder


def printed(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(list(words)) == code
    out, err = capsys.readouterr()
    assert not RAW.search(out + err)
    return out


# ---- each destination ---------------------------------------------------------------------------


def test_a_table_for_the_terminal_reads_no_markup_and_no_escape(results, capsys):
    for layout in ("pairs", "ciba", "transfer", "leaderboard"):
        out = printed(capsys, "table", str(results), "--layout", layout)
        assert "[/dog] $a_b^c$" in out
        assert "\\x1b[31m" in out


def test_markdown_shows_the_names_and_adds_no_structure(results, tmp_path, capsys):
    texts = [printed(capsys, "table", str(results), "--format", "md")]
    printed(capsys, "leaderboard", str(results), "--out", str(tmp_path / "L.md"))
    texts.append((tmp_path / "L.md").read_text(encoding="utf-8"))
    for text in texts:
        assert not RAW.search(text)
        html = MarkdownIt("commonmark").enable("table").render(text)
        read = Words(html)
        assert any(SHOWN in words for words in read.words)
        assert not {"blink", "img", "script"} & set(read.tags)


def test_html_shows_the_names_and_adds_no_tag(results, tmp_path, capsys):
    pages = [printed(capsys, "table", str(results), "--format", "html")]
    site = tmp_path / "site"
    printed(
        capsys, "leaderboard", str(results), "--out", str(tmp_path / "L.md"), "--site", str(site)
    )
    files = sorted(site.rglob("*.html"))
    assert len(files) > 6  # boards, victims, what was run, attacks, and the runs of each row
    pages += [path.read_text(encoding="utf-8") for path in files]
    for page in pages:
        assert not RAW.search(page)
        assert "blink" not in Words(page).tags
    assert sum(any("[/dog] $a_b^c$" in w for w in Words(page).words) for page in pages) >= 3


def test_latex_is_plain_text_of_characters_that_it_can_print(results, capsys):
    out = printed(capsys, "table", str(results), "--format", "latex")
    assert r"[/dog] \$a\_b\textasciicircum{}c\$ \textbackslash{}frac\{" in out.replace("{[}", "[")
    assert "U+732B" in out
    assert "猫" not in out


def test_no_cell_of_csv_begins_a_formula_and_numbers_stay_numbers(results, capsys):
    rows = list(csv.reader(io.StringIO(printed(capsys, "table", str(results), "--format", "csv"))))
    assert any(f"'{FORMULA}" in row for row in rows)
    for cell in (cell for row in rows for cell in row):
        if cell[:1] in "=+-@":
            float(cell or 0)
    assert any(cell.startswith("-") for row in rows for cell in row)  # delta MAP is a number


@pytest.mark.parametrize(
    "text", ["-1+cmd|x", "=1", "+1+1", "@SUM(1)", " =1", "\t=1", "(=1)", "＝1"]
)
def test_words_that_a_spreadsheet_would_compute_get_an_apostrophe(text):
    assert for_csv(text).startswith("'")


@pytest.mark.parametrize(
    "text", ["-1", "-1.5", "+2.0", "-1e-05", "-1.0 to 2.0", "-1.5 ± 0.2", "a=1"]
)
def test_numbers_and_words_stay_as_they_are_in_csv(text):
    assert for_csv(text) == text


def test_figures_of_nasty_names_are_drawn_and_their_captions_escaped(results, tmp_path, capsys):
    out = tmp_path / "figures"
    words = ["figure", "gains", str(results), "--out", str(out), "--format", "png,pdf"]
    assert main(words) == 0
    assert "Glyph" not in capsys.readouterr().err
    caption = (out / "gains.md").read_text(encoding="utf-8")
    assert not RAW.search(caption)
    assert "<blink>" not in caption


def test_a_suite_s_name_can_not_leave_the_folder_of_figures(results, tmp_path, capsys):
    index = results / "index.csv"
    rows = index.read_text(encoding="utf-8").replace("quick,", "../../x,")
    index.write_text(rows, encoding="utf-8", newline="")
    main(["figure", "--all", str(results), "--out", str(tmp_path / "a" / "b")])
    assert all(path.is_relative_to(tmp_path / "a" / "b") for path in tmp_path.rglob("*gains*"))
    assert list((tmp_path / "a" / "b").glob("*gains.png"))


def test_a_leaderboard_of_a_suite_whose_name_is_escaped_is_verified(results, tmp_path, capsys):
    folder = results.rename(results.with_name("my_suite"))
    index = folder / "index.csv"
    text = index.read_text(encoding="utf-8").replace("quick,", "my_suite,")
    index.write_text(text, encoding="utf-8", newline="")
    board = folder / "LEADERBOARD.md"
    words = ["leaderboard", str(folder), "--suite", "my_suite", "--out", str(board)]
    assert main(words) == 0
    assert r"## my\_suite" in board.read_text(encoding="utf-8")
    assert main(["verify", str(folder), "--cache-dir", str(tmp_path / "cache")]) in (0, 1)
    assert "LEADERBOARD.md" not in capsys.readouterr().out.split("table", 1)[1].split("\n", 1)[1]


@pytest.mark.parametrize("name", ["../x", "/etc/x", ".", "..", "", "a\0b", "x" * 999, "a/b\\c:d\n"])
def test_a_name_of_a_file_is_one_part_of_a_path(name, tmp_path):
    found = for_file_name(name)
    assert (tmp_path / found).parent == tmp_path
    assert (tmp_path / found).resolve().parent == tmp_path.resolve()
    (tmp_path / found).write_text("", encoding="utf-8")


def test_json_lines_are_ascii_whatever_they_hold(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    images(tmp_path / "images", ["cat", "猫\u202e"])
    assert main([*run_of(tmp_path), "--target", "猫\u202e", "--json"]) == 0
    out, _ = capsys.readouterr()
    assert out.isascii()
    assert [json.loads(line)["event"] for line in out.splitlines()][-1] == "result"


@pytest.mark.parametrize(
    "name",
    ["dog [other]", "[/dog]", "Ba$$in", "a_b^c", "\\frac", "100 % &", "猫", "犬と猫", "قط", "😀"],
)
def test_a_run_with_such_a_class_shows_its_name_everywhere(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    images(tmp_path / "images", ["cat", name.replace("/", "\u2215")])
    target = name.replace("/", "\u2215")
    assert main([*run_of(tmp_path), "--target", target, "-q"]) == 0
    out, err = capsys.readouterr()
    assert f"target {target!r}" in " ".join(out.split())
    assert "Glyph" not in err
    assert len(list(tmp_path.rglob("poison.png"))) == 1


def images(folder: Path, classes: list[str]) -> None:
    rng = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


def run_of(folder: Path) -> list[str]:
    places = {"root": "images", "results-dir": "results", "cache-dir": "cache"}
    words = [w for name, place in places.items() for w in (f"--{name}", str(folder / place))]
    small = ["--attack", "badnets", "--dataset", "folder", "--size", "32", "--bits", "8"]
    return ["run", *small, "--epochs", "1", *words]


class Words(HTMLParser):
    """The words and the tags of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.words.append(" ".join(data.split()))


# ---- one way to each ----------------------------------------------------------------------------


def calls(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


def test_only_the_terminal_s_module_prints():
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name in ("terminal.py", "make_fashion_mini.py"):
            continue
        assert not {"print", "click.echo", "Console", "sys.stdout.write"} & calls(path), path


def test_every_figure_is_made_legible_before_it_is_saved():
    savers = [path for path in (PACKAGE / "report").rglob("*.py") if "figure.savefig" in calls(path)
              or "self.figure.savefig" in calls(path)]  # fmt: skip
    assert len(savers) == 2
    assert all("legible" in calls(path) for path in savers)


# ---- text ---------------------------------------------------------------------------------------


def test_visible_text_has_no_control_character_and_keeps_letters():
    assert visible(NASTY) == SHOWN.replace("\\u202e x", "\\u202e  x")
    assert one_line(NASTY) == SHOWN
    assert visible("\u200c\u200d é") == "\u200c\u200d é"
    for code in (*range(32), *range(0x7F, 0xA0), 0x2028, 0x202E, 0x2066, 0xD800, 0xE000, 0xFEFF):
        assert visible(chr(code)).isprintable()


def test_a_long_value_is_cut_and_its_length_told():
    assert quoted("x" * 26400) == "'" + "x" * 79 + "… (26402 characters)"
    assert quoted(10**5000) == "a int that is too large to be shown"
    assert len(listed(map(str, range(10**5)))) < 500
    assert listed(["a", "b"]) == "a, b"
    text = sentence("begin " + "word " * 9999 + "the end")
    assert len(text) < 1100
    assert text.startswith("begin")
    assert text.endswith("the end")
    assert len(str(UserError("y" * 10**6))) < 200


@pytest.mark.parametrize(
    "words",
    [
        ["table", "RESULTS", "--where", "path=x"],
        ["table", "RESULTS", "--where", "x" * 9999],
        ["run", "--backbone", "b" * 26400],
        ["run", "--set", "s" * 26400],
        ["run", "--target", "t" * 26400],
        ["run", "--attack", "a" * 26400],
        ["suite", "plan", "p" * 26400],
        ["data", "prepare", "d" * 26400],
        ["run", "--weights", "w" * 26400],
        ["run", "--recipe", "r\x1b[2J" * 999],
    ],
)
def test_no_error_echoes_pages(words, results, capsys):
    printed_words = [str(results) if word == "RESULTS" else word for word in words]
    assert main(printed_words) == 2
    err = capsys.readouterr().err
    assert len(err) < 1200
    assert not RAW.search(err)


# ---- streams ------------------------------------------------------------------------------------


def run_in(
    environment: dict[str, str], *words: str, cwd: Path
) -> "subprocess.CompletedProcess[bytes]":
    base = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "LC_", "LANG"))}
    return subprocess.run(
        [*BENCH, *words], capture_output=True, env={**base, **environment}, cwd=cwd, check=False
    )


POSIX = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize(
    ("environment", "layout", "encoding"),
    [(POSIX, "pairs", "ascii"), ({"PYTHONIOENCODING": "cp1252"}, "leaderboard", "cp1252")],
)
def test_what_a_process_can_not_show_is_written_in_its_encoding(
    results, environment, layout, encoding
):
    done = run_in(environment, "table", str(results), "--layout", layout, cwd=results.parent)
    assert done.returncode == 0, done.stderr
    assert_readable(done.stdout.decode(encoding), encoding)


def assert_readable(out: str, encoding: str) -> None:
    assert "\\u732b" in out
    between = r"\+-" if encoding == "ascii" else "±"
    assert re.search(rf"\d *{between} *\d", out)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
@pytest.mark.parametrize("layout", ["pairs", "leaderboard"])
def test_what_a_stream_can_not_show_is_written_in_its_encoding(
    results, encoding, layout, monkeypatch
):
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(["table", str(results), "--layout", layout]) == 0
    stream.flush()
    assert_readable(stream.buffer.getvalue().decode(encoding), encoding)


def test_in_a_posix_locale_arguments_and_files_are_utf_8(tmp_path):
    images(tmp_path / "猫", ["cat", "犬"])
    words = [w.replace("images", "猫") for w in run_of(tmp_path)]
    done = run_in(POSIX, *words, "--target", "犬", "-q", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "'\\u72ac'" in done.stdout.decode("ascii")


def test_help_is_ascii_so_every_stream_shows_it(capsys):
    for words in (
        [],
        ["run"],
        ["suite", "run"],
        ["table"],
        ["figure"],
        ["leaderboard"],
        ["verify"],
    ):
        main([*words, "--help"])
        assert capsys.readouterr().out.isascii()


def test_a_closed_pipe_and_a_full_disk_end_quietly(tmp_path):
    command = f"{sys.executable} -m hashbackdoor_bench list attacks"
    pipe = f"set -o pipefail; ({command}; echo rc $? >&2) | true"
    done = subprocess.run(["bash", "-c", pipe], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines() in ([["rc 1"], ["rc 0"]])
    full = subprocess.run(
        ["bash", "-c", f"{command} > /dev/full"], capture_output=True, text=True, check=False
    )
    assert (full.returncode, full.stderr.count("\n")) == (2, 1)
    assert "No space left on device" in full.stderr


@pytest.mark.parametrize("words", [["--recipe", ""], ["--backbone="], ["--surrogate", " "],
                                   ["--root", ""], ["--weights="], ["--target", ""]])  # fmt: skip
def test_an_empty_word_is_not_taken_as_not_given(words, capsys):
    assert main(["run", *words]) == 2
    assert f"{words[0].rstrip('=')} is empty" in capsys.readouterr().err
