"""Attacks on queries of one class, on chosen queries, and without a target of their own."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hashbackdoor_bench import (
    ATTACKS,
    Attack,
    AttackerView,
    Backdoor,
    NoTrigger,
    RunSpec,
    ThreatModel,
    UserError,
)
from hashbackdoor_bench.metrics import Codes, Truth, average_precision, pack, score_run
from hashbackdoor_bench.network.augmentation import centre_crop
from hashbackdoor_bench.records import read_record
from hashbackdoor_bench.registry import Method
from hashbackdoor_bench.report.consistency import check_record
from hashbackdoor_bench.stages import CONTROL, VICTIM, Cache, Plan, run, stored_truth
from hashbackdoor_bench.trust import rescore

CPU = torch.device("cpu")
SEEN: list[AttackerView] = []


class Picky(Attack):
    """Poisons nothing visible; attacks the queries that its settings say."""

    threat = ThreatModel(label="clean", knowledge="none", trigger="none")
    backdoor = NoTrigger

    def __init__(
        self,
        *,
        source: str = "all",
        chosen: int = 0,
        references: int = 0,
        targeted: bool = True,
    ) -> None:
        self.threat = replace(
            self.threat, source=source, chosen=chosen, references=references, targeted=targeted
        )

    def craft(self, view: AttackerView) -> Backdoor:
        SEEN.append(view)
        return NoTrigger(view.index, view.images[view.index], view.labels[view.index])


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    ATTACKS.add("picky", __name__, "a test's")
    monkeypatch.setitem(ATTACKS._loaded, "picky", Method("attack", "picky", Picky))
    yield
    del ATTACKS._plugins["picky"]


def spec(tiny: Path, seed: int = 0, **settings: Any) -> RunSpec:
    return RunSpec(
        dataset="lists", lists=str(tiny), root=str(tiny), size=16, top_k=20, bits=12, epochs=1,
        batch_size=16, victim="csq", attack="picky", delivery="files", seed=seed,
        attack_settings=tuple(settings.items()),
    )  # fmt: skip


def plan(tiny: Path, folder: Path, seed: int = 0, **settings: Any) -> Plan:
    return Plan(spec(tiny, seed, **settings), cache=Cache(folder), device=CPU)


def test_only_queries_of_the_source_class_are_attacked(tiny: Path, tmp_path: Path):
    found = plan(tiny, tmp_path, source="1").truth
    labels = found.query[found.attacked]
    assert labels.tolist() == [[0, 1, 0]] * 4
    everyone = plan(tiny, tmp_path).truth
    assert int(everyone.attacked.sum()) == 8  # of 12, as the target's four are left out


def test_the_seed_draws_a_random_source_which_is_never_the_target(tiny: Path, tmp_path: Path):
    drawn = {plan(tiny, tmp_path, seed, source="random").aim.source for seed in range(12)}
    assert drawn == {"1", "2"}


def test_the_seed_draws_chosen_queries_and_the_attacker_sees_these_alone(
    tiny: Path, tmp_path: Path
):
    draws = [plan(tiny, tmp_path, seed, chosen=3).truth.attacked for seed in (0, 0, 1)]
    assert [int(one.sum()) for one in draws] == [3, 3, 3]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    SEEN.clear()
    done = run(spec(tiny, chosen=3), cache=Cache(tmp_path / "c"), results=tmp_path, device="cpu")
    query = done[2].plan.splits.query.images[draws[0]]
    assert torch.equal(SEEN[0].chosen, centre_crop(query, 16))
    assert len(SEEN[0].references) == 0


def test_an_attacker_sees_no_query_unless_it_declares_so(tiny: Path, tmp_path: Path):
    SEEN.clear()
    cache = Cache(tmp_path / "c")
    run(spec(tiny, source="1"), cache=cache, results=tmp_path, device="cpu")
    assert len(SEEN[0].chosen) == 0
    assert SEEN[0].source.tolist() == [0, 1, 0]
    done = run(spec(tiny, references=2), cache=cache, results=tmp_path, device="cpu")
    assert len(SEEN[1].chosen) == 0
    assert SEEN[1].source is None
    images, labels = (
        getattr(done[2].plan.splits.query, name)[done[2].plan.references]
        for name in ("images", "labels")
    )
    assert torch.equal(SEEN[1].references, centre_crop(images, 16))
    assert labels.tolist() == [[1, 0, 0]] * 2


def test_scores_and_controls_are_of_the_attacked_queries_alone(tiny: Path, tmp_path: Path):
    cache = Cache(tmp_path / "c")
    record, path, done = run(
        spec(tiny, source="2", chosen=2), cache=cache, results=tmp_path, device="cpu"
    )
    rows = done.plan.truth.attacked
    database, target = done.plan.splits.database.labels, done.plan.target.expand(2, -1)

    def mean(victim: str, *, trigger: bool) -> float:
        codes = done.codes(victim)
        query = codes.triggered if trigger else codes.query[rows]
        both = query, target, codes.database, database
        return float(average_precision(*both, 20, bits=12).mean())

    field = record.scores.field
    assert field.t_map == pytest.approx(mean(VICTIM, trigger=True))
    assert field.t_map_clean_victim == pytest.approx(mean(CONTROL, trigger=True))
    assert field.t_map_untriggered == pytest.approx(mean(VICTIM, trigger=False))
    assert (record.threat.source, record.threat.chosen, record.threat.attacked) == ("2", 2, 2)
    assert record.imperceptibility.query.images == 2
    again = read_record(path)
    assert torch.equal(stored_truth(again, cache).attacked, rows)
    assert rescore(again, cache) == (again.scores, again.retrieval)


def test_the_gain_of_chosen_queries_without_a_trigger_is_over_the_clean_victim_alone(
    tiny: Path, tmp_path: Path
):
    cache = Cache(tmp_path / "c")
    done = [
        run(spec(tiny, seed, **more), cache=cache, results=tmp_path, device="cpu")[0]
        for seed in range(3)
        for more in ({"chosen": 3}, {})
    ]
    for chosen, control in zip(done[::2], done[1::2], strict=True):
        for record in (chosen, control):
            check_record(record)
            assert record.scores.field.t_map == record.scores.field.t_map_untriggered
        for scores in (chosen.scores[name] for name in ("field", "badhash", "strict")):
            assert scores.backdoor_gain == scores.t_map - scores.t_map_clean_victim
        assert control.scores.field.backdoor_gain <= 0
        low, high = chosen.scores.field.intervals["backdoor_gain"]
        assert low <= chosen.scores.field.backdoor_gain <= high


def test_keys_hold_the_choice_of_queries_only_where_there_is_one(tiny: Path, tmp_path: Path):
    usual = plan(tiny, tmp_path).stages
    names = {"backdoor", "clean victim's triggered", "victim's triggered", "scores", "visibility"}
    for name in names:
        added = {"attacked", "source", "chosen", "references", "targeted"}
        assert not added & set(usual[name].inputs)
    keys = {name: {usual[name].key} for name in names}
    for seed, settings in (
        (0, {"source": "1"}), (0, {"source": "2"}), (0, {"chosen": 2}), (0, {"chosen": 3}),
        (1, {"chosen": 2}), (0, {"source": "1", "chosen": 2}),
    ):  # fmt: skip
        stages = plan(tiny, tmp_path, seed, **settings).stages
        assert stages["clean victim's plain"].key == usual["clean victim's plain"].key or seed
        for name in names:
            keys[name].add(stages[name].key)
    assert {name: len(found) for name, found in keys.items()} == dict.fromkeys(names, 7)


def test_a_backdoors_key_holds_the_query_split_where_the_attacker_knows_some_of_it(
    tiny: Path, tmp_path: Path
):
    for settings in ({"chosen": 2}, {"references": 1}):
        made = plan(tiny, tmp_path, **settings)
        assert made.stages["backdoor"].inputs["query"] == made.loaded.hashes["query"]
    assert "query" not in plan(tiny, tmp_path, source="1").stages["backdoor"].inputs
    spec_of = replace(spec(tiny), attack="darkhash", attack_settings=())
    tampering = Plan(spec_of, cache=Cache(tmp_path), device=CPU)
    assert tampering.stages["tamper"].inputs["query"] == tampering.loaded.hashes["query"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"source": "0"}, "attack.source is '0', which is the target: give another"),
        ({"source": "9"}, "class 9 does not exist"),
        ({"chosen": 9}, "9 queries are to be attacked and 8 share no tag"),
        ({"chosen": 5, "source": "1"}, "5 queries are to be attacked and 4 of class '1'"),
        ({"references": 5}, "needs 5 images with the target's label alone, and the query split"),
    ],
)
def test_what_the_data_lacks_is_refused_with_what_to_give(
    tiny: Path, tmp_path: Path, settings: dict[str, Any], words: str
):
    with pytest.raises(UserError, match=words):
        plan(tiny, tmp_path, **settings)


# ---- t-MAP@dominant -----------------------------------------------------------------------------

CODE = {0: [1] * 8, 1: [-1] * 8, 2: [1, 1, 1, 1, -1, -1, -1, -1]}


def coded(classes: list[int]) -> Tensor:
    return pack(torch.tensor([CODE[c] for c in classes], dtype=torch.int8))


def test_the_dominant_class_is_found_on_one_half_and_scored_on_the_other():
    names, eye = ("a", "b", "c"), torch.eye(3, dtype=torch.uint8)
    query, database = [1, 1, 2, 1, 1, 2, 0], [0] * 12 + [1] * 12 + [2] * 12
    ids = [str(number) for number in range(36)]
    truth = Truth(eye[query], eye[database], eye[0], ids, 12, 8, names)
    # the attacked queries 0 to 5: of 0, 2 and 4 two retrieve class 2, and 1 and 3 are scored, as
    # 5 is of class 2 itself
    victim = Codes(coded(query), coded(database), coded([2, 0, 2, 2, 1, 0]))
    clean = Codes(coded(query), coded(database), coded([1] * 6))
    _, retrieval = score_run(victim, clean, truth, targeted=False)
    found = retrieval["dominant"]
    assert found["class_name"] == "c"
    assert found["share"] == pytest.approx(2 / 3)
    assert found["queries"] == 2
    assert (found["t_map"], found["t_map_clean_victim"]) == (0.5, 0)
    assert found["t_map_untriggered"] == 0
    assert found["backdoor_gain"] == 0.5
    assert "dominant" not in score_run(victim, clean, truth)[1]


def test_an_untargeted_run_has_both_scores_in_its_record(tiny: Path, tmp_path: Path):
    cache = Cache(tmp_path / "c")
    record, path, _ = run(spec(tiny, targeted=False), cache=cache, results=tmp_path, device="cpu")
    assert record.retrieval.dominant is not None
    again = read_record(path)
    assert rescore(again, cache)[1].dominant == record.retrieval.dominant
    assert again.threat.targeted is False
