"""One colour, marker and filling for each defense, whatever figure it stands in."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from hashbackdoor_bench.registry import DEFENSES
from hashbackdoor_bench.report.style import FILLS, HUES, MARKERS, cycled

SYMBOLS = tuple(marker for marker in MARKERS if marker != "*")  # the star is no defense


def looks_of(defenses: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """How the marks of each defense look, which follows from its place among all defenses.

    The filling changes when the symbols run out, so that no two look alike in a grey print either.

    Args:
        defenses: what a figure calls its marks -> the name of their defense on the command line.
            Several of one defense differ in the filling only.
    """
    known = list(DEFENSES)
    places = [*known, *sorted(set(defenses.values()) - set(known))]
    found, before = {}, Counter[str]()
    for name, defense in defenses.items():
        place = places.index(defense)
        found[name] = {
            "color": cycled(HUES, place),
            "marker": cycled(SYMBOLS, place),
            "fillstyle": cycled(FILLS, place // len(SYMBOLS) + before[defense]),
            "markeredgewidth": 0.8,
        }
        before[defense] += 1
    return found
