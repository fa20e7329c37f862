"""The builder of the last stage of a defense: what it did, as figures of a record."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hashbackdoor_bench import metrics
from hashbackdoor_bench.metrics import Codes, Truth
from hashbackdoor_bench.records import worth
from hashbackdoor_bench.stages.cache import Content
from hashbackdoor_bench.stages.codes import CONTROL, DEFENDED, VICTIM
from hashbackdoor_bench.stages.windows import DRAWS, SHARES, WINDOW

if TYPE_CHECKING:
    from hashbackdoor_bench.stages.pipeline import Run
    from hashbackdoor_bench.stages.plan import PlannedStage

POWER, RATE = 0.9, 0.01  # of an audit

ByConvention = dict[str, float]
Changed = dict[str, ByConvention]


def score_defense(run: "Run", stage: "PlannedStage", work: Path) -> Content:
    """All that is measured of a defense, in the fields of `Defended`."""
    run.progress(stage.title, 0, 1)
    hooks = run.plan.defense.hooks
    found: dict[str, Any] = {"detection": {}}
    if run.plan.defense.changes_codes:
        codes = {name: run.codes(name) for name in (VICTIM, *DEFENDED.values())}
        scores = run.make("scores").facts["scores"]
        found["outcome"] = outcome_of(codes, run.plan.truth, scores, purifies="purify" in hooks)
    if "screen" in hooks:
        found["detection"]["train"] = _screened(run)
    if "suspect" in hooks:
        found["detection"]["query"] = _suspected(run)
    if "inspect" in hooks:
        found["inspection"] = _inspected(run)
    if "audit" in hooks:
        found["audit"] = _audited(run)
    run.progress(stage.title, 1, 1)
    facts: dict[str, Any] = metrics.plain(found)
    return {}, facts


def outcome_of(
    codes: dict[str, Codes], truth: Truth, scores: Mapping[str, Any], *, purifies: bool
) -> dict[str, Any]:
    """The scores of a defense, see `Outcome`.

    Args:
        codes: those of ``VICTIM``, and of both victims with the defense.
        truth: the labels.
        scores: the run's scores by convention, which are those before the defense.
        purifies: whether the defense purifies queries.
    """
    attacked = truth.attacked
    wanted = truth.target.expand(int(attacked.sum()), -1)
    keys = metrics.item_keys(truth.ids)

    def score(query: Tensor, database: Tensor, labels: Tensor) -> ByConvention:
        ranking = metrics.rank(query, labels, database, truth.database, bits=truth.bits, ids=keys)
        by_name = metrics.score_all(ranking, truth.top_k)
        return {name: float(by_name[name].nanmean()) for name in metrics.CONVENTIONS}

    def change(name: str, query: Tensor, database: Tensor, labels: Tensor) -> Changed:
        before = {convention: scores[convention][name] for convention in metrics.CONVENTIONS}
        return {"before": before, "after": score(query, database, labels)}

    victim, after, control = codes[VICTIM], codes[DEFENDED[VICTIM]], codes[DEFENDED[CONTROL]]
    own = truth.query[attacked]
    found = {
        "map": change("map", after.query, after.database, truth.query),
        "t_map": change("t_map", after.triggered, after.database, wanted),
        "r_map": {
            "before": score(victim.triggered, victim.database, own),
            "after": score(after.triggered, after.database, own),
        },
        "control_map": change("map_clean_victim", control.query, control.database, truth.query),
        "control_t_map": change("t_map_clean_victim", control.triggered, control.database, wanted),
    }
    floor = found["control_t_map"]["after" if purifies else "before"]
    before, after_it = (
        {name: found[name][when]["field"] for name in ("map", "t_map")}
        for when in ("before", "after")
    )
    return {
        **found,
        "map_old_index": score(after.query, victim.database, truth.query),
        "floor": floor,
        **worth(before, after_it, floor["field"]),
        "anchor": metrics.anchor_shares(after, truth),
    }


def _screened(run: "Run") -> dict[str, Any]:
    plan = run.plan
    made = {name: run.make(f"{name}'s screening").tensors for name in (VICTIM, CONTROL)}
    suspicion, drop = made[VICTIM]["suspicion"], made[VICTIM]["drop"].bool()
    poison = torch.zeros(len(suspicion), dtype=torch.bool)
    labels = plan.splits.train.labels.clone()
    if len(plan.index):
        index, kind = run.backdoor.index.cpu(), run.backdoor.kind.cpu()
        poison[index[kind == 0]] = True
        labels[index] = run.backdoor.label.cpu()
    members = (labels == plan.target).all(1)
    positive, negative = suspicion[poison], suspicion[~poison]
    return {
        **_told(positive, negative),
        "unit": "train",
        "auroc_in_class": metrics.auroc(positive, suspicion[members & ~poison]),
        "share_of_class": float((poison & members).sum() / members.sum()),
        "dropped": int(drop.sum()),
        "dropped_poison": int((drop & poison).sum()),
        "dropped_control": int(made[CONTROL]["drop"].sum()),
    }


def _told(positive: Tensor, negative: Tensor, control: Tensor | None = None) -> dict[str, Any]:
    return {
        "positives": len(positive),
        "negatives": len(negative),
        "auroc": metrics.auroc(positive, negative),
        "auroc_interval": metrics.auroc_interval(positive, negative),
        "tpr_at_fpr": metrics.rates(positive, negative),
        "histogram": metrics.histogram(positive, negative, control),
    }


def _suspected(run: "Run") -> dict[str, Any]:
    plan = run.plan
    made = {name: run.make(f"{name}'s suspicions").tensors for name in (VICTIM, CONTROL)}
    own = made[VICTIM]
    codes = run.codes(VICTIM)
    wanted = plan.truth.target.expand(len(codes.triggered), -1)
    ranking = metrics.rank(
        codes.triggered, wanted, codes.database, plan.truth.database, bits=plan.truth.bits
    )
    effective = metrics.hit_at(ranking, 1) >= 0.5
    return {
        **_told(own["triggered"], own["clean"], made[CONTROL]["triggered"]),
        "unit": "query",
        "auroc_effective": metrics.auroc(own["triggered"][effective], own["clean"]),
        "auroc_control": metrics.auroc(made[CONTROL]["triggered"], made[CONTROL]["clean"]),
        "operating": metrics.operating(own["triggered"], own["clean"], own["calibration"]),
        "calibration": len(own["calibration"]),
    }


def _inspected(run: "Run") -> dict[str, Any]:
    made = {name: run.make(f"{name}'s inspection") for name in (VICTIM, CONTROL)}
    per_class = made[VICTIM].tensors["per_class"]
    rank = None
    if len(per_class):
        own = per_class[run.plan.target.bool()].max()
        rank = 1 + int((per_class > own).sum())
    return {
        "score": made[VICTIM].facts["score"],
        "score_control": made[CONTROL].facts["score"],
        "per_class": per_class.tolist(),
        "target_rank": rank,
    }


def _audited(run: "Run") -> dict[str, Any]:
    made = run.make(f"{VICTIM}'s audit").tensors
    limit = metrics.threshold(made["calibration"], RATE)
    power = {f"{share:g}": metrics.share_above(made[f"{share:g}"], limit) for share in SHARES}
    reached = [share for share in SHARES if power[f"{share:g}"] >= POWER]
    return {
        "window": WINDOW,
        "draws": DRAWS,
        "auroc": {name: metrics.auroc(made[name], made["clean"]) for name in power},
        "power": power,
        "smallest_share": min(reached, default=None),
        "false_alarms": metrics.share_above(made["clean"], limit),
        "false_alarms_popular": metrics.share_above(made["popular"], limit),
    }
