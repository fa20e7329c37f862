"""A table as text, Markdown, LaTeX, CSV or HTML; what comes from records is escaped for each."""

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from html import escape

from rich.table import Table as RichTable
from rich.text import Text

from hashbackdoor_bench.report.formatting import NOTHING
from hashbackdoor_bench.report.tables.parts import LINE_FACTS, Cell, Line, Table

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


def one_line(text: str) -> str:
    """One line without control characters, which could end a row or move a terminal's cursor."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def rich_table(table: Table) -> RichTable:
    """For a terminal."""
    starred = any(c.best for block in table.blocks for line in block.lines for c in line.cells)
    caption = [*table.caption, *(["* marks what would be bold in print."] if starred else [])]
    made = RichTable(
        title=Text(one_line(table.title)),
        caption=Text("\n".join(map(one_line, caption))),
        title_justify="left",
        caption_justify="left",
    )
    made.add_column(Text(table.corner), no_wrap=True)
    for column in table.columns:
        made.add_column(Text(one_line(column)), justify="right", no_wrap=True)
    for block in table.blocks:
        if block.title:
            made.add_row(Text(one_line(block.title), style="italic"))
        for line in block.lines:
            cells = (
                Text(f"{one_line(c.text)} *", style="bold") if c.best else Text(one_line(c.text))
                for c in line.cells
            )
            made.add_row(
                Text(one_line(line.head)), *cells, style="dim" if line.from_paper else None
            )
        made.add_section()
    return made


def markdown(tables: Sequence[Table]) -> str:
    """For GitHub: a heading, a table with a row for the title of every block, the caption."""
    return "\n".join(line for table in tables for line in _markdown(table))


def _markdown(table: Table) -> Iterator[str]:
    def row(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cells)} |"

    blank = [""] * len(table.columns)
    yield from (f"### {_for_markdown(table.title)}", "")
    yield row([_for_markdown(table.corner), *map(_for_markdown, table.columns)])
    yield row(["---", *["---:"] * len(table.columns)])
    for block in table.blocks:
        if block.title:
            yield row([f"*{_for_markdown(block.title)}*", *blank])
        for line in block.lines:
            cells = (
                f"**{_for_markdown(c.text)}**" if c.best else _for_markdown(c.text)
                for c in line.cells
            )
            yield row([_for_markdown(line.head), *cells])
    yield from ("", _for_markdown(" ".join(table.caption)), "")


def _for_markdown(value: str) -> str:
    return "".join(MARKDOWN.get(c, c) for c in one_line(value))


def latex(tables: Sequence[Table]) -> str:
    """``table`` environments with booktabs' rules."""
    needs = r"% needs \usepackage[T1]{fontenc} and \usepackage{booktabs,graphicx}"
    return "\n".join([needs, *(line for table in tables for line in _latex(table))])


def _latex(table: Table) -> Iterator[str]:
    def row(cells: Sequence[str]) -> str:
        return " & ".join(cells) + r" \\"

    width = len(table.columns)
    yield from (r"\begin{table}", r"\centering\footnotesize")
    yield rf"\caption{{{_for_latex(table.title)}. {_for_latex(' '.join(table.caption))}}}"
    yield SHRUNK
    yield from (rf"\begin{{tabular}}{{l*{{{width}}}{{r}}}}", r"\toprule")
    yield row([_for_latex(table.corner), *map(_for_latex, table.columns)])
    for block in table.blocks:
        yield r"\midrule"
        if block.title:
            yield rf"\multicolumn{{{width + 1}}}{{l}}{{\emph{{{_for_latex(block.title)}}}}} \\"
        ours = True
        for line in block.lines:
            if ours and line.from_paper:
                yield r"\addlinespace"
            ours = not line.from_paper
            yield row([_for_latex(line.head), *map(_latex_cell, line.cells)])
    yield from (r"\bottomrule", r"\end{tabular}}", r"\end{table}", "")


def _latex_cell(cell: Cell) -> str:
    value = _for_latex(re.sub(r"(?<!\w)-(?=\d)", "−", cell.text))
    return rf"\textbf{{{value}}}" if cell.best else value


def _for_latex(value: str) -> str:
    made = (
        LATEX.get(c) or (c if re.match(LETTERS, c) else f"U+{ord(c):04X}") for c in one_line(value)
    )
    return re.sub(LIGATURE, "{}", "".join(made))


def tidy(tables: Sequence[Table]) -> str:
    """CSV with one line per cell that has something; numbers are not rounded."""
    file = io.StringIO()
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(
        ("table", "block", "row", "column", "mean", "deviation", "n", "best", "text", *LINE_FACTS)
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
                    rows.writerow((*map(_for_csv, place), *numbers, *map(_for_csv, words)))
    return file.getvalue()


def _facts(line: Line) -> list[str]:
    return [line.facts.get(name, "") for name in LINE_FACTS]


def _for_csv(value: str) -> str:
    """Words that a spreadsheet would take for a formula get an apostrophe before them."""
    value = one_line(value)
    return f"'{value}" if re.match(r"[=@]|[+-](?!\d)", value) else value


def html(tables: Sequence[Table]) -> str:
    """A fragment that stands for itself: no style sheet, no script, no link."""
    return "\n".join(line for table in tables for line in _html(table)) + "\n"


def _html(table: Table) -> Iterator[str]:
    right = ' style="text-align: right"'
    yield "<figure>"
    yield f"<table>\n<caption>{_for_html(table.title)}</caption>"
    heads = "".join(f'<th scope="col"{right}>{_for_html(column)}</th>' for column in table.columns)
    yield f'<thead><tr><th scope="col">{_for_html(table.corner)}</th>{heads}</tr></thead>'
    for block in table.blocks:
        yield "<tbody>"
        if block.title:
            span = len(table.columns) + 1
            title = f"<em>{_for_html(block.title)}</em>"
            yield f'<tr><th scope="rowgroup" colspan="{span}">{title}</th></tr>'
        for line in block.lines:
            kind = ' class="published"' if line.from_paper else ""
            texts = (
                f"<strong>{_for_html(cell.text)}</strong>" if cell.best else _for_html(cell.text)
                for cell in line.cells
            )
            cells = "".join(f"<td{right}>{text}</td>" for text in texts)
            yield f'<tr{kind}><th scope="row">{_for_html(line.head)}</th>{cells}</tr>'
        yield "</tbody>"
    yield f"</table>\n<figcaption>{_for_html(' '.join(table.caption))}</figcaption>\n</figure>"


def _for_html(value: str) -> str:
    return escape(one_line(value))


WRITERS: dict[str, Writer] = {"md": markdown, "latex": latex, "csv": tidy, "html": html}
