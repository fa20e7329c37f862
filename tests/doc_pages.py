"""What the pages in docs/ show: command lines, Python files, suites and sessions."""

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```", re.DOTALL | re.MULTILINE)
sys.path.insert(0, str(DOCS / "making"))


class Block(NamedTuple):
    """A block of code: the page that shows it, its language, its file's name and its text."""

    page: str
    language: str
    title: str
    text: str


def pages() -> dict[str, str]:
    """The pages that people wrote, by name."""
    return {
        path.relative_to(DOCS).as_posix(): path.read_text("utf-8") for path in DOCS.rglob("*.md")
    }


def generated() -> dict[str, str]:
    """The pages that are made of registry, docstrings and records, by name."""
    import data_cards
    from cards import cards

    found = {
        card.uri: card.page() for kind in ("attack", "victim", "defense") for card in cards(kind)
    }
    return found | {"data-sets.md": data_cards.page("")}


def blocks(language: str) -> list[Block]:
    """The blocks of one language in the pages that people wrote."""
    return [
        Block(page, *match.groups(""))
        for page, text in sorted(pages().items())
        for match in FENCE.finditer(text)
        if match[1] == language
    ]


def command_lines(text: str) -> Iterator[list[str]]:
    """The words of each line of a page that types ``bench``, without its comment."""
    for line in re.findall(r"^ *(bench [a-z].*)$", text, re.MULTILINE):
        yield shlex.split(line, comments=True)[1:]
