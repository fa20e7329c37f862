"""A TOML file whose mistakes are named by the path of their key."""

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hashbackdoor_bench.errors import UserError, unknown
from hashbackdoor_bench.text import quoted

LARGEST_FILE = 1_000_000  # bytes; the largest shipped suite has 2 000
DEEPEST = 20  # parts of a dotted key; the time that TOML takes grows with their square
DOTTED = re.compile(rf"""(?:(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){{{DEEPEST}}}""")


@dataclass(frozen=True)
class KeyPath:
    """The way to a key in a file: ``attack[2].bits``; empty for the file itself."""

    file: Path
    key: str = ""

    def __truediv__(self, name: str) -> "KeyPath":
        """The path of a key below this one; a name that TOML must quote is quoted."""
        quoted = name if re.fullmatch(r"[\w-]+", name) else json.dumps(name)
        return replace(self, key=f"{self.key}.{quoted}" if self.key else quoted)

    def __getitem__(self, number: int) -> "KeyPath":
        """The path of an entry of this list, counted from 1."""
        return replace(self, key=f"{self.key}[{number}]")

    def wrong(self, message: object) -> UserError:
        """The error for a mistake at this key."""
        return UserError(f"{self}: {message}")

    @contextmanager
    def named(self) -> Iterator[None]:
        """Put this path in front of the message of a `UserError`."""
        try:
            yield
        except UserError as error:
            raise self.wrong(error) from error

    def __str__(self) -> str:
        return f"{self.file}: {self.key}" if self.key else str(self.file)


def parsed(path: Path) -> dict[str, Any]:
    """The top table of a file; its size, depth and numbers are bounded.

    Raises:
        UserError: it is not TOML, too large, or nested too deeply.
    """
    deep = f"{path} is nested too deeply: write lists of words or numbers."
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise UserError(
                f"{path} has more than {LARGEST_FILE // 1000} kB: give a TOML file of options."
            )
        text = content.decode("utf-8")
        if DOTTED.search(text):
            raise UserError(deep)
        top = tomllib.loads(text)
        repr(top)  # messages print values, so those that can't be printed are refused here
    except tomllib.TOMLDecodeError as error:
        if name := _given_twice(text):
            raise UserError(
                f"{path} gives {name} as {name} = … and as a table [{name}] or [[{name}]]: keep "
                "the tables, one for each, or the line alone."
            ) from error
        raise UserError(f"{path} is not valid TOML: {error}; see https://toml.io.") from error
    except RecursionError as error:
        raise UserError(deep) from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read as a text file in UTF-8: {error}.") from error
    except ValueError as error:  # Python reads and prints no number of more than 4300 digits
        raise UserError(f"{path} holds a number that is too long: {error}.") from error
    return top


def _given_twice(text: str) -> str | None:
    """A name above all tables that is also the name of a table; None if there is none."""
    above = re.split(r"^[ \t]*\[", text, maxsplit=1, flags=re.MULTILINE)[0]
    values = set(re.findall(r"^[ \t]*([\w-]+)[ \t]*=", above, flags=re.MULTILINE))
    named = re.findall(r"^[ \t]*\[\[?[ \t]*([\w-]+)[ \t]*\]", text, flags=re.MULTILINE)
    return next((name for name in named if name in values), None)


def refuse_unknown(table: Mapping[str, Any], at: KeyPath, known: Iterable[str]) -> None:
    """Refuse keys of a table that are not among ``known``."""
    for name in table:
        if name not in known:
            raise at.wrong(unknown("key", name, known))


def entries(value: Any, at: KeyPath) -> list[tuple[Any, KeyPath]]:
    """The entries of a list with their paths; any other value is its own only entry."""
    if isinstance(value, list):
        return [(entry, at[number]) for number, entry in enumerate(value, 1)]
    return [(value, at)]


def tables(top: Mapping[str, Any], here: KeyPath, name: str) -> list[tuple[Any, KeyPath]]:
    """Each ``[[name]]`` with its path."""
    found = entries(top[name], here / name)
    if isinstance(top[name], dict) or not all(isinstance(table, dict) for table, _ in found):
        raise (here / name).wrong(f"these must be tables: write [[{name}]], in two brackets.")
    return found


def text_of(table: Mapping[str, Any], at: KeyPath, name: str) -> str:
    """The text of a key."""
    if not isinstance(table[name], str):
        raise (at / name).wrong(f'{name} is {quoted(table[name])}: write {name} = "…".')
    return str(table[name])
