"""How every picture and figure looks: type, widths, and colours that colour-blind eyes tell apart.

What a colour says is said by a marker, a dash or a filling too, so that a grey print loses nothing.
The colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color), the dark ones first.
"""

from typing import Any

COLUMN, TEXT = 3.4, 7.0  # inches: a column of a two-column paper, and its whole width
SIZE, SMALL, LEAST = 8, 7, 6  # pt at print size: titles; axes and legends; numbers in cells

HIT, MISS = "#0072b2", "#d55e00"  # blue and vermilion: far apart for all eyes, and in grey
HUES = (HIT, MISS, "#009e73", "#cc79a7", "#000000", "#56b4e9", "#e69f00", "#999999")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p", "h")
FILLS = ("full", "none", "left", "top", "right", "bottom")
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)), (0, (6, 1, 1, 1)))
SEQUENCE = "cividis"  # from dark to light, the same order for all eyes

STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": SIZE,
    "text.parse_math": False,  # names from outside may hold dollar signs
    "axes.titlesize": SIZE,
    "axes.titlelocation": "left",
    "axes.labelsize": SMALL,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # TrueType, which publishers and editors of vector graphics take
    "hatch.linewidth": 0.4,
}
TICKS: Any = {"labelsize": SMALL, "length": 2, "pad": 2}
GRID: Any = {"linewidth": 0.4, "color": "0.85"}


def cycled(looks: tuple[Any, ...], number: int) -> Any:
    """The look of thing number 0, 1, 2, …, from the start again when they run out."""
    return looks[number % len(looks)]
