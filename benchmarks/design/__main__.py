"""``python -m benchmarks.design``: what several designs of a suite can tell, and their time."""

from itertools import combinations
from pathlib import Path
from statistics import fmean, median

import click
import pandas as pd

from hashbackdoor_bench.report import collect
from hashbackdoor_bench.report.board import boards
from hashbackdoor_bench.report.power import Components, components, detectable, typical

from . import Design

DESIGNS = (
    Design(4, 1, 4, 5), Design(10, 1, 4, 2), Design(4, 3, 4, 5), Design(10, 1, 4, 5),
    Design(10, 2, 4, 2), Design(10, 3, 4, 2), Design(10, 3, 4, 5),
)  # fmt: skip
# once for a victim, target and seed; the others are of every run
SHARED = ("surrogate", "optimise_patch", "clean victim", "clean victim's plain")
ONCE = ("features", "surrogate's features")  # once for all runs


@click.command()
@click.argument("places", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--between", type=float, help="Spread between targets in points, if not measured.")
@click.option("--attacks", default=9, show_default=True, help="Attacks of the board.")
@click.option("--all-attacks", default=12, show_default=True, help="Attacks that the time is of.")
def main(places: tuple[Path, ...], between: float | None, attacks: int, all_attacks: int) -> None:
    """Print the spread in pilot records, and what designs can tell."""
    frame = collect(places).frame
    spread = measured(frame)
    if between is not None:
        spread = Components(between / 100, spread.seed, spread.rest)
    for name in ("target", "seed", "rest"):
        value = getattr(spread, name)
        click.echo(f"{name:<8}{'not measured' if value is None else f'{100 * value:.1f} points'}")
    every, shared = costs(frame)
    click.echo(f"a run {every:.0f} s, beside {shared:.0f} s of a victim, target and seed; one core")
    pairs = attacks * (attacks - 1) // 2
    click.echo("targets x seeds x victims x budgets   runs   one pair   board   core hours")
    for one in DESIGNS:
        error = spread.error(one.targets, one.seeds, one.victims * one.budgets)
        tells = [100 * detectable(error, one.targets, count) for count in (1, pairs)]
        hours = all_attacks * one.runs * every + one.runs / one.budgets * shared
        sizes = f"{one.targets:>7} x {one.seeds:>5} x {one.victims:>7} x {one.budgets:>7}"
        able = f"{tells[0]:>8.1f}   {tells[1]:>5.1f}"
        click.echo(f"{sizes}   {one.runs:>4}   {able}   {hours / 3600:>10.1f}")


def measured(frame: pd.DataFrame) -> Components:
    """The typical components over all pairs of attacks that would share a board.

    Args:
        frame: of a `Collection`; it doesn't matter which suites its records are of.
    """
    found = []
    frame = frame.assign(suite="pilot", label=frame["attack"])  # budgets stand in some labels
    for board in boards(frame, ["pilot"]):
        tried = [one for one in board.entries if one.threat.trigger != "none"]
        for one, other in combinations(tried, 2):
            part = components(one.counted_draws, other.counted_draws)
            found += [part] if part else []
    if not found:
        raise click.ClickException("no two attacks of a suite are in these records; give others.")
    return typical(found)


def costs(frame: pd.DataFrame) -> tuple[float, float]:
    """Seconds of a run, and of what its victim, target and seed share: medians by attack."""
    every: dict[str, list[float]] = {}
    shared: list[float] = []
    for attack, record in zip(frame["attack"], frame["record"], strict=True):
        once = sum(record.seconds.get(name, 0.0) for name in SHARED)
        rest = sum(s for name, s in record.seconds.items() if name not in (*SHARED, *ONCE))
        every.setdefault(attack, []).append(rest)
        shared.append(once)
    return fmean(map(median, every.values())), max(shared)


if __name__ == "__main__":
    main()
