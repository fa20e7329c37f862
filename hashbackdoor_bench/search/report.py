"""Searched runs as JSON, as a page of Markdown and as rows for a figure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import pandas as pd
import torch

from hashbackdoor_bench.registry import ATTACKS, VICTIMS
from hashbackdoor_bench.report import for_markdown, percent
from hashbackdoor_bench.search.comparison import SearchedRun
from hashbackdoor_bench.stages import made_by, threads_set

HEAD = (
    "index", "MAP", "t-MAP", "gain", "strict t-MAP", "strict gain", "recall", "recall, triggered",
    "queries/s", "build", "size",
)  # fmt: skip
NOTE = (
    "MAP, t-MAP, gain: convention field, over the k nearest of the items that an index found. "
    "Strict: convention strict, which counts relevant items that were not found. Recall: "
    "share of the exact k nearest that were found, of plain and of triggered queries. All of these "
    "are in percent. Queries per second: median of the rounds, each index in turn, all queries in "
    "one call. The exact scan is this package's counting, which scores and returns no list. Build: "
    "seconds in one thread. Size: of the index in a file."
)


def report(
    runs: Sequence[SearchedRun], *, threads: int, rounds: int, command: str
) -> dict[str, Any]:
    """The runs with the machine, the versions and the commit, as JSON values.

    Args:
        runs: from `search`.
        threads: of searches.
        rounds: how often each index was timed.
        command: by which the report is made again.
    """
    with threads_set(threads):
        origin = made_by(torch.device("cpu"))
    origin["versions"]["faiss-cpu"] = version("faiss-cpu")
    return {
        **origin,
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "threads": threads,
        "rounds": rounds,
        "runs": [asdict(one) for one in runs],
    }


def markdown(found: Mapping[str, Any]) -> str:
    """A page with a table for each run of a `report`."""
    versions = ", ".join(f"{name} {text}" for name, text in found["versions"].items())
    lines = [
        "# Approximate search over the codes of finished runs",
        "",
        f"`{found['command']}`, {found['date'][:10]}, commit {str(found['commit'])[:7]}, "
        f"{for_markdown(found['device'])}, {found['rounds']} rounds; {versions}.",
    ]
    for run in found["runs"]:
        cells = [[for_markdown(cell) for cell in row] for row in rows_of(run)]
        table = [HEAD, ("---",) * len(HEAD), *cells]
        lines += ["", f"## {for_markdown(title_of(run))}", "", for_markdown(facts_of(run)), ""]
        lines += [f"| {' | '.join(row)} |" for row in table]
    return "\n".join([*lines, "", NOTE, ""])


def title_of(run: Mapping[str, Any]) -> str:
    """Attack, victim and size of a run of a report."""
    spec = run["run"]
    return (
        f"{ATTACKS.published(spec['attack'])} on {VICTIMS.published(spec['victim'])}, "
        f"{spec['bits']} bits, {_thousands(run['items'])} items"
    )


def facts_of(run: Mapping[str, Any]) -> str:
    """The data, the queries and the database of a run of a report, in a sentence or two."""
    spec, queries = run["run"], run["queries"]
    copies = ""
    if run["copies"]:
        copies = (
            f" {_thousands(run['copies'])} of the items are copies of database codes with their "
            f"labels, {100 * run['flip']:g} % of their bits flipped on average."
        )
    return (
        f"{spec['dataset']}, target {spec['target']}, seed {spec['seed']}, record "
        f"{run['record'][:10]}; k = {run['k']}; {_thousands(queries['plain'])} plain and "
        f"{_thousands(queries['triggered'])} triggered queries; {_thousands(run['distinct'])} "
        f"distinct codes in the victim's database.{copies}"
    )


def rows_of(run: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The cells of a run of a report under ``HEAD``, one row per index."""
    for row in run["rows"]:
        field, strict = row["scores"]["field"], row["scores"]["strict"]
        build = row["build_seconds"]
        yield (
            _label(row),
            *(percent(field[name]) for name in ("map", "t_map", "backdoor_gain")),
            *(percent(strict[name]) for name in ("t_map", "backdoor_gain")),
            *(percent(row["recall"][queries]) for queries in ("plain", "triggered")),
            _thousands(round(row["queries_per_second"])),
            "" if build is None else f"{build:.2g} s",
            f"{row['bytes'] / 1e6:.3g} MB",
        )


def _label(row: Mapping[str, Any]) -> str:
    """An index as the command line takes it, with all of its settings."""
    settings = ",".join(f"{name}={value}" for name, value in row["settings"].items())
    return f"{row['index']}:{settings}" if settings else str(row["index"])


def frame_of(found: Mapping[str, Any]) -> pd.DataFrame:
    """The indexes of a `report`, one per row, for a figure.

    Columns: ``run``, ``index``, ``queries_per_second``, ``recall_plain``, ``recall_triggered``,
    ``t_map`` (convention field), ``strict_t_map``.
    """
    rows = [
        {
            "run": title_of(run),
            "index": row["index"],
            "queries_per_second": row["queries_per_second"],
            **{f"recall_{name}": value for name, value in row["recall"].items()},
            "t_map": row["scores"]["field"]["t_map"],
            "strict_t_map": row["scores"]["strict"]["t_map"],
        }
        for run in found["runs"]
        for row in run["rows"]
    ]
    frame = pd.DataFrame(rows)
    return frame.astype(dict.fromkeys(frame.columns.drop(["run", "index"]), float))


def _thousands(number: int) -> str:
    return f"{number:,}".replace(",", " ")
