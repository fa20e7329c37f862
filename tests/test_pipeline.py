"""Which stages a change makes again, and what a record says of them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hashbackdoor_bench import RunSpec, UserError, checkpoint
from hashbackdoor_bench.records import read_record
from hashbackdoor_bench.stages.cache import Cache
from hashbackdoor_bench.stages.pipeline import Run, run
from hashbackdoor_bench.stages.plan import Plan
from hashbackdoor_bench.trust.rescoring import rescore

CPU = torch.device("cpu")
ALL = {
    "surrogate", "backdoor", "clean victim", "victim", "clean victim's plain",
    "clean victim's triggered", "victim's plain", "victim's triggered", "scores", "visibility",
}  # fmt: skip
ATTACKED = {"backdoor", "victim", "clean victim's triggered", "victim's plain",
            "victim's triggered", "scores", "visibility"}  # fmt: skip
VICTIM = {"clean victim", "victim", "clean victim's plain", "clean victim's triggered",
          "victim's plain", "victim's triggered", "scores"}  # fmt: skip


def spec(tiny: Path, **changes: Any) -> RunSpec:
    base: dict[str, Any] = {
        "dataset": "lists", "lists": str(tiny), "root": str(tiny), "size": 16, "top_k": 20,
        "bits": 12, "epochs": 1, "batch_size": 16, "surrogate": "hashnet", "surrogate_bits": 12,
        "surrogate_backbone": "cnn32",
    }  # fmt: skip
    changes = {**base, **changes}
    if changes.get("attack", "ciba") in ("ciba", "tri", "tri_noise", "tri_adv"):
        changes["attack_settings"] = (("steps", 2), *changes.get("attack_settings", ()))
    return RunSpec(**changes)


def keys(tiny: Path, tmp_path: Path, **changes: Any) -> dict[str, str]:
    stages = Plan(spec(tiny, **changes), cache=Cache(tmp_path), device=CPU).stages
    return {name: stage.key for name, stage in stages.items()}


@pytest.fixture(scope="module")
def made(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """A cache in which every stage of `spec` is made."""
    cache = Cache(tmp_path_factory.mktemp("made"))
    Run(spec(tiny), cache=cache, device=CPU).record()
    return cache


@pytest.mark.parametrize(
    ("changes", "made_again"),
    [
        ({}, set()),
        ({"top_k": 10}, {"scores"}),
        ({"seed": 1}, ALL),
        ({"epochs": 2}, ALL),
        ({"lr": 0.1}, ALL),
        ({"precision": "float32"}, ALL),
        ({"target": "1"}, ALL - {"surrogate", "clean victim", "clean victim's plain"}),
        ({"budget": 0.5}, ATTACKED),
        ({"poison_count": 3}, ATTACKED),
        ({"attack_settings": (("epsilon", 4.0),)}, ATTACKED),
        ({"attack": "tri"}, ATTACKED),
        ({"delivery": "files"}, {"victim", "victim's plain", "victim's triggered", "scores"}),
        ({"delivery": "jpeg"}, {"victim", "victim's plain", "victim's triggered", "scores"}),
        ({"victim": "csq"}, VICTIM),
        ({"bits": 16}, VICTIM),
        ({"backbone": "resnet10t"}, VICTIM),
        ({"surrogate": "csq"}, ATTACKED | {"surrogate"}),
        ({"surrogate_bits": 16}, ATTACKED | {"surrogate"}),
        ({"surrogate_backbone": "resnet10t"}, ATTACKED | {"surrogate"}),
        ({"victim_settings": (("alpha", 0.3),)}, VICTIM | ATTACKED | {"surrogate"}),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)
def test_a_change_makes_exactly_the_stages_again_that_read_it(tiny, tmp_path, changes, made_again):
    before, after = keys(tiny, tmp_path), keys(tiny, tmp_path, **changes)
    assert set(before) == ALL
    assert {name for name in before if before[name] != after[name]} == made_again


def test_an_attack_without_a_surrogate_does_not_depend_on_one(tiny, tmp_path):
    before = keys(tiny, tmp_path, attack="badnets")
    assert "surrogate" not in before
    assert before == keys(tiny, tmp_path, attack="badnets", surrogate_bits=16)


def test_without_poison_the_victim_is_the_clean_one(tiny, tmp_path):
    for changes in ({"attack": "clean"}, {"budget": 0.0}):
        found = keys(tiny, tmp_path, **changes)
        assert found["victim"] == found["clean victim"]
    assert keys(tiny, tmp_path, attack="clean") == keys(tiny, tmp_path, attack="clean", budget=0.1)


def test_the_target_is_the_protocols_unless_it_is_named(tmp_path):
    for changes, name in (
        ({}, "Coat"),
        ({"target": "0"}, "T-shirt/top"),
        ({"target": "bag"}, "Bag"),
    ):
        plan = Plan(RunSpec(attack="clean", **changes), cache=Cache(tmp_path), device=CPU)
        assert plan.spec.target == name
        assert plan.splits.classes[int(plan.target.argmax())] == name


def test_the_surrogate_is_never_the_clean_victim(tiny, tmp_path):
    found = keys(tiny, tmp_path)
    assert found["surrogate"] != found["clean victim"]


def test_an_edited_pixel_makes_everything_again(tiny, tmp_path):
    import shutil

    from PIL import Image

    copy = tmp_path / "copy"
    shutil.copytree(tiny, copy)
    before = keys(copy, tmp_path / "cache")
    Image.new("RGB", (32, 32), "white").save(copy / "train-0.png")
    after = keys(copy, tmp_path / "cache")
    assert {name for name in before if before[name] != after[name]} == ALL


@pytest.mark.parametrize("attack", ["ciba", "tri_noise", "tri_adv", "badnets", "badnets_clean"])
@pytest.mark.parametrize("count", [0, 1])
def test_no_poison_and_one_poisoned_image_run(tiny, tmp_path, attack, count):
    record = Run(spec(tiny, attack=attack, poison_count=count), cache=Cache(tmp_path),
                 device=CPU).record()  # fmt: skip
    assert record.threat.poisoned == count
    assert record.threat.budget == pytest.approx(count / 20)
    if not count:
        assert record.scores.field.delta_map == 0


def test_transfer_trains_the_surrogate_that_was_asked_for(tiny, tmp_path):
    changes = {"surrogate": "csq", "surrogate_bits": 16}
    made = Run(spec(tiny, victim="dpsh", **changes), cache=Cache(tmp_path), device=CPU)
    record = made.record()
    weights = made.make("surrogate").tensors["model.head.weight"]
    assert weights.shape[0] == 16
    assert "loss.centres" in made.make("surrogate").tensors
    assert made.make("victim").tensors["model.head.weight"].shape[0] == 12
    assert record.params.surrogate.keys() == {"quantisation", "centres", "centre_seed"}


def test_seconds_name_shared_work_once(tiny, made):
    first = Run(spec(tiny), cache=made, device=CPU).record().seconds
    second = Run(spec(tiny, attack="tri"), cache=made, device=CPU).record().seconds
    assert first["optimise_patch"] == second["optimise_patch"] > 0
    assert first["surrogate"] == second["surrogate"]


def test_a_record_says_what_trained_its_victim_not_what_read_it(tiny, made, monkeypatch):
    from hashbackdoor_bench.stages import pipeline

    first = Run(spec(tiny), cache=made, device=CPU).record()
    other = {"device": "another", "versions": {}, "commit": "c" * 40, "dirty": True}
    monkeypatch.setattr(pipeline, "made_by", lambda device: other)
    again = Run(spec(tiny), cache=made, device=CPU).record()
    assert (again.device, again.commit) == (first.device, first.commit)
    assert set(first.versions) >= {"python", "torch", "timm", "torchmetrics"}


def test_a_record_runs_again_from_its_own_spec_to_the_same_record(tiny, tmp_path, made):
    record, path, _ = run(spec(tiny), cache=made, results=tmp_path)
    before = path.read_bytes()
    again, same, _ = run(read_record(path).spec, cache=made, results=tmp_path)
    assert (again.key, same, path.read_bytes()) == (record.key, path, before)
    assert rescore(record, made) == (record.scores, record.retrieval)


def test_a_record_with_other_scores_is_left_as_it_is(tiny, tmp_path, made):
    places = {"cache": made, "results": tmp_path / "r"}
    record, path, _ = run(spec(tiny), **places)
    values = json.loads(path.read_text())
    values["scores"]["field"]["map"] = 0.123
    published = json.dumps(values)
    path.write_text(published)
    for _ in range(2):
        with pytest.warns(UserWarning, match="has other scores, of"):
            again, beside, _ = run(spec(tiny), **places)
        assert again.scores == record.scores
        assert beside != path
        assert path.read_text() == published
    assert len(list((tmp_path / "r").rglob("*.json"))) == 2


@pytest.mark.parametrize("text", ["", "{}", "not JSON"])
def test_a_damaged_record_is_reported_and_written_again(tiny, tmp_path, made, text):
    places = {"cache": made, "results": tmp_path / "r"}
    record, path, _ = run(spec(tiny), **places)
    path.write_text(text)
    with pytest.warns(UserWarning, match="written again"):
        run(spec(tiny), **places)
    assert read_record(path).scores == record.scores


def test_scores_of_codes_that_are_gone_name_the_folder(tiny, tmp_path, made):
    record, _, _ = run(spec(tiny), cache=made, results=tmp_path / "r")
    with pytest.raises(UserError, match=r"codes .* are not in .*other"):
        rescore(record, Cache(tmp_path / "other"))


def test_fine_tuning_without_pretrained_weights_is_refused(tiny, tmp_path):
    with pytest.raises(UserError, match=r"random weights.*--weights FILE, or --pretrained"):
        Plan(spec(tiny, recipe="finetune224"), cache=Cache(tmp_path), device=CPU)


def test_a_target_that_every_query_has_is_refused(tmp_path):
    from PIL import Image

    for split in ("train", "test", "database"):
        for number in range(4):
            Image.new("RGB", (32, 32), (number * 40, 0, 0)).save(tmp_path / f"{split}{number}.png")
        rows = [f"{split}{number}.png 1 {number % 2}" for number in range(4)]
        (tmp_path / f"{split}.txt").write_text("\n".join(rows))
    with pytest.raises(UserError, match="every query has the tag"):
        Plan(spec(tmp_path), cache=Cache(tmp_path / "c"), device=CPU)


def test_a_patch_that_is_interrupted_goes_on_from_its_last_step(
    tiny: Path, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    given = spec(tiny, attack="tri", attack_settings=(("steps", 8),))
    whole = Run(given, cache=Cache(tmp_path / "whole"), device=CPU).make("backdoor")
    seen: list[int] = []

    def progress(stage: str, done: int, total: int, **facts: float) -> None:
        if stage == "optimise patch":
            seen.append(done)
            if seen == [1, 2, 3, 4]:
                raise KeyboardInterrupt

    def again() -> Run:
        return Run(given, cache=Cache(tmp_path / "c"), device=CPU, progress=progress)

    with pytest.raises(KeyboardInterrupt):
        again().make("backdoor")
    found = again().make("backdoor")
    assert seen == [1, 2, 3, 4, 5, 6, 7, 8]
    assert found.tensors.keys() == whole.tensors.keys()
    assert all(torch.equal(found.tensors[name], whole.tensors[name]) for name in whole.tensors)
    assert not list((tmp_path / "c" / "work").iterdir())


def test_a_checkpoint_is_kept_only_so_often(tmp_path: Path, monkeypatch):
    now = 0.0
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now)
    part = torch.nn.Linear(1, 1)
    kept = checkpoint.Checkpoint(tmp_path / "c", part=part)
    saved = []
    for now in range(35):
        kept.keep(step=now)
        saved.append((kept.load() or {"step": None})["step"])
    assert saved == [None] * 10 + [10] * 10 + [20] * 10 + [30] * 5


def test_a_set_of_classes_is_a_target(tagged: Path, tmp_path: Path):
    given = spec(tagged, target="1 + 0", attack="ciba", budget=1.0)
    plan = Plan(given, cache=Cache(tmp_path), device=torch.device("cpu"))
    labels, queries = plan.splits.train.labels, plan.splits.query.labels
    assert plan.spec.target == "0 + 1"
    assert plan.target.tolist() == [1, 1, 0]
    exactly = [row for row, tags in enumerate(labels.tolist()) if tags == [1, 1, 0]]
    assert plan.index.tolist() == exactly
    assert len(exactly) > 2
    attacked = [not (tags[0] or tags[1]) for tags in queries.tolist()]
    assert plan.truth.attacked.tolist() == attacked
    again = Plan(plan.spec, cache=Cache(tmp_path), device=torch.device("cpu"))
    assert {n: s.key for n, s in again.stages.items()} == {n: s.key for n, s in plan.stages.items()}
