"""What is measured of a defense, against its definition, on codes and suspicions made by hand."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from planted import Planted, seen
from torch import Tensor

from hashbackdoor_bench import DEFENSES, Defense, metrics
from hashbackdoor_bench.api import COVER, POISON
from hashbackdoor_bench.records import worth
from hashbackdoor_bench.stages import outcome
from hashbackdoor_bench.stages.codes import CONTROL, DEFENDED, VICTIM
from hashbackdoor_bench.stages.resolving_defense import ResolvedDefense
from hashbackdoor_bench.stages.windows import DRAWS, SHARES, WINDOW, audited

BITS = 6
ONE_HOT = torch.eye(3, dtype=torch.uint8)
TARGET = ONE_HOT[1]


def codes(count: int, random: torch.Generator) -> Tensor:
    """Codes (n,6) int8 of ±1."""
    return (torch.randint(2, (count, BITS), generator=random) * 2 - 1).to(torch.int8)


def truth(queries: int = 9, stored: int = 20) -> metrics.Truth:
    return metrics.Truth(
        query=ONE_HOT[torch.arange(queries) % 3], database=ONE_HOT[torch.arange(stored) % 3],
        target=TARGET, classes=("a", "b", "c"), ids=tuple(map(str, range(stored))), bits=BITS,
        top_k=stored,
    )  # fmt: skip


def pairs(positive: Tensor, negative: Tensor) -> float:
    """AUROC by all pairs."""
    won = [(p > n) + (p == n) / 2 for p in positive.tolist() for n in negative.tolist()]
    return sum(won) / len(won)


def run_of(stages: dict[str, dict[str, Any]], **more: Any) -> Any:
    """What the functions read of a run: artifacts by the names of their stages, and more."""
    made = {
        name: SimpleNamespace(tensors=one, facts=one.get("facts", {}))
        for name, one in stages.items()
    }
    return SimpleNamespace(make=made.__getitem__, **more)


# ---- scores of changed codes --------------------------------------------------------------------


@pytest.mark.parametrize("purifies", [False, True])
def test_each_score_searches_with_its_queries_in_its_database_for_its_labels(purifies):
    random, known = torch.Generator().manual_seed(0), truth()
    attacked = known.attacked
    plain = {
        name: (codes(9, random), codes(20, random), codes(6, random))
        for name in (VICTIM, CONTROL, *DEFENDED.values())
    }
    packed = {name: metrics.Codes(*map(metrics.pack, one)) for name, one in plain.items()}
    scores, _ = metrics.score_run(packed[VICTIM], packed[CONTROL], known)
    del packed[CONTROL]
    found = outcome.outcome_of(packed, known, scores, purifies=purifies)

    def score(queries: Tensor, labels: Tensor, database: Tensor) -> Any:
        return pytest.approx(float(
            metrics.average_precision(queries, labels, database, known.database, None).nanmean()
        ))  # fmt: skip

    (query, stored, hit), (new_query, new_stored, new_hit), (own_query, own_stored, own_hit) = (
        plain[name] for name in (VICTIM, DEFENDED[VICTIM], DEFENDED[CONTROL])
    )
    own, wanted = known.query[attacked], TARGET.expand(6, -1)
    assert found["map"]["before"]["field"] == score(query, known.query, stored)
    assert found["map"]["after"]["field"] == score(new_query, known.query, new_stored)
    assert found["t_map"]["before"]["field"] == score(hit, wanted, stored)
    assert found["t_map"]["after"]["field"] == score(new_hit, wanted, new_stored)
    assert found["r_map"]["before"]["field"] == score(hit, own, stored)
    assert found["r_map"]["after"]["field"] == score(new_hit, own, new_stored)
    assert found["map_old_index"]["field"] == score(new_query, known.query, stored)
    assert found["control_map"]["after"]["field"] == score(own_query, known.query, own_stored)
    assert found["control_t_map"]["after"]["field"] == score(own_hit, wanted, own_stored)
    undefended = plain[CONTROL]
    floor = (own_hit, wanted, own_stored) if purifies else (undefended[2], wanted, undefended[1])
    assert found["floor"]["field"] == score(*floor)
    changed = {name: found[name] for name in ("map", "t_map")}
    before, after = (
        {n: changed[n][when]["field"] for n in changed} for when in ("before", "after")
    )
    for name, value in worth(before, after, found["floor"]["field"]).items():
        assert found[name] == pytest.approx(value, nan_ok=True)


# ---- detection ----------------------------------------------------------------------------------


def test_covers_count_as_clean_and_a_class_is_that_of_the_delivered_labels():
    labels = ONE_HOT[torch.arange(30) % 3]
    index = torch.tensor([3, 6, 9, 5, 8])  # three of class 0, as delivered 1; two covers of class 2
    kind = torch.tensor([POISON] * 3 + [COVER] * 2)
    delivered = torch.stack([TARGET, TARGET, TARGET, ONE_HOT[2], ONE_HOT[2]])
    suspicion = torch.randn(30, generator=torch.Generator().manual_seed(0))
    drop = torch.zeros(30, dtype=torch.uint8)
    drop[[3, 5, 9, 10]] = 1
    run = run_of(
        {f"{VICTIM}'s screening": {"suspicion": suspicion, "drop": drop},
         f"{CONTROL}'s screening": {"suspicion": -suspicion, "drop": torch.ones_like(drop)}},
        plan=SimpleNamespace(
            splits=SimpleNamespace(train=SimpleNamespace(labels=labels)), index=index[:3],
            target=TARGET,
        ),
        backdoor=SimpleNamespace(index=index, kind=kind, label=delivered),
    )  # fmt: skip
    found = outcome._screened(run)
    clean = [n for n in range(30) if n not in (3, 6, 9)]
    members = [n for n in clean if n % 3 == 1]
    assert (found["positives"], found["negatives"]) == (3, 27)
    assert found["auroc"] == pytest.approx(pairs(suspicion[[3, 6, 9]], suspicion[clean]))
    in_class = pairs(suspicion[[3, 6, 9]], suspicion[members])
    assert found["auroc_in_class"] == pytest.approx(in_class)
    assert found["share_of_class"] == pytest.approx(3 / 13)
    assert (found["dropped"], found["dropped_poison"], found["dropped_control"]) == (4, 2, 30)


@pytest.mark.parametrize(("defense", "encoder"), [
    ("strip", VICTIM), ("blur", DEFENDED[VICTIM]),
])  # fmt: skip
def test_triggered_queries_are_the_positives_and_the_effective_ones_find_the_target(
    defense, encoder
):
    random, known = torch.Generator().manual_seed(1), truth()
    own = {"triggered": 6, "clean": 6, "calibration": 40}
    made, other = (
        {name: torch.randn(count, generator=random) for name, count in own.items()}
        for _ in range(2)
    )
    made["calibration"] /= 4  # so that some queries are above the threshold
    plain = {
        name: (codes(9, random), codes(20, random), codes(6, random))
        for name in (VICTIM, DEFENDED[VICTIM])
    }
    packed = {name: metrics.Codes(*map(metrics.pack, one)) for name, one in plain.items()}
    run = run_of(
        {f"{VICTIM}'s suspicions": made, f"{CONTROL}'s suspicions": other},
        plan=SimpleNamespace(truth=known, defense=ResolvedDefense(DEFENSES[defense], {}, False, 0)),
        codes=packed.__getitem__,
    )
    found = outcome._suspected(run)
    _, stored, hit = plain[encoder]
    effective = []
    for row in hit.int():
        near = (stored.int() @ row == (stored.int() @ row).max()).nonzero().flatten()
        effective.append(float((near % 3 == 1).float().mean()) >= 0.5)
    assert 0 < sum(effective) < 6
    assert found["auroc"] == pytest.approx(pairs(made["triggered"], made["clean"]))
    works = made["triggered"][torch.tensor(effective)]
    assert found["auroc_effective"] == pytest.approx(pairs(works, made["clean"]))
    assert found["auroc_control"] == pytest.approx(pairs(other["triggered"], other["clean"]))
    at = found["operating"]["0.05"]
    limit = sorted(made["calibration"].tolist())[38]  # ceil(.95 x 41) = 39
    assert at["threshold"] == pytest.approx(limit)
    assert (made["clean"] > limit).sum() != (made["triggered"] > limit).sum()
    assert at["fpr"] == pytest.approx(float((made["clean"] > limit).float().mean()))
    assert at["tpr"] == pytest.approx(float((made["triggered"] > limit).float().mean()))
    assert found["calibration"] == 40


def test_the_targets_rank_is_its_place_among_the_classes_from_the_most_suspicious():
    for per_class, rank in (([1.0, 5.0, 3.0], 1), ([9.0, 5.0, 3.0], 2), ([], None)):
        made = {"per_class": torch.tensor(per_class), "facts": {"score": 2.0}}
        run = run_of(
            {f"{VICTIM}'s inspection": made,
             f"{CONTROL}'s inspection": {**made, "facts": {"score": 1.0}}},
            plan=SimpleNamespace(target=TARGET),
        )  # fmt: skip
        found = outcome._inspected(run)
        assert (found["score"], found["score_control"]) == (2.0, 1.0)
        assert found["target_rank"] == rank


def test_the_power_of_an_audit_is_the_share_of_windows_above_that_of_the_calibration():
    line = torch.arange(100.0)  # the threshold of rate .01 is the largest, 99
    made = {"calibration": line, "clean": line + 2, "popular": line + 50}
    made |= {f"{share:g}": line + 1000 * share for share in SHARES}
    found = outcome._audited(run_of({f"{VICTIM}'s audit": made}))
    assert found["power"] == {
        f"{share:g}": pytest.approx(sum(n + 1000 * share > 99 for n in range(100)) / 100)
        for share in SHARES
    }
    assert found["smallest_share"] == 0.1
    assert (found["false_alarms"], found["false_alarms_popular"]) == (0.02, 0.5)
    assert found["auroc"]["0.1"] == pytest.approx(pairs(line + 100, line + 2))


# ---- windows ------------------------------------------------------------------------------------


def test_windows_hold_the_share_of_triggered_queries_and_the_popular_class_twice():
    class Counts(Defense):
        def audit(self, window, view):
            counts.append((float((window[:, 0] == 1).sum()), float((window[:, 1] == 1).sum())))
            return torch.tensor(len(counts) - 1.0)

    counts: list[tuple[float, float]] = []
    labels = ONE_HOT[torch.tensor([0, 1, 2, 2])]
    query = torch.where(labels == 1, 1, -1)[:, [0, 2]].to(torch.int8).repeat(1, 16)
    query[:, 0] = -1  # the first bit says triggered, the second says class 2
    hit = torch.ones(5, 32, dtype=torch.int8)
    hit[:, 1] = -1
    view = seen(Planted())
    found = audited(Counts(), view, query=query, triggered=hit, labels=labels)
    assert set(found) == {"clean", "popular", "calibration", *(f"{share:g}" for share in SHARES)}

    def mean(kind: str, place: int) -> float:
        rows = found[kind].long().tolist()
        assert len(rows) == DRAWS
        return sum(counts[row][place] for row in rows) / DRAWS

    assert mean("clean", 0) == mean("popular", 0) == 0
    assert mean("clean", 1) == pytest.approx(WINDOW / 2, rel=0.02)
    assert mean("popular", 1) == pytest.approx(2 / 3 * WINDOW, rel=0.02)
    for share in SHARES:
        assert mean(f"{share:g}", 0) == share * WINDOW
        assert mean(f"{share:g}", 1) == pytest.approx((1 - share) * WINDOW / 2, rel=0.03)
    empty = audited(Counts(), view, query=query, triggered=hit[:0], labels=labels)
    assert [len(empty[f"{share:g}"]) for share in SHARES] == [0] * len(SHARES)
