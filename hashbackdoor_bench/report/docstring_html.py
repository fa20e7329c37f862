"""The docstring of a method's file as HTML, under headings that a reader looks for."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

from hashbackdoor_bench.report.typesetting import CODE, code, formula, inline

URL = re.compile(r"https?://[^\s,;)]+[^\s,;.)]")
DIFFERS = re.compile(r"What differs|Differs |How the variants differ|Nothing differs|``variant=")


@dataclass(frozen=True)
class Explained:
    """A docstring in parts, each as HTML but for the summary.

    Attributes:
        summary: the first line, without the method's name before a colon.
        paper: the paragraph of papers and code; empty where there is none.
        formula: formulas, and what is said about them.
        differences: what differs from the authors or from public code; empty if nothing is said.
    """

    summary: str
    paper: str
    formula: str
    differences: str


def explained(docstring: str) -> Explained:
    """Sort the paragraphs of a docstring by what they are about."""
    summary, _, rest = docstring.partition("\n")
    blocks = blocks_of(rest)
    parts: dict[str, list[str]] = {"paper": [], "formula": [], "differences": []}
    kind = "formula"
    for lines in blocks:
        if not parts["formula"] and URL.search(" ".join(lines)) and not _indented(lines):
            parts["paper"].append(html_of(lines))
            continue
        if DIFFERS.match(lines[0]):
            kind = "differences"
        elif kind == "differences" and not lines[0].startswith("- ") and not _table(lines):
            kind = "formula"
        parts[kind].append(html_of(lines))
    name, colon, sentence = summary.partition(": ")
    shown = sentence if colon and len(name) < 30 else summary
    return Explained(shown[:1].upper() + shown[1:], *("\n".join(parts[name]) for name in parts))


def blocks_of(text: str) -> list[list[str]]:
    """Paragraphs, lists and indented blocks, each as its lines."""
    blocks: list[list[str]] = []
    for line in text.split("\n"):
        if not line.strip():
            blocks.append([])
        elif not blocks or not blocks[-1] or _starts(blocks[-1], line):
            blocks.append([line])
        else:
            blocks[-1].append(line)
    return [lines for lines in blocks if lines]


def _starts(lines: list[str], line: str) -> bool:
    """Whether a line begins another block than that of the lines before it."""
    listed, before = line.startswith("- "), lines[0].startswith("- ")
    if listed:
        return not before
    return not before and line.startswith("    ") != _indented(lines)


def _indented(lines: list[str]) -> bool:
    return lines[0].startswith("    ")


_table = _indented  # what differs may be a table, which is indented as formulas are


def html_of(lines: list[str]) -> str:
    """One block as HTML."""
    if _indented(lines):
        return formula(lines)
    if lines[0].startswith("- "):
        items: list[str] = []
        for line in lines:
            if line.startswith("- "):
                items.append(line[2:])
            else:
                items[-1] += " " + line.strip()
        return f"<ul>{''.join(f'<li>{text_html(item)}</li>' for item in items)}</ul>"
    return f"<p>{text_html(' '.join(line.strip() for line in lines))}</p>"


def text_html(text: str) -> str:
    """Running text: code in its own font, addresses as links, and the mathematics in it."""
    parts, end = [], 0
    for match in re.finditer(rf"{CODE}|{URL.pattern}", text):
        parts.append(inline(text[end : match.start()]))
        parts.append(code(match[0]) if match[0].startswith("`") else _link(match[0]))
        end = match.end()
    return "".join(parts) + inline(text[end:])


def _link(address: str) -> str:
    shown = re.sub(r"^https?://(www\.)?", "", address)
    shown = re.sub(r"^arxiv\.org/abs/", "arXiv:", shown)
    return f'<a href="{escape(address)}">{escape(shown)}</a>'


def facts_table(facts: Iterable[tuple[str, str]]) -> str:
    """A table of names and what is said of each."""
    rows = (f"<tr><th>{escape(name)}</th><td>{text_html(text)}</td></tr>" for name, text in facts)
    return f'<table class="facts"><tbody>{"".join(rows)}</tbody></table>'
