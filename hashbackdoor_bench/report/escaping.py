"""Text from outside, escaped for where it goes; each function gives one line.

    a terminal, by rich    `for_rich`
    Markdown               `for_markdown`
    LaTeX                  `for_latex`
    a cell of CSV          `for_csv`
    HTML                   `for_html`
    the name of a file     `for_file_name`

A figure's text goes through `lettering`, a plain line on a terminal through `cli.terminal`, and
JSON through `json.dumps`, which escapes all but ASCII.
"""

import re
from html import escape

from rich.text import Text

from hashbackdoor_bench.text import one_line

# A backslash before what begins a structure; entities for what GitHub reads before Markdown.
MARKDOWN: dict[str, str] = {c: f"\\{c}" for c in "\\`*_[]~#"} | {
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
    **{c: rf"$\{name}$" for c, name in MATH.items()},
    **{"−": "$-$", "[": "{[}", "*": "{*}"},  # [ or * after \\ would be its argument
}
# The letters that it reads in UTF-8 and has in T1 fonts; others are written as code points.
LETTERS = "[ -~À-ÖØ-öø-ÿĂăĄąĆćČčĎďĐđĘęĚěĞğİıŁłŃńŇňŐőŒœŔŕŘřŚśŞşŠšŢţŤťŮůŰűŸŹźŻżŽž]"
LIGATURE = "(?<=[-'`,!?])(?=[-'`,])"  # between two signs that T1 fonts join: -- becomes a dash


NUMBER = r"[+-]?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?( %)?"
NUMBERS = re.compile(rf"{NUMBER}(( to | ± ){NUMBER})?( \(n = [0-9]+\))?")
FORMULA = re.compile(r"\W*?[-=+@＝＋－＠]")  # what a spreadsheet may read as the start of one


def for_rich(value: object, style: str = "") -> Text:
    """For a terminal, by rich: no markup is read."""
    return Text(one_line(value), style=style)


def for_markdown(value: object) -> str:
    """For GitHub's Markdown, within a line."""
    return "".join(MARKDOWN.get(c, c) for c in one_line(value))


def for_latex(value: object) -> str:
    """For LaTeX with fonts in the encoding T1, within a paragraph or a cell."""
    made = (
        LATEX.get(c) or (c if re.match(LETTERS, c) else f"U+{ord(c):04X}") for c in one_line(value)
    )
    return re.sub(LIGATURE, "{}", "".join(made))


def for_csv(value: object) -> str:
    """For a cell; an apostrophe stands before words that a spreadsheet would take for a formula."""
    text = one_line(value)
    return f"'{text}" if FORMULA.match(text) and not NUMBERS.fullmatch(text) else text


def for_html(value: object) -> str:
    """For HTML, as text or within an attribute in quotes."""
    return escape(one_line(value))


def for_file_name(value: object) -> str:
    """For a part of a file's name: letters, digits and ``-_.=,+``; no dot in front.

    >>> for_file_name("../a b")
    '_._a_b'
    """
    text = re.sub(r"[^\w.=,+-]", "_", one_line(value))[:100]
    return re.sub(r"^[.-]", "_", text) or "_"
