"""The parts of a suite after which ``bench compare --until`` looks at the places."""

from dataclasses import replace
from typing import TYPE_CHECKING

from hashbackdoor_bench.suites import Suite

if TYPE_CHECKING:
    from hashbackdoor_bench.report.board import Contest


def _groups(suite: Suite) -> list[str]:
    """For each run the group that `report.statistics` puts it in: its target, else its seed."""
    targets = [str(run.spec.target) for run in suite.runs]
    return targets if len(set(targets)) > 1 else [str(run.spec.seed) for run in suite.runs]


def in_groups(suite: Suite) -> list[Suite]:
    """The suite's runs after each look: the first groups, then more of them, at last all."""
    from hashbackdoor_bench.report.board import looks

    of_run = _groups(suite)
    order = list(dict.fromkeys(of_run))
    return [
        replace(
            suite,
            runs=tuple(
                run for run, group in zip(suite.runs, of_run, strict=True) if group in order[:count]
            ),
        )
        for count in looks(len(order))
    ]


def count_of(suite: Suite) -> int:
    """How many groups its runs are of."""
    return len(set(_groups(suite)))


def verdict_on(
    found: "Contest", batches: list[Suite], look: int, spent: float, minutes: float | None
) -> str:
    """Why to stop after a look, as a sentence; empty if the next part is to be run.

    Args:
        found: what the look decided.
        batches: of `in_groups`.
        look: its number, from 0.
        spent: minutes so far.
        minutes: that all may take; None: any.
    """
    here, runs = batches[look], len(batches[-1].runs)
    seen = f"after {len(here.runs)} of {runs} runs"
    if not found.open:
        return f"Decided {seen}: {found.text()}."
    if here is batches[-1]:
        return f"Not decided {seen}, which are all of the suite: {found.text()}."
    ahead = spent * (len(batches[look + 1].runs) / len(here.runs) - 1)
    if minutes is not None and spent + ahead > minutes:
        return (
            f"Not decided {seen}: {found.text()}. The next part takes about {ahead:.1f} minutes, "
            f"and {spent:.1f} of {minutes:g} are spent; the same command with more --minutes goes "
            "on from here."
        )
    return ""
