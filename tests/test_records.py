import json
from pathlib import Path
from typing import Any

import pytest

from hashbackdoor_bench import RunSpec, UserError
from hashbackdoor_bench.records import (
    CONVENTION_FIELDS,
    CONVENTIONS,
    SCHEMA,
    Record,
    read_record,
    record_key,
    record_path,
)


def record(**changes: Any) -> Record:
    row = dict.fromkeys(CONVENTION_FIELDS, 0.5)
    values: dict[str, Any] = {
        name: {} if kind is dict else "x" for name, (kind, _) in SCHEMA.items() if name != "schema"
    }
    values |= {"scores": dict.fromkeys(CONVENTIONS, row), "protocol": {"sha256": "x"}}
    values |= {"commit": None, "dirty": None}
    return Record(**{**values, **changes})


def test_a_record_comes_back_equal(tmp_path: Path):
    path = tmp_path / "deep" / "r.json"
    record().write(path)
    assert read_record(path) == record()
    assert [p.name for p in path.parent.iterdir()] == ["r.json"]


def test_the_schema_names_every_field_and_only_them():
    from dataclasses import fields

    assert {field.name for field in fields(Record)} == set(SCHEMA)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v.pop("threat"), "lacks 'threat'"),
        (lambda v: v.update(schema=0), "its schema is 0"),
        (lambda v: v.update(seconds=[]), "'seconds' is of the wrong type"),
        (lambda v: v.update(more=1), "unknown field 'more'"),
        (lambda v: v["scores"].pop("strict"), "lacks scores.strict"),
        (lambda v: v["scores"].update(field=3), "scores.field.map is not a number"),
        (lambda v: v["protocol"].clear(), "lacks protocol.sha256"),
        (lambda v: v["artifacts"].update(victim=3), "'artifacts' holds"),
        (lambda v: v["scores"]["field"].pop("t_map"), "scores.field.t_map"),
        (lambda v: v["scores"]["field"].update(map="0.5"), "scores.field.map is not a number"),
        (lambda v: v["scores"]["field"].update(map=True), "scores.field.map is not a number"),
    ],
)
def test_a_changed_file_is_refused_by_the_name_of_its_field(tmp_path: Path, change, words):
    path = tmp_path / "r.json"
    record().write(path)
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match=words):
        read_record(path)


@pytest.mark.parametrize(
    ("text", "words"), [("{", "not JSON"), ("[]", "not a JSON object"), ("", "not JSON")]
)
def test_a_file_that_is_no_record_is_refused(tmp_path: Path, text: str, words: str):
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        read_record(path)


def test_a_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="No such file"):
        read_record(tmp_path / "none.json")


def test_nan_is_never_written(tmp_path: Path):
    with pytest.raises(ValueError, match="JSON"):
        record(seconds={"train": float("nan")}).write(tmp_path / "r.json")
    assert not (tmp_path / "r.json").exists()


def test_the_conventions_are_those_of_the_metrics():
    from hashbackdoor_bench import metrics

    assert set(metrics.CONVENTIONS) == set(CONVENTIONS)


def test_a_spec_that_is_none_is_told():
    with pytest.raises(UserError, match="can't be run"):
        _ = record(spec={"bits": "many"}).run_spec


def test_the_path_is_readable_and_differs_with_the_key():
    spec = RunSpec()
    key = record_key(spec, {"victim": "a"})
    assert key != record_key(spec, {"victim": "b"})
    assert key != record_key(RunSpec(seed=1), {"victim": "a"})
    assert key == record_key(RunSpec(root="/elsewhere"), {"victim": "a"})
    path = record_path(Path("results"), spec, key)
    assert path == Path(f"results/fashion-mini/hashnet-48/ciba-s0-{key[:10]}.json")


def test_a_list_of_numbers_stands_on_one_line_and_text_is_left_alone(tmp_path: Path):
    retrieval = {"x": [-1.5, 2, 1e-12], "y": [], "words": ["[\n 1,\n 2\n]", "[ 1, 2 ]"]}
    record(retrieval=retrieval).write(tmp_path / "record.json")
    text = (tmp_path / "record.json").read_text(encoding="utf-8")
    assert '"x": [-1.5,2,1e-12]' in text
    assert read_record(tmp_path / "record.json").retrieval == retrieval
