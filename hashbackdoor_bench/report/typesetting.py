"""Formulas of docstrings as HTML: Greek letters, sub- and superscripts, signs, columns kept.

Docstrings write mathematics in ASCII, ``L_a = mean_i |eta_i|^2``. Nothing is computed here: each
piece is replaced by the sign that it stands for, so that a browser shows it without a network.
"""

import re
from html import escape

GREEK = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "eta": "η", "theta": "θ",
    "lambda": "λ", "mu": "μ", "nu": "ν", "rho": "ρ", "sigma": "σ", "tau": "τ", "Sigma": "Σ",
}  # fmt: skip
SIGNS = {"<=": "≤", ">=": "≥", "!=": "≠", "<-": "←", "->": "→", "~": "∼", "inf": "∞"}
NARROWER = 0.8  # of typeset mathematics beside the same in ASCII
FUNCTIONS = {
    "sign", "mean", "max", "min", "argmin", "exp", "log", "clip", "sqrt", "cos", "sin", "tanh",
    "softmax", "std",
}  # fmt: skip
CODE = r"``.+?``|`[^`]+`"  # with its backticks
BELOW = r"\{[^{}]*\}|-?\w+"  # what may stand below or above a letter
ABOVE = rf"\([^()]*\)|\{{[^{{}}]*\}}|-?\d+\.\d+|{BELOW}|\*"
TOKEN = re.compile(
    rf"(?P<code>{CODE})"
    rf"|(?P<base>[A-Za-z]+\d*|[|)\]*'])(?P<prime>'*)(?:_(?P<sub>{BELOW}))?(?:\^(?P<sup>{ABOVE}))?"
    rf"|(?P<number>\d*\.?\d+)(?:\^(?P<power>{ABOVE}))?"
    r"|(?P<sign><=|>=|!=|<-|->|~)"
    r"|(?P<minus>-)|(?P<other>.)"
)
INNER = re.compile(r"<([^<>=]*,[^<>=]*)>")
ARTICLE = re.compile(r"(?<=[a-z]{3} )a(?= [a-z]{3})")  # the word "a"
INLINE = re.compile(
    rf"(?<![\w/.])(?P<math>(?:[A-Za-z]|{'|'.join(GREEK)})\*?_(?:{BELOW})(?:\^(?:{ABOVE}))?"
    rf"|[A-Za-z0-9]+\^(?:{ABOVE})|(?:{'|'.join(GREEK)})(?! MAP\b))(?![\w/])"
)


def formula(lines: list[str]) -> str:
    """A block of formulas: every line a row, and what stands in one column stays in one column."""
    indent = min(len(line) - len(line.lstrip()) for line in lines)
    narrower = NARROWER if "=" in lines[0] else 1  # a table of words is as wide as its text
    rows = [f"<div>{_row(line[indent:], narrower)}</div>" for line in lines]
    return f'<div class="formula">{"".join(rows)}</div>'


def _row(line: str, narrower: float) -> str:
    """The cells of a line, which two spaces or more separate, each as wide as its column."""
    found = list(re.finditer(r"\S+(?: \S+)*", line))
    starts = [cell.start() for cell in found] + [0]
    indent = f"{narrower * starts[0]:.1f}ch"
    parts = [f'<span style="min-width:{indent}"></span>'] if starts[0] else []
    for cell, here, after in zip(found, starts, starts[1:], strict=False):
        width = f' style="min-width:{narrower * (after - here):.1f}ch"' if after > here else ""
        parts.append(f"<span{width}>{mathematics(cell[0])}</span>")
    return "".join(parts)


def mathematics(text: str) -> str:
    """One expression or remark as HTML."""
    words = [word for word in re.findall(r"[a-z]{3,}", text) if word not in FUNCTIONS | set(GREEK)]
    prose = len(words) >= 3 and "=" not in text
    text = INNER.sub("⟨\\1⟩", text)
    articles = {found.end() for found in ARTICLE.finditer(text)}
    out = []
    for match in TOKEN.finditer(text):
        near = text[max(0, match.start() - 1) : match.start()] + text[match.end() : match.end() + 1]
        out.append(_token(match, prose or match.end() in articles, near))
    return "".join(out)


def inline(text: str) -> str:
    """Prose as HTML, in which only what is plainly mathematics is typeset."""
    parts, end = [], 0
    text = INNER.sub("⟨\\1⟩", text)
    for match in INLINE.finditer(text):
        parts += [escape(text[end : match.start()]), mathematics(match["math"])]
        end = match.end()
    return "".join(parts) + escape(text[end:])


def code(text: str) -> str:
    """A name or a piece of code, which stands between backticks."""
    return f"<code>{escape(text.strip('`'))}</code>"


def _token(match: re.Match[str], prose: bool, near: str) -> str:
    if match["code"]:
        return code(match["code"])
    if match["number"]:
        return match["number"] + _raised(match["power"])
    if match["sign"]:
        return SIGNS[match["sign"]]
    if match["minus"]:
        return "-" if len(near) == 2 and near.isalpha() else "−"
    if match["other"]:
        return escape(match["other"])
    base, lowered = match["base"], match["sub"]
    name = _name(base, italic=not prose or bool(lowered), large=bool(lowered))
    below = f"<sub>{_script(lowered)}</sub>" if lowered else ""
    return name + "′" * len(match["prime"]) + below + _raised(match["sup"])


def _name(base: str, *, italic: bool, large: bool) -> str:
    if base in GREEK:
        return f"<i>{GREEK[base]}</i>"
    if base == "'":
        return "′"
    if base == "sum" and large:
        return "∑"
    if base in ("sqrt", "grad"):
        return {"sqrt": "√", "grad": "∇"}[base]
    if italic and len(base) == 1 and base.isalpha():
        return f"<i>{base}</i>"
    return escape(base)


def _raised(text: str | None) -> str:
    return f"<sup>{_script(text)}</sup>" if text else ""


def _script(text: str) -> str:
    """What stands below or above a letter; up to two letters are indices, more are a word."""
    text = text.strip("{}")
    if text in SIGNS:
        return SIGNS[text]
    if text in GREEK:
        return f"<i>{GREEK[text]}</i>"
    if re.fullmatch(r"[a-z]{1,2}", text):
        return f"<i>{text}</i>"
    return mathematics(text)
