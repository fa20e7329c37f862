"""What stands under a table: everything that its numbers share, in a few sentences."""

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from hashbackdoor_bench.report.statistics import LEVEL

CONVENTIONS = {
    "field": "the mean over all orders of ties, a query without a hit counts 0",
    "ciba": "ties in one seeded order, queries without a hit left out, as in CIBA's code",
    "badhash": "ties in one seeded order, a query without a hit counts 0, as in BadHash's code",
    "strict": "as field, normalised by min(R, relevant items)",
}
MOST_NAMES = 8  # a longer list is counted


def caption(frame: pd.DataFrame, convention: str) -> tuple[str, ...]:
    """The sentences under a table of means.

    Args:
        frame: its records, with the attack in ``name``, heads in ``row`` and ``column``.
        convention: whose scores it shows.
    """
    n = usual_n(frame)
    spread = (
        "One run a cell (n = 1), which has no spread."
        if n == 1
        else f"Mean ± standard deviation over n = {n} runs a cell (targets × seeds); a cell of "
        "another n says so, and n = 1 has no spread."
    )
    return (spread, *shared(frame, convention), bold(frame), *provenance(frame))


def usual_n(frame: pd.DataFrame) -> int:
    """The most common number of runs in a cell."""
    sizes = Counter(map(int, frame.groupby(["name", "row", "column"]).size()))
    return sizes.most_common(1)[0][0]


def shared(frame: pd.DataFrame, convention: str | None) -> list[str]:
    """Data, draws, convention and delivery; None: no convention enters the numbers."""
    one = frame.iloc[0]
    draws = [
        _listed("bits", sorted(set(frame["bits"]))),
        _listed("target", sorted({str(target) for target in frame["target"]})),
        _listed("seed", sorted(set(frame["seed"]))),
    ]
    said = [
        f"{one['dataset']}, R = {one['top_k']} (lists {one['protocol'][:10]}); {'; '.join(draws)}.",
    ]
    if convention is not None:
        said.append(f"Convention {convention}: {CONVENTIONS[convention]}.")
    by_delivery: dict[str, list[str]] = {}
    pairs = zip(frame["name"], frame["delivery"], strict=True)
    for name, delivery in dict.fromkeys(pairs):
        by_delivery.setdefault(delivery, []).append(name)
    if len(by_delivery) == 1:
        said.append(f"Delivery of poison: {next(iter(by_delivery))}.")
    else:
        for delivery, names in sorted(by_delivery.items()):
            said.append(f"Delivery of poison is {delivery} for: {'; '.join(names)}.")
    return said


def surrogates(frame: pd.DataFrame) -> list[str]:
    """What attackers craft on, where it is not the victim's own kind of network."""
    others: dict[str, set[str]] = {}
    for row in frame[frame["surrogate"].notna()].to_dict("records"):
        spec = row["record"].spec
        parts = [
            str(row[f"surrogate{part}"])
            for part, own in (("", "victim"), ("_backbone", "backbone"), ("_bits", "bits"))
            if row[f"surrogate{part}"] != getattr(spec, own)
        ]
        if parts:
            others.setdefault(row["name"], set()).add(" ".join(parts))
    if not others:
        return []
    words = (f"{name}: {' and '.join(sorted(kinds))}" for name, kinds in others.items())
    return [f"Surrogates differ from the victim's kind of network for {'; '.join(words)}."]


def _listed(name: str, values: Sequence[object]) -> str:
    if name == "bits":
        return f"{', '.join(map(str, values))} bits"
    if len(values) > MOST_NAMES:
        return f"{len(values)} {name}s"
    return f"{name}{'s' if len(values) > 1 else ''} {', '.join(map(str, values))}"


def bold(frame: pd.DataFrame) -> str:
    """When a number is in bold."""
    among = " among rows of one delivery" if frame["delivery"].nunique() > 1 else ""
    return (
        f"Bold: the highest of its column{among}, where a paired t-test over runs of equal victim, "
        f"target and seed tells it from the second highest (p < {LEVEL:g}, not corrected for the "
        "number of columns)."
    )


def provenance(frame: pd.DataFrame) -> list[str]:
    """How many records, of which commits, and whether code was changed beside them."""
    commits = sorted({commit[:10] for commit in frame["commit"] if commit})
    unknown = sum(commit is None for commit in frame["commit"])
    dirty = sum(value is True for value in frame["dirty"])
    words = [f"{len(frame)} record{'s' if len(frame) > 1 else ''}"]
    if commits:
        words.append(f"commit{'s' if len(commits) > 1 else ''} {', '.join(commits)}")
    if unknown:
        words.append(f"{unknown} of an unknown commit")
    if dirty:
        words.append(f"{dirty} of them from a checkout with changed code")
    return [f"From {'; '.join(words)}."]
