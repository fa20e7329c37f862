"""What stands under a table or figure: everything that its numbers share, in a few sentences."""

import re
from collections import Counter
from collections.abc import Sequence

import pandas as pd

from hashbackdoor_bench.report.selection import surrogate_difference
from hashbackdoor_bench.report.statistics import LEVEL
from hashbackdoor_bench.text import counted

CONVENTION_RULES = {
    "field": "the mean over all orders of ties, a query without a hit counts 0",
    "ciba": "ties in one seeded order, queries without a hit left out, as in CIBA's code",
    "badhash": "ties in one seeded order, a query without a hit counts 0, as in BadHash's code",
    "strict": "as field, normalised by min(R, relevant items)",
}
MOST_NAMES = 8  # a longer list is counted


def table_caption(frame: pd.DataFrame, convention: str, *, bold: bool = True) -> tuple[str, ...]:
    """The sentences under a table of means.

    Args:
        frame: its records, with the attack in ``name``, heads in ``row`` and ``column``.
        convention: whose scores it shows.
        bold: whether it marks the best of a column.
    """
    rule = [bold_rule(frame)] if bold else []
    return (
        spread_rule(usual_run_count(frame)),
        *conditions(frame, convention),
        *rule,
        *provenance(frame),
    )


def spread_rule(n: int) -> str:
    """What a cell is that usually stands for ``n`` runs."""
    if n == 1:
        return (
            "A cell of one run says n = 1 and has no spread; one of more has the mean ± standard "
            "deviation over its n runs (targets × seeds)."
        )
    return (
        f"Mean ± standard deviation over the n = {n} runs of a cell (targets × seeds). A cell "
        "of another n says so; a cell of one run has no spread."
    )


def brief_spread(n: int, frame: pd.DataFrame) -> str:
    """`spread_rule` in a few words, for a caption of two lines."""
    runs = "Runs: n = 1 or as given" if n == 1 else f"Mean ± s.d. of {n} runs"
    return f"{runs}, {frame['dataset'].iloc[0]}."


def usual_run_count(frame: pd.DataFrame) -> int:
    """The most common number of runs in a cell."""
    sizes = Counter(map(int, frame.groupby(["name", "row", "column"]).size()))
    return sizes.most_common(1)[0][0]


def conditions(frame: pd.DataFrame, convention: str | None) -> list[str]:
    """Data, draws, convention and delivery; None: no convention enters the numbers."""
    first = frame.iloc[0]
    draws = [
        _listed("bits", sorted(set(frame["bits"]))),
        _listed("target", sorted({str(target) for target in frame["target"]})),
        _listed("seed", sorted(set(frame["seed"]))),
    ]
    sentences = [
        f"{first['dataset']}, R = {first['top_k']} (lists {first['protocol'][:10]}); "
        f"{'; '.join(draws)}."
    ]
    if convention is not None:
        sentences.append(f"Convention {convention}: {CONVENTION_RULES[convention]}.")
    by_delivery: dict[str, list[str]] = {}
    pairs = zip(frame["name"], frame["delivery"], strict=True)
    for name, delivery in dict.fromkeys(pairs):
        by_delivery.setdefault(delivery, []).append(name)
    if len(by_delivery) == 1:
        sentences.append(f"Delivery of poison: {next(iter(by_delivery))}.")
    else:
        for delivery, names in sorted(by_delivery.items()):
            sentences.append(f"Delivery of poison is {delivery} for: {'; '.join(names)}.")
    return sentences


def surrogates(frame: pd.DataFrame) -> list[str]:
    """What attackers craft on, where it is not the victim's own kind of network."""
    others: dict[str, set[str]] = {}
    for row in frame[frame["surrogate"].notna()].to_dict("records"):
        if words := surrogate_difference(row):
            others.setdefault(row["name"], set()).add(" ".join(words))
    if not others:
        return []
    networks = (f"{name}: {' and '.join(sorted(kinds))}" for name, kinds in others.items())
    return [f"Surrogates differ from the victim's kind of network for {'; '.join(networks)}."]


def _listed(name: str, values: Sequence[object]) -> str:
    if name == "bits":
        return f"{', '.join(map(str, values))} bits"
    if len(values) > MOST_NAMES:
        return f"{len(values)} {name}s"
    return f"{name}{'s' if len(values) > 1 else ''} {', '.join(map(str, values))}"


def bold_rule(frame: pd.DataFrame) -> str:
    """When a number is in bold."""
    several = frame["delivery"].nunique() > 1
    others, pairs = (" of its delivery", " of one delivery") if several else ("", "")
    return (
        f"Bold: significantly higher than all other rows{others} in its column and block. The test "
        "is a paired t-test over runs of equal victim, target and seed, two-sided at "
        f"{100 * LEVEL:g} %, with Holm's correction over all pairs of rows{pairs} in all columns "
        "of the block."
    )


def several_devices(devices: Sequence[str]) -> list[str]:
    """The devices of runs, each with their number; nothing if there is only one."""
    # records before November 2026 say "1 threads"
    counts = Counter(re.sub(", 1 threads$", ", 1 thread", device) for device in devices)
    named = " and ".join(f"{device} ({counts[device]})" for device in sorted(counts))
    return [f"made on {named}"] if len(counts) > 1 else []


def provenance(frame: pd.DataFrame) -> list[str]:
    """How many records, of which devices if several, and of which commits of the code."""
    commits = sorted({commit[:10] for commit in frame["commit"] if commit})
    unknown = sum(commit is None for commit in frame["commit"])
    dirty = sum(value is True for value in frame["dirty"])
    words = [counted(len(frame), "record")]
    words += several_devices([one.device for one in frame["record"]])
    if commits:
        words.append(f"commit{'s' if len(commits) > 1 else ''} {', '.join(commits)}")
    if unknown:
        words.append(f"{unknown} of an unknown commit")
    if dirty:
        words.append(f"{dirty} of them from a checkout with changed code")
    return [f"From {'; '.join(words)}."]
