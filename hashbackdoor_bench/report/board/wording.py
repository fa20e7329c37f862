"""The words of the leaderboard: places, columns, and which victims don't count."""

from collections.abc import Callable, Sequence

from hashbackdoor_bench.report.board.boards import Board
from hashbackdoor_bench.report.board.defenses import DefenseBoard, DefenseEntry
from hashbackdoor_bench.report.board.entries import Entry, ScoredRun, Victim
from hashbackdoor_bench.report.captions import several_devices
from hashbackdoor_bench.report.formatting import (
    NOTHING,
    interval,
    mean_and_deviation,
    number,
    percent,
    poisoned,
    position_on_bar,
    signed,
    ssim,
)
from hashbackdoor_bench.report.selection import published_victims
from hashbackdoor_bench.report.statistics import LEVEL

__all__ = [
    "DEFENSE_PLACES", "DEFENSE_TEST", "NOTHING", "PLACES", "RUN_COLUMNS", "TEST", "caption",
    "column", "defenses_caption", "interval", "knowledge", "left_out_victims",
    "mean_and_deviation", "number", "percent", "place", "poison_share", "poisoned",
    "poisoned_images", "position_on_bar", "run_numbers", "signed", "ssim", "victim_name",
    "without_places",
]  # fmt: skip

MOST_NAMED = 10  # targets or seeds that a caption lists


def _places(kind: str) -> str:
    """What a range of places means, on a board of ``kind``."""
    return (
        f"Place 2-4 means that at least one {kind} is better than this one and at most three are, "
        f"as far as the tests can tell. {kind.capitalize()}s with overlapping places may be tied: "
        "their order in the table says nothing."
    )


def _test(kind: str, equal: str) -> str:
    """How two of a ``kind`` are compared, up to the correction; ``equal`` in a pair of runs."""
    return (
        f"Two {kind}s are compared run by run (equal {equal}); all runs of one target are one "
        "draw, or all runs of one seed where all targets have the same seeds and no fewer of them "
        "than there are targets. Student's t over the means "
        f"with each draw left out, two-sided at {100 * LEVEL:g} %, with"
    )


PLACES, TEST = _places("attack"), _test("attack", "victim, budget, target and seed")
DEFENSE_PLACES = _places("defense")
DEFENSE_TEST = _test("defense", "attack, poisoned share, victim, target and seed")


def place(entry: Entry | DefenseEntry) -> str:
    """One place, or the range of places that the tests leave open."""
    if entry.place is None:
        return NOTHING
    first, last = entry.place
    return str(first) if first == last else f"{first}-{last}"


RUN_COLUMNS = (
    "Gain", "Poison", "t-MAP", "clean victim", "no trigger", "MAP", "ΔMAP", "PSNR poison",
    "SSIM poison", "PSNR query", "SSIM query",
)  # fmt: skip


def run_numbers(run: ScoredRun) -> tuple[str, ...]:
    """What a run measured, as in `RUN_COLUMNS`; at once, since a page has thousands of runs."""
    return (
        percent(run.score("backdoor_gain")),
        percent(run.record.threat.budget),
        *map(percent, map(run.score, ("t_map", "t_map_clean_victim", "t_map_untriggered", "map"))),
        signed(run.score("delta_map")),
        *(
            text(run.visibility(images, name))
            for images in ("poison", "query")
            for name, text in (("psnr", number), ("ssim", ssim))
        ),
    )


def poison_share(entry: Entry) -> str:
    """How much of the target class is poisoned in percent, or from how much to how much."""
    least, most = (f"{100 * share:.3g}" for share in (entry.least_poison, entry.poison))
    return f"{most} %" if least == most else f"{least}–{most} %"


def poisoned_images(entry: Entry) -> str:
    """How many images are poisoned, and of which."""
    threats = [run.record.threat for run in entry.runs]
    least, most = (choose(threats, key=lambda one: one.poisoned) for choose in (min, max))
    words = poisoned(most)
    return words if least.poisoned == most.poisoned else f"{least.poisoned} to {words}"


def knowledge(entry: Entry) -> str:
    """What network the attacker has: its own surrogate, of which method, or the victim."""
    if entry.threat.control == "model":
        return "the victim"
    if entry.threat.knowledge != "surrogate":
        return entry.threat.knowledge
    specs = [run.record.spec for run in entry.runs]
    methods = {str(spec.surrogate) for spec in specs}
    if len(methods) == 1:
        (method,) = methods
        return f"surrogate: {published_victims([method])[method]}"
    own = all(spec.surrogate == spec.victim for spec in specs)
    return f"surrogate: {'as the victim' if own else 'several methods'}"


def column(victim: Victim, board: Board) -> str:
    """A victim's heading; its bits only where the board has several."""
    several = len({other.bits for other in board.victims}) > 1
    name = victim_name(victim, board)
    return f"{name} {victim.bits}" if several else name


def victim_name(victim: Victim, board: Board) -> str:
    """How papers write a victim of the board."""
    return published_victims(other.name for other in board.victims)[victim.name]


def caption(board: Board) -> str:
    """What all numbers of a board share, and how many runs are of which device if of several."""
    bits = ", ".join(str(b) for b in sorted({victim.bits for victim in board.victims}))
    shares = ", ".join(f"{100 * share:g}" for share in board.budgets)
    budgets = f", budgets {shares} % of the target class" if shares else ""
    runs = {run.path: run.record.device for entry in board.entries for run in entry.runs}
    made = "".join(f" Runs {words}." for words in several_devices([*runs.values()]))
    return (
        f"{board.protocol.name}, R = {board.protocol.top_k} "
        f"(lists {board.protocol.sha256[:10]}), {bits} bits, {board.title}, "
        f"{_several('target', board.targets)}, {_several('seed', board.seeds)}{budgets}."
        f"{_design(board)}{_reach(board)}{made}"
    )


def _reach(board: Board) -> str:
    """For which targets the intervals hold where they are over seeds, as a sentence."""
    if board.unit == "target" or len(board.targets) == 1:
        return ""
    return " Intervals and places are over seeds, so they hold for these targets."


def _design(board: Board) -> str:
    """How many runs an attack has on a board of several budgets, and of what, as sentences."""
    whole = [one for one in board.entries if one.complete]
    if not board.budgets or not whole:
        return ""
    runs = whole[0].runs
    text = f" Each attack: {len(runs)} runs"
    seeds: dict[str, set[int]] = {}
    budgets: dict[tuple[object, ...], set[float]] = {}
    for run in runs:
        seeds.setdefault(run.target, set()).add(run.seed)
        cell = (run.victim.key, run.target, run.seed)
        budgets.setdefault(cell, set()).add(run.record.spec.budget)
    words = []
    if len(seeds) > 1 and all(len(some) == 1 for some in seeds.values()):
        words.append("each target has one seed of its own")
    most = max(map(len, budgets.values()))
    if most < len(board.budgets):
        words.append(
            f"each victim meets a target at {most} of the {len(board.budgets)} budgets, so that "
            "columns of victims are means over different targets and budgets"
        )
    return f"{text}{'; ' if words else ''}{', and '.join(words)}."


def defenses_caption(board: DefenseBoard) -> str:
    """What all numbers of a board of defenses share, in two or three sentences."""
    apart = ""
    if board.aware:
        apart = f" Attackers who expect a defense stand apart: {'; '.join(board.aware)}."
    return (
        f"{board.protocol.name}, R = {board.protocol.top_k} "
        f"(lists {board.protocol.sha256[:10]}), delivery {board.delivery}, "
        f"{_several('target', board.targets)}, {_several('seed', board.seeds)}, on "
        f"{', '.join(board.victims)}. Attacks, and their poisoned share of the target class: "
        f"{'; '.join(board.attacks)}; {board.cells} runs have a backdoor to remove, with a mean "
        f"t-MAP of {percent(board.t_map)} without a defense.{apart}"
    )


def _several(name: str, values: Sequence[object]) -> str:
    """The values of a name; their number where they are many."""
    if len(values) > MOST_NAMED:
        return f"{len(values)} {name}s"
    return f"{name}{'s' if len(values) > 1 else ''} {', '.join(map(str, values))}"


def without_places(entries: Sequence[Entry], name: Callable[[Entry], str]) -> str:
    """Which of these have no place, each with the reason, as one sentence; empty if all have."""
    reasons = [f"{name(entry)} ({entry.why})" for entry in entries if entry.why]
    return f"Without a place: {'; '.join(reasons)}." if reasons else ""


def left_out_victims(board: Board) -> str:
    """Which victims don't count, and why; empty if all do."""
    out = [victim for victim in board.victims if not victim.counts]
    words = " and ".join(
        f"{column(victim, board)} (MAP without poison {percent(victim.clean_map)})"
        for victim in out
    )
    it = "it" if len(out) == 1 else "they"
    return f"Not counted, because {it} learnt too little: {words}." if out else ""
