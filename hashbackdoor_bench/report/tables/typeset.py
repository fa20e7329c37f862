"""A table as text, Markdown, LaTeX, CSV or HTML; what comes from records is escaped for each."""

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence

from rich.table import Table as RichTable
from rich.text import Text

from hashbackdoor_bench.report.escaping import for_csv, for_html, for_latex, for_markdown, for_rich
from hashbackdoor_bench.report.formatting import NOTHING
from hashbackdoor_bench.report.tables.parts import LINE_FACTS, Cell, Line, Table
from hashbackdoor_bench.text import one_line

Writer = Callable[[Sequence[Table]], str]

SHRUNK = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"  # to the line


def rich_table(table: Table) -> RichTable:
    """For a terminal."""
    starred = any(c.best for block in table.blocks for line in block.lines for c in line.cells)
    caption = [*table.caption, *(["* marks what would be bold in print."] if starred else [])]
    made = RichTable(
        title=for_rich(table.title),
        caption=Text("\n".join(map(one_line, caption))),
        title_justify="left",
        caption_justify="left",
    )
    made.add_column(for_rich(table.corner), no_wrap=True)
    for column in table.columns:
        made.add_column(for_rich(column), justify="right", no_wrap=True)
    for block in table.blocks:
        if block.title:
            made.add_row(for_rich(block.title, "italic"))
        for line in block.lines:
            cells = (
                for_rich(f"{c.text} *", "bold") if c.best else for_rich(c.text) for c in line.cells
            )
            made.add_row(for_rich(line.head), *cells, style="dim" if line.from_paper else None)
        made.add_section()
    return made


def markdown(tables: Sequence[Table]) -> str:
    """For GitHub: a heading, a table with a row for the title of every block, the caption."""
    return "\n".join(line for table in tables for line in _markdown(table))


def _markdown(table: Table) -> Iterator[str]:
    def row(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cells)} |"

    blank = [""] * len(table.columns)
    yield from (f"### {for_markdown(table.title)}", "")
    yield row([for_markdown(table.corner), *map(for_markdown, table.columns)])
    yield row(["---", *["---:"] * len(table.columns)])
    for block in table.blocks:
        if block.title:
            yield row([f"*{for_markdown(block.title)}*", *blank])
        for line in block.lines:
            cells = (
                f"**{for_markdown(c.text)}**" if c.best else for_markdown(c.text)
                for c in line.cells
            )
            yield row([for_markdown(line.head), *cells])
    yield from ("", for_markdown(" ".join(table.caption)), "")


def latex(tables: Sequence[Table]) -> str:
    """``table`` environments with booktabs' rules."""
    needs = r"% needs \usepackage[T1]{fontenc} and \usepackage{booktabs,graphicx}"
    return "\n".join([needs, *(line for table in tables for line in _latex(table))])


def _latex(table: Table) -> Iterator[str]:
    def row(cells: Sequence[str]) -> str:
        return " & ".join(cells) + r" \\"

    width = len(table.columns)
    yield from (r"\begin{table}", r"\centering\footnotesize")
    yield rf"\caption{{{for_latex(table.title)}. {for_latex(' '.join(table.caption))}}}"
    yield SHRUNK
    yield from (rf"\begin{{tabular}}{{l*{{{width}}}{{r}}}}", r"\toprule")
    yield row([for_latex(table.corner), *map(for_latex, table.columns)])
    for block in table.blocks:
        yield r"\midrule"
        if block.title:
            yield rf"\multicolumn{{{width + 1}}}{{l}}{{\emph{{{for_latex(block.title)}}}}} \\"
        ours = True
        for line in block.lines:
            if ours and line.from_paper:
                yield r"\addlinespace"
            ours = not line.from_paper
            yield row([for_latex(line.head), *map(_latex_cell, line.cells)])
    yield from (r"\bottomrule", r"\end{tabular}}", r"\end{table}", "")


def _latex_cell(cell: Cell) -> str:
    value = for_latex(re.sub(r"(?<!\w)-(?=\d)", "−", cell.text))
    return rf"\textbf{{{value}}}" if cell.best else value


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
                    rows.writerow((*map(for_csv, place), *numbers, *map(for_csv, words)))
                    if cell.second is not None:
                        place = (table.title, cell.second.name, line.head, column)
                        numbers = (cell.second.mean, cell.second.deviation, cell.n or None, False)
                        rows.writerow((*map(for_csv, place), *numbers, *map(for_csv, words)))
    return file.getvalue()


def _facts(line: Line) -> list[str]:
    return [line.facts.get(name, "") for name in LINE_FACTS]


def html(tables: Sequence[Table]) -> str:
    """A fragment that stands for itself: no style sheet, no script, no link."""
    return "\n".join(line for table in tables for line in _html(table)) + "\n"


def _html(table: Table) -> Iterator[str]:
    right = ' style="text-align: right"'
    yield "<figure>"
    yield f"<table>\n<caption>{for_html(table.title)}</caption>"
    heads = "".join(f'<th scope="col"{right}>{for_html(column)}</th>' for column in table.columns)
    yield f'<thead><tr><th scope="col">{for_html(table.corner)}</th>{heads}</tr></thead>'
    for block in table.blocks:
        yield "<tbody>"
        if block.title:
            span = len(table.columns) + 1
            title = f"<em>{for_html(block.title)}</em>"
            yield f'<tr><th scope="rowgroup" colspan="{span}">{title}</th></tr>'
        for line in block.lines:
            kind = ' class="published"' if line.from_paper else ""
            texts = (
                f"<strong>{for_html(cell.text)}</strong>" if cell.best else for_html(cell.text)
                for cell in line.cells
            )
            cells = "".join(f"<td{right}>{text}</td>" for text in texts)
            yield f'<tr{kind}><th scope="row">{for_html(line.head)}</th>{cells}</tr>'
        yield "</tbody>"
    yield f"</table>\n<figcaption>{for_html(' '.join(table.caption))}</figcaption>\n</figure>"


WRITERS: dict[str, Writer] = {"md": markdown, "latex": latex, "csv": tidy, "html": html}
