"""Sections of docstrings that Google's style doesn't know, made lists as those that it knows."""

import re
from typing import Any

from griffe import Extension, Object

SECTION = re.compile(r"^([A-Z][^:\n]*):\n(?=    [a-z_]+: )", re.MULTILINE)
KNOWN = {"Args", "Attributes", "Returns", "Raises", "Yields"}


class Sections(Extension):
    """``Class data:`` and the like become ``Attributes:``; a longer title stays as a sentence."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite the docstring of a class."""
        if obj.docstring is not None:
            obj.docstring.value = SECTION.sub(_renamed, obj.docstring.value)


def _renamed(section: re.Match[str]) -> str:
    title = section[1]
    if title in KNOWN:
        return section[0]
    return "Attributes:\n" if title == "Class data" else f"{title}.\n\nAttributes:\n"
