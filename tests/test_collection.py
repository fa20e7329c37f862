import json
from pathlib import Path
from typing import Any

import pytest
from made_records import MINI, indexed, made, stored

from hashbackdoor_bench import UserError
from hashbackdoor_bench.records import CONVENTION_FIELDS, CONVENTIONS
from hashbackdoor_bench.report.collection import collect


def test_a_row_says_what_its_record_says(tmp_path: Path):
    record = made(attack="tri", bits=32, seed=2, budget=0.3, attack_settings=(("steps", 5),))
    path = stored(tmp_path, record)
    frame = collect([path]).frame
    row = frame.iloc[0]
    assert len(frame) == 1
    expected = {
        "path": path.as_posix(), "key": record.key, "suite": None, "label": "Tri",
        "attack": "tri", "victim": "hashnet", "bits": 32, "dataset": "fashion-mini",
        "protocol": MINI.sha256, "top_k": 1000, "target": "Coat", "seed": 2, "budget": 0.3,
        "delivery": "files", "backbone": "cnn32", "pretrained": False, "recipe": "scratch32",
        "surrogate": "hashnet", "surrogate_backbone": "cnn32", "surrogate_bits": 32,
        "settings": '{"steps":5}', "victim_settings": "{}", "trigger": "patch",
        "label_kind": "clean", "knowledge": "surrogate", "poisoned": 90, "universal": True,
        "psnr_query": 30.0, "max_poison": 40.0, "similarity_query": 0.5, "seconds": 3.5,
        "device": "cpu", "commit": "c0ffee", "dirty": False,
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected
    for convention in CONVENTIONS:
        for name in CONVENTION_FIELDS:
            assert row[f"{convention}.{name}"] == getattr(record.scores[convention], name)
    assert row["record"] == record
    assert frame.columns[-1] == "record"
    assert frame["lpips_poison"].isna().all()


def test_an_attack_without_a_surrogate_names_none(tmp_path: Path):
    stored(tmp_path, made(attack="badnets", knowledge="none"))
    row = collect([tmp_path]).frame.iloc[0]
    assert (row["surrogate"], row["surrogate_backbone"], row["surrogate_bits"]) == (None,) * 3


def test_a_suite_lends_its_name_and_labels(tmp_path: Path):
    one, other = stored(tmp_path, made(seed=0)), stored(tmp_path, made(seed=1))
    indexed(tmp_path, {one: "CIBA, ε=2"})
    frame = collect([tmp_path]).frame.set_index("path")
    assert tuple(frame.loc[one.as_posix(), ["suite", "label"]]) == (tmp_path.name, "CIBA, ε=2")
    assert tuple(frame.loc[other.as_posix(), ["suite", "label"]]) == (None, "CIBA")


def test_the_rows_of_a_suite_stand_in_its_order(tmp_path: Path):
    paths = [stored(tmp_path, made(attack=attack)) for attack in ("tri", "badnets", "ciba")]
    loose = stored(tmp_path, made(attack="badhash"))
    indexed(tmp_path, {path: path.name for path in paths})
    expected = [path.as_posix() for path in (*paths, loose)]
    assert collect([tmp_path]).frame["path"].tolist() == expected


def test_a_suites_name_stands_for_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = stored(tmp_path / "results" / "mine", made())
    monkeypatch.chdir(tmp_path)
    found = collect([Path("mine")]).frame["path"].item()
    assert found == path.relative_to(tmp_path).as_posix()


def test_labels_outside_a_suite_tell_deliveries_and_settings_apart(tmp_path: Path):
    stored(tmp_path, made(attack="tri", delivery="stamped"))
    stored(tmp_path, made(attack="tri"))
    for epsilon in (2, 4):
        stored(tmp_path, made(attack_settings=(("epsilon", epsilon), ("steps", 5))))
    assert sorted(collect([tmp_path]).frame["label"]) == [
        "CIBA, epsilon=2", "CIBA, epsilon=4", "Tri, files", "Tri, stamped",
    ]  # fmt: skip


def test_a_run_found_twice_counts_once(tmp_path: Path):
    path = stored(tmp_path / "a", made())
    stored(tmp_path / "b", made())
    again = collect([tmp_path / "a", tmp_path / "b", path])
    assert len(again.frame) == 1
    assert again.frame["path"].item() == path.as_posix()
    (told,) = again.left_out
    assert told.startswith((tmp_path / "b").as_posix())
    assert told.endswith(f"it is the run of {path.as_posix()} again.")


def test_two_suites_may_share_a_run(tmp_path: Path):
    for name in ("a", "b"):
        path = stored(tmp_path / name, made())
        indexed(tmp_path / name, {path: f"CIBA of {name}"})
    both = collect([tmp_path])
    assert sorted(both.frame["label"]) == ["CIBA of a", "CIBA of b"]
    assert both.left_out == ()


def change(path: Path, edit: Any) -> None:
    values = json.loads(path.read_text())
    edit(values)
    path.write_text(json.dumps(values))


@pytest.mark.parametrize("folder", ["speed", "search", "taking"])
def test_measurements_are_no_records_and_no_problem(tmp_path: Path, folder: str):
    stored(tmp_path, made())
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "machine.json").write_text("{}")
    assert collect([tmp_path]).left_out == ()


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda v: v.update(schema=0), "schema is 0"),
        (lambda v: v["spec"].update(seed=7), "spec was changed"),
        (lambda v: v["spec"].update(seed="7"), "spec.seed: expected `int`, got `str`"),
        (lambda v: v["spec"].update(more=7), "unknown field of a run 'more'"),
        (lambda v: v["spec"].pop("surrogate_bits"), "spec was changed"),
        (lambda v: v["spec"].update(lr=float("nan")), "is not JSON"),
        (lambda v: v["artifacts"].update(victim="cd" * 32), "spec was changed"),
        (lambda v: v["threat"].pop("budget"), "threat: object missing required field `budget`"),
        (lambda v: v["threat"].update(poisoned=None), "threat.poisoned: expected `int`"),
        (lambda v: v["scores"]["field"].update(t_map=0.9), "backdoor_gain was changed"),
        (lambda v: v["scores"]["ciba"].update(backdoor_gain=0.9), "ciba.backdoor_gain was ch"),
        (lambda v: v["scores"]["strict"].update(map=0.85), "strict.delta_map was changed"),
        (lambda v: v["scores"]["field"].update(map=80.0), "field.map is 80"),
        (lambda v: v["scores"]["field"].update(t_map=-0.1), "field.t_map is -0.1"),
    ],
)
def test_a_record_that_was_changed_is_named_and_left_out(tmp_path: Path, edit, words):
    good, bad = stored(tmp_path, made(seed=0)), stored(tmp_path, made(seed=1))
    change(bad, edit)
    read = collect([tmp_path])
    assert read.frame["path"].tolist() == [good.as_posix()]
    (told,) = read.left_out
    assert told.startswith(f"{bad.as_posix()} is left out: ")
    assert words in told
    assert told.count(bad.as_posix()) == 1


@pytest.mark.parametrize("text", ["", "{", "[1]", "{}", "\ud800", "[" * 100_000, '"x"'])
def test_foreign_json_is_named_and_left_out(tmp_path: Path, text: str):
    stored(tmp_path, made())
    (tmp_path / "notes.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    read = collect([tmp_path])
    assert len(read.frame) == 1
    assert len(read.left_out) == 1
    assert "notes.json is left out: " in read.left_out[0]


@pytest.mark.parametrize(
    "text", ["", "a,b\n1,2\n", 'suite,label,record\n"q', "suite,label,record\nx\n"]
)
def test_a_damaged_index_costs_the_labels_only(tmp_path: Path, text: str):
    stored(tmp_path, made())
    (tmp_path / "index.csv").write_text(text)
    read = collect([tmp_path])
    assert read.frame["label"].item() == "CIBA"
    assert "index.csv" in read.left_out[0]


def test_scores_that_a_run_does_not_have_are_no_mistake(tmp_path: Path):
    path = stored(tmp_path, made())

    def clear(values: dict[str, Any]) -> None:
        field = values["scores"]["field"]
        for name in ("t_map", "backdoor_gain"):
            field[name] = None
            field["intervals"][name] = [None, None]
        field["bounds"]["t_map"] = [None, None]

    change(path, clear)
    read = collect([tmp_path])
    assert read.left_out == ()
    assert read.frame["field.backdoor_gain"].isna().all()


def test_a_record_from_before_a_figure_was_measured_has_none(tmp_path: Path):
    path = stored(tmp_path, made())
    change(path, lambda values: values["imperceptibility"]["query"].pop("similarity"))
    read = collect([tmp_path])
    assert read.left_out == ()
    assert read.frame["similarity_query"].isna().all()


def test_a_place_without_records_says_what_to_give(tmp_path: Path):
    with pytest.raises(UserError, match="no record found; give records"):
        collect([tmp_path])
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(UserError, match=r"no record found \(1 left out"):
        collect([tmp_path])


def test_a_suite_without_records_says_how_to_make_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="bench suite run quick"):
        collect([Path("quick")])
    with pytest.raises(UserError, match="name of a suite"):
        collect([Path("qick")])


def test_a_suite_is_found_beside_a_folder_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "victims").mkdir()  # as in a clone
    with pytest.raises(UserError, match="victims: no record found"):
        collect([Path("victims")])
    stored(tmp_path / "results/victims", made())
    assert len(collect([Path("victims")]).frame) == 1
