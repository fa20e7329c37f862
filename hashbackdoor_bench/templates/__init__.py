"""The first two files of a new method: a working example to rewrite, and its test."""

import sys
from importlib.machinery import PathFinder
from importlib.resources import files
from pathlib import Path
from string import Template

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.registry import METHODS, new_name


def write_skeleton(kind: str, name: str, folder: Path) -> tuple[Path, Path]:
    """Write the file of a new method and its test; returns their paths.

    Args:
        kind: ``attack``, ``victim`` or ``defense``.
        name: name of the method, see `new_name`.
        folder: folder of both files; made if it doesn't exist.

    Raises:
        UserError: the name is not allowed or that of an installed module, a file exists, or the
            folder can't be written to.
    """
    name = new_name(METHODS[kind], name)
    _refuse_module(kind, name, folder)
    words = name.split("_")
    values = {
        "name": name,
        "title": " ".join(words).capitalize(),
        "class_name": "".join(word.capitalize() for word in words),
    }
    texts = {}
    for template, path in (
        (f"{kind}.py.txt", folder / f"{name}.py"),
        (f"test_{kind}.py.txt", folder / f"test_{name}.py"),
    ):
        if path.exists():
            raise UserError(f"{path} exists already: give another name, or another --dir.")
        source = files("hashbackdoor_bench.templates") / template
        texts[path] = Template(source.read_text(encoding="utf-8")).substitute(values)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise UserError(
            f"{folder} can't be written ({error.strerror}): give another folder with --dir."
        ) from error
    method, test = texts
    return method, test


def _refuse_module(kind: str, name: str, folder: Path) -> None:
    """Refuse the name of a module, which ``import`` would find in the new file instead."""
    elsewhere = [place for place in sys.path if Path(place).resolve() != folder.resolve()]
    spec = PathFinder.find_spec(name, elsewhere)
    if name in sys.stdlib_module_names or (spec and spec.loader):  # a plain folder has no loader
        raise UserError(
            f"{kind} {name!r} is the name of an installed module, and in the folder of {name}.py "
            f"an import of it would find this file: take another name, such as {name}_{kind}."
        )
