"""The documentation: every command parses, every example works, every method has a card."""

import doctest
import json
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import click
import pytest
from doc_pages import DOCS, ROOT, blocks, command_lines, generated, pages

from hashbackdoor_bench.cli import bench, main
from hashbackdoor_bench.data import PROTOCOLS
from hashbackdoor_bench.method_files import described
from hashbackdoor_bench.records import read_record
from hashbackdoor_bench.registry import ATTACKS, DEFENSES, METHODS, VICTIMS
from hashbackdoor_bench.report.figures import FIGURES
from hashbackdoor_bench.spec import RECIPES
from hashbackdoor_bench.suites import shipped

RECORD = ROOT / "results/fashion-mini/hashnet-48/ciba-s0-827e7c929f.json"
FILES = [block for block in blocks("python") if block.title]
SUITES = [block for block in blocks("toml") if block.title]
KNOWN = {
    "attack": ATTACKS, "victim": VICTIMS, "surrogate": VICTIMS, "defense": DEFENSES,
    "dataset": PROTOCOLS, "recipe": RECIPES,
}  # fmt: skip


@pytest.fixture(scope="module")
def made_pages() -> dict[str, str]:
    return generated()


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of the methods that the pages define."""
    names: set[str] = set()
    for block in FILES:
        path = tmp_path_factory.mktemp("file") / block.title
        path.write_text(block.text, encoding="utf-8")
        for registry in METHODS.values():
            names |= set(described(path, registry.variable))
    return names


def parsed(words: list[str]) -> click.Context:
    """The context of a command line, with its options read; nothing is run.

    Raises:
        click.ClickException: no such command or option, or a value of another type.
    """
    command: click.Command = bench
    context = click.Context(bench, info_name="bench")
    while isinstance(command, click.Group):
        name, found, words = command.resolve_command(context, words)
        assert found is not None
        command, context = found, click.Context(found, parent=context, info_name=name)
    return command.make_context(context.info_name, list(words), parent=context.parent)


def refused(words: list[str], examples: set[str]) -> str:
    """Why a command line can't be typed as it is shown; empty if it can."""
    try:
        context = parsed(words)
    except click.ClickException as error:
        return error.format_message()
    except click.exceptions.Exit:  # --help
        return ""
    given = context.params
    for option, names in KNOWN.items():
        name = given.get(option)
        if isinstance(name, str) and name not in names and name.replace("-", "_") not in examples:
            return f"unknown {option} {name}"
    if context.command.name in ("plan", "status") and given["suite"] not in {
        *shipped(),
        *(block.title for block in SUITES),
    }:
        return f"unknown suite {given['suite']}"
    for setting in given.get("settings") or given.get("set") or ():
        kind, _, rest = str(setting).partition(".")
        name = given.get(kind) or given.get("name")
        if name in METHODS[kind]:
            METHODS[kind][name].resolve({rest.partition("=")[0]: rest.partition("=")[2]})
    return ""


@pytest.mark.parametrize("page", sorted(pages()))
def test_every_command_line_of_a_page_can_be_typed_as_it_is_shown(page, examples):
    lines = list(command_lines(pages()[page]))
    assert [(line, why) for line in lines if (why := refused(line, examples))] == []


def test_every_command_line_of_the_generated_pages_can_be_typed(made_pages, examples):
    lines = [line for text in made_pages.values() for line in command_lines(text)]
    assert len(lines) > len(ATTACKS) + len(VICTIMS) + len(DEFENSES)
    assert [(line, why) for line in lines if (why := refused(line, examples))] == []


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("run --atack ciba", "No such option"),
        ("run --attack cibaa", "unknown attack"),
        ("run --bits many", "not a valid integer"),
        ("runn", "No such command"),
        ("suite plan quik", "unknown suite"),
    ],
)
def test_a_command_line_with_a_mistake_is_found(line, why):
    assert why in refused(line.split(), set())


@pytest.mark.parametrize("block", FILES, ids=lambda block: block.title)
def test_every_method_that_a_page_shows_keeps_its_promises(block, tmp_path, capsys):
    path = tmp_path / block.title
    path.write_text(block.text, encoding="utf-8")
    code = main(["check", str(path)])
    out = capsys.readouterr()
    assert code == 0, out.out + out.err
    assert path.stem in out.out


@pytest.mark.parametrize("block", SUITES, ids=lambda block: block.title)
def test_every_suite_that_a_page_shows_can_be_planned(block, tmp_path, capsys):
    path = tmp_path / block.title
    path.write_text(block.text, encoding="utf-8")
    code = main(["suite", "plan", str(path), "--cache-dir", str(tmp_path / "cache")])
    assert code == 0, capsys.readouterr().err


@pytest.mark.parametrize("page", [p for p, text in sorted(pages().items()) if ">>> " in text])
def test_every_session_of_a_page_prints_what_the_page_says(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    failed, tried = doctest.testfile(str(DOCS / page), module_relative=False)
    assert tried > 0
    assert failed == 0


def test_the_scores_of_the_page_on_records_are_those_of_the_record():
    (block,) = [block for block in blocks("json") if block.page == "record.md"]
    shown = json.loads("{" + block.text + "}")["scores"]["field"]
    scores = read_record(RECORD).scores.field
    assert shown == {name: round(getattr(scores, name), 4) for name in shown}


def test_the_output_of_the_five_minutes_is_that_of_the_record():
    block, *_ = [block for block in blocks("text") if block.page == "start.md"]
    scores = read_record(RECORD).scores.field
    rows = {
        "MAP": scores.map,
        "MAP, clean victim": scores.map_clean_victim,
        "delta MAP": scores.delta_map,
        "t-MAP": scores.t_map,
        "t-MAP, clean victim": scores.t_map_clean_victim,
        "t-MAP, no trigger": scores.t_map_untriggered,
        "backdoor gain": scores.backdoor_gain,
    }
    for name, value in rows.items():
        assert re.search(rf"^  {name} +{100 * value:.1f} ", block.text, re.MULTILINE), name


def test_every_registered_method_and_data_set_has_a_card(made_pages):
    for kind, registry in METHODS.items():
        cards = "".join(text for uri, text in made_pages.items() if uri.startswith(f"{kind}s/"))
        assert [name for name in registry if f'id="{name}"' not in cards] == []
    for name in PROTOCOLS:
        assert f"\n## {name} " in made_pages["data-sets.md"]


def test_a_card_says_all_that_the_docstring_says(made_pages):
    """All words of the file's docstring but Greek letters and those that became a sign."""
    import inspect

    from cards import cards

    from hashbackdoor_bench.report.typesetting import GREEK

    signs = {*GREEK, "sum", "sqrt", "grad", "inf"}
    for kind in METHODS:
        for card in cards(kind):
            module = inspect.getmodule(card.method.cls)
            shown = unescape(re.sub(r"<[^>]+>", " ", card.page()))
            text = re.sub(r"https?://(www\.|arxiv\.org/abs/)?", "", inspect.getdoc(module) or "")
            words = set(re.findall(r"[A-Za-z]{3,}", text.partition(": ")[2])) - signs
            have = set(re.findall(r"[A-Za-z]{3,}", shown))
            assert {w for w in words if w not in have and w.capitalize() not in have} == set()


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("L_a", "<i>L</i><sub><i>a</i></sub>"),
        ("|eta_i|_inf <= epsilon", "|<i>η</i><sub><i>i</i></sub>|<sub>∞</sub> ≤ <i>ε</i>"),
        ("x^2.2", "<i>x</i><sup>2.2</sup>"),
        ("S_e^-1", "<i>S</i><sub><i>e</i></sub><sup>−1</sup>"),
        ("-<h_i, h_j>", "−⟨<i>h</i><sub><i>i</i></sub>, <i>h</i><sub><i>j</i></sub>⟩"),
        ("sum_ij x'", "∑<sub><i>ij</i></sub> <i>x</i>′"),
        ("a < b", "<i>a</i> &lt; <i>b</i>"),
        ("NT-Xent", "NT-Xent"),
    ],
)
def test_a_formula_is_typeset(text, html):
    from hashbackdoor_bench.report.typesetting import mathematics

    assert mathematics(text) == html


def test_prose_is_typeset_only_where_it_is_plainly_mathematics():
    from hashbackdoor_bench.report.docstring_html import text_html

    assert text_html("with s_ij < 1 in `a_b`") == (
        "with <i>s</i><sub><i>ij</i></sub> &lt; 1 in <code>a_b</code>"
    )
    assert text_html("delta MAP of lambda in my_file.py") == ("delta MAP of <i>λ</i> in my_file.py")
    assert text_html("see https://arxiv.org/abs/1234.5678.") == (
        'see <a href="https://arxiv.org/abs/1234.5678">arXiv:1234.5678</a>.'
    )


@pytest.mark.parametrize("page", pages())
def test_every_link_of_a_page_leads_to_a_file_of_the_repository_too(page):
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)\s]*)?\)", pages()[page])
    assert [link for link in links if not (DOCS / page).parent.joinpath(link).exists()] == []


def test_the_page_on_figures_names_every_figure():
    page = (DOCS / "tables.md").read_text("utf-8")
    named = set(re.findall(r"`([a-z-]+)`", page.partition("## Figures")[2]))
    assert FIGURES.keys() - named == set()


def test_the_site_builds_strictly_has_no_broken_link_and_loads_nothing_from_elsewhere(
    tmp_path: Path,
):
    for package in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(package, reason='the site needs pip install -e ".[docs]"')
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr[-2000:]
    broken = []
    for page in site.rglob("*.html"):
        html = page.read_text("utf-8")
        loaded = re.findall(r'<(?:script|img|link rel="stylesheet")[^>]*="(https?:[^"]+)"', html)
        assert loaded == [], f"{page.name} loads from elsewhere"
        for target in re.findall(r'(?:href|src)="([^"#?]+)(?:#[^"]*)?"', html):
            if re.match(r"[a-z]+:|//", target) or page.name == "404.html":
                continue
            if not (page.parent / unescape(target)).exists():
                broken.append(f"{page.relative_to(site)}: {target}")
    assert broken == []
    for kind, registry in METHODS.items():
        for name in registry:
            file = registry.module(name).rpartition(".")[2]
            assert f'id="{name}"' in (site / f"{kind}s/{file}.html").read_text("utf-8")
            overview = (site / f"{kind}s/index.html").read_text("utf-8")
            assert f'href="{file}.html#{name}"' in overview
