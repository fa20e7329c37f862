"""The parts of a suite after which ``bench compare --until`` looks at the places."""

from dataclasses import replace
from typing import TYPE_CHECKING

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.suites import Suite
from hashbackdoor_bench.text import counted

if TYPE_CHECKING:
    from hashbackdoor_bench.report import Unit
    from hashbackdoor_bench.report.board import Contest, Standing


def unit_of_suite(suite: Suite) -> "Unit":
    """Over which groups `report.statistics` finds the spread once all runs are there."""
    from hashbackdoor_bench.report import unit_of

    return unit_of((str(run.spec.target), run.spec.seed) for run in suite.runs)


def _groups(suite: Suite, unit: "Unit") -> list[str]:
    """For each run the group that it is in."""
    by_seed = unit == "seed"
    return [str(run.spec.seed if by_seed else run.spec.target) for run in suite.runs]


def in_groups(suite: Suite) -> list[Suite]:
    """The suite's runs after each look: the first groups, then more of them, at last all."""
    from hashbackdoor_bench.report.board import looks

    of_run = _groups(suite, unit_of_suite(suite))
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


def count_of(part: Suite, unit: "Unit") -> int:
    """How many groups the runs of a part of a suite are of."""
    return len(set(_groups(part, unit)))


def refuse_few_groups(suite: Suite) -> None:
    """Refuse a suite with which no look can decide anything.

    Raises:
        UserError: it has fewer targets, or seeds that all targets share, than an interval needs.
    """
    from hashbackdoor_bench.report import LEAST_GROUPS

    unit = unit_of_suite(suite)
    count = count_of(suite, unit)
    if count >= LEAST_GROUPS:
        return
    targets = counted(count_of(suite, "target"), "target")
    has = targets if unit == "target" else f"{targets} and {counted(count, 'seed')}"
    raise UserError(
        f"--until can decide nothing: suite {suite.name} has {has}, and two attacks are told apart "
        f"over {LEAST_GROUPS} targets or more, or as many seeds that all targets share. Leave "
        "--until out, or give a --suite with more."
    )


def undecidable(found: "Standing", suite: Suite, *, last: bool) -> str:
    """Why no look can decide anything, and what to do, as a clause; empty if one can.

    Args:
        found: the attack among those whose records are there.
        suite: the suite, for the message.
        last: whether all of its runs were seen.
    """
    if found.entry.place is None:
        return f"{found.entry.label} has no place ({found.entry.why})"
    leads = [lead for other, lead in found.leads if other.place is not None]
    if not leads:
        return (
            f"no other attack has a place there: run those of the suite with `bench suite run "
            f"{suite.name}`, or give their records with --against"
        )
    if last and all(lead is None or lead.low is None for lead in leads):
        return (
            "a victim, or a budget of one, has the runs of a single target (or seed), so no "
            "difference has an interval: give a --suite with more"
        )
    return ""


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
