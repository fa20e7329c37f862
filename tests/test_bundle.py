"""A single record as a folder that opens without a server."""

import io
import re
from html import unescape
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser
from made_records import made, stored
from msgspec.structs import replace
from PIL import Image
from test_page import CONTRAST, PNG

from hashbackdoor_bench.cli import main
from hashbackdoor_bench.records import read_record
from hashbackdoor_bench.report import result_rows

PUBLISHED = Path(__file__).parents[1] / "results/fashion-mini/hashnet-48"
PICTURE = "ciba-s0-827e7c929f/trigger.png"
EVIL = "<script>document.title=1</script>"
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt install chromium")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That of a published record with pictures."""
    folder = tmp_path_factory.mktemp("bundle") / "out"
    record = PUBLISHED / "ciba-s0-827e7c929f.json"
    assert main(["show", "record", str(record), "--bundle", str(folder)]) == 0
    return folder


def test_all_numbers_of_a_record_are_on_its_page_with_what_each_says(bundle):
    record = read_record(PUBLISHED / "ciba-s0-827e7c929f.json")
    text = unescape((bundle / "index.html").read_text(encoding="utf-8"))
    plain = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text))
    rows = list(result_rows(record))
    assert len(rows) == 9
    for cells in rows:
        assert " ".join(filter(None, cells)) in plain, cells
    for word in (record.key, record.commit, record.protocol.sha256, record.protocol.pixels):
        assert str(word) in plain
    for key in record.artifacts.values():
        assert key in plain
    assert "bench run --target Coat --delivery stamped" in plain
    assert "arXiv:2109.08868" in plain
    assert 'class="formula"' in text


def test_a_bundle_holds_the_record_its_pictures_and_its_figures(bundle):
    (record,) = (bundle / "records").iterdir()
    assert record.read_bytes() == (PUBLISHED / "ciba-s0-827e7c929f.json").read_bytes()
    originals = {path.read_bytes() for path in (PUBLISHED / "ciba-s0-827e7c929f").glob("*.png")}
    assert {path.read_bytes() for path in (bundle / "images").rglob("*.png")} == originals
    for name in ("distances", "precision-recall", "codes"):
        assert (bundle / f"figures/{name}.pdf").read_bytes().startswith(b"%PDF")
        image = Image.open(io.BytesIO((bundle / f"figures/{name}.png").read_bytes()))
        assert image.format == "PNG"
    text = (bundle / "index.html").read_text(encoding="utf-8")
    for link in re.findall(r'(?:href|src)="([^"#:]+)"', text):
        assert (bundle / link).is_file(), link


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_bundle_is_shown_from_its_folder_alone(tmp_path, bundle, width, scheme):
    with Browser(tmp_path / "profile", width=width, scheme=scheme) as browser:
        browser.open(bundle / "index.html")
        images = "document.images].map(i => (i.loading = 'eager', i.decode())"
        browser.run(f"Promise.all([...{images}))")
        assert browser.run("document.documentElement.scrollWidth") <= width
        assert browser.run(CONTRAST) == []
        asked = [
            event["params"]["request"]["url"]
            for event in browser.events
            if event.get("method") == "Network.requestWillBeSent"
        ]
        assert len(asked) > 8
        assert all(url.startswith((bundle.as_uri(), "about:", "data:")) for url in asked), asked


def test_what_a_record_says_stays_text_in_its_bundle(tmp_path):
    record = made(attack="mine", target=EVIL, commit=EVIL)
    record = replace(record, threat=replace(record.threat, trigger=EVIL), device=EVIL)
    path = stored(tmp_path / "runs", record)
    path.with_suffix("").mkdir()
    (path.with_suffix("") / "poison.png").write_bytes(PNG)
    (path.with_suffix("") / "secret.png").symlink_to(PUBLISHED / PICTURE)
    assert main(["show", "record", str(path), "--bundle", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out/index.html").read_text(encoding="utf-8")
    assert "<script>" not in text
    assert unescape(text).count(EVIL) >= 4
    assert "secret.png is left out: it is a link" in text
    assert sorted(p.name for p in (tmp_path / "out/images").rglob("*.png")) == ["poison.png"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["record", "{path}", "--bundle", "{full}"], "no bundle; give a new folder"),
        (["record", "{full}", "--bundle", "{new}"], "is a folder: give the JSON file of one"),
        (["record", "missing.json"], "is no file: give the JSON file of one record"),
        (["attack", "ciba", "--bundle", "{new}"], "attack ciba is none: type `bench show record"),
    ],
)
def test_wrong_input_is_one_sentence_and_nothing_is_written(tmp_path, capsys, words, told):
    path = stored(tmp_path / "runs", made())
    mine = tmp_path / "full" / "index.html"
    mine.parent.mkdir()
    mine.write_text("mine")
    places = {"path": path, "full": mine.parent, "new": tmp_path / "new"}
    assert main(["show", *(word.format(**places) for word in words)]) == 2
    assert told in capsys.readouterr().err
    assert mine.read_text() == "mine"
    assert not (tmp_path / "new").exists()


def test_a_bundle_is_made_again_over_itself(tmp_path):
    path = stored(tmp_path / "runs", made())
    words = ["show", "record", str(path), "--bundle", str(tmp_path / "out")]
    assert main(words) == 0
    first = {p.name: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert main(words) == 0
    again = {p.name: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert again == first
