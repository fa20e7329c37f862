"""Which pictures stand beside a record; apart from drawing, so that looking needs no matplotlib."""

from pathlib import Path


def complete(folder: Path, *, poisoned: bool, curves: bool) -> list[Path]:
    """The pictures of a run, if all that `pictures.draw` makes are there; else an empty list.

    Args:
        folder: see `pictures.draw`.
        poisoned: whether the run poisons anything.
        curves: whether there are any.
    """
    names = [("poison",), ("queries",), ("trigger", "residual")] if poisoned else []
    names += [("retrieval",), *([("curves",)] if curves else [])]
    paths = [[folder / f"{name}.png" for name in either] for either in names]
    there = [[path for path in either if path.is_file()] for either in paths]
    return [path for either in there for path in either] if all(there) else []
