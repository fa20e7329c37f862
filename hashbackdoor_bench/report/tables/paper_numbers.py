"""Numbers that papers printed, to stand beside records and never in a mean with them."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from hashbackdoor_bench.report.formatting import NOTHING
from hashbackdoor_bench.report.tables.parts import Cell, Line


@dataclass(frozen=True)
class PaperNumber:
    """One printed number.

    Attributes:
        source: the paper.
        url: where it is.
        dataset: what it was measured on.
        convention: how, as far as it is known.
        method: the attack.
        bits: of the code.
        metric: ``t_map`` or ``map``.
        percent: as printed.
    """

    source: str
    url: str
    dataset: str
    convention: str
    method: str
    bits: int
    metric: str
    percent: str


def published_numbers() -> list[PaperNumber]:
    """All numbers of ``published.csv``, in its order."""
    source = files("hashbackdoor_bench.report.tables") / "published.csv"
    text = source.read_text(encoding="utf-8")
    return [
        PaperNumber(bits=int(row.pop("bits")), **row) for row in csv.DictReader(text.splitlines())
    ]


def published_lines(numbers: Sequence[PaperNumber], metric: str, bits: Sequence[int]) -> list[Line]:
    """The rows of one metric: one per method, with its numbers at some code lengths."""
    found = []
    for method in dict.fromkeys(one.method for one in numbers if one.metric == metric):
        of_method = [one for one in numbers if (one.metric, one.method) == (metric, method)]
        by_bits = {one.bits: one.percent for one in of_method}
        cells = tuple(
            Cell(by_bits[k], float(by_bits[k])) if k in by_bits else Cell(NOTHING) for k in bits
        )
        first = of_method[0]
        facts = {"source": first.source, "dataset": first.dataset, "convention": first.convention}
        found.append(Line(f"{method} (published)", cells, facts, from_paper=True))
    return found


def published_sources(numbers: Sequence[PaperNumber]) -> list[str]:
    """For every source one sentence: what its numbers are, and that they are not compared."""
    return [
        f"Rows marked published are printed in {source}, see {url}: {dataset}; {convention}; they "
        "are other data and another measure than the rows above, and stand in no mean and no test."
        for source, url, dataset, convention in dict.fromkeys(
            (one.source, one.url, one.dataset, one.convention) for one in numbers
        )
    ]
