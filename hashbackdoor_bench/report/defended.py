"""Records of defended runs as tables, figures and the board show them: names, stages, scores.

A row is one run. The scores of its record without the defense are those of the undefended run, so
the row of a table that is called no defense needs no record of its own.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.records import Defended, Record
from hashbackdoor_bench.registry import DEFENSES
from hashbackdoor_bench.report.mixing import SAME_DEFENSE, refuse_mixed, text_of
from hashbackdoor_bench.report.refusals import Refusal
from hashbackdoor_bench.report.selection import poisoned_share, victim_heads
from hashbackdoor_bench.spec import POINTS, RunSpec

CONTROLS = "controls"
# By hook: what the defenses of a stage are called together.
STAGES = {
    "screen": "filters of the training set",
    "backward": "training",
    "repair": "repairs",
    "purify": "purification of queries",
    "suspect": "tests of single queries",
    "inspect": "inspections of the model",
    "audit": "audits of many queries",
}
ORDER = (CONTROLS, *STAGES.values())
UNDEFENDED = DEFENSES.published(RunSpec.defense)
CHANGES = ("map", "t_map", "r_map", "control_map", "control_t_map")
NO_CODES = (
    "no defense of these records changes codes: add records of one that trains, repairs or "
    "purifies."
)
SINGLE = ("removal", "clean_cost", "der")


def stage_of(defense: Defended) -> str:
    """Under which of ``ORDER`` a defense stands."""
    return CONTROLS if defense.control else STAGES[defense.hooks[0]]


def with_defenses(frame: pd.DataFrame, convention: str) -> pd.DataFrame:
    """The defended runs, in the order of their stages.

    Args:
        frame: from `selection.with_display_names`.
        convention: whose scores are taken.

    Returns:
        The rows with a defense, and the columns ``defense`` (its name in tables, with the settings
        that vary), ``stage``, ``attacker`` (the label without a budget, which ``share`` has),
        ``share`` (of the target class that is poisoned, in percent), ``head`` (the victim),
        and the scores: ``NAME.before`` and ``NAME.after`` of ``CHANGES``, ``old_index``, ``floor``
        and those of ``SINGLE``, which are of the convention ``field``; NaN where there is none.

    Raises:
        UserError: no run has a defense, or those of one name are of two versions of it.
    """
    frame = frame.assign(head=victim_heads(frame))
    frame = frame[[record.defense is not None for record in frame["record"]]]
    if frame.empty:
        raise UserError(
            "none of these records has a defense: make some with `bench suite run defenses`, or "
            "with `bench run --defense NAME`."
        )
    names = _names(list(frame["record"]))
    scores = pd.DataFrame(
        [_scores(record, convention) for record in frame["record"]], index=frame.index
    )
    found = frame.assign(
        defense=names,
        stage=[stage_of(record.defense) for record in frame["record"]],
        attacker=[attacker_of(name) for name in frame["name"]],
        share=[share_of(record) for record in frame["record"]],
    )
    found = found.join(scores)
    for name, part in found.groupby("defense", sort=False):
        refuse_mixed(part, str(name), SAME_DEFENSE)
    specs = [record.spec for record in found["record"]]
    first = {name: number for number, name in reversed(list(enumerate(s.defense for s in specs)))}
    keys = [
        (ORDER.index(stage), first[spec.defense], spec.operating_point, _strengths(spec))
        for stage, spec in zip(found["stage"], specs, strict=True)
    ]
    return found.iloc[sorted(range(len(found)), key=keys.__getitem__)]


def _strengths(spec: RunSpec) -> list[tuple[float, str]]:
    """Its settings, which can be sorted whatever they are."""
    return [
        (float(value), "") if isinstance(value, int | float) else (math.inf, text_of(value))
        for _, value in sorted(spec.defense_settings)
    ]


def share_of(record: Record) -> str:
    """The share of the target class that is poisoned, in percent; a dash for no class."""
    if record.threat.budget is None:
        return "–"
    share = poisoned_share(record)
    # one number of images is not the same share of every class
    rounded = record.spec.poison_count is not None and share >= 0.01
    return _percent(round(share, 2) if rounded else share)


def _percent(share: float) -> str:
    """Three digits, never as a power of ten."""
    return f"{float(f'{100 * share:.3g}'):.12f}".rstrip("0").rstrip(".") + " %"


def attacker_of(label: str) -> str:
    """The label of a suite's row without its budget."""
    return ", ".join(part for part in label.split(", ") if not part.startswith("budget="))


def share_in(label: str) -> str | None:
    """The budget in the label of a suite's row, as `share_of` writes it; None without one."""
    found = re.search(r"(?:^|, )budget=(\d+(?:\.\d+)?)(?:,|$)", label, re.ASCII)
    return _percent(float(found[1])) if found else None


def _names(records: list[Record]) -> list[str]:
    """The names of defenses, with what tells the runs of one of them apart."""
    varied: dict[tuple[str, str], dict[str, set[str]]] = {}
    for record in records:
        spec = record.spec
        values = varied.setdefault((spec.defense, spec.operating_point), {})
        for name, value in _told(spec).items():
            values.setdefault(name, set()).add(text_of(value))
    names = []
    for record in records:
        spec = record.spec
        values = varied[spec.defense, spec.operating_point]
        words = [
            f"{name}={text_of(value)}"
            for name, value in _told(spec).items()
            if len(values[name]) > 1
        ]
        tuned = [spec.operating_point] if spec.operating_point != POINTS[0] else []
        names.append(", ".join([DEFENSES.published(spec.defense), *words, *tuned]))
    return names


def _told(spec: RunSpec) -> dict[str, Any]:
    return {**dict(spec.defense_settings), "clean_share": spec.clean_share}


def _scores(record: Record, convention: str) -> dict[str, float]:
    outcome = record.defense.outcome if record.defense else None
    names = [f"{name}.{when}" for name in CHANGES for when in ("before", "after")]
    found: dict[str, float | None] = dict.fromkeys((*names, "old_index", "floor", *SINGLE))
    if outcome is not None:
        for name in CHANGES:
            change = getattr(outcome, name)
            found[f"{name}.before"] = change.before[convention]
            found[f"{name}.after"] = change.after[convention]
        found |= {
            "old_index": outcome.map_old_index[convention],
            "floor": outcome.floor[convention],
            **{name: getattr(outcome, name) for name in SINGLE},
        }
    return {name: math.nan if value is None else value for name, value in found.items()}


def is_published(record: Record) -> bool:
    """Whether a defense has the strength and all settings that it has if none are given."""
    spec = record.spec
    defaults = DEFENSES.defaults(spec.defense)
    return spec.operating_point == POINTS[0] and all(
        defaults.get(name) == value for name, value in spec.defense_settings
    )


def seconds_of(record: Record) -> float:
    """The time that a defense takes beside the victim's training, in seconds.

    That of its own stages; for one that purifies, that of purifying and hashing all queries.
    """
    assert record.defense is not None
    own = sum(record.defense.seconds.values())
    if "purify" in record.defense.hooks:
        own += sum(
            record.seconds.get(f"defended victim's {part}", 0.0) for part in ("plain", "triggered")
        )
    return own


def trainings_of(record: Record) -> float:
    """`seconds_of` in units of the training of the poisoned victim; NaN where that took no time."""
    training = record.seconds.get("victim", 0.0)
    return seconds_of(record) / training if training else math.nan


class Reasons:
    """The numbered reasons under a table why cells are n/a."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def mark(self, reason: str) -> str:
        """What stands in a cell."""
        return f"n/a [{self.numbers.setdefault(reason, len(self.numbers) + 1)}]"

    @property
    def sentences(self) -> list[str]:
        """The reasons, for the caption."""
        return [f"[{number}] {reason}." for reason, number in self.numbers.items()]


def reasons_by_cell(refused: Iterable[Refusal]) -> Mapping[tuple[str, str, str], str]:
    """Why a run can't be, by label of the attack, name of the victim and name of the defense."""
    return {
        (one.label, one.victim, one.defense): one.reason.partition(": ")[0].rstrip(".")
        for one in refused
    }
