"""A figure with its name and caption, and its files: the same records give the same bytes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.style import context

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.files import whole
from hashbackdoor_bench.report.escaping import for_file_name, for_markdown
from hashbackdoor_bench.report.lettering import legible
from hashbackdoor_bench.report.style import STYLE

DPI = 300

# what matplotlib would write of the moment and of itself
SILENT: dict[str, dict[str, Any]] = {
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}


class Unfilled(UserError):
    """The records are sound, but hold nothing that the figure could show."""


@dataclass(frozen=True)
class FinishedFigure:
    """A finished figure.

    Attributes:
        name: of its files.
        figure: the picture.
        caption: sentences.
    """

    name: str
    figure: Figure
    caption: tuple[str, ...]

    def write(self, folder: Path, kinds: Sequence[str]) -> list[Path]:
        """Write ``NAME.KIND`` for every kind of ``SILENT``, and the caption as ``NAME.md``.

        Raises:
            OSError: the folder can't be written to.
        """
        folder.mkdir(parents=True, exist_ok=True)
        FigureCanvasAgg(self.figure)
        name = for_file_name(self.name)
        paths = [folder / f"{name}.{kind}" for kind in kinds]
        with context(["default", STYLE]):
            legible(self.figure)
            for path, kind in zip(paths, kinds, strict=True):
                with whole(path) as fresh:
                    self.figure.savefig(fresh, dpi=DPI, format=kind, metadata=SILENT[kind])
        caption = folder / f"{name}.md"
        with whole(caption) as fresh:
            text = for_markdown(" ".join(self.caption))
            fresh.write_text(f"{text}\n", encoding="utf-8", newline="\n")
        return [*paths, caption]
