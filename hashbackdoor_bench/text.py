"""Text from outside: visible, on one line, and short enough for a sentence.

Names of classes and files, values on the command line and all words of a record or a suite file
come from outside. They may hold what moves a terminal's cursor, turns the direction of writing or
ends a line, and they may be of any length. What a format reads as markup is escaped by
`report.escaping`, and what no font can draw by `report.lettering`.
"""

import re
from collections.abc import Collection, Iterable

VALUE = 80  # characters of a quoted value
SENTENCE = 1000  # characters of a whole message
NAMES, LIST = 30, 300  # names of a list, and about how many characters they may have
WORD = re.compile(r"\S{300,}")  # a path or name that nobody would read to its end
JOINERS = "\u200c\u200d"  # which Persian, Indian scripts and emoji need


def visible(text: object) -> str:
    r"""The text on one line: white space as spaces, other unprintable characters as in Python.

    >>> visible("a\nb\x1b[31m")
    'a b\\x1b[31m'
    """
    words = str(text)
    if words.isprintable():  # nearly always, and much faster
        return words
    return "".join(
        c if c.isprintable() or c in JOINERS else " " if c.isspace() else ascii(c)[1:-1]
        for c in words
    )


def one_line(text: object) -> str:
    """`visible`, with single spaces between words and none around them."""
    return " ".join(visible(text).split())


def quoted(value: object, longest: int = VALUE) -> str:
    """A value as Python writes it; of a longer one the beginning, and how long it is.

    >>> quoted("x" * 99, 8)
    "'xxxxxxx… (101 characters)"
    """
    try:
        return shortened(visible(repr(value)), longest)
    except (ValueError, RecursionError):  # a number of more than 4300 digits; nested too deeply
        return f"a {type(value).__name__} that is too large to be shown"


def shortened(text: str, longest: int = VALUE) -> str:
    """A text; of a longer one the beginning, and how long it is."""
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text)} characters)"


def listed(names: Iterable[object], most: int = NAMES) -> str:
    """Names with commas between them; of many the first, and how many others there are."""
    known = names if isinstance(names, Collection) else list(names)
    shown: list[str] = []
    for name in known:
        if len(shown) == most or sum(map(len, shown)) > LIST:
            return f"{', '.join(shown)}, … and {len(known) - len(shown)} more"
        shown.append(shortened(visible(name)))
    return ", ".join(shown)


def counted(number: int, noun: str) -> str:
    """A number with its noun, ``1 thread`` or ``2 threads``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def sentence(text: object) -> str:
    """A message as `visible` text; a longer one keeps its beginning and its end.

    The end says what to type next.
    """
    shown = WORD.sub(lambda found: shortened(found[0]), visible(text))
    if len(shown) <= SENTENCE:
        return shown
    end = SENTENCE // 4
    return f"{shown[: SENTENCE - end]} [… {len(shown) - SENTENCE} characters …] {shown[-end:]}"
