"""The leaderboard's page: what a record says stays text, and it works in a browser."""

import io
import json
import os
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browser import CHROMIUM, Browser
from PIL import Image
from test_leaderboard import runs, suite

from hashbackdoor_bench.cli import main
from hashbackdoor_bench.records import Record
from hashbackdoor_bench.report.board import site_files as module
from hashbackdoor_bench.report.board.boards import boards
from hashbackdoor_bench.report.board.page import write_site
from hashbackdoor_bench.report.collection import collect

EVIL = '<img src=x onerror="document.title=1">\'"</script>{{ 7*7 }}&amp;'
_FILE = io.BytesIO()
Image.new("L", (1, 1)).save(_FILE, "png")
PNG = _FILE.getvalue()

# one of each kind
PAGES = (
    "index.html", "victims.html", "coverage.html", "attacks/a.html", "runs/quick-files-best.html",
)  # fmt: skip

in_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt install chromium")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("leaderboard")
    weak = {"map": 0.2, "map_clean_victim": 0.2, "shift": 0.0}
    rows = {
        "Best": runs("a", 0.7) + runs("a", 0.0, victims=("dpsh",), **weak),
        "Blind one": runs("b", 0.4, psnr=20.0, knowledge="none"),
        EVIL: runs("c", 0.2, psnr=50.0, threat={"trigger": EVIL}),
        "Control": runs("d", 0.0, threat={"trigger": "none"}, psnr=None),
        "Stamped": runs("e", 0.5, delivery="stamped"),
    }
    place = suite(folder, rows)
    for record in sorted(place.rglob("a-s0-*.json")):
        record.with_suffix("").mkdir()
        (record.with_suffix("") / "poison.png").write_bytes(PNG)
        (record.with_suffix("") / "Evil <b>.png").write_bytes(PNG)
        (record.with_suffix("") / "secret.png").symlink_to(__file__)
    words = ["--out", str(folder / "x.md"), "--site", str(folder / "site")]
    assert main(["leaderboard", str(place), *words]) == 0
    return folder / "site"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


def shown(folder: Path, rows: dict[str, list[Record]]) -> Path:
    """The site of a suite of these rows."""
    collection = collect([suite(folder, rows)])
    write_site(boards(collection.frame, ["quick"]), collection, folder / "site", str)
    return folder / "site"


# How many px of each table are beyond its frame, and the words that leave their cell.
HIDDEN = "[...document.querySelectorAll('.scroll')].map(s => s.scrollWidth - s.clientWidth)"
LEAVING = """[...document.querySelectorAll('[role=table] :is(th, td)')].flatMap(cell => {
  const words = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT), out = [];
  const [left, right] = (r => [r.left - .5, r.right + .5])(cell.getBoundingClientRect());
  for (let word; (word = words.nextNode());) {
    const range = document.createRange();
    range.selectNodeContents(word);
    const away = [...range.getClientRects()].some(r => r.left < left || r.right > right);
    if (away && word.textContent.trim()) out.push(word.textContent.trim());
  }
  return out;
})"""


def rows_shown(browser: Browser, board: int = 0) -> list[str]:
    return browser.run(
        f"[...document.querySelectorAll('.board')[{board}].querySelectorAll('tbody tr')]"
        ".filter(r => r.checkVisibility()).map(r => r.cells[1].dataset.value)"
    )


def choose(browser: Browser, name: str, value: str) -> None:
    browser.run(
        f"(f => {{ f.value = {json.dumps(value)};"
        " f.dispatchEvent(new Event('input', {bubbles: true})); })"
        f"(document.getElementById('filters').elements[{json.dumps(name)}])"
    )


def test_what_a_record_says_is_escaped_everywhere(site):
    pages = sorted(site.rglob("*.html"))
    # five rows of boards, and as many attacks, beside the boards, victims and what was run
    assert len(pages) == 5 + 5 + 3
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert "<img src=x" not in text
        shown = unescape(text)
        assert shown.count("onerror=") == shown.count(EVIL)  # nothing of it was computed
        # scripts are files; none holds data, and no attribute runs code
        assert re.findall(r"<script[^>]*>([^<]*)</script>", text) == [""]
        assert not re.search(r"<[a-z][^>]*\son[a-z]+\s*=", re.sub(r'"[^"]*"', '""', text))
    for name in ("index.html", "coverage.html"):
        assert EVIL in unescape((site / name).read_text(encoding="utf-8")), name


def test_names_of_files_are_not_chosen_by_records(site):
    names = [path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()]
    assert all(re.fullmatch(r"[a-z0-9/.-]+", name) for name in names), names
    assert sum("/evil-b.png" in name for name in names) == 3  # csq, dpsh, hashnet
    assert not any("secret" in name for name in names)  # a link out of the folder


def test_every_link_of_the_site_leads_to_a_file_of_it(site):
    found = 0
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        for link in re.findall(r'(?:href|src)="([^"]*)"', text):
            parts = urlsplit(link)
            if link == "data:,":
                continue
            assert (parts.scheme, parts.netloc) == ("", ""), link
            target = page.parent / unquote(parts.path) if parts.path else page
            assert target.is_file(), (page, link)
            if parts.fragment and target.suffix == ".html":
                assert f'id="{parts.fragment}"' in target.read_text(encoding="utf-8"), link
            found += 1
    assert found > 60
    assert "http" not in (site / "page.js").read_text() + (site / "style.css").read_text()


def test_records_are_copied_as_they_are(site):
    records = [json.loads(path.read_text()) for path in (site / "records").glob("*.json")]
    assert len(records) == 33
    originals = {path.read_bytes() for path in (site.parent / "quick").rglob("*.json")}
    assert {path.read_bytes() for path in (site / "records").glob("*.json")} == originals


def test_a_second_site_in_a_folder_keeps_the_records_that_are_right_and_no_others(tmp_path: Path):
    collection = collect([suite(tmp_path, {"A": runs("a", 0.7), "B": runs("b", 0.2)})])

    def write() -> None:
        write_site(boards(collection.frame, ["quick"]), collection, tmp_path / "site", str)

    write()
    records = tmp_path / "site" / "records"
    first, second, *_ = before = sorted(records.iterdir())
    good = {path: path.read_bytes() for path in before}
    kept = {path: path.stat().st_ino for path in before[2:]}
    first.write_bytes(good[first][:-2] + b" \n")
    second.unlink()
    second.symlink_to(tmp_path / "elsewhere.json")
    (records / "old.json").write_text("{}")
    (records / "folder").mkdir()
    write()
    assert {path: path.read_bytes() for path in sorted(records.iterdir())} == good
    assert kept
    assert {path: path.stat().st_ino for path in kept} == kept
    assert not (tmp_path / "elsewhere.json").exists()


def test_the_command_shown_is_given_by_the_caller(tmp_path):
    collection = collect([suite(tmp_path, {"A": runs("a", 0.5)})])
    found = boards(collection.frame, ["quick"])
    folder = tmp_path / "site"
    write_site(
        found,
        collection,
        folder,
        lambda record: f"make '{record.spec.seed}' <i>",
        notes=["<b>left</b>"],
    )
    for page, seed in (("runs/quick-files-a.html", 2), ("attacks/a.html", 0)):
        text = (folder / page).read_text()
        assert f'data-command="make &#39;{seed}&#39; &lt;i&gt;"' in text
    assert "<li>&lt;b&gt;left&lt;/b&gt;</li>" in (folder / "coverage.html").read_text()


def test_a_page_of_runs_says_how_much_each_run_poisons(tmp_path):
    half = runs("a", 0.5, seeds=(0,), budget=0.3)
    collection = collect([suite(tmp_path, {"A": half})])
    write_site(boards(collection.frame, ["quick"]), collection, tmp_path / "site", str)
    text = (tmp_path / "site/runs/quick-files-a.html").read_text()
    heads = re.findall(r'<th scope="col".*?>(.*?)</th>', text.partition("<tbody>")[0])
    cells = re.findall(r"<t[hd] .*?>(.*?)</t[hd]>|<td>(.*?)</td>", text.partition("<tbody>")[2])
    first = dict(zip(heads, map("".join, cells), strict=False))
    shown = (first["Gain"], first["Poison"], first["no trigger"], first["PSNR query"])
    assert shown == ("49.0", "30.0", "5.0", "30.0")


def test_an_attack_of_a_plugin_has_a_page_without_a_formula(site):
    text = (site / "attacks/a.html").read_text(encoding="utf-8")
    assert "No file of this attack is on the machine that made this page" in text
    assert "bench run --attack a " in text


@in_browser
def test_an_evil_label_stays_text(browser, site):
    for page in site.rglob("*.html"):
        browser.open(page)
        assert browser.run("document.title") != "1"
        assert browser.run("document.querySelectorAll('img[src=x]').length") == 0
    browser.open(site / "index.html")
    assert EVIL in rows_shown(browser)


@in_browser
def test_columns_sort_by_mouse_and_by_keyboard(browser, site):
    browser.open(site / "index.html")
    assert rows_shown(browser) == ["Best", "Blind one", EVIL, "Control"]
    head = "document.querySelector('th[data-key=poison-psnr]')"
    browser.run(f"{head}.querySelector('button').click()")
    assert browser.run(f"{head}.getAttribute('aria-sort')") == "descending"
    assert rows_shown(browser) == [EVIL, "Best", "Blind one", "Control"]
    browser.run(f"{head}.querySelector('button').focus()")
    browser.press("Enter")
    assert browser.run(f"{head}.getAttribute('aria-sort')") == "ascending"
    assert rows_shown(browser) == ["Blind one", "Best", EVIL, "Control"]  # nothing stays below
    assert browser.run("document.querySelectorAll('.board')[0]"
                       ".querySelectorAll('[aria-sort]').length") == 1  # fmt: skip


@in_browser
@pytest.mark.parametrize("column", range(13))
def test_every_column_sorts_both_ways(browser, site, column):
    browser.open(site / "index.html")
    values = (
        f"(h => [1, 2].map(() => {{ h.querySelector('button').click(); return [h.ariaSort,"
        " ...[...h.closest('table').tBodies[0].rows]"
        f".map(r => r.cells[{column}].dataset.value).filter(v => v !== '')]; }}))"
        f"(document.querySelector('.board thead tr').cells[{column}])"
    )
    orders = {way: found for way, *found in browser.run(values)}
    assert set(orders) == {"ascending", "descending"}

    def key(value: str) -> tuple[float, str]:
        try:
            return float(value), ""
        except ValueError:
            return 0.0, re.sub(r"^\W+", "", value).lower()

    rising = orders["ascending"]
    if column != 1:  # the browser's order of punctuation is its own
        assert rising == sorted(rising, key=key)
    assert sorted(rising) == sorted(orders["descending"])
    assert (rising != orders["descending"]) == (len(set(rising)) > 1)


@in_browser
def test_filters_leave_what_they_name(browser, site):
    browser.open(site / "index.html")
    choose(browser, "knowledge", "none")
    assert rows_shown(browser) == ["Blind one"]
    assert browser.run("document.getElementById('count').textContent") == "1 of 5 rows"
    choose(browser, "knowledge", "surrogate")
    choose(browser, "text", "BEST")
    assert rows_shown(browser) == ["Best"]
    choose(browser, "text", "")
    choose(browser, "delivery", "stamped")
    assert browser.run("[...document.querySelectorAll('.board')].map(b => b.hidden)") == [
        True, False
    ]  # fmt: skip
    browser.run("document.querySelector('[type=reset]').click()")
    browser.run("new Promise(done => setTimeout(done, 20))")
    assert rows_shown(browser) == ["Best", "Blind one", EVIL, "Control"]
    choose(browser, "text", "no such attack")
    assert browser.run("document.querySelector('.none').hidden") is False


@in_browser
def test_the_victim_filter_leaves_its_column(browser, site):
    browser.open(site / "index.html")
    choose(browser, "victim", "DPSH")
    shown = browser.run(
        "[...document.querySelectorAll('.board')[0].querySelectorAll('[data-victim]')]"
        ".filter(c => c.checkVisibility()).map(c => c.dataset.victim)"
    )
    assert shown == ["DPSH"] * 5


@in_browser
def test_a_filter_stands_in_the_address_and_comes_back(browser, site):
    browser.open(site / "index.html")
    choose(browser, "knowledge", "none")
    choose(browser, "sort", "attack")
    fragment = browser.run("location.hash")
    browser.open(site / "index.html", fragment)
    assert rows_shown(browser) == ["Blind one"]
    assert browser.run("document.getElementById('sort').value") == "attack"
    browser.open(site / "index.html", "#?knowledge=nonsense")
    assert len(rows_shown(browser)) == 4


@in_browser
def test_a_cell_leads_to_its_record_and_its_command(browser, site):
    browser.open(site / "index.html")
    browser.run("document.querySelector('td[data-victim=CSQ] a').click()")
    browser.until("location.href.endsWith('runs/quick-files-best.html#csq-48')")
    browser.until("document.querySelector('.pictures img')?.complete")
    assert browser.run("document.querySelector('.pictures img').naturalWidth") == 1
    command = browser.run("document.querySelector('.copy').dataset.command")
    assert command.startswith("bench run --attack a --victim csq")
    browser.run("navigator.clipboard.writeText = async (t) => { window.copied = t; }")
    browser.run("document.querySelector('.copy').click()")
    browser.run("new Promise(done => setTimeout(done, 20))")
    assert browser.run("window.copied") == command
    assert browser.run("document.querySelector('.copy').textContent") == "Copied"
    record = browser.run("document.querySelector('a.record').href")
    browser.open(Path(unquote(urlsplit(record).path)))
    assert json.loads(browser.run("document.body.innerText"))["spec"]["victim"] == "csq"


CONTRAST = """(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgb = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = (c) => c.slice(0, 3).map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, k) => sum + v * [.2126, .7152, .0722][k], 0);
  const behind = (e) => { for (; e; e = e.parentElement) {
    const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] === 255) return c; } };
  const low = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility() || e.classList.contains('skip')) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) low.push([e.tagName, e.className, e.textContent.slice(0, 20), ratio]);
  }
  return low;
})()"""


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_text_has_contrast_and_the_page_its_width(browser, site, width, scheme):
    browser.show(width, scheme)
    for page in PAGES:
        browser.open(site / page)
        assert browser.run("document.documentElement.scrollWidth") <= width, page
        assert browser.run(CONTRAST) == []
    browser.show(1280, "light")


@in_browser
def test_a_board_of_many_victims_scrolls_and_leaves_the_attacks_name_its_width(browser, tmp_path):
    many = ("csq", "dch", "dpn", "dpsh", "dpsh_bn", "dsdh", "dtsh", "hashnet", "orthohash")
    place = suite(tmp_path, {"A patch under clean labels": runs("a", 0.5, victims=many)})
    words = ["--out", str(tmp_path / "x.md"), "--site", str(tmp_path / "site")]
    assert main(["leaderboard", str(place), *words]) == 0
    browser.show(1280, "light")
    browser.open(tmp_path / "site" / "index.html")
    assert browser.run("document.querySelector('td.attack').offsetWidth") >= 118
    assert browser.run("document.querySelector('td.attack').offsetHeight") < 120  # px
    assert browser.run("document.documentElement.scrollWidth") <= 1280


@in_browser
def test_a_board_of_four_victims_fits_a_desktop_and_no_word_leaves_its_cell(browser, tmp_path):
    """With the longest words of the published boards, and a gain of too few runs for a test."""
    four = ("csq", "dpsh", "hashnet", "orthohash")
    rows = {
        "Blendings, clean label": runs("a", 0.5, victims=four, seeds=(0, 1), budget=0.05)
        + runs("a", 0.7, victims=four, seeds=(0, 1), budget=0.6),
        "B": runs("b", 0.5, victims=four, seeds=(0, 1), threat={"trigger": "generated"}),
    }
    site = shown(tmp_path, rows)
    browser.show(1280, "light")
    browser.open(site / "index.html")
    text = browser.run("document.querySelector('table').textContent")
    assert "surrogate: as the victim" in text
    assert "no interval" in text
    assert "5–60 %" in text
    assert browser.run(HIDDEN) == [0]
    assert browser.run(LEAVING) == []
    for page in ("attacks/a.html", "victims.html"):
        browser.open(site / page)
        assert browser.run(LEAVING) == [], page


@in_browser
def test_a_board_of_victims_shows_what_retrieval_is_worth_before_the_attacks(browser, tmp_path):
    many = {f"{letter.upper()}, clean label": runs(letter, 0.5) for letter in "abcdefghij"}
    browser.show(1280, "light")
    browser.open(shown(tmp_path, many) / "victims.html")
    assert browser.run(HIDDEN) != [0]
    heads = browser.run(
        "[...document.querySelectorAll('th[data-key]')].map(h => [h.dataset.key,"
        " h.textContent, h.getBoundingClientRect().right])"
    )
    assert [head[0] for head in heads[:6]] == ["place", "victim", "gain", "clean", "map", "a1"]
    assert all(right < 1280 for _, _, right in heads[:6])
    names = browser.run("[...document.querySelector('tbody tr').cells].map(c => c.dataset.name)")
    assert names == [head.strip() for _, head, _ in heads]


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_board_that_goes_on_beyond_its_frame_has_a_shade_at_that_edge(browser, tmp_path, scheme):
    many = ("csq", "dch", "dpn", "dpsh", "dpsh_bn", "dsdh", "dtsh", "hashnet", "orthohash")
    site = shown(tmp_path, {"A": runs("a", 0.5, victims=many), "B": runs("b", 0.2, victims=many)})
    browser.show(1280, scheme)
    browser.open(site / "index.html")
    browser.run("document.documentElement.style.scrollBehavior = 'auto'")

    def shades() -> list[bool]:
        """Whether the left and right edge differ from the card, above the words of the head."""
        left, top, right = browser.run(
            "(r => [r.left, r.top + scrollY, r.right])"
            "(document.querySelector('.scroll').getBoundingClientRect())"
        )
        browser.picture(tmp_path / "page.png")
        with Image.open(tmp_path / "page.png") as page:
            card, *edges = (
                page.convert("L").getpixel((int(x), int(top) + 14))
                for x in (left + 300, left + 3, right - 4)
            )
        return [abs(edge - card) > 25 for edge in edges]

    assert shades() == [False, True]
    browser.run("document.querySelector('.scroll').scrollLeft = 100")
    assert shades() == [True, True]
    browser.run("document.querySelector('.scroll').scrollLeft = 5000")
    assert shades() == [True, False]
    browser.show(1280, "light")


@in_browser
def test_the_button_wins_over_the_systems_colours_and_is_remembered(browser, site):
    paper = "getComputedStyle(document.body).backgroundColor"
    browser.open(site / "index.html")
    light = browser.run(paper)
    browser.run("document.getElementById('theme').click()")
    dark = browser.run(paper)
    browser.open(site / "runs" / "quick-files-best.html")
    assert browser.run(paper) == dark != light
    assert browser.run("document.getElementById('theme').ariaPressed") == "true"
    browser.run("localStorage.clear()")


@in_browser
def test_focus_is_seen(browser, site):
    browser.open(site / "index.html")
    browser.press("Tab")
    browser.press("Tab")
    browser.press("Tab")
    outline = browser.run("getComputedStyle(document.activeElement).outlineWidth")
    assert (browser.run("document.activeElement.tagName"), outline) == ("A", "3px")


@in_browser
def test_the_page_asks_for_nothing_outside_its_folder(browser, site):
    browser.open(site / "runs" / "quick-files-best.html")
    images = "document.images].map(i => (i.loading = 'eager', i.decode())"
    browser.run(f"Promise.all([...{images}))")
    asked = [
        event["params"]["request"]["url"]
        for event in browser.events
        if event.get("method") == "Network.requestWillBeSent"
    ]
    assert len(asked) > 3
    assert all(url.startswith((site.as_uri(), "about:", "data:")) for url in asked), asked


def test_pictures_are_pngs_inside_of_the_folder_of_the_run(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(module, "LARGEST_PICTURE", len(PNG))
    place = suite(tmp_path, {"Best": runs("a", 0.7)})
    linked, other = sorted(place.rglob("a-s[01]-*.json"))[:2]
    private = tmp_path / "private"
    private.mkdir()
    (private / "diary.png").write_bytes(PNG)
    linked.with_suffix("").symlink_to(private)
    folder = other.with_suffix("")
    folder.mkdir()
    os.mkfifo(folder / "pipe.png")
    for name, content in {"poison": PNG, "html": b"<script>", "long": PNG + b"0"}.items():
        (folder / f"{name}.png").write_bytes(content)
    found = collect([place])
    write_site(boards(found.frame, ["quick"]), found, tmp_path / "site", lambda record: "")
    assert [path.read_bytes() for path in (tmp_path / "site").rglob("*.png")] == [PNG]
    text = unescape((tmp_path / "site/coverage.html").read_text())
    for words in (
        f"{linked.stem} is left out: ",
        "pipe.png is left out: it is a named pipe",
        "html.png is left out: it is no PNG",
        "long.png is left out: it has more than",
    ):
        assert words in text
