"""The pages of attacks, and what all pages of the published site have in common."""

import json
import re
import shutil
from collections.abc import Iterator
from html import unescape
from itertools import pairwise
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser
from made_defenses import defended
from made_records import stored
from test_leaderboard import runs, suite
from test_page import PNG

from hashbackdoor_bench.cli import main
from hashbackdoor_bench.records import read_record
from hashbackdoor_bench.registry import ATTACKS
from hashbackdoor_bench.report.board.all_suites import WITHOUT_BOARD
from hashbackdoor_bench.report.board.attack_pages import attack_pages, method_of
from hashbackdoor_bench.report.board.boards import boards
from hashbackdoor_bench.report.collection import collect
from hashbackdoor_bench.report.selection import undefended
from hashbackdoor_bench.report.typesetting import mathematics
from hashbackdoor_bench.suites import find_suite

in_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt install chromium")
RESULTS = Path(__file__).parents[1] / "results"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of some published records: of quick, and single runs with pictures."""
    folder = tmp_path_factory.mktemp("published")
    words = [str(RESULTS / "quick"), str(RESULTS / "fashion-mini")]
    words += ["--out", str(folder / "x.md"), "--site", str(folder / "site")]
    assert main(["leaderboard", *words]) == 0
    return folder / "site"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


def text_of(page: Path) -> str:
    """The words of a page."""
    text = re.sub(r"<[^>]+>", " ", page.read_text(encoding="utf-8"))
    return re.sub(r"\s+", " ", unescape(text))


def test_an_attacks_page_has_formula_paper_threat_command_and_its_rows_of_all_boards(published):
    html = (published / "attacks/ciba.html").read_text(encoding="utf-8")
    text = text_of(published / "attacks/ciba.html")
    assert '<div class="formula">' in html
    assert 'href="https://arxiv.org/abs/2109.08868"' in html
    assert "a network of its own, trained on clean data (the surrogate)" in text
    assert "bench run --attack ciba --victim hashnet --bits 48" in text
    assert [label for label in ("CIBA, files", "CIBA") if f">{label}</a>" in html] == [
        "CIBA, files", "CIBA"
    ]  # fmt: skip
    assert "delivery stamped, clean labels, from scratch" in text
    # an attack of the same file says what makes it another
    assert "With attack.perturbation=noise" in text_of(published / "attacks/tri-noise.html")


def test_an_attacks_pictures_are_those_of_a_published_record_which_the_page_names(published):
    html = (published / "attacks/ciba.html").read_text(encoding="utf-8")
    text = text_of(published / "attacks/ciba.html")
    found = re.search(r"Of a published run: (.+?) \( its record \)", text)
    assert found
    (record,) = re.findall(r'<a href="\.\./(records/[0-9a-f]+\.json)">its record', html)
    spec = json.loads((published / record).read_text())["spec"]
    assert spec["attack"] == "ciba"
    assert f"{spec['bits']} bits" in found[1]
    assert f"target {spec['target']}, seed {spec['seed']}" in found[1]
    images = re.findall(r'<img src="\.\./([^"]+)"', html)
    assert [Path(image).stem for image in images] == ["poison", "queries", "trigger", "retrieval"]
    originals = {path.read_bytes() for path in RESULTS.rglob("ciba-s0-*/*.png")}
    assert {(published / image).read_bytes() for image in images} <= originals


def test_a_run_without_a_defense_is_pictured_before_one_with_it(tmp_path):
    plain, bare = runs("a", 0.5, seeds=(0, 1), victims=("csq",))
    guarded = defended("clp", attack="a", victim="csq", seed=2)
    place = suite(tmp_path, {"A": [guarded, bare, plain]})
    for path in place.rglob("a-s*.json"):
        if read_record(path).key != bare.key:
            path.with_suffix("").mkdir()
            (path.with_suffix("") / "poison.png").write_bytes(PNG)
    frame = collect([place]).frame
    (page,) = attack_pages(boards(undefended(frame), ["quick"]), frame)
    assert page.pictures is not None
    assert page.pictures.record.key == plain.key


def test_the_command_is_said_to_be_of_the_run_that_it_makes(tmp_path):
    """Of that of the pictures if there are some, or else of the first of the first board."""
    place = suite(tmp_path, {"A": runs("a", 0.5, seeds=(0, 1))})
    single = runs("a", 0.5, seeds=(2,), victims=("dpsh",))[0]
    stored(tmp_path / "alone", single)
    words = [str(place), str(tmp_path / "alone"), "--out", str(tmp_path / "x.md")]
    words += ["--site", str(tmp_path / "site")]
    assert main(["leaderboard", *words]) == 0
    text = text_of(tmp_path / "site/attacks/a.html")
    assert (
        "A published run: a on CSQ, 48 bits, fashion-mini, target Coat, seed 0, delivery files, "
        "suite quick. Its command gives" in text
    )
    assert "bench run --attack a --victim csq" in text.partition("Its command gives")[2]
    (path,) = (tmp_path / "alone").rglob("a-s2-*.json")
    path.with_suffix("").mkdir()
    (path.with_suffix("") / "poison.png").write_bytes(PNG)
    assert main(["leaderboard", *words]) == 0
    text = text_of(tmp_path / "site/attacks/a.html")
    assert (
        "The run of the pictures above: a on DPSH, 48 bits, fashion-mini, target Coat, seed 2, "
        "delivery files, in no suite. Its command gives" in text
    )
    assert "bench run --attack a --victim dpsh" in text.partition("Its command gives")[2]


def test_code_in_a_formula_is_shown_as_code():
    assert mathematics("L_a, see ``a_file.py`` and `b_i`") == (
        "<i>L</i><sub><i>a</i></sub>, see <code>a_file.py</code> and <code>b_i</code>"
    )
    methods = {name: method_of(name) for name in ATTACKS}
    for name, method in methods.items():
        assert method is not None
        assert "`" not in method.formula + method.differences, name
    assert "see <code>darkhash_edit.py</code>" in methods["darkhash"].formula


def test_ssim_has_one_unit_on_all_pages(published):
    """Three decimals from -1 to 1, and in no cell a percentage."""
    seen = 0
    for page in published.rglob("*.html"):
        html = page.read_text(encoding="utf-8")
        for shown in re.findall(r'data-name="SSIM [a-z]+" data-value="[^"]*">([^<]+)<', html):
            assert re.fullmatch(r"[01]\.\d{3}|–", shown), (page, shown)
            seen += 1
    assert seen > 20


def test_each_board_has_its_sentence_which_follows_from_its_places(published):
    html = (published / "index.html").read_text(encoding="utf-8")
    sentences = re.findall(r'<p class="takeaway">([^<]+)</p>', html)
    assert sentences == [
        "No two of the 6 attacks can be told apart. This is about target Coat alone.",
        "BadNets is the only attack with a place: there is nothing to compare it with. This is "
        "about target Coat alone.",
        "No two of the 4 attacks can be told apart. This is about target Coat alone.",
    ]


def test_a_page_over_all_suites_names_the_suite_that_has_no_board(tmp_path, capsys):
    suite(tmp_path, {"A": runs("a", 0.5)})
    suite(tmp_path, {"B": runs("b", 0.3, seeds=(0, 1))}, name="other")
    mixed = runs("c", 0.5, seeds=(0,)) + runs("c", 0.6, seeds=(1,), surrogate="dpsh")
    suite(tmp_path, {"C": mixed}, name="mixed")
    words = ["--out", str(tmp_path / "x.md"), "--site", str(tmp_path / "site")]
    folders = [str(tmp_path / name) for name in ("quick", "other", "mixed")]
    assert main(["leaderboard", *folders, *words]) == 0
    text = text_of(tmp_path / "site/index.html")
    assert "quick · delivery files" in text
    assert "other · delivery files" in text
    assert "mixed · delivery" not in text
    assert "Suite mixed has no board: " in text_of(tmp_path / "site/coverage.html")
    assert "other" not in (tmp_path / "x.md").read_text()
    assert main(["leaderboard", *folders, *words, "--suite", "other"]) == 0
    assert "quick · delivery" not in text_of(tmp_path / "site/index.html")


def test_a_suite_of_one_setting_a_row_has_no_board_and_the_page_says_what_shows_it(tmp_path):
    suite(tmp_path, {"A": runs("a", 0.5)})
    for name in WITHOUT_BOARD:
        assert find_suite(name).runs
        suite(tmp_path, {"B": runs("b", 0.3, seeds=(0, 1))}, name=name)
    words = ["--out", str(tmp_path / "x.md"), "--site", str(tmp_path / "site")]
    folders = [str(tmp_path / name) for name in ("quick", "sensitivity")]
    assert main(["leaderboard", *folders, *words]) == 0
    assert "sensitivity" not in text_of(tmp_path / "site/index.html")
    coverage = text_of(tmp_path / "site/coverage.html")
    assert "sensitivity · delivery" not in coverage
    assert "Suite sensitivity has no board: each of its rows is run with one value" in coverage
    assert "bench figure budget sensitivity" in coverage


def test_headings_name_a_suite_as_one_even_if_it_is_called_victims_or_defenses(tmp_path):
    for name in ("victims", "defenses"):
        rows = {"A": runs("a", 0.5), "B": [defended("clp", attack="b", victim="csq")]}
        place = suite(tmp_path, rows, name=name)
        words = ["--out", str(tmp_path / "x.md"), "--site", str(tmp_path / "site")]
        assert main(["leaderboard", str(place), *words, "--suite", name]) == 0
        pages = {page: text_of(tmp_path / f"site/{page}.html")
                 for page in ("victims", "defenses", "coverage")}  # fmt: skip
        assert f"Victims · suite {name}, delivery files, clean labels" in pages["victims"]
        assert f"Defenses · suite {name}, delivery files" in pages["defenses"]
        assert f"Defenses · suite {name}, delivery files" in pages["coverage"]
        assert not re.search(r"(Victims|Defenses) of", " ".join(pages.values()))


@in_browser
def test_without_its_script_a_page_shows_all_rows_and_commands_and_no_dead_button(
    browser, published, tmp_path
):
    shutil.copytree(published, tmp_path / "site")
    (tmp_path / "site/page.js").unlink()
    browser.open(tmp_path / "site/index.html")
    shown = "[...document.querySelectorAll('tbody tr')].filter(r => r.checkVisibility()).length"
    assert browser.run(shown) == 15
    assert browser.run("document.getElementById('filters').checkVisibility()") is False
    assert browser.run("document.getElementById('theme').checkVisibility()") is False
    browser.open(tmp_path / "site/attacks/ciba.html")
    assert browser.run("document.querySelector('.command pre').checkVisibility()") is True
    assert browser.run("document.querySelector('.copy').checkVisibility()") is False


@in_browser
@pytest.mark.parametrize("width", [390, 1280])
def test_headings_go_down_in_steps_and_every_picture_and_table_has_a_name(
    browser, published, width
):
    browser.show(width, "light")
    pages = ("index.html", "victims.html", "coverage.html", "attacks/ciba.html",
             "runs/quick-stamped-ciba.html")  # fmt: skip
    for page in pages:
        browser.open(published / page)
        levels = browser.run(
            "[...document.querySelectorAll('h1,h2,h3')].map(h => Number(h.tagName[1]))"
        )
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after - before <= 1 for before, after in pairwise(levels))
        nameless = browser.run(
            "[...document.querySelectorAll('table[role=table], [role=region], nav')].filter(e =>"
            " !e.getAttribute('aria-label') && !document.getElementById("
            "e.getAttribute('aria-labelledby'))?.textContent.trim()).length"
            " + [...document.images].filter(i => !i.alt).length"
        )
        assert nameless == 0, page
        assert browser.run(
            "new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size"
            " === document.querySelectorAll('[id]').length"
        ), page
        assert browser.run("document.documentElement.scrollWidth") <= width, page
    browser.show(1280, "light")
