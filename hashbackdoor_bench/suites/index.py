"""The ``index.csv`` and ``refused.csv`` beside a suite's records: checked, written and compared.

Tables and boards list a record under the label that its line of the index gives it, so a label that
they would refuse is refused before anything is run, and a record that leaves the index is named.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from hashbackdoor_bench import report
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.records import INDEX, REFUSED, read_record
from hashbackdoor_bench.registry import ATTACKS
from hashbackdoor_bench.report import LONGEST_LABEL, IndexLine, attack_of_label
from hashbackdoor_bench.spec import RunSpec
from hashbackdoor_bench.suites.failures import Failure
from hashbackdoor_bench.suites.layout import Layout, PlannedRun
from hashbackdoor_bench.text import counted, listed, quoted

if TYPE_CHECKING:
    from hashbackdoor_bench.records import Record

AWAY = "or move that file away, after which tables list its records under no label"


def check_labels(layout: Layout, results: Path) -> None:
    """Refuse labels under which tables would not list the runs' records.

    Raises:
        UserError: the row of the first such label, and why its line of the index would be refused.
    """
    others = {ATTACKS.published(one.spec.attack) for one in layout.planned}
    begins = {text: attack_of_label(text) for text in {one.run.label for one in layout.planned}}
    attacks: dict[str, str] = {}
    for one in layout.planned:
        line, label, attack = _line(one, results), one.run.label, one.spec.attack
        try:
            # a planned run has what the check reads of its record, the spec
            line.check(cast("Record", one), begins[label], others)
            if len(label) > LONGEST_LABEL:
                raise UserError(f"its label has more than {LONGEST_LABEL} characters")
            if attacks.setdefault(label, attack) != attack:
                raise UserError(f"it labels {attack} {label!r}, as another labels {attacks[label]}")
        except UserError as error:
            raise UserError(
                f"suite {one.run.suite}, {one.run.key_path}: tables would refuse the line of its "
                f"record in {INDEX}, since {error}: give this row another label."
            ) from error


def refuse_index(layout: Layout, results: Path) -> None:
    """Refuse to write the index of a suite over one whose labels nothing would bring back.

    It may be of another suite of the same name, or of the same runs on another device.

    Raises:
        UserError: what the index names, and how to go on.
    """
    path, found = results / INDEX, report.read_index(results / INDEX)
    refuse_shared(layout, results)
    mine = _records(layout, results)
    apart = _outside(layout, results)
    runs = {_words(one.spec) for one in layout.planned}
    again = next((line.record for line in apart if _words_of(results / line.record) in runs), None)
    if again:
        raise UserError(
            f"{path} names records of this suite's runs, such as {again}, that were made on "
            "another device, with other --threads or by other code, and they would lose their "
            "labels: give another --results-dir, and join both folders with bench merge."
        )
    if apart and not mine & found.lines.keys():
        raise UserError(
            f"{path} names {counted(len(apart), 'record')} of another suite {apart[0].suite} (rows "
            f"{_rows(apart)}): give your file another name, or give another --results-dir, {AWAY}."
        )


def refuse_shared(layout: Layout, results: Path) -> None:
    """Refuse to write lines into an index that can't be read, or that has them for another suite.

    Raises:
        UserError: what the index names, and how to go on.
    """
    path, found = results / INDEX, report.read_index(results / INDEX)
    if found.problems and not found.lines:
        what = found.problems[0].removesuffix(": labels are made up.")
        raise UserError(f"{what}: give another --results-dir, {AWAY}.")
    mine = _records(layout, results)
    others = {line.suite for name, line in found.lines.items() if name in mine} - _suites(layout)
    if others:
        raise UserError(
            f"{path} names records of suite {listed(sorted(others))} that are runs of this suite "
            f"too, and a record has one label: give another --results-dir, {AWAY}."
        )


def outside(layout: Layout, results: Path) -> Iterator[str]:
    """A sentence if the index names records that are no runs of the suite any more."""
    if apart := _outside(layout, results):
        are, it = ("is", "it") if len(apart) == 1 else ("are", "them")
        yield (
            f"{counted(len(apart), 'record')} of {results / INDEX} {are} no longer of suite "
            f"{apart[0].suite} (rows {_rows(apart)}): tables list {it} under no label of it, the "
            f"files stay in {results}, and a file with their rows, run again, lists {it} again."
        )


def write_index(layout: Layout, results: Path, *, part: bool = False) -> Path:
    """Write ``index.csv`` beside a suite's records: one row per finished run, with its label.

    A run that several rows of the suite have is there once, with the first one's label. Lines of
    other suites stay. Runs whose defense doesn't fit are in ``refused.csv``, which exists only if
    there are any.

    Args:
        layout: of the suite.
        results: the folder.
        part: whether the layout is of a part of the suite, so that other lines of it stay too.
    """
    path = results / INDEX
    lines: dict[str, IndexLine] = {}
    for one in layout.planned:
        if one.tasks[-1].key in layout.done:
            line = _line(one, results)
            lines.setdefault(line.record, line)
    suites = _suites(layout)
    for line in report.read_index(path).lines.values():
        if part or line.suite not in suites:
            lines.setdefault(line.record, line)
    report.write_index(path, lines.values())
    before, _ = report.read_refusals(results / REFUSED)
    kept = [one for one in before if part or one.suite not in suites]
    refusals = [_refusal(failure) for failure in layout.unfit]
    report.write_refusals(results / REFUSED, [*refusals, *kept])
    return path


def _line(one: PlannedRun, results: Path) -> IndexLine:
    """The line of a run's record."""
    run, spec = one.run, one.spec
    facts = {"victim": spec.victim, "bits": str(spec.bits), "seed": str(spec.seed)}
    facts["target"] = run.spec.target or ""
    return IndexLine(0, run.suite, run.label, one.path.relative_to(results).as_posix(), facts)


def _outside(layout: Layout, results: Path) -> list[IndexLine]:
    """The lines of the index, of the suite's name, whose records are there and no runs of it."""
    mine, suites = _records(layout, results), _suites(layout)
    return [
        line
        for line in report.read_index(results / INDEX).lines.values()
        if line.suite in suites and line.record not in mine and (results / line.record).is_file()
    ]


def _records(layout: Layout, results: Path) -> set[str]:
    """The paths of the runs' records, as an index names them."""
    return {one.path.relative_to(results).as_posix() for one in layout.planned}


def _suites(layout: Layout) -> set[str]:
    """The names of the suites that the runs are of: one, or none if there is no run."""
    unplanned = (failure.run for failure in (*layout.refused, *layout.unfit))
    return {run.suite for run in (*(one.run for one in layout.planned), *unplanned)}


def _words(spec: RunSpec) -> RunSpec:
    """What a run is on any machine."""
    return replace(spec, lists=None, root=None, weights=None, precision=None)


def _words_of(record: Path) -> RunSpec | None:
    """The same of a record; None if it can't be read."""
    try:
        return _words(read_record(record).spec)
    except UserError:
        return None


def _rows(lines: list[IndexLine]) -> str:
    return listed(quoted(label) for label in dict.fromkeys(line.label for line in lines))


def _refusal(failure: Failure) -> report.Refusal:
    """A run whose defense doesn't fit, as it stands in the file."""
    run, spec = failure.run, failure.run.spec
    return report.Refusal(
        run.suite, run.label, spec.victim, str(spec.bits), str(spec.seed), spec.defense,
        failure.message,
    )  # fmt: skip
