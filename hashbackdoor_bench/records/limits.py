"""How large the values of a record may be, so that no file of a stranger can stop who reads it.

The classes of `schema` say which types its fields have. What they leave open is bounded here: the
hyper-parameters, which may be any JSON value, and the texts of a run.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from hashbackdoor_bench.errors import UserError

DEEPEST = 8  # lists and objects inside one another
LONGEST = 4096  # characters of a text; a path has no more
MOST = 10_000  # values in one hyper-parameter
LARGEST_NUMBER = 2**53  # above it, not every whole number is a float

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"(:)?')  # with the colon that follows a name


def check_values(place: str, values: Mapping[str, Any]) -> None:
    """Refuse JSON values that are nested too deeply, too long, or hold too large a number.

    Args:
        place: where in the record they are, for the message.
        values: any JSON values, by name; each is held against the limits by itself.

    Raises:
        UserError: one is outside the limits.
    """
    for name, value in values.items():
        if not _small(value):  # most are
            _check_value(f"{place}.{name}", value)


def _check_value(name: str, value: Any) -> None:
    left, seen = [(value, 0)], 0
    while left:
        one, depth = left.pop()
        seen += 1
        if depth > DEEPEST:
            raise UserError(f"{name} is nested too deeply, more than {DEEPEST} times")
        if seen > MOST:
            raise UserError(f"{name} has more than {MOST} values")
        if isinstance(one, str) and len(one) > LONGEST:
            raise UserError(f"{name} is a text of {len(one)} characters; {LONGEST} are allowed")
        if isinstance(one, int) and abs(one) > LARGEST_NUMBER:
            raise UserError(f"{name} is a number of more than 53 bits")
        if isinstance(one, dict):
            left += [(entry, depth + 1) for pair in one.items() for entry in pair]
        elif isinstance(one, list | tuple):
            left += [(entry, depth + 1) for entry in one]


def _small(value: Any) -> bool:
    """Whether a value is a number or a text within the limits."""
    if isinstance(value, str):
        return len(value) <= LONGEST
    if isinstance(value, int):
        return abs(value) <= LARGEST_NUMBER
    return value is None or isinstance(value, float)


def check_names(name: str, names: Iterable[str]) -> None:
    """Refuse hyper-parameters that are not in the order of their names, or named twice.

    Raises:
        UserError: see above.
    """
    known = list(names)
    if known != sorted(set(known)):
        raise UserError(
            f"{name} names a hyper-parameter twice, or not in the order of the alphabet"
        )


def check_keys(data: bytes, values: Any) -> None:
    """Refuse an object that has a name twice, since readers may take the first value or the last.

    Args:
        data: the JSON text, without spaces.
        values: its values, in which every name stands once.

    Raises:
        UserError: the text has more names than the values.
    """
    again = msgspec.json.encode(values)  # has every name once, and the same strings
    # without a backslash no string holds a quotation mark, so `":` is the end of a name or the
    # beginning of a string, of which only a value that was dropped can make more in the data
    if b"\\" in data or b"\\" in again:
        found = [sum(map(bool, _STRING.findall(text))) for text in (data, again)]
    else:
        found = [text.count(b'":') for text in (data, again)]
    if found[0] != found[1]:
        raise UserError("an object in it has one name twice")
