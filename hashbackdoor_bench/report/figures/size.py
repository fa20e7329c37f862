"""Another size for a finished figure, with text of the same size: that of a journal's column."""

import re
import warnings
from itertools import combinations

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.style import context
from matplotlib.text import Text

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.report.figures.finished import FinishedFigure
from hashbackdoor_bench.report.figures.groups import LETTER, legend_columns, wrapped
from hashbackdoor_bench.report.style import STYLE
from hashbackdoor_bench.text import quoted

INCHES = {"mm": 1 / 25.4, "cm": 1 / 2.54, "in": 1.0}
SIZE = re.compile(
    r"(?P<width>[0-9]+(\.[0-9]+)?)(?P<unit>mm|cm|in)?"
    r"(x(?P<height>[0-9]+(\.[0-9]+)?)(?P<other>mm|cm|in))?"
)
LEAST, MOST = 0.5, 60  # inches
BESIDE = 0.3  # inches beside the title of a panel that is alone in its row
LINE = 0.16  # inches for each line of a legend

Size = tuple[float, float | None]  # width and height in inches; None: as the figure needs


def size_of(text: str) -> Size:
    """The size that a text such as ``84mm``, ``3.3in`` or ``17.4x9cm`` says.

    Raises:
        UserError: it says none, or one that no page has.
    """
    found = SIZE.fullmatch(text.strip().lower().replace(" ", ""))
    unit = found and (found["unit"] or found["other"])
    if not found or not unit:
        raise UserError(
            f"--figure-size {quoted(text)}: give a width, or width and height, in mm, cm or in, as "
            "in 84mm or 174mmx90mm."
        )
    width = float(found["width"]) * INCHES[unit]
    height = float(found["height"]) * INCHES[found["other"]] if found["height"] else None
    for side in (width, height):
        if side is not None and not LEAST <= side <= MOST:
            raise UserError(
                f"--figure-size {quoted(text)}: each side is from {LEAST:g} to {MOST} inches."
            )
    return width, height


def resize(drawn: FinishedFigure, size: Size) -> None:
    """Give a figure another size; its legend and titles are broken into lines again.

    Raises:
        UserError: its text has no room there.
    """
    figure, (width, height) = drawn.figure, size
    before = figure.get_figwidth()
    with context(["default", STYLE]):
        more = sum(_fit(legend, before, width) for legend in figure.legends)
        figure.set_size_inches(width, height or figure.get_figheight() + LINE * more)
        FigureCanvasAgg(figure)
        _laid_out(figure)  # so that the panels have their widths
        for axes in figure.axes:
            _break(axes, width, same=width == before)
        if not _laid_out(figure) or _collides(figure):
            sides = " x ".join(f"{side / INCHES['mm']:.0f} mm" for side in size if side)
            raise UserError(
                f"--figure-size: the text of figure {drawn.name} has no room in {sides}: give "
                "more, or show less with --where."
            )


def _fit(legend: Legend, before: float, width: float) -> int:
    """Give a legend the columns that fit; how many lines it has more than before."""
    texts = [text.get_text() for text in legend.get_texts()]
    old, new = (legend_columns(texts, inches) for inches in (before, width))
    legend.set_ncols(new)
    return -(-len(texts) // new) - -(-len(texts) // old)


def _laid_out(figure: Figure) -> bool:
    """Lay the figure out; whether every panel has room."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "constrained_layout not applied")
        try:
            figure.draw_without_rendering()
        except UserWarning:
            return False
    return True


def _titles(axes: Axes) -> list[Text]:
    """The titles that are drawn, the left one first."""
    shown = [axes.get_title(loc=side) for side in ("left", "right")]
    texts = [one for one in axes.get_children() if isinstance(one, Text)]
    return [one for text in shown if text for one in texts if one.get_text() == text][:2]


def _break(axes: Axes, width: float, *, same: bool) -> None:
    """Break the title of a panel into lines that are as wide as the panel."""
    spec = axes.get_subplotspec()
    if same or spec is None or not axes.get_title(loc="left"):
        return
    title, *others = _titles(axes)
    room = axes.get_window_extent().width / axes.figure.dpi
    if spec.get_gridspec().ncols == 1:  # nothing stands beside it
        room = width - BESIDE
    beside = sum(LETTER * len(one.get_text()) for one in others)
    title.set_text(wrapped(" ".join(title.get_text().split()), room - beside))


def _collides(figure: Figure) -> bool:
    """Whether two titles overlap, or text of the figure lies beyond its edge."""
    shown = [axes for axes in figure.axes if axes.get_visible()]
    boxes = [title.get_window_extent() for axes in shown for title in _titles(axes)]
    edge = [*boxes, *(legend.get_window_extent() for legend in figure.legends)]
    whole = figure.bbox.padded(1)
    return any(one.overlaps(other) for one, other in combinations(boxes, 2)) or not all(
        whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1
        for box in edge
    )
