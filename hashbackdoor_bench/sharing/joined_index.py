"""The index and the refused runs of a merged folder, put together from those of several."""

from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path

from hashbackdoor_bench import report
from hashbackdoor_bench.records import INDEX, REFUSED
from hashbackdoor_bench.report import Collection, IndexLine, Refusal
from hashbackdoor_bench.text import visible


@dataclass
class JoinedIndex:
    """The lines of several indexes, and the runs that the suites refused.

    Attributes:
        lines: by the path of the record.
        refusals: by what was refused.
    """

    lines: dict[str, IndexLine] = field(default_factory=dict)
    refusals: dict[tuple[str, ...], Refusal] = field(default_factory=dict)

    def add(self, root: Path, places: Mapping[str, str] | None = None) -> Iterator[str]:
        """Add the index and the refused runs of a folder; yields what is not taken, and why.

        Args:
            root: the folder with both files.
            places: where the records of the lines have gone; None: they are where they were.
        """
        index = report.read_index(root / INDEX)
        yield from index.problems
        where = (root / INDEX).as_posix()
        for line in index.lines.values():
            place = line.record if places is None else places.get(line.record)
            if place is None:
                yield visible(
                    f"{where}: line {line.number} is left out, since its record was not taken."
                )
                continue
            known = self.lines.setdefault(place, replace(line, record=place))
            if (known.suite, known.label) != (line.suite, line.label):
                yield visible(
                    f"{where}: line {line.number} labels {place} {line.label!r} in suite "
                    f"{line.suite!r}, and another index {known.label!r} in {known.suite!r}: the "
                    "latter is kept."
                )
        refusals, problems = report.read_refusals(root / REFUSED)
        yield from problems
        for one in refusals:
            *what, reason = astuple(one)
            kept = self.refusals.setdefault(tuple(what), one)
            if kept.reason != reason:
                yield visible(
                    f"{(root / REFUSED).as_posix()} refuses {_words(one)} since {reason}, and "
                    f"another since {kept.reason}: the latter is kept."
                )

    def write(self, root: Path) -> None:
        """Write both files into a folder, as far as there is something to write."""
        if self.lines:
            report.write_index(root / INDEX, self.lines.values())
        if self.refusals:
            report.write_refusals(root / REFUSED, self.refusals.values())


def indexed(folder: Path) -> list[Path]:
    """The folders, of all below a folder and itself, with an index or a list of refused runs."""
    return sorted({path.parent for name in (INDEX, REFUSED) for path in folder.rglob(name)})


def refused_and_made(found: Collection) -> Iterator[str]:
    """A sentence for each run that a suite has refused and of which there is a record."""
    made = {
        (row.suite, row.label, row.victim, str(row.bits), str(row.seed), row.record.spec.defense)
        for row in found.frame.itertuples()
    }
    for one in found.refused:
        if astuple(one)[:-1] in made:
            yield visible(
                f"{_words(one)} was refused on one machine ({one.reason}) and made on another: "
                "both are kept, and tables show the record."
            )


def _words(one: Refusal) -> str:
    return (
        f"{one.label} on {one.victim}, {one.bits} bits, seed {one.seed}, defense {one.defense} "
        f"of suite {one.suite}"
    )
