"""The rules of ``results/RULES.md`` as numbers, and why an attack has no place by them."""

from collections.abc import Sequence

from hashbackdoor_bench.records import Threat

CONVENTION = "field"  # whose scores the leaderboard compares
LARGEST_FALL = 0.02  # of a victim's mean MAP
LEAST_CLEAN_MAP = 0.5  # MAP without poison that a victim must reach to count
MOST_POISON = 0.6  # share of the target class
LARGEST_COST = 0.02  # MAP that a defense may take from a victim's clean queries


def attacks_nothing(threat: Threat) -> bool:
    """Whether an attack has no trigger and chooses no queries; its labels then say nothing."""
    return threat.trigger == "none" and not threat.chosen


def why_apart(threats: Sequence[Threat]) -> str:
    """Why an attack isn't compared with the others of a board, as a clause; empty if it is.

    Args:
        threats: of its runs.
    """
    threat = threats[0]
    if attacks_nothing(threat):
        return "a control: it has no trigger"
    if threat.control != "model" and not any(one.poisoned for one in threats):
        return "a control: nothing is poisoned"
    if threat.chosen:
        return f"it attacks {threat.chosen} chosen queries, not all"
    if threat.control == "model":
        return "it edits the victim instead of poisoning its data"
    return ""


def why_no_place(
    *,
    apart: str,
    cells: int,
    missing: int,
    varied: Sequence[str],
    delta_maps: Sequence[float],
    poison: float,
) -> str:
    """The first rule that an attack doesn't keep, as a clause; empty if it keeps all.

    Args:
        apart: see `why_apart`.
        cells: how many runs the victims that count ask for; 0 if no victim counts.
        missing: how many of them the attack lacks.
        varied: hyper-parameters that differ among its runs.
        delta_maps: mean delta MAP on each victim that counts.
        poison: share of the target class that it poisons.
    """
    if apart:
        return apart
    if not cells:
        return "no victim of this board learnt enough without poison"
    if missing:
        return f"{missing} of {cells} runs missing"
    if varied:
        return f"its runs differ in {', '.join(varied)}"
    if delta_maps and -min(delta_maps) > LARGEST_FALL:
        fall = f"delta MAP {100 * min(delta_maps):+.2f}"
        return f"{fall}: a fall of more than {100 * LARGEST_FALL:.2f}"
    if poison > MOST_POISON:
        share = f"poisons {100 * poison:.0f} % of the target class"
        return f"{share}: more than {100 * MOST_POISON:g}"
    return ""
