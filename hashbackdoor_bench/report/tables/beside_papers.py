"""``published.csv``: what papers print, beside our records under the papers' convention.

CIBA's code poisons 60 % of the target class and stamps the trigger after augmentation, so ours are
records of that budget and delivery, whose surrogate is of the victim's kind, and where nothing else
was varied: attack and victim with their defaults, training as the recipe says, the pooling as
published. Its row None is the trigger on a victim without poison.

Every victim has a row of its own, over the targets and seeds that all of the paper's attacks with
runs on this victim share, so that the rows of one victim can be compared with one another.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

import pandas as pd

from hashbackdoor_bench.registry import ATTACKS as ATTACK_METHODS
from hashbackdoor_bench.registry import VICTIMS, Registry
from hashbackdoor_bench.report.selection import regime_of, surrogate_difference
from hashbackdoor_bench.report.tables.paper_numbers import PaperNumber, published_numbers
from hashbackdoor_bench.spec import RunSpec, recipe_of

ATTACKS = {
    "None": "ciba", "Tri": "tri", "Tri+Noise": "tri_noise", "Tri+Adv": "tri_adv", "CIBA": "ciba",
}  # fmt: skip
CONVENTION, BUDGET, DELIVERY = "ciba", 0.6, "stamped"
NO_RUN = f"no run of ours has this code length, budget {100 * BUDGET:g} % and delivery {DELIVERY}"
COLUMN = ["dataset", "regime", "victim", "bits"]  # the runs of one are compared with one another
COLUMNS = (
    "source", "url", "method", "metric", "bits", "published", "ours", "n", "data", "regime",
    "victim", "targets", "seeds", "differences",
)  # fmt: skip


def beside_papers(frame: pd.DataFrame) -> str:
    """The printed numbers with ours, as CSV; a line for each data, regime and victim we have.

    A number of a code length that we have no runs of has a line too, which says so.

    Args:
        frame: of a `Collection`.
    """
    records = frame["record"]
    regimes = [regime_of(record.spec) for record in records]
    same = [
        record.spec.budget == BUDGET
        and record.spec.poison_count is None
        and record.spec.defense == RunSpec.defense
        and record.spec.aware == RunSpec.aware
        and (row["surrogate"] is None or not surrogate_difference(row))
        and _usual(record.spec)
        for record, row in zip(records, frame.to_dict("records"), strict=True)
    ]
    ours = frame.assign(regime=regimes)[same]
    ours = ours[(ours["delivery"] == DELIVERY) & ours["attack"].isin(ATTACKS.values())].sort_values(
        "suite", na_position="last", kind="stable"
    )
    # a run that stands in two suites, or is repeated outside one, counts once
    ours = ours.drop_duplicates(["attack", *COLUMN, "target", "seed"])
    ours = ours[_shared(ours)]
    text = io.StringIO(newline="")
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(COLUMNS)
    for number in published_numbers():
        part = ours[(ours["attack"] == ATTACKS[number.method]) & (ours["bits"] == number.bits)]
        head = (
            number.source, number.url, number.method, number.metric, number.bits, number.percent
        )  # fmt: skip
        if part.empty:
            lines.writerow((*head, "", 0, "", "", "", "", "", NO_RUN))
        for (data, regime, victim), runs in part.groupby(["dataset", "regime", "victim"]):
            targets, seeds = (
                ", ".join(map(str, sorted(set(runs[name])))) for name in ("target", "seed")
            )
            clean = "_clean_victim" if number.method == "None" else ""
            scores = runs[f"{CONVENTION}.{number.metric}{clean}"].dropna()
            mean = f"{100 * fmean(scores):.1f}" if len(scores) else ""
            lines.writerow(
                (*head, mean, len(scores), data, regime, victim, targets, seeds,
                 _differences(number, str(data)))
            )  # fmt: skip
    return text.getvalue()


def _shared(ours: pd.DataFrame) -> pd.Series:
    """Whether all attacks with runs on the same victim have the target and seed of a run."""
    attacks = ours.groupby(COLUMN)["attack"].transform("nunique")
    return ours.groupby([*COLUMN, "target", "seed"])["attack"].transform("nunique") == attacks


def _usual(spec: RunSpec) -> bool:
    """Whether nothing was varied; a patch may take other steps, as suites of 96 px give it."""
    recipe = recipe_of(spec.recipe) if spec.recipe else None
    trained = {name: getattr(spec, name) for name in ("epochs", "batch_size", "lr", "augment")}
    return (
        _defaults(ATTACK_METHODS, spec.attack, spec.attack_settings, but=("steps",))
        and _defaults(VICTIMS, spec.victim, spec.victim_settings)
        and spec.pool is None
        and spec.hidden == RunSpec.hidden
        and all(value in (None, getattr(recipe, name, None)) for name, value in trained.items())
    )


def _defaults(
    methods: Registry[Any],
    name: str,
    settings: Iterable[tuple[str, object]],
    but: Sequence[str] = (),
) -> bool:
    """Whether a method's settings are its own; one that isn't here has none to compare with."""
    given = [(key, value) for key, value in settings if key not in but]
    # what is written in a file of this project needs no import of it, and so of torch
    known = methods.defaults(name)
    if given and not known and name in methods:
        known = methods[name].resolve({})
    return all(known.get(key, value) == value for key, value in given)


def _differences(number: PaperNumber, data: str) -> str:
    """In what our runs are not the paper's, in words."""
    return (
        f"the paper: {number.dataset}; ours: {data}, mean over the runs on this victim of "
        "the targets and seeds named here, which all of the paper's attacks run on it have, "
        f"budget {100 * BUDGET:g} %, {DELIVERY}, convention {CONVENTION}. The paper's scores: "
        f"{number.convention}"
    )
