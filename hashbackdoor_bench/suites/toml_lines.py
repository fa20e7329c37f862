"""A TOML file whose tables know on which line each of their keys stands; tomllib tells no lines."""

import tomllib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hashbackdoor_bench.errors import UserError, unknown

Steps = tuple[str | int, ...]  # from the top of a file to a key: names, and indices in lists


@dataclass(frozen=True)
class Place:
    """A line of a file, counted from 1."""

    path: Path
    line: int

    def wrong(self, message: object) -> UserError:
        """The error for a mistake that stands here."""
        return UserError(f"{self}: {message}")

    @contextmanager
    def named(self) -> Iterator[None]:
        """Put this place before what a `UserError` says."""
        try:
            yield
        except UserError as error:
            raise self.wrong(error) from error

    def __str__(self) -> str:
        return f"{self.path}, line {self.line}"


class Table(dict[str, Any]):
    """A table of a TOML file; the tables in it, and in its lists, are of this class too.

    Attributes:
        place: of the table.
        places: of its keys.
    """

    def __init__(
        self, tree: dict[str, Any], path: Path, lines: dict[Steps, int], at: Steps
    ) -> None:
        def grown(value: Any, at: Steps) -> Any:
            if isinstance(value, list):
                return [grown(entry, (*at, number)) for number, entry in enumerate(value)]
            return Table(value, path, lines, at) if isinstance(value, dict) else value

        super().__init__({name: grown(value, (*at, name)) for name, value in tree.items()})
        self.place = Place(path, lines.get(at, 1))
        self.places = {name: Place(path, lines[*at, name]) for name in tree}

    def check(self, known: Iterable[str]) -> None:
        """Refuse keys that mean nothing.

        Raises:
            UserError: a key is not ``known``; the message names its line and the nearest.
        """
        names = set(known)
        for name in self:
            if name not in names:
                raise self.places[name].wrong(unknown("key", name, names))

    def word(self, name: str) -> str:
        """The text of a key.

        Raises:
            UserError: it is no text.
        """
        if not isinstance(self[name], str):
            raise self.places[name].wrong(f'{name} is {self[name]!r}: write {name} = "…".')
        return str(self[name])


def read_toml(path: Path) -> Table:
    """The top table of a file.

    Raises:
        UserError: it can't be read, or is no TOML; then the message names the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read as a text file in UTF-8: {error}.") from error
    lines, last = lines_of(text)
    try:
        return Table(tomllib.loads(text), path, lines, ())
    except tomllib.TOMLDecodeError as error:
        reason = str(error).partition(" (at ")[0]
        raise Place(path, last).wrong(f"this is no TOML: {reason}; see https://toml.io.") from error


def lines_of(text: str) -> tuple[dict[Steps, int], int]:
    """The line of every key of a text, and the line after the part of it that is TOML.

    A key stands where it first shows when the text is parsed line by line. The first lines of a
    statement that spans several are no TOML without the last one, so it counts for its first line.
    """
    lines = text.split("\n")
    found: dict[Steps, int] = {}
    start = 1
    for number in range(1, len(lines) + 1):
        try:
            tree = tomllib.loads("\n".join(lines[:number]))
        except tomllib.TOMLDecodeError:
            continue
        for steps in _steps(tree, ()):
            found.setdefault(steps, start)
        start = number + 1
    return found, start


def _steps(value: Any, above: Steps) -> Iterator[Steps]:
    """The way to every key, and to every entry of a list, below ``value``."""
    for step, below in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*above, step)
        if isinstance(below, dict | list):
            yield from _steps(below, (*above, step))
