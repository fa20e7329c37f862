"""What mkdocs calls while it builds the site: generated pages, and pages and pictures of results/.

The pages of attacks, victims, defenses and data sets are made from registry, docstrings and records
at build time, so they can't be out of date. Files outside docs/ that a page links to by a relative
path become part of the site; a link to a file that doesn't, such as a module, becomes its name.
"""

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath
from typing import Any

import data_cards
import notebook
from cards import Card, cards, overview
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
KINDS = ("attack", "victim", "defense")
PAGES = ("results/RULES.md", "results/LEADERBOARD.md", "results/speed/nvidia-h100-80gb-hbm3.md",
         "results/speed/amd-epyc-2-threads.md", "results/search/fashion-mini.md",
         "results/search/fashion-mini-k10.md", "results/search/fashion-mini-1e6.md")  # fmt: skip
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#:\s]+)(#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the cards into the navigation, below the overview of their kind."""
    for entry in config.nav or []:
        (title, below) = next(iter(entry.items()))
        kind = title.lower().removesuffix("s")
        if kind in KINDS:
            below += [{card.title: card.uri} for card in cards(kind)]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and what pages show of results/."""
    for kind in KINDS:
        introduction = files.get_file_from_path(f"{kind}s/index.md")
        assert introduction is not None
        introduction.content_string = overview(kind, introduction.content_string)
        for card in cards(kind):
            files.append(_generated(config, card))
    data = files.get_file_from_path("data-sets.md")
    assert data is not None
    data.content_string = data_cards.page(data.content_string)
    text, pictures = notebook.page()
    for uri, content in {notebook.PAGE: text, **pictures}.items():
        files.append(File.generated(config, uri, content=content))
    for uri in PAGES:
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / uri)))
    for page in list(files.documentation_pages()):
        for uri in _outside(page):
            if files.get_file_from_path(uri) is None and _public(uri):
                files.append(File.generated(config, uri, abs_src_path=str(ROOT / uri)))
    return files


def on_page_markdown(markdown: str, *, page: Page, files: Files, **_: Any) -> str:
    """Turn links to files outside the site into their names, and the others into the site's."""
    if page.file.src_uri.startswith("results/"):
        page.meta["hide"] = ["toc"]  # their tables are wide

    def replaced(link: re.Match[str]) -> str:
        mark, text, target, anchor = link.groups()
        uri = _site_uri(page.file.src_uri, target)
        if uri == notebook.SOURCE.name and page.file.src_uri != notebook.PAGE:
            uri = notebook.PAGE  # which has a link to the notebook itself
        if files.get_file_from_path(uri) is None:
            return text if text.startswith("`") else f"{text} (`{uri}` in the repository)"
        depth = len(PurePosixPath(page.file.src_uri).parts) - 1
        return f"{mark}[{text}]({'../' * depth}{uri}{anchor or ''})"

    return LINK.sub(replaced, markdown)


def _generated(config: MkDocsConfig, card: Card) -> File:
    return File.generated(config, card.uri, content=card.page())


def _outside(page: File) -> list[str]:
    """The files outside docs/ to which a page links."""
    targets = [match[3] for match in LINK.finditer(page.content_string)]
    uris = [_site_uri(page.src_uri, target) for target in targets]
    return [uri for uri in uris if uri.startswith("results/") and not uri.endswith(".md")]


def _site_uri(source: str, target: str) -> str:
    """Where a link leads, as a path in the site: docs/ and the repository's root are one there."""
    inside = normpath(str(PurePosixPath("docs", source).parent / target))
    if source.startswith("results/"):
        inside = normpath(str(PurePosixPath(source).parent / target))
    return inside.removeprefix("docs/")


def _public(uri: str) -> bool:
    return (ROOT / uri).is_file()
