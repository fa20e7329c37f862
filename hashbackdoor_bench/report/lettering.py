"""Text of pictures and figures: every character is drawn, and none is read as a formula.

Names come from outside, so `style.STYLE` turns the reading of formulas off; the labels of our own
that are formulas turn it on for themselves. What DejaVu Sans lacks, such as Chinese, is drawn by
another font of this machine. A character that none has is written as its code point, ``U+732B``.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry, findfont, fontManager, get_font
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter

from hashbackdoor_bench.report.style import STYLE
from hashbackdoor_bench.text import visible

REGULAR = 400
UNFIT = ("Last Resort", "LastResort")  # fonts whose glyphs are boxes


def legible(figure: Figure) -> None:
    """Make every text of a finished figure visible, and draw it in fonts that have its letters.

    To be called before the figure is written. A figure whose text is all in DejaVu Sans stays as it
    is.
    """
    axes = [axis for one in figure.axes for axis in (one.xaxis, one.yaxis)]
    artists = [one for one in figure.findobj(Text) if not _is_formula(one)]
    texts = {one.get_text() for one in artists} | {text for axis in axes for text in _ticks(axis)}
    missing = {c for text in texts for c in _lines(text)} - _own() - {"\n"}
    if all(text == _lines(text) for text in texts) and not missing:
        return
    families, lacking = _fallback("".join(sorted(missing)))
    if lacking:
        warnings.warn(
            f"no font of this machine has {_some(lacking)}, so pictures show the code point: "
            "install one that has, such as Noto Sans."
        )

    def drawn(text: str) -> str:
        return "".join(f"U+{ord(c):04X}" if c in lacking else c for c in _lines(text))

    for axis in axes:
        formatter = axis.get_major_formatter()
        if isinstance(formatter, FuncFormatter):
            axis.set_major_formatter(FuncFormatter(_after(drawn, formatter.func)))
        axis.set_tick_params(labelfontfamily=[STYLE["font.family"], *families])
    for one in artists:
        one.set_text(drawn(one.get_text()))
        one.set_fontfamily([STYLE["font.family"], *families])


def _is_formula(text: Text) -> bool:
    return bool(text.get_parse_math()) and "$" in text.get_text()


def _ticks(axis: Axis) -> Iterator[str]:
    """The labels of the ticks that were given as texts."""
    formatter = axis.get_major_formatter()
    if isinstance(formatter, FuncFormatter):
        yield from (formatter(value, n) for n, value in enumerate(axis.get_majorticklocs()))


def _after(change: Callable[[str], str], func: Callable[..., str]) -> Callable[..., str]:
    return lambda *place: change(func(*place))


def _lines(text: str) -> str:
    """Visible text; the line ends in it are those of `wrapped` names."""
    return "\n".join(map(visible, text.split("\n")))


@cache
def _own() -> frozenset[str]:
    """The characters of the usual font."""
    return _characters(findfont(STYLE["font.family"]))


def _characters(path: str) -> frozenset[str]:
    return frozenset(map(chr, get_font(path).get_charmap()))


@cache
def _fallback(missing: str) -> tuple[tuple[str, ...], frozenset[str]]:
    """The fonts of this machine that have most of the characters, and those that no font has."""
    families: list[str] = []
    left = frozenset(missing)
    found = {entry.name: _covered(entry, left) for entry in _usable()} if left else {}
    while left:
        name = max(sorted(found), key=lambda name: len(found[name] & left), default="")
        if not name or not found[name] & left:
            break
        families.append(name)
        left -= found[name]
    return tuple(families), left


def _usable() -> Iterable[FontEntry]:
    """Upright fonts of usual weight."""
    return [
        entry
        for entry in fontManager.ttflist
        if entry.style == "normal" and entry.weight == REGULAR and not entry.name.startswith(UNFIT)
    ]


def _covered(entry: FontEntry, wanted: frozenset[str]) -> frozenset[str]:
    """The wanted characters that a font can draw; none if its glyphs are bitmaps of one size."""
    try:
        font: Any = get_font(entry.fname)
    except (OSError, RuntimeError):
        return frozenset()
    return wanted & frozenset(map(chr, font.get_charmap())) if font.scalable else frozenset()


def _some(characters: frozenset[str]) -> str:
    points = sorted(f"U+{ord(c):04X}" for c in characters)
    return ", ".join(points[:5]) + (f" and {len(points) - 5} more" if len(points) > 5 else "")
