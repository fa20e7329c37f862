"""The scores of a run from its codes: MAP, t-MAP and their controls under every convention."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hashbackdoor_bench import metrics
from hashbackdoor_bench.metrics.codes_2d import project

CONTROLS = ("t_map_clean_victim", "t_map_untriggered")
RADIUS = 2  # Hamming radius of the lookup precision
DOMINANT = 10  # nearest items among which the dominant class is counted


@dataclass(frozen=True)
class Codes:
    """Packed codes of one model.

    Attributes:
        query: (Q, ceil(K/8)) uint8, clean queries.
        database: (D, ceil(K/8)) uint8.
        triggered: (Q', ceil(K/8)) uint8, the attacked queries with the trigger, see `Truth`.
    """

    query: Tensor
    database: Tensor
    triggered: Tensor


@dataclass(frozen=True)
class Truth:
    """Labels behind the codes.

    Attributes:
        query: (Q,C) 0/1.
        database: (D,C) 0/1.
        target: (C,) 0/1.
        ids: ids of the database items, which determine the seeded order of ties.
        top_k: R.
        bits: K.
        classes: names of the C classes.
        among: (Q,) bool, the queries to which the attack is limited; None: to none.
        triggered: whether attacked queries carry a trigger; if not, taking it off is no control.
    """

    query: Tensor
    database: Tensor
    target: Tensor
    ids: Sequence[str]
    top_k: int
    bits: int
    classes: Sequence[str]
    among: Tensor | None = None
    triggered: bool = True

    @property
    def controls(self) -> tuple[str, ...]:
        """The scores of which the larger is taken from t-MAP to give the gain."""
        return CONTROLS if self.triggered else CONTROLS[:1]

    @property
    def attacked(self) -> Tensor:
        """(Q,) bool: the queries that count for t-MAP; none shares a tag with the target."""
        free = metrics.shares_no_tag(self.query, self.target)
        return free if self.among is None else free & self.among


@dataclass(frozen=True)
class SearchTask:
    """One of the searches by which a run is scored.

    Attributes:
        codes: of the model whose database is searched.
        query: (Q, ceil(K/8)) uint8, packed codes of the queries.
        labels: (Q,C) 0/1, the labels that make an item relevant.
    """

    codes: Codes
    query: Tensor
    labels: Tensor


def search_tasks(victim: Codes, clean: Codes, truth: Truth) -> dict[str, SearchTask]:
    """The searches of a run by the name of the score that each gives; see `score_run`."""
    attacked = truth.attacked
    wanted = truth.target.expand(int(attacked.sum()), -1)
    return {
        "map": SearchTask(victim, victim.query, truth.query),
        "t_map": SearchTask(victim, victim.triggered, wanted),
        "map_clean_victim": SearchTask(clean, clean.query, truth.query),
        "t_map_clean_victim": SearchTask(clean, clean.triggered, wanted),
        "t_map_untriggered": SearchTask(victim, victim.query[attacked], wanted),
    }


def score_run(
    victim: Codes, clean: Codes, truth: Truth, *, targeted: bool = True
) -> tuple[dict[str, Any], dict[str, Any]]:
    """All scores of a run.

    Args:
        victim: codes of the victim that was trained on the poisoned set.
        clean: codes of the victim that was trained on the clean set, with the same trigger.
        truth: the labels.
        targeted: whether the attack decides what triggered queries retrieve; if not, ``retrieval``
            also has a `Dominant`.

    Returns:
        ``scores`` and ``retrieval`` of a `Record`; an undefined score (the mean over no queries) is
        None.
    """
    keys = item_keys(truth.ids)
    rankings = {
        name: metrics.rank(
            task.query, task.labels, task.codes.database, truth.database, bits=truth.bits, ids=keys
        )
        for name, task in search_tasks(victim, clean, truth).items()
    }
    by_figure = {name: metrics.score_all(r, truth.top_k) for name, r in rankings.items()}
    scores: dict[str, Any] = {}
    for convention in metrics.CONVENTIONS:
        scores[convention] = mean_scores(
            {name: values[convention] for name, values in by_figure.items()}, truth.controls
        )
    field = {name: values["field"] for name, values in by_figure.items()}
    control = max(truth.controls, key=lambda name: _mean(field[name]))
    scores["field"]["bounds"] = {
        name: sorted(
            _mean(by_figure[name][f"field_{end}"]) for end in ("pessimistic", "optimistic")
        )
        for name in ("map", "t_map")
    }
    scores["field"]["intervals"] = {
        name: list(metrics.bootstrap(values))
        for name, values in {
            "map": field["map"],
            "t_map": field["t_map"],
            "delta_map": field["map"] - field["map_clean_victim"],
            "backdoor_gain": field["t_map"] - field[control],
        }.items()
    }
    retrieval = _retrieval(rankings, victim, truth, keys)
    if not targeted:
        retrieval["dominant"] = _dominant(victim, clean, truth, keys)
    return plain(scores), plain(retrieval)


def mean_scores(
    values: Mapping[str, Tensor], controls: Sequence[str] = CONTROLS
) -> dict[str, float]:
    """The scores of a run under one convention, without their intervals.

    Args:
        values: AP (Q,) of the queries of each of the `search_tasks`.
        controls: see `Truth.controls`.

    Returns:
        The mean of each, ``delta_map`` and ``backdoor_gain``; NaN where there is no query.
    """
    row = {name: _mean(ap) for name, ap in values.items()}
    return row | {
        "delta_map": row["map"] - row["map_clean_victim"],
        "backdoor_gain": _gain(row, controls),
    }


def _gain(row: Mapping[str, float], controls: Sequence[str]) -> float:
    """``t_map`` less the largest of its controls; NaN if there is no query."""
    values = [row[name] for name in controls]
    control = math.nan if any(map(math.isnan, values)) else max(values)
    return row["t_map"] - control


def _retrieval(
    rankings: Mapping[str, metrics.Ranking], victim: Codes, truth: Truth, keys: Tensor
) -> dict[str, Any]:
    database = metrics.unpack(victim.database, truth.bits)
    anchor = _anchor(database, truth)
    triggered = metrics.unpack(victim.triggered, truth.bits)
    untriggered = metrics.unpack(victim.query[truth.attacked], truth.bits)
    out: dict[str, Any] = {}
    for name, figure, codes in (
        ("triggered", "t_map", triggered),
        ("untriggered", "t_map_untriggered", untriggered),
    ):
        ranking = rankings[figure]
        out[name] = {
            "hit_at_1": _mean(metrics.hit_at(ranking, 1)),
            "hit_at_10": _mean(metrics.hit_at(ranking, 10)),
            f"precision_radius_{RADIUS}": _mean(
                metrics.precision_within(ranking, min(RADIUS, truth.bits))
            ),
            "no_hit": metrics.no_hit_fraction(ranking, truth.top_k),
            "anchor_distance": metrics.mean_distance(codes, anchor),
            "anchor_histogram": metrics.distance_shares(codes, anchor).tolist(),
        }
    for name, figure in (("clean_queries", "map"), ("triggered", "t_map")):
        precision, recall = metrics.precision_recall(rankings[figure])
        out.setdefault(name, {})["precision_recall"] = {
            "precision": precision.tolist(),
            "recall": recall.tolist(),
        }
    out["codes_2d"] = project(
        database, truth.database, truth.target, truth.classes, keys, (untriggered, triggered)
    )
    return out


def _anchor(database: Tensor, truth: Truth) -> Tensor:
    """The target's anchor (K,): the majority bits of its items in the codes (D,K) of a database."""
    votes = database[~metrics.shares_no_tag(truth.database, truth.target)].sum(0)
    return torch.where(votes >= 0, 1, -1).to(torch.int8)


def anchor_shares(codes: Codes, truth: Truth) -> dict[str, list[float]]:
    """Shares of attacked queries at the distances 0..K to the target's anchor.

    Returns:
        ``untriggered`` and ``triggered``, each of K+1 numbers; NaN where there is no query.
    """
    anchor = _anchor(metrics.unpack(codes.database, truth.bits), truth)
    queries = {"untriggered": codes.query[truth.attacked], "triggered": codes.triggered}
    return {
        name: metrics.distance_shares(metrics.unpack(packed, truth.bits), anchor).tolist()
        for name, packed in queries.items()
    }


def _dominant(victim: Codes, clean: Codes, truth: Truth, keys: Tensor) -> dict[str, Any]:
    """The class that triggered queries retrieve most, and the scores for it, see `Dominant`."""
    nearest = metrics.nearest(
        victim.triggered[::2], victim.database, DOMINANT, bits=truth.bits, ids=keys
    )
    counts = truth.database[nearest.flatten()].sum(0, dtype=torch.long)
    number = int(counts.argmax())
    wanted = torch.zeros_like(truth.target)
    wanted[number] = 1
    attacked = truth.attacked.nonzero().flatten()
    rest = torch.arange(1, len(attacked), 2)
    rest = rest[metrics.shares_no_tag(truth.query[attacked[rest]], wanted)]
    labels = wanted.expand(len(rest), -1)
    searches = {
        "t_map": (victim.triggered[rest], victim.database),
        "t_map_clean_victim": (clean.triggered[rest], clean.database),
        "t_map_untriggered": (victim.query[attacked[rest]], victim.database),
    }
    means = {}
    for name, (query, database) in searches.items():
        ranking = metrics.rank(query, labels, database, truth.database, bits=truth.bits, ids=keys)
        means[name] = _mean(metrics.score_all(ranking, truth.top_k)["field"])
    return {
        "class_name": truth.classes[number],
        "share": float(counts[number] / max(1, nearest.numel())),
        "queries": len(rest),
        **means,
        "backdoor_gain": _gain(means, truth.controls),
    }


def _mean(values: Tensor) -> float:
    return float(values.nanmean())


def item_keys(ids: Sequence[str]) -> Tensor:
    """(N,) int64: 63 bits from each item id, the same on every machine; they order ties."""
    digests = (hashlib.blake2b(name.encode(), digest_size=8).digest() for name in ids)
    return torch.tensor([int.from_bytes(digest, "big") >> 1 for digest in digests])


def plain(value: Any) -> Any:
    """Replace NaN, which JSON doesn't have, by None."""
    if isinstance(value, Mapping):
        return {str(name): plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
