"""The letters of pictures: from which fonts they come, and what stands for those that none has."""

import warnings
from pathlib import Path

import matplotlib as mpl
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager

from hashbackdoor_bench.report import lettering
from hashbackdoor_bench.report.lettering import legible
from hashbackdoor_bench.report.style import STYLE

PLACES = 5  # title, text, legend, and a tick below and above
RARE = "\U00013000"  # an Egyptian hieroglyph, which no font of a usual machine has


def font_with(character: str, path: Path) -> Path:
    """A font of one square glyph."""
    pen = TTGlyphPen(None)
    for number, corner in enumerate([(0, 0), (0, 700), (700, 700), (700, 0)]):
        (pen.lineTo if number else pen.moveTo)(corner)
    pen.closePath()
    made = FontBuilder(1000, isTTF=True)
    made.setupGlyphOrder([".notdef", "square"])
    made.setupCharacterMap({ord(character): "square"})
    made.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "square": pen.glyph()})
    made.setupHorizontalMetrics({".notdef": (800, 0), "square": (800, 0)})
    made.setupHorizontalHeader(ascent=800, descent=-200)
    made.setupNameTable({"familyName": "Hieroglyphs of a test", "styleName": "Regular"})
    made.setupOS2(usWeightClass=400)
    made.setupPost()
    made.save(path)
    return path


def figure_of(name: str) -> Figure:
    """The name as a title, a text, a legend and the labels of ticks."""
    with mpl.rc_context(STYLE):
        figure = Figure()
        axes = figure.add_subplot()
        axes.set_title(name)
        axes.plot([0, 1], label=name)
        axes.legend()
        axes.set_xticks([0, 1], [name, "b"])
        figure.text(0, 0, name)
        FigureCanvasAgg(figure)
    return figure


def texts(figure: Figure) -> list[str]:
    figure.draw_without_rendering()
    return [one.get_text() for one in figure.findobj(mpl.text.Text)]


def drawn(name: str) -> list[str]:
    """The texts of the figure after `legible`, drawn without any warning but the one on fonts."""
    with warnings.catch_warnings(), mpl.rc_context(STYLE):
        warnings.filterwarnings("error")
        warnings.filterwarnings("ignore", message="no font of this machine has")
        figure = figure_of(name)
        legible(figure)
        return texts(figure)


@pytest.mark.parametrize(
    "name", ["Ba$$in", "$x", "a_b^c", "\\frac{", "$\\nonsense$", "Coat", "±→é"]
)
def test_a_name_is_no_formula_and_stays_as_it_is(name):
    assert drawn(name).count(name) == PLACES


def test_control_characters_are_visible():
    assert drawn("a\x1b\u202eb").count("a\\x1b\\u202eb") == PLACES


def test_a_letter_that_no_font_has_is_written_as_its_code_point_and_told_once():
    assert drawn(f"a{RARE}b").count("aU+13000b") == PLACES
    with mpl.rc_context(STYLE), pytest.warns(UserWarning, match=r"has U\+13000, so") as notes:
        legible(figure_of(RARE))
    assert len(notes) == 1


def test_a_letter_that_another_font_has_is_drawn_in_it(tmp_path):
    before = list(fontManager.ttflist)
    fontManager.addfont(font_with(RARE, tmp_path / "test.ttf"))
    lettering._fallback.cache_clear()
    try:
        with mpl.rc_context(STYLE), warnings.catch_warnings():
            warnings.simplefilter("error")
            figure = figure_of(f"a{RARE}")
            legible(figure)
            found = [one for one in figure.findobj(mpl.text.Text) if RARE in one.get_text()]
            assert len(found) >= 3
            assert all("Hieroglyphs of a test" in one.get_fontfamily() for one in found)
            figure.savefig(tmp_path / "x.png")
            figure.savefig(tmp_path / "x.pdf")
            assert texts(figure).count(f"a{RARE}") == PLACES
    finally:
        fontManager.ttflist[:] = before
        lettering._fallback.cache_clear()
