"""Names of files and classes as text: unique, comparable, and of any bytes."""

import os
import unicodedata
from collections import Counter
from collections.abc import Sequence


def as_text(name: str) -> str:
    r"""A file name as text for any file: bytes that are not UTF-8 become ``\xff``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def unique(names: Sequence[str]) -> tuple[str, ...]:
    """Make names unique: the second ``a.jpg`` of a list becomes ``a.jpg#2``."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return tuple(found)


def folded(name: str) -> str:
    """A name without the differences of upper and lower case and of Unicode's normal forms."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
