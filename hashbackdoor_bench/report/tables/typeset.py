"""A table as text, Markdown, LaTeX, CSV or HTML; what comes from records is escaped for each."""

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from html import escape

from rich.table import Table as RichTable
from rich.text import Text

from hashbackdoor_bench.report.spelling import NOTHING
from hashbackdoor_bench.report.tables.parts import FACTS, Cell, Line, Table

Writer = Callable[[Sequence[Table]], str]

# A backslash before what begins a structure; entities for what GitHub reads before Markdown.
MARKDOWN: dict[str, str] = {c: f"\\{c}" for c in "\\`*_[]~"} | {
    "&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;", "$": "&#36;",
}  # fmt: skip

TEXT = {
    "\\": "backslash", "^": "asciicircum", "~": "asciitilde", "<": "less", ">": "greater",
    "|": "bar", '"': "quotedbl", "–": "endash", "—": "emdash", "‘": "quoteleft", "’": "quoteright",
    "“": "quotedblleft", "”": "quotedblright", "…": "ellipsis",
}  # fmt: skip
MATH = {
    "±": "pm", "×": "times", "≤": "leq", "≥": "geq", "≠": "neq", "→": "to", "α": "alpha",
    "β": "beta", "ε": "varepsilon", "λ": "lambda", "μ": "mu", "σ": "sigma", "Δ": "Delta",
}  # fmt: skip
# What LaTeX reads as a command, or doesn't print as it stands.
LATEX = {
    **{c: f"\\{c}" for c in "#$%&_{}"},
    **{c: rf"\text{name}{{}}" for c, name in TEXT.items()},
    **{c: rf"\ensuremath{{\{name}}}" for c, name in MATH.items()},
    **{"−": r"\ensuremath{-}", "[": "{[}", "*": "{*}"},  # [ or * after \\ would be its argument
}
# The letters that it reads in UTF-8 and has in T1 fonts; others are written as code points.
LETTERS = "[ -~À-ÖØ-öø-ÿĂăĄąĆćČčĎďĐđĘęĚěĞğİıŁłŃńŇňŐőŒœŔŕŘřŚśŞşŠšŢţŤťŮůŰűŸŹźŻżŽž]"
LIGATURE = "(?<=[-'`,!?])(?=[-'`,])"  # between two signs that T1 fonts join: -- becomes a dash

SHRUNK = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"  # to the line


def plain(text: str) -> str:
    """One line without control characters, which could end a row or move a terminal's cursor."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def text(table: Table) -> RichTable:
    """For a terminal."""
    starred = any(c.best for block in table.blocks for line in block.lines for c in line.cells)
    caption = [*table.caption, *(["* is bold where there is no bold."] if starred else [])]
    made = RichTable(
        title=Text(plain(table.title)),
        caption=Text("\n".join(map(plain, caption))),
        title_justify="left",
        caption_justify="left",
    )
    made.add_column(Text(table.corner), no_wrap=True)
    for column in table.columns:
        made.add_column(Text(plain(column)), justify="right", no_wrap=True)
    for block in table.blocks:
        if block.title:
            made.add_row(Text(plain(block.title), style="italic"))
        for line in block.lines:
            cells = (
                Text(f"{plain(c.text)} *", style="bold") if c.best else Text(plain(c.text))
                for c in line.cells
            )
            made.add_row(Text(plain(line.head)), *cells, style="dim" if line.published else None)
        made.add_section()
    return made


def markdown(tables: Sequence[Table]) -> str:
    """For GitHub: a heading, a table with a row for the title of every block, the caption."""
    return "\n".join(line for table in tables for line in _markdown(table))


def _markdown(table: Table) -> Iterator[str]:
    def row(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cells)} |"

    blank = [""] * len(table.columns)
    yield from (f"### {_md(table.title)}", "")
    yield row([_md(table.corner), *map(_md, table.columns)])
    yield row(["---", *["---:"] * len(table.columns)])
    for block in table.blocks:
        if block.title:
            yield row([f"*{_md(block.title)}*", *blank])
        for line in block.lines:
            cells = (f"**{_md(c.text)}**" if c.best else _md(c.text) for c in line.cells)
            yield row([_md(line.head), *cells])
    yield from ("", _md(" ".join(table.caption)), "")


def _md(value: str) -> str:
    return "".join(MARKDOWN.get(c, c) for c in plain(value))


def latex(tables: Sequence[Table]) -> str:
    """``table`` environments with booktabs' rules."""
    needs = r"% needs \usepackage[T1]{fontenc} and \usepackage{booktabs,graphicx}"
    return "\n".join([needs, *(line for table in tables for line in _latex(table))])


def _latex(table: Table) -> Iterator[str]:
    def row(cells: Sequence[str]) -> str:
        return " & ".join(cells) + r" \\"

    width = len(table.columns)
    yield from (r"\begin{table}", r"\centering\footnotesize")
    yield rf"\caption{{{_tex(table.title)}. {_tex(' '.join(table.caption))}}}"
    yield SHRUNK
    yield from (rf"\begin{{tabular}}{{l*{{{width}}}{{r}}}}", r"\toprule")
    yield row([_tex(table.corner), *map(_tex, table.columns)])
    for block in table.blocks:
        yield r"\midrule"
        if block.title:
            yield rf"\multicolumn{{{width + 1}}}{{l}}{{\emph{{{_tex(block.title)}}}}} \\"
        ours = True
        for line in block.lines:
            if ours and line.published:
                yield r"\addlinespace"
            ours = not line.published
            yield row([_tex(line.head), *map(_tex_cell, line.cells)])
    yield from (r"\bottomrule", r"\end{tabular}}", r"\end{table}", "")


def _tex_cell(cell: Cell) -> str:
    value = _tex(re.sub(r"(?<!\w)-(?=\d)", "−", cell.text))
    return rf"\textbf{{{value}}}" if cell.best else value


def _tex(value: str) -> str:
    made = (
        LATEX.get(c) or (c if re.match(LETTERS, c) else f"U+{ord(c):04X}") for c in plain(value)
    )
    return re.sub(LIGATURE, "{}", "".join(made))


def tidy(tables: Sequence[Table]) -> str:
    """CSV, a line a cell that has something; numbers are not rounded."""
    file = io.StringIO()
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(
        ("table", "block", "row", "column", "mean", "deviation", "n", "best", "text", *FACTS)
    )
    for table in tables:
        for block in table.blocks:
            for line in block.lines:
                for column, cell in zip(table.columns, line.cells, strict=True):
                    if cell.mean is None and cell.text == NOTHING:
                        continue
                    place = (table.title, block.title, line.head, column)
                    numbers = (cell.mean, cell.deviation, cell.n or None, cell.best)
                    words = (cell.text if cell.mean is None else "", *_facts(line))
                    rows.writerow((*map(_csv, place), *numbers, *map(_csv, words)))
    return file.getvalue()


def _facts(line: Line) -> list[str]:
    return [line.facts.get(name, "") for name in FACTS]


def _csv(value: str) -> str:
    """Words that a spreadsheet would take for a formula get an apostrophe before them."""
    value = plain(value)
    return f"'{value}" if re.match(r"[=@]|[+-](?!\d)", value) else value


def html(tables: Sequence[Table]) -> str:
    """A fragment that stands for itself: no style sheet, no script, no link."""
    return "\n".join(line for table in tables for line in _html(table)) + "\n"


def _html(table: Table) -> Iterator[str]:
    right = ' style="text-align: right"'
    yield "<figure>"
    yield f"<table>\n<caption>{_ht(table.title)}</caption>"
    heads = "".join(f'<th scope="col"{right}>{_ht(column)}</th>' for column in table.columns)
    yield f'<thead><tr><th scope="col">{_ht(table.corner)}</th>{heads}</tr></thead>'
    for block in table.blocks:
        yield "<tbody>"
        if block.title:
            span = len(table.columns) + 1
            title = f"<em>{_ht(block.title)}</em>"
            yield f'<tr><th scope="rowgroup" colspan="{span}">{title}</th></tr>'
        for line in block.lines:
            kind = ' class="published"' if line.published else ""
            texts = (
                f"<strong>{_ht(cell.text)}</strong>" if cell.best else _ht(cell.text)
                for cell in line.cells
            )
            cells = "".join(f"<td{right}>{text}</td>" for text in texts)
            yield f'<tr{kind}><th scope="row">{_ht(line.head)}</th>{cells}</tr>'
        yield "</tbody>"
    yield f"</table>\n<figcaption>{_ht(' '.join(table.caption))}</figcaption>\n</figure>"


def _ht(value: str) -> str:
    return escape(plain(value))


WRITERS: dict[str, Writer] = {"md": markdown, "latex": latex, "csv": tidy, "html": html}
