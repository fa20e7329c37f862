"""``published.csv``: what papers print, beside our records under the papers' convention.

CIBA's code poisons 60 % of the target class and stamps the trigger after augmentation, so ours are
records of that budget and delivery, whose surrogate is of the victim's kind. Its row None is the
trigger on a victim without poison.
"""

import csv
import io
from statistics import fmean

import pandas as pd

from hashbackdoor_bench.report.selection import regime_of
from hashbackdoor_bench.report.tables.paper_numbers import PaperNumber, published_numbers
from hashbackdoor_bench.spec import RunSpec

ATTACKS = {
    "None": "ciba", "Tri": "tri", "Tri+Noise": "tri_noise", "Tri+Adv": "tri_adv", "CIBA": "ciba",
}  # fmt: skip
CONVENTION, BUDGET, DELIVERY = "ciba", 0.6, "stamped"
COLUMNS = (
    "source", "url", "method", "metric", "bits", "published", "ours", "n", "data", "regime",
    "victims", "targets", "differences",
)  # fmt: skip


def beside_papers(frame: pd.DataFrame) -> str:
    """The printed numbers with ours, as CSV; a line for each data and regime that we have.

    Args:
        frame: of a `Collection`.
    """
    records = frame["record"]
    regimes = [regime_of(record.spec) for record in records]
    same = [
        record.spec.budget == BUDGET
        and record.spec.poison_count is None
        and record.spec.defense == RunSpec.defense
        and record.spec.surrogate == record.spec.victim
        and record.spec.surrogate_bits == record.spec.bits
        for record in records
    ]
    ours = frame.assign(regime=regimes)[same]
    ours = ours[ours["delivery"] == DELIVERY].sort_values(
        "suite", na_position="last", kind="stable"
    )
    # a run that stands in two suites, or is repeated outside one, counts once
    ours = ours.drop_duplicates(["attack", "dataset", "regime", "victim", "bits", "target", "seed"])
    text = io.StringIO(newline="")
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(COLUMNS)
    for number in published_numbers():
        part = ours[(ours["attack"] == ATTACKS[number.method]) & (ours["bits"] == number.bits)]
        head = (
            number.source, number.url, number.method, number.metric, number.bits, number.percent
        )  # fmt: skip
        if part.empty:
            lines.writerow((*head, "", 0, "", "", "", "", "not run with this code length"))
        for (data, regime), runs in part.groupby(["dataset", "regime"], sort=True):
            victims, targets = (sorted(set(runs[name])) for name in ("victim", "target"))
            clean = "_clean_victim" if number.method == "None" else ""
            scores = runs[f"{CONVENTION}.{number.metric}{clean}"].dropna()
            mean = f"{100 * fmean(scores):.1f}" if len(scores) else ""
            lines.writerow(
                (*head, mean, len(scores), data, regime, " ".join(victims), ", ".join(targets),
                 _differences(number, str(data)))
            )  # fmt: skip
    return text.getvalue()


def _differences(number: PaperNumber, data: str) -> str:
    """In what our runs are not the paper's, in words."""
    return (
        f"the paper: {number.dataset}; ours: {data}, mean over the runs of the victims and "
        f"targets named here, budget {100 * BUDGET:g} %, {DELIVERY}, convention {CONVENTION}. The "
        f"paper's scores: {number.convention}"
    )
