import csv
import html.parser
import io
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from hashbackdoor_bench import UserError
from hashbackdoor_bench.report.tables.latex_tables import latex
from hashbackdoor_bench.report.tables.parts import Block, Cell, Line, Table
from hashbackdoor_bench.report.tables.typeset import html as to_html
from hashbackdoor_bench.report.tables.typeset import markdown, rich_table, tidy

NASTY = [
    "a & b_c % d # e $x$ {y} ~ ^ \\input{/etc/passwd}",
    "<script>alert(1)</script>",
    "</table> | `code` *b* _i_ [l](javascript:x) &amp;",
    "quote \" ' \\\\ [8pt] \\",
    "[8pt] at the start",
    "* at the start",
    "[red]rich[/red]",
    "two\nlines\r\nand\ttabs \x1b[31m \u2028 \u202e",
    "ε = 2 ± 1 − é ą Ж 中 😀 Δ ≥",
    "=1+1",
    "-- # not a heading",
    "",
]


def nasty() -> Table:
    lines = [
        Line(name, (Cell("77.7 ± 1.2", 77.7, 1.2, 3, best=True), Cell(name))) for name in NASTY
    ]
    lines.append(Line("theirs", (Cell("8.52", 8.52), Cell("–")), {"source": "x"}, from_paper=True))
    blocks = tuple(Block(name, tuple(lines)) for name in NASTY[:3])
    return Table(NASTY[0], NASTY[1], (NASTY[2], NASTY[4]), blocks, tuple(NASTY))


def clean(value: str) -> str:
    """What a reader shall see of a text: one line, control characters as Python's escapes."""
    for raw, shown in {"\x1b": "\\x1b", "\u202e": "\\u202e"}.items():
        value = value.replace(raw, shown)
    return " ".join(value.split())


class Reader(html.parser.HTMLParser):
    """Rows of a page, and every tag of it."""

    WANTED: ClassVar = {"figure", "table", "caption", "thead", "tbody", "tr", "th", "td"}

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.rows: list[list[str]] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.captions: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag in ("caption", "figcaption", "h3", "p"):
            self.captions.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data
        elif {"caption", "figcaption", "h3", "p"} & set(self.open):
            self.captions[-1] += data


def expected() -> list[list[str]]:
    """The rows of `nasty` below its head, as a reader shall see them."""
    rows = []
    for title in NASTY[:3]:
        rows.append([clean(title)])
        rows += [[clean(name), "77.7 ± 1.2", clean(name)] for name in NASTY]
        rows.append(["theirs", "8.52", "–"])
    return rows


def test_html_shows_every_text_as_it_is_and_adds_no_tag():
    page = Reader(to_html([nasty()]))
    assert page.rows[0] == [clean(NASTY[1]), clean(NASTY[2]), clean(NASTY[4])]
    assert page.rows[1:] == expected()
    assert set(page.tags) == Reader.WANTED | {"em", "strong", "figcaption"}
    assert page.open == []
    assert page.captions == [clean(NASTY[0]), clean(" ".join(map(clean, NASTY)))]
    assert page.tags.count("strong") == 3 * len(NASTY)


def test_markdown_shows_every_text_as_it_is_and_adds_no_structure():
    rendered = MarkdownIt("commonmark").enable("table").render(markdown([nasty()]))
    page = Reader(rendered)
    assert page.rows[0] == [clean(NASTY[1]), clean(NASTY[2]), clean(NASTY[4])]
    filled = [[row[0]] if row[1:] == ["", ""] else row for row in page.rows[1:]]
    assert filled == expected()
    assert set(page.tags) == {
        "h3",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "em",
        "strong",
        "p",
    }
    assert page.captions == [clean(NASTY[0]), clean(" ".join(map(clean, NASTY)))]


def test_csv_is_tidy_and_starts_no_formula():
    file = tidy([nasty()])
    rows = list(csv.DictReader(io.StringIO(file)))
    assert len({tuple(row) for row in rows}) == 1
    assert len(rows) == 3 * (2 * len(NASTY) + 1)  # the dash is no row
    first = rows[0]
    assert (first["mean"], first["deviation"], first["n"]) == ("77.7", "1.2", "3")
    assert (first["best"], first["text"], first["row"]) == ("True", "", clean(NASTY[0]))
    formula = next(row for row in rows if "1+1" in row["row"])
    assert formula["row"] == "'=1+1"
    for row in rows:
        assert not any(re.match(r"[=@]|[+-]\D", value) for value in row.values())
    (theirs,) = [row for row in rows if row["row"] == "theirs" and row["block"] == clean(NASTY[0])]
    assert (theirs["source"], theirs["mean"], theirs["n"]) == ("x", "8.52", "")


def test_numbers_of_the_csv_keep_their_sign_and_digits():
    cells = (Cell("-1.2 ± 0.3", -1.23456789, 0.3, 2), Cell("-1.2 to 3.4"))
    table = Table("t", "c", ("gain", "interval"), (Block("", (Line("x", cells),)),), ())
    rows = list(csv.DictReader(io.StringIO(tidy([table]))))
    assert [row["mean"] for row in rows] == ["-1.23456789", ""]
    assert rows[1]["text"] == "-1.2 to 3.4"


def test_text_shows_labels_without_reading_markup_or_escapes():
    console = Console(width=1000, file=io.StringIO(), force_terminal=False)
    console.print(rich_table(nasty()))
    shown = console.file.getvalue()
    assert shown.count("[red]rich[/red]") == 3 * 2 + 1
    assert "\x1b" not in shown
    assert "77.7 ± 1.2 *" in shown
    assert "* marks what would be bold in print." in shown
    for line in shown.splitlines():
        assert clean(line) == " ".join(line.split())


def rows_of(source: str) -> list[str]:
    body = source.split(r"\toprule", 1)[1].split(r"\bottomrule", 1)[0]
    return [line for line in body.splitlines() if line.endswith(r"\\")]


def test_latex_rows_have_as_many_cells_as_columns():
    source = latex([nasty()])
    for row in rows_of(source):
        columns = len(re.findall(r"(?<!\\)&", row)) + 1
        assert columns == (1 if row.startswith(r"\multicolumn{3}") else 3), row
    assert source.count(r"\begin{table}") == source.count(r"\end{table}") == 1
    assert source.count(r"\begin{tabular}") == source.count(r"\end{tabular}}") == 1
    assert r"\textbf{77.7 $\pm$ 1.2}" in source


FORMULA = re.compile(r"\$(\\[A-Za-z]+|-)\$")  # signs that only a formula has


def without_comments(source: str) -> str:
    return "\n".join(line for line in source.splitlines() if not line.startswith("%"))


def test_latex_lets_no_character_of_a_label_through_as_a_command():
    source = without_comments(latex([nasty()], [r"A \emph{caption} with 5\,\% of $x$."]))
    assert (
        r"\caption{A \emph{caption} with 5\,\% of $x$.}" in source
    )  # the user's own r"\input" not in source.replace(r"{\textbackslash}input", "")
    assert "<" not in source
    for line in rows_of(source):
        assert not re.match(r"[\[*]", line), line  # would be an argument of \\
        assert not re.search(r"(?<!\\)[#$]|(?<!\\)%|\^\^", FORMULA.sub("", line)), line
    assert max(source) < "\u0250"
    assert "U+4E2D" in source


def test_letters_stay_and_signs_that_tex_would_join_are_kept_apart():
    names = ("café Łódź", "a--b---c", "``d'' ?` it's x-1", "naïve — “Δ” … ₿", "~{y}^2")
    table = Table("t", "c", (), (Block("", tuple(Line(name, ()) for name in names)),), ())
    assert [row.removesuffix(r" \\") for row in rows_of(latex([table]))[1:]] == [
        "café Łódź",
        "a-{}-b-{}-{}-c",
        "`{}`d'{}' ?{}` it's x-1",
        r"naïve \textemdash{} \textquotedblleft{}$\Delta$\textquotedblright{} "
        r"\textellipsis{} U+20BF",
        r"\textasciitilde{}\{y\}\textasciicircum{}2",
    ]


def test_negative_numbers_have_a_minus_and_words_keep_their_hyphens():
    cells = (Cell("-1.2 ± 0.3", -1.2, 0.3, 2), Cell("clean-label"))
    table = Table("t", "c", ("a", "b"), (Block("", (Line("x-1", cells),)),), ())
    source = latex([table])
    assert r"x-1 & $-$1.2 $\pm$ 0.3 & clean-label \\" in source


def small(columns: int, *cells: Cell, **more: Any) -> Table:
    heads = tuple(f"c{number}" for number in range(columns))
    return Table(
        "Title", "corner", heads, (Block("", (Line("row", cells),)),), ("Commit abc.",), **more
    )


@pytest.mark.parametrize("given", ["a } b {", "a {b", "a}", "50 % of it", "ends \\", "{\\}"])
def test_a_caption_that_would_swallow_what_follows_is_refused(given: str):
    with pytest.raises(UserError, match="LaTeX would read on behind it"):
        latex([nasty()], [given])


@pytest.mark.parametrize("given", ["a {b {c}}", r"\{ 50\,\% \}", r"$x_{1}$", r"a \\ b"])
def test_a_caption_may_hold_commands_and_escaped_letters(given: str):
    assert rf"\caption{{{given}}}" in without_comments(latex([nasty()], [given]))


def test_the_caption_is_brief_and_the_rest_is_a_comment():
    source = latex([small(1, Cell("7.0 ± 1.0", 7, 1, 3, best=True), brief="Mean ± s.d.")])
    assert r"\caption{Title. Mean $\pm$ s.d. Bold: significantly best.}" in source
    assert "% Title. Commit abc." in source.splitlines()
    assert "Commit" not in without_comments(source)
    assert "Bold" not in latex([small(1, Cell("7.0 ± 1.0", 7, 1, 3))])


def test_an_unusual_number_of_runs_is_raised_and_single_runs_alone_are_not():
    single, pair = Cell("7.0 (n = 1)", 7, None, 1), Cell("8.0 (70.0; n = 1)", 8, None, 1)
    usual = Cell("9.0 ± 1.0", 9, 1, 3)
    source = latex([small(3, single, pair, usual)])
    raised = r"\textsuperscript{$n$=1}"
    assert rf"row & 7.0{raised} & 8.0 (70.0){raised} & 9.0 $\pm$ 1.0 \\" in source
    assert r"row & 7.0 & 8.0 (70.0) \\" in latex([small(2, single, pair)])
    word = Cell("an attack (n = 1)")  # no number: the text is someone's name
    assert "row & an attack (n = 1) & 9.0" in latex([small(2, word, usual)])


def test_columns_in_groups_have_their_group_above_them():
    cells = (Cell("1"), Cell("2"), Cell("3"))
    table = small(3, *cells, over=("HashNet", "HashNet", "CSQ & co"))
    source = latex([table])
    assert (
        r" & \multicolumn{2}{c}{HashNet} & \multicolumn{1}{c}{CSQ \& co} \\" + "\n"
        r"\cmidrule(lr){2-3} \cmidrule(lr){4-4}" + "\n"
        r"corner & c0 & c1 & c2 \\"
    ) in source
    heads = ["HashNet, c0", "HashNet, c1", "CSQ & co, c2"]
    assert Reader(to_html([table])).rows[0] == ["corner", *heads]
    assert [row["column"] for row in csv.DictReader(io.StringIO(tidy([table])))] == heads


def test_a_wide_table_spans_both_columns_of_a_paper():
    assert r"\begin{table}" in latex([small(3)])
    wide = latex([small(4)])
    assert wide.count(r"\begin{table*}") == wide.count(r"\end{table*}") == 1


def test_every_table_takes_a_caption_and_a_label_of_its_own():
    source = latex([small(1), small(1)], ["One\n\ntwo.", "Three."], ["tab:a", "tab:b"])
    assert r"\caption{One two.}\label{tab:a}" in source
    assert r"\caption{Three.}\label{tab:b}" in source
    with pytest.raises(UserError, match="--caption is given 1 times, and these records make 2"):
        latex([small(1), small(1)], ["One."])
    with pytest.raises(UserError, match="--label 'a}b'"):
        latex([small(1)], (), ["a}b"])


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no TeX on this machine")
def test_latex_compiles(tmp_path: Path):
    # booktabs and graphicx may be missing beside a bare TeX: their commands stand in for them
    preamble = (
        r"\documentclass{article}\usepackage[T1]{fontenc}"
        r"\IfFileExists{booktabs.sty}{\usepackage{booktabs}}{\let\toprule\hline"
        r"\let\midrule\hline\let\bottomrule\hline\let\addlinespace\relax"
        r"\def\cmidrule(##1)##2{}}"
        r"\IfFileExists{graphicx.sty}{\usepackage{graphicx}}{\newcommand\resizebox[3]{#3}}"
    )
    rows = (Line("".join(map(chr, range(n, n + 128))), ()) for n in range(0, 0x2300, 128))
    body = latex(
        [
            nasty(),
            small(4, *[Cell("1 ± 1")] * 4, over=("a", "a", "b", "b")),
            Table("characters", "c", (), (Block("", tuple(rows)),), ()),
        ]
    )
    (tmp_path / "t.tex").write_text(f"{preamble}\\begin{{document}}\n{body}\\end{{document}}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
