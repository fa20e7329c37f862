"""Which pictures of a run exist, and drawing those that don't; looking needs no matplotlib."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hashbackdoor_bench.stages import Shown


def existing(folder: Path, *, poisoned: bool, curves: bool) -> list[Path]:
    """The pictures of a run, if all that `drawing.draw` makes are there; else an empty list.

    Args:
        folder: see `drawing.draw`.
        poisoned: whether the run poisons anything.
        curves: whether there are any.
    """
    names = [("poison",), ("queries",), ("trigger", "residual")] if poisoned else []
    names += [("retrieval",), *([("curves",)] if curves else [])]
    paths = [[folder / f"{name}.png" for name in either] for either in names]
    there = [[path for path in either if path.is_file()] for either in paths]
    return [path for either in there for path in either] if all(there) else []


def draw_missing(folder: Path, shown: "Shown") -> list[Path]:
    """The pictures of a run, drawn if any is missing; a `stages.Draw`."""
    there = existing(folder, poisoned=shown.poisoned, curves=bool(shown.curves))
    if there:
        return there
    from hashbackdoor_bench.report.pictures.drawing import draw  # late: half a second of matplotlib

    return draw(
        shown.images(),
        folder,
        target=shown.target,
        sources=shown.sources,
        relabelled=shown.relabelled,
        curves=shown.curves,
    )
