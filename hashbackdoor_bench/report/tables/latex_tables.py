r"""Tables in LaTeX, as they stand in a paper: a caption of at most two lines, booktabs' rules.

What the caption of the other formats says too (convention, delivery, records, commits, hashes) is a
comment above the table. A table of more than ``NARROW`` columns is a ``table*``, which spans both
columns of a two-column paper.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby
from textwrap import wrap

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.report.escaping import for_latex
from hashbackdoor_bench.report.tables.parts import Cell, Table
from hashbackdoor_bench.text import listed, quoted

NARROW = 3  # columns of numbers beside the row heads
NEEDS = r"% needs \usepackage[T1]{fontenc} and \usepackage{booktabs,graphicx}"
SHRUNK = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"  # to the line
BOLD = "Bold: significantly best."
COMMENT = 96  # characters of a line
RUNS = re.compile(r"( \(|; )n = (?P<n>[0-9]+)\)$")  # how `blocks.cell` tells an unusual number
LABEL = re.compile(r"[A-Za-z0-9:._/+-]+")


def latex(tables: Sequence[Table], captions: Sequence[str] = (), labels: Sequence[str] = ()) -> str:
    """``table`` environments.

    Args:
        tables: in their order.
        captions: instead of the tables' own, in LaTeX; none, or one for each table.
        labels: for references; none, or one for each table.

    Raises:
        UserError: there are not as many captions or labels as tables, or a label that LaTeX can't
            take.
    """
    titles = [table.title for table in tables]
    _refuse_other_number("--caption", captions, titles)
    _refuse_other_number("--label", labels, titles)
    for label in labels:
        if not LABEL.fullmatch(label):
            raise UserError(
                f"--label {quoted(label)}: LaTeX takes letters, digits and : . _ / + - here, as in "
                "tab:attacks."
            )
    for given in captions:
        if not _closed(given):
            raise UserError(
                f"--caption {quoted(given)}: LaTeX would read on behind it; close each brace, and "
                "write \\{, \\} and \\% for letters."
            )
    lines = [NEEDS]
    for number, table in enumerate(tables):
        caption = " ".join(captions[number].split()) if captions else _caption(table)
        lines += _table(table, caption, labels[number] if labels else "")
    return "\n".join(lines)


def _closed(text: str) -> bool:
    """Whether a text in LaTeX ends where it ends: braces in pairs, no comment, no open command."""
    bare = re.sub(r"\\.", "", text, flags=re.DOTALL)  # without \{, \%, ...
    depths = list(accumulate(({"{": 1, "}": -1}.get(one, 0) for one in bare), initial=0))
    return min(depths) == depths[-1] == 0 and not {"%", "\\"} & set(bare)


def _refuse_other_number(option: str, given: Sequence[str], titles: Sequence[str]) -> None:
    if given and len(given) != len(titles):
        several = (
            "once" if len(titles) == 1 else f"{len(titles)} times, once for each in this order"
        )
        raise UserError(
            f"{option} is given {len(given)} times, and these records make {len(titles)} tables "
            f"({listed(titles)}): give it {several}, or choose records with --where."
        )


def _caption(table: Table) -> str:
    bold = any(cell.best for block in table.blocks for line in block.lines for cell in line.cells)
    return " ".join(filter(None, (
        f"{for_latex(table.title)}.", for_latex(table.brief), BOLD if bold else "",
    )))  # fmt: skip


def _table(table: Table, caption: str, label: str) -> Iterator[str]:
    def row(cells: Sequence[str]) -> str:
        return " & ".join(cells) + r" \\"

    width = len(table.columns)
    kind = "table" if width <= NARROW else "table*"
    told = for_latex(f"{table.title}. {' '.join(table.caption)}")
    yield from (f"% {line}" for line in wrap(told, COMMENT, break_on_hyphens=False))
    yield from (rf"\begin{{{kind}}}", r"\centering\footnotesize")
    yield rf"\caption{{{caption}}}" + (rf"\label{{{label}}}" if label else "")
    yield SHRUNK
    yield from (rf"\begin{{tabular}}{{l*{{{width}}}{{r}}}}", r"\toprule")
    if table.over:
        yield from _heads_over(table.over)
    yield row([for_latex(table.corner), *map(for_latex, table.columns)])
    marked = any(
        cell.n > 1 for block in table.blocks for line in block.lines for cell in line.cells
    )
    for block in table.blocks:
        yield r"\midrule"
        if block.title:
            yield rf"\multicolumn{{{width + 1}}}{{l}}{{\emph{{{for_latex(block.title)}}}}} \\"
        ours = True
        for line in block.lines:
            if ours and line.from_paper:
                yield r"\addlinespace"
            ours = not line.from_paper
            yield row([for_latex(line.head), *(_cell(cell, marked=marked) for cell in line.cells)])
    yield from (r"\bottomrule", r"\end{tabular}}", rf"\end{{{kind}}}", "")


def _heads_over(over: Sequence[str]) -> Iterator[str]:
    """The heads above those of the columns, each over its columns and with a rule below it."""
    cells, rules, first = [""], [], 2
    for head, columns in groupby(over):
        last = first + len(list(columns)) - 1
        cells.append(rf"\multicolumn{{{last - first + 1}}}{{c}}{{{for_latex(head)}}}")
        rules.append(rf"\cmidrule(lr){{{first}-{last}}}")
        first = last + 1
    yield " & ".join(cells) + r" \\"
    yield " ".join(rules)


def _cell(cell: Cell, *, marked: bool) -> str:
    """A number with its spread; an unusual number of runs is raised, where any cell has several."""
    text, runs = cell.text, RUNS.search(cell.text) if cell.n else None
    if runs:
        text = text[: runs.start()] + (")" if runs[1] == "; " else "")
    value = for_latex(re.sub(r"(?<!\w)-(?=\d)", "−", text))
    if cell.best:
        value = rf"\textbf{{{value}}}"
    if runs and marked:
        value += rf"\textsuperscript{{$n$={runs['n']}}}"
    return value
