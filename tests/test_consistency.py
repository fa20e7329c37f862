"""Records that contradict themselves, one another or their index are named and left out."""

import json
import os
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from made_records import indexed, made, stored
from msgspec.structs import replace

from hashbackdoor_bench import UserError
from hashbackdoor_bench.cli import main
from hashbackdoor_bench.metrics.ranking import rank, score_all
from hashbackdoor_bench.records import (
    Numerics,
    checksum_of,
    read_record,
    record_key,
    with_checksum,
)
from hashbackdoor_bench.report import check_record
from hashbackdoor_bench.report import scan as scan_module
from hashbackdoor_bench.report.collection import collect
from hashbackdoor_bench.report.suite_index import attack_of_label
from hashbackdoor_bench.spec import RunSpec, digest
from hashbackdoor_bench.trust import verify

RESULTS = Path(__file__).parents[1] / "results"
CIBA = RESULTS / "transfer-mini/fashion-mini/hashnet-48/ciba-s0-85d3fcc615.json"  # no checksum
Edit = Callable[[dict[str, Any]], object]


def edited(change: Edit, folder: Path) -> Path:
    """A published record after a change, at its place in a folder."""
    values = json.loads(CIBA.read_bytes())
    change(values)
    path = folder.joinpath(*CIBA.parts[-3:])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))
    return path


def field(**scores: float) -> Edit:
    """A change of scores of the convention ``field``."""
    return lambda values: values["scores"]["field"].update(scores)


def raised(values: dict[str, Any]) -> None:
    """The t-MAP set to 99 %, with the gain made to follow."""
    scores = values["scores"]["field"]
    scores["backdoor_gain"] += 0.99 - scores["t_map"]
    scores["t_map"] = 0.99


def strict_above_field(values: dict[str, Any]) -> None:
    scores, field = values["scores"]["strict"], values["scores"]["field"]
    scores["map"] = field["map"] + 0.01
    scores["delta_map"] = scores["map"] - scores["map_clean_victim"]


def part_of_a_query(values: dict[str, Any]) -> None:
    """A third of a query moved so that the sum and the mean of the histogram stay."""
    shares = values["retrieval"]["triggered"]["anchor_histogram"]
    peak = max(range(1, 48), key=shares.__getitem__)
    for place, moved in ((peak - 1, 1), (peak, -2), (peak + 1, 1)):
        shares[place] += moved / 3 / 450


def raised_with_intervals(values: dict[str, Any]) -> None:
    raised(values)
    intervals = values["scores"]["field"]["intervals"]
    intervals.update(t_map=[0.98, 1.0], backdoor_gain=[0.8, 1.0])


# ---- a record by itself -------------------------------------------------------------------------


def test_every_published_record_agrees_with_itself():
    measured = ("speed", "search", "taking")
    paths = [path for path in RESULTS.rglob("*.json") if path.parent.name not in measured]
    assert len(paths) >= 155
    for path in paths:
        check_record(read_record(path))


def part(*names: str) -> Callable[[dict[str, Any]], Any]:
    def found(values: Any) -> Any:
        for name in names:
            values = values[name]
        return values

    return found


SEEN, THREAT, PLANE = part("imperceptibility"), part("threat"), part("retrieval", "codes_2d")
TRIGGERED, CURVE = part("retrieval", "triggered"), ("precision_recall", "recall")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (raised, "scores.field.backdoor_gain is 0.911761, which is not between 0.64"),
        (raised_with_intervals, "scores.field.t_map is 0.99, which is not between 0 and 0.8137"),
        (field(t_map=None), "scores.field.backdoor_gain was changed"),
        (lambda v: v["scores"]["ciba"].update(t_map_clean_victim=0.01), "don't belong together"),
        (lambda v: v["scores"]["ciba"].update(t_map_clean_victim=0.0), "don't belong together"),
        (strict_above_field, "above scores.field's"),
        (lambda v: v["scores"]["field"]["intervals"].pop("map"), "scores.field.intervals is"),
        (lambda v: v["scores"]["field"]["bounds"].update(map=[0.9, 0.7]), "not between 0 and 0.7"),
        (lambda v: v["retrieval"]["triggered"].update(hit_at_1=0.99), "triggered.hit_at_1 is 0.99"),
        (lambda v: v["retrieval"]["triggered"].update(no_hit=0.5), "hit_at_10 is"),
        (lambda v: v["retrieval"]["triggered"].update(anchor_distance=9.0), "anchor_distance was"),
        (part_of_a_query, "anchor_histogram is not of 450 queries"),
        (lambda v: TRIGGERED(v)["anchor_histogram"].append(0.0), "is 50, but spec.bits gives 49"),
        (lambda v: TRIGGERED(v).update(precision_radius_2=0.4), "precision_radius_2 was changed"),
        (lambda v: part(*CURVE)(TRIGGERED(v)).__setitem__(3, 0.0), "recall falls as the radius"),
        (lambda v: part(*CURVE)(TRIGGERED(v)).__setitem__(slice(40, 49), [0.99] * 9), "recall "),
        (lambda v: PLANE(v)["classes"][0].update(target=True), "but spec.target gives"),
        (lambda v: PLANE(v)["classes"][0].update(index=99), "that the data doesn't have"),
        (lambda v: PLANE(v)["triggered"].update(x=[], y=[]), "retrieval.codes_2d is 0"),
        (lambda v: SEEN(v)["poison"].update(images=179), "images is 179, but threat.poisoned"),
        (lambda v: SEEN(v)["query"].update(images=501), "would be of"),
        (lambda v: SEEN(v)["query"].update(images=449), "would be of"),
        (lambda v: SEEN(v).update(cover=SEEN(v)["query"]), "images is 450, but threat.covers"),
        (lambda v: SEEN(v)["query"].update(max=8.0), "dB, too low for a `max` of 8"),
        (lambda v: SEEN(v)["query"].update(ssim=95.0), "ssim is 95"),
        (lambda v: THREAT(v).update(delivery="frozen"), "but spec.delivery gives"),
        (lambda v: THREAT(v).update(label="none"), "not clean or dirty"),
        (lambda v: THREAT(v).update(budget=0.1), "threat.budget was changed"),
        (lambda v: v["protocol"].update(top_k=10), "top_k is 10, but fashion-mini gives 1000"),
        (lambda v: v["protocol"].update(sha256="beef"), "sha256 is beef"),
        (lambda v: v["protocol"].update(name="cifar10@0"), "but spec.dataset gives"),
        (lambda v: v["params"]["attack"].update(epsilon=64.0), "params.attack.epsilon"),
        (lambda v: v["params"]["victim"].update(alpha=1.0), "params.victim"),
        (lambda v: v["params"]["recipe"].update(epochs=99), "params.recipe.epochs is 99"),
        (lambda v: v["training"]["victim"].append(0.1), "training.victim is 13"),
        (lambda v: [losses.clear() for losses in v["training"].values()], "training.victim is 0"),
        (lambda v: v["seconds"].update(victim=-1.0), "a time below 0"),
    ],
)  # fmt: skip
def test_a_contradiction_is_named_and_the_record_left_out(tmp_path: Path, change: Edit, words: str):
    stored(tmp_path, made())
    path = edited(change, tmp_path)
    found = collect([tmp_path])
    assert len(found.frame) == 1
    (told,) = found.left_out
    assert told.startswith(f"{path.as_posix()} is left out: ")
    assert words in told
    assert main(["verify", str(tmp_path), "-q"]) == 1


# ---- ties ---------------------------------------------------------------------------------------


def tied(folder: Path, value: float, low: float, high: float, database: int) -> Path:
    """A record of 1000 of ``database`` items, whose t-MAP has the given value and bounds."""
    record = made(t_map=value, dataset="lists", shift=0.0)
    field = record.scores.field
    field = replace(field, bounds={**field.bounds, "t_map": (low, high)})
    record = replace(
        record,
        protocol=replace(record.protocol, name="lists", database=database),
        scores=replace(record.scores, field=field),
    )
    return stored(folder, record)


def test_a_score_below_both_ends_of_a_cut_tie_is_sound_and_its_record_stays(tmp_path: Path):
    # One relevant item is nearest; of six tied ones, three relevant, three fall out of R = 4.
    query, wanted = torch.ones(1, 2), torch.ones(1, 1)
    database = torch.tensor([[1, 1], *[[1, -1]] * 6])
    relevant = torch.tensor([[1], [1], [1], [1], [0], [0], [0]])
    found = score_all(rank(query, wanted, database, relevant), 4)
    value, best, worst = (
        float(found[name]) for name in ("field", "field_optimistic", "field_pessimistic")
    )
    orders = [(1, *order) for order in permutations([1, 1, 1, 0, 0, 0], 3)]
    each = [fmean(sum(order[: n + 1]) / (n + 1) for n in range(4) if order[n]) for order in orders]
    assert value == pytest.approx(fmean(each))
    assert (best, worst) == (1.0, 1.0)
    assert value < 0.9
    check_record(read_record(tied(tmp_path, value, worst, best, database=5000)))


@pytest.mark.parametrize(
    ("value", "database", "words"),
    [
        (0.66, 5000, "scores.field.t_map is 0.66, which is not between 0 and 0.65"),
        (0.601, 1000, "scores.field.t_map is 0.601, which is not between 0.5 and 0.6"),
        (0.499, 1000, "scores.field.t_map is 0.499, which is not between 0.5 and 0.6"),
    ],
)
def test_a_score_beyond_what_any_order_of_ties_gives_is_refused(
    tmp_path: Path, value: float, database: int, words: str
):
    with pytest.raises(UserError, match=words):
        check_record(read_record(tied(tmp_path, value, 0.5, 0.6, database)))


# ---- checksums ----------------------------------------------------------------------------------


def test_a_checksum_is_over_everything_else_and_survives_the_file(tmp_path: Path):
    record = with_checksum(replace(made(), seconds={"victim": 2}))
    again = read_record(stored(tmp_path, record))
    assert again == record
    assert again.checksum == checksum_of(again) == checksum_of(replace(again, checksum="x"))
    check_record(again)
    for change in ({"device": "gpu"}, {"commit": None}, {"seconds": {"victim": 3.0}}):
        with pytest.raises(UserError, match="its checksum doesn't follow"):
            check_record(replace(again, **change))


def test_a_record_without_a_checksum_is_written_without_one():
    assert "checksum" not in json.loads(made().to_json())
    assert "checksum" in json.loads(with_checksum(made()).to_json())


# ---- names, places and copies -------------------------------------------------------------------


def test_a_copy_under_another_name_or_folder_is_no_second_row(tmp_path: Path):
    path = stored(tmp_path, made())
    for place in (
        "fashion-mini/hashnet-48/mine.json",
        "fashion-mini/csq-48/" + path.name,
        "a.json",
    ):
        copy = tmp_path / place
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
    found = collect([tmp_path])
    assert found.frame["path"].tolist() == [path.as_posix()]
    assert len(found.left_out) == 3
    assert all("its name and folder are not those of its run" in one for one in found.left_out)
    assert len(collect([tmp_path / "a.json"]).frame) == 1  # a file that a user names


def test_the_run_of_another_machine_stands_behind_the_first_one(tmp_path: Path):
    first = stored(tmp_path, made())
    other = made(t_map=0.71)
    beside = first.with_stem(f"{first.stem}-{digest(other.scores)[:6]}")
    other.write(beside)
    other.write(first.with_stem(f"{first.stem}-abcdef"))
    found = collect([tmp_path])
    assert found.frame["path"].tolist() == [first.as_posix()]
    again, misnamed = sorted(found.left_out, key=lambda told: "again" not in told)
    assert again == f"{beside.as_posix()} is left out: it is the run of {first.as_posix()} again."
    assert "-abcdef.json is left out: its name and folder are not" in misnamed


def test_the_scores_of_another_attack_leave_both_out(tmp_path: Path):
    stored(tmp_path, made(seed=3))
    one = made()
    for artifacts in (one.artifacts, {"victim": "ab" * 32}):
        spec = RunSpec(**{**one.spec.to_dict(), "attack": "badnets"})
        copy = replace(one, spec=spec, artifacts=artifacts, key=record_key(spec, artifacts))
        folder = tmp_path / artifacts["victim"][:3]
        paths = [stored(folder, record) for record in (one, with_checksum(copy), made(seed=9))]
        found = collect([folder])
        assert found.frame["path"].tolist() == [paths[2].as_posix()]
        assert len(found.left_out) == 2
        assert all("one of the two is a copy" in told for told in found.left_out)
        assert main(["verify", str(folder), "-q"]) == 1


def test_the_same_run_in_other_words_counts_once(tmp_path: Path):
    one = made()
    spec = RunSpec(**{**one.spec.to_dict(), "poison_count": 180})  # 60 % of 300
    again = replace(one, spec=spec, key=record_key(spec, one.artifacts))
    for record in (one, again):
        stored(tmp_path, record)
    found = collect([tmp_path])
    assert len(found.frame) == 1
    assert "the same run with other words" in found.left_out[0]


def test_two_rows_of_a_suite_may_be_equal_but_not_two_runs_of_a_row(tmp_path: Path):
    """A patch of 4 px is the default: the rows of a curve over its side share that run's scores."""
    one, again = made(), made(attack_settings=(("patch", 4),))
    key = record_key(again.spec, one.artifacts)
    again = replace(again, artifacts=one.artifacts, key=key)
    paths = [stored(tmp_path, record) for record in (one, again)]
    indexed(tmp_path, {paths[0]: "CIBA, budget=0.6", paths[1]: "CIBA, patch=4"})
    found = collect([tmp_path])
    assert len(found.frame) == 2
    assert not found.left_out
    indexed(tmp_path, dict.fromkeys(paths, "CIBA"))
    found = collect([tmp_path])
    assert len(found.frame) == 1
    assert "the same run with other words" in found.left_out[0]


def test_the_scores_of_one_preset_are_no_row_of_another(tmp_path: Path):
    one, other = made(), made(attack="tri")
    other = replace(other, artifacts=one.artifacts, key=record_key(other.spec, one.artifacts))
    paths = [stored(tmp_path, record) for record in (one, other)]
    indexed(tmp_path, dict(zip(paths, ("CIBA", "Tri"), strict=True)))
    found = collect([tmp_path])
    assert len(found.frame) == len(found.left_out) == 1


def test_controls_whose_scores_are_equal_are_no_copies(tmp_path: Path):
    """Without a trigger, poison that changes nothing gives the scores of no poison."""
    for attack in ("clean", "identity"):
        record = made(attack=attack, t_map=0.1, t_map_untriggered=0.1)
        retrieval = made().retrieval
        stored(tmp_path, replace(record, retrieval=retrieval))
    assert len(collect([tmp_path]).frame) == 2


def test_what_is_no_file_is_named_and_never_waited_for(tmp_path: Path):
    good = stored(tmp_path / "results", made())
    stored(tmp_path / "elsewhere", made(seed=5))
    results = tmp_path / "results"
    os.mkfifo(results / "pipe.json")
    (results / "folder.json").mkdir()
    (results / "link.json").symlink_to(good)
    (results / "gone.json").symlink_to(tmp_path / "nowhere")
    (results / "linked").symlink_to(tmp_path / "elsewhere")
    found = collect([results])
    assert found.frame["path"].tolist() == [good.as_posix()]
    words = {"pipe.json": "a named pipe", "folder.json": "a directory", "link.json": "a link",
             "gone.json": "a link", "linked": "a link"}  # fmt: skip
    assert len(found.left_out) == len(words)
    for name, what in words.items():
        assert any(f"/{name} is left out: it is {what}" in told for told in found.left_out)
    for name in ("pipe.json", "folder.json"):
        with pytest.raises(UserError, match="and not a file"):
            read_record(results / name)


def test_too_many_files_are_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scan_module, "MOST", 3)
    for seed in range(4):
        stored(tmp_path, made(seed=seed))
    with pytest.raises(UserError, match="more than 3 files"):
        collect([tmp_path])


# ---- the index ----------------------------------------------------------------------------------


def test_swapped_labels_are_refused_by_the_line_and_cost_the_label(tmp_path: Path):
    one, other = (stored(tmp_path, made(attack=attack)) for attack in ("ciba", "tri"))
    indexed(tmp_path, {one: "Tri", other: "CIBA"})
    found = collect([tmp_path])
    assert sorted(zip(found.frame["attack"], found.frame["label"], strict=True)) == [
        ("ciba", "CIBA"), ("tri", "Tri")
    ]  # fmt: skip
    assert found.frame["suite"].tolist() == [None, None]
    first, second = found.left_out
    assert first.endswith("line 2 is refused: it labels its record 'Tri', but the attack of that "
                          "record is CIBA.")  # fmt: skip
    assert "line 3 is refused: it labels its record 'CIBA'" in second
    assert main(["verify", str(tmp_path), "-q"]) == 1


@pytest.mark.parametrize("swapped", [True, False])
def test_a_preset_may_have_a_shorter_label_unless_it_is_that_of_another(tmp_path: Path, swapped):
    clean = stored(tmp_path, made(attack="badnets_clean", seed=1))
    labels = {clean: "BadNets"}
    if swapped:
        labels[stored(tmp_path, made(attack="badnets"))] = "BadNets, clean label"
    indexed(tmp_path, labels)
    assert len(collect([tmp_path]).left_out) == (2 if swapped else 0)


def test_one_label_is_one_attack(tmp_path: Path):
    paths = [stored(tmp_path, made(attack=attack)) for attack in ("ciba", "tri", "ciba")]
    indexed(tmp_path, dict.fromkeys(paths, "mine"))
    (told,) = collect([tmp_path]).left_out
    assert "it labels tri 'mine', as another line labels ciba" in told


@pytest.mark.parametrize(
    ("label", "refused"),
    [("CIBA, epsilon=2", False), ("CIBA, epsilon=2.0", False), ("CIBA, epsilon=8", True),
     ("CIBA, epsilon=x", True), ("CIBA, files", False), ("CIBA, budget=0.3", False)],
)  # fmt: skip
def test_a_setting_in_a_label_is_that_of_the_record(tmp_path: Path, label: str, refused: bool):
    path = stored(tmp_path, made(attack_settings=(("epsilon", 2.0),)))
    indexed(tmp_path, {path: label})
    assert bool(collect([tmp_path]).left_out) == refused


def test_a_line_says_what_its_record_says_and_no_record_has_two(tmp_path: Path):
    path = stored(tmp_path, made())
    place = path.relative_to(tmp_path).as_posix()
    head = "suite,label,victim,bits,target,seed,record\n"
    for cells, words in (
        ("hashnet,48,coat,0", ""), ("hashnet,48,4,0", ""), ("hashnet,48,,0", ""),
        ("csq,48,,0", "it has victim csq, but its record has hashnet"),
        ("hashnet,48,Bag,0", "it has target Bag, but its record has Coat"),
    ):  # fmt: skip
        (tmp_path / "index.csv").write_text(f"{head}s,CIBA,{cells},{place}\n")
        told = collect([tmp_path]).left_out
        assert words in told[0] if words else told == ()
    (tmp_path / "index.csv").write_text(f"{head}" + f"s,CIBA,,,,,{place}\n" * 2)
    (told,) = collect([tmp_path]).left_out
    assert "line 3 is refused: it names the record of line 2 again" in told


def test_a_label_begins_with_the_longest_name_that_fits():
    assert attack_of_label("BadNets, clean label, side=4") == "BadNets, clean label"
    assert attack_of_label("BadNets") == "BadNets"
    assert attack_of_label("BadNets2") is None


# ---- verify -------------------------------------------------------------------------------------


def test_without_codes_a_record_is_not_verifiable_here_which_is_no_problem(tmp_path: Path, capsys):
    path = stored(tmp_path, made())
    found = verify(tmp_path, None)
    assert found.problems == ()
    assert (found.records, found.rescored, found.without_checksum) == (1, 0, 1)
    assert found.not_verifiable == (path.as_posix(),)
    nowhere = ["-q", "--cache-dir", str(tmp_path / "no-cache")]
    assert main(["verify", str(tmp_path), *nowhere]) == 0
    out = capsys.readouterr().out
    assert f"not verifiable here: {path}" in out
    assert "1 not verifiable here, 1 without a checksum, no problems" in out
    assert not (tmp_path / "no-cache").exists()


def test_a_folder_of_which_no_record_can_be_read_is_a_problem(tmp_path: Path, capsys):
    edited(raised, tmp_path)
    assert main(["verify", str(tmp_path), "-q"]) == 1
    assert "scores.field.backdoor_gain is 0.91" in capsys.readouterr().out


def test_records_of_one_clean_victim_give_it_the_same_scores(tmp_path: Path):
    shared = {"clean victim's plain": "cd" * 32}
    for seed, clean in ((0, 0.81), (1, 0.815)):
        record = made(seed=seed, map_clean_victim=clean)
        artifacts = record.artifacts | shared
        key = record_key(record.spec, artifacts)
        stored(tmp_path, replace(record, artifacts=artifacts, key=key))
    problems = verify(tmp_path, None).problems
    assert len(problems) == 4
    assert all("of the same clean victim, cdcdcd" in problem for problem in problems)


def test_a_new_record_without_its_checksum_is_refused():
    numerics = Numerics("cpu AVX2", 1, "float32", None, "2.11.0")
    record = with_checksum(replace(made(), numerics=numerics))
    check_record(record)
    with pytest.raises(UserError, match="its checksum was taken out"):
        check_record(replace(record, checksum=None))
