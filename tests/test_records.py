"""Records: read as they were written, for ever, and refused by the name of what is wrong."""

import json
import re
from collections.abc import Callable
from dataclasses import field, make_dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from made_records import made, stored

from hashbackdoor_bench import RunSpec, UserError
from hashbackdoor_bench.cli import main
from hashbackdoor_bench.records import (
    CONVENTIONS,
    Record,
    load_record,
    read_record,
    read_sealed,
    record_key,
    record_path,
    with_checksum,
)
from hashbackdoor_bench.records import record as module
from hashbackdoor_bench.report.collection import collect
from hashbackdoor_bench.report.consistency import check_record
from hashbackdoor_bench.spec import digest

RESULTS = Path(__file__).parents[1] / "results"
COMMITTED = [
    p for p in sorted(RESULTS.rglob("*.json")) if p.parent.name not in ("speed", "search", "taking")
]
LATER = make_dataclass(
    "LATER", [("shield", str | None, field(default=None))], bases=(RunSpec,), frozen=True
)


class LaterRecord(Record, frozen=True, tag_field="schema", tag=1):
    """The record of a time with one more field in the run, and one in the record."""

    spec: LATER  # type: ignore[valid-type]
    suspects: tuple[int, ...] = ()


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RunSpec", LATER)
    monkeypatch.setattr(module, "Record", LaterRecord)


def plane(x: list[float], y: list[float]) -> dict[str, Any]:
    """Some codes on a plane, as a record's file has them."""
    good = {"x": [1.0], "y": [1.0]}
    return {
        "explained": [0.5, 0.25], "classes": [], "untriggered": good, "triggered": {"x": x, "y": y}
    }  # fmt: skip


def written(folder: Path, edit: Callable[[Any], object]) -> Path:
    """A record's file whose values an edit has changed."""
    path = stored(folder, made())
    values = json.loads(path.read_bytes())
    edit(values)
    path.write_text(json.dumps(values))
    return path


def test_a_record_comes_back_equal(tmp_path: Path):
    path = tmp_path / "deep" / "r.json"
    made().write(path)
    assert read_record(path) == made()
    assert [p.name for p in path.parent.iterdir()] == ["r.json"]


# ---- for ever -----------------------------------------------------------------------------------


def test_every_committed_record_keeps_its_key_its_name_and_its_bytes():
    assert len(COMMITTED) >= 155
    for path in COMMITTED:
        record = read_record(path)
        assert record_key(record.spec, record.artifacts) == record.key, path
        assert record_path(path.parents[2], record.spec, record.key) == path
        assert record.to_json().encode() == path.read_bytes(), path


def test_the_key_is_the_hash_of_the_spec_in_the_file_and_of_the_artifacts():
    values = json.loads(COMMITTED[0].read_bytes())
    for name in ("lists", "root", "weights"):
        del values["spec"][name]
    parts = {"schema": 1, "spec": values["spec"], "artifacts": values["artifacts"]}
    assert digest(parts) == values["key"]


def test_records_from_before_a_field_was_added_keep_key_and_bytes_and_have_its_default(later):
    for path in COMMITTED:
        record = read_record(path)
        assert (record.spec.shield, record.suspects) == (None, ())
        assert record_key(record.spec, record.artifacts) == record.key, path
        assert record.to_json().encode() == path.read_bytes(), path
        fresh = msgspec.structs.replace(record, spec=LATER(**record.spec.to_dict()))
        assert fresh.to_json() == record.to_json()


def test_a_field_added_later_enters_key_and_file_where_it_is_not_at_its_default(later, tmp_path):
    record = read_record(COMMITTED[0])
    spec = LATER(**{**record.spec.to_dict(), "shield": "clp"})
    assert spec.key != record.spec.key
    key = record_key(spec, record.artifacts)
    assert key not in (record.key, record_key(LATER(**{**spec.to_dict(), "shield": "x"}), {}))
    new = msgspec.structs.replace(record, key=key, spec=spec, suspects=(3, 5))
    new.write(tmp_path / "r.json")
    values = json.loads((tmp_path / "r.json").read_bytes())
    assert (values["spec"]["shield"], values["suspects"]) == ("clp", [3, 5])
    assert read_record(tmp_path / "r.json") == new


def test_code_from_before_a_field_refuses_a_record_that_has_it(tmp_path: Path):
    for edit in (lambda v: v["spec"].update(shield="clp"), lambda v: v.update(suspects=[3])):
        with pytest.raises(UserError, match=r"unknown field .*(shield|suspects)"):
            read_record(written(tmp_path, edit))


def test_what_the_first_code_did_not_write_is_read_as_missing_and_is_not_written(tmp_path: Path):
    def first(values: dict[str, Any]) -> None:
        for images in values["imperceptibility"].values():
            for name in ("lpips", "similarity", "mean_share", "peaks"):
                del images[name]
        for queries in ("triggered", "untriggered"):
            del values["retrieval"][queries]["anchor_histogram"]
        del values["retrieval"]["codes_2d"]
        for name in ("checksum", "numerics"):
            values.pop(name, None)

    values = json.loads(COMMITTED[0].read_bytes())
    first(values)
    (tmp_path / "r.json").write_text(json.dumps(values))
    record = read_record(tmp_path / "r.json")
    assert record.imperceptibility.query.lpips is msgspec.UNSET
    assert record.retrieval.codes_2d is None
    assert json.loads(record.to_json()) == values
    assert collect([tmp_path / "r.json"]).frame["similarity_query"].isna().all()


def test_a_number_of_the_run_is_read_as_it_is_written_since_its_key_follows_from_it(tmp_path: Path):
    for budget in (1, 1.0):
        record = made(budget=budget)
        again = read_record(stored(tmp_path / str(budget), record))
        assert type(again.spec.budget) is type(budget)
        assert record_key(again.spec, again.artifacts) == record.key


# ---- what is wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda v: v.pop("threat"), "missing required field `threat`"),
        (lambda v: v["threat"].pop("budget"), "threat: object missing required field `budget`"),
        (lambda v: v["scores"].pop("strict"), "scores: object missing required field `strict`"),
        (lambda v: v["imperceptibility"].pop("query"), "required field `query`"),
        (lambda v: v.update(schema=0), "its schema is 0"),
        (lambda v: v.update(schema="1"), "schema: expected `int"),
        (lambda v: v.pop("schema"), "its schema is None"),
        (lambda v: v.update(more=1), "unknown field `more`"),
        (lambda v: v["protocol"].update(more=1), "protocol: object contains unknown field `more`"),
        (lambda v: v["spec"].update(sed=7), "unknown field of a run 'sed': did you mean seed"),
        (lambda v: v["spec"].update(seed="7"), "spec.seed: expected `int`, got `str`"),
        (lambda v: v["spec"].update(bits=True), "spec.bits: expected `int`, got `bool`"),
        (lambda v: v["spec"].update(budget=7), "--budget is 7: it must be between 0 and 1"),
        (lambda v: v["spec"].update(attack_settings=[3]), r"spec.attack_settings\[0\]: expected"),
        (lambda v: v.update(seconds=[]), "seconds: expected `object`, got `array`"),
        (lambda v: v["seconds"].update(victim="long"), "seconds.*expected `float`, got `str`"),
        (lambda v: v["artifacts"].update(victim=3), "artifacts.*expected `str`, got `int`"),
        (lambda v: v["scores"].update(field=3), "scores.field: expected `object`"),
        (lambda v: v["scores"]["field"].update(map="1"), "scores.field.map: expected `float"),
        (lambda v: v["scores"]["field"].update(map=True), "scores.field.map: expected `float"),
        (lambda v: v["threat"].update(poisoned=-1), "threat.poisoned: expected `int` >= 0"),
        (lambda v: v["retrieval"].update(codes_2d={"x": [1]}), "retrieval.codes_2d: object"),
        (lambda v: v["retrieval"].update(codes_2d=plane([1.0], [1.0, 2.0])), "triggered: expected"),
        (lambda v: v["imperceptibility"]["poison"].update(ssim="x"), "poison.ssim: expected"),
        (lambda v: v.update(device="x" * 5000), "device: expected `str` of length <= 4096"),
        (lambda v: v["spec"].update(target="x" * 5000), "spec.target is a text of 5000 char"),
        (
            lambda v: v["spec"].update(epochs=10**12),
            "--epochs is 1000000000000: it must be at",
        ),
        (lambda v: v["spec"].update(attack_settings=[["a", 2**60]]), "more than 53 bits"),
        (lambda v: v["spec"].update(attack_settings=[["a", [1] * 20_000]]), "more than 10000 v"),
        (lambda v: v["spec"].update(attack_settings=[["b", 1], ["a", 1]]), "not in the order"),
        (lambda v: v["spec"].update(attack_settings=[["a", 1], ["a", 2]]), "parameter twice"),
        (lambda v: v["params"]["attack"].update(a=json.loads("[" * 9 + "]" * 9)), "too deeply"),
    ],
)
def test_a_changed_file_is_refused_by_the_name_of_its_field(tmp_path: Path, edit, words: str):
    path = written(tmp_path, edit)
    with pytest.raises(UserError, match=f"is not a record of schema 1: .*{words}") as caught:
        read_record(path)
    assert str(caught.value).startswith(str(path))
    assert re.search(r"[^.?][.?]$", str(caught.value))


DEEP, LONG = b"[" * 5000 + b"]" * 5000, b"9" * 400
PLACES = (
    (b'"seed": 0', b'"seed": %s'),
    (b'"top_k": 1000', b'"top_k": %s'),
    (b'"budget": 0.6', b'"budget": %s'),
    (b'"map": 0.8,', b'"map": %s,'),
    (b'"poisoned": 180', b'"poisoned": %s'),
    (b'"poison_count": null', b'"poison_count": %s'),
    (b'"victim": 2.0', b'"victim": %s'),
    (b'"device": "cpu"', b'"device": %s'),
)


@pytest.mark.parametrize("value", [b"NaN", b"-Infinity", b"1e999", LONG, DEEP, b'"\xff"', b"{"])
@pytest.mark.parametrize(("place", "hole"), PLACES, ids=[p[0].decode() for p in PLACES])
def test_bytes_that_nobody_should_write_are_one_sentence(
    tmp_path: Path, capsys, place: bytes, hole: bytes, value: bytes
):
    path = stored(tmp_path, made())
    text = path.read_bytes()
    assert place in text
    path.write_bytes(text.replace(place, hole.replace(b"%s", value)))
    assert main(["score", str(path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"bench: {path} is not ")
    assert said.count("\n") == 1


def test_any_value_of_a_hyper_parameter_may_be_nested_but_not_without_end(tmp_path: Path):
    good = written(tmp_path, lambda v: v["params"]["attack"].update(sizes=[[1, 2], [3]]))
    assert read_record(good).params.attack["sizes"] == [[1, 2], [3]]
    good.write_bytes(good.read_bytes().replace(b"[[1, 2], [3]]", DEEP))
    with pytest.raises(UserError, match="nested too deeply"):
        read_record(good)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "not JSON"),
        (b"", "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "expected `object`, got `array`"),
        (b'"x"', "expected `object`, got `str`"),
        (b"{}", "its schema is None"),
        (DEEP, "nested too deeply"),
        (b'{"schema": 1, "a": %s}' % DEEP, "nested too deeply"),
        (b'{"schema": %s}' % LONG, "its schema is 999"),
    ],
)
def test_a_file_that_is_no_record_is_refused(tmp_path: Path, content: bytes, words: str):
    path = tmp_path / "r.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_record(path)


def test_a_name_that_stands_twice_in_an_object_is_refused(tmp_path: Path):
    path = stored(tmp_path, made())
    text = path.read_text()
    escaped = text.replace('"notes": []', r'"notes": ["\": 1", "\u0022:", ": \\", ":"]')
    for old, new in (('"map": 0.8,', '"map": 0.9, "map" : 0.8,'), ("{", '{"key": "x",')):
        for good in (text, escaped):
            assert old in good
            path.write_text(good.replace(old, new, 1))
            with pytest.raises(UserError, match="has one name twice"):
                read_record(path)
    # an escape that isn't there in the text written again, and a string that begins like the end
    vanishing = text.replace('"notes": []', r'"notes": ["\/", ":x"]')
    path.write_text(vanishing)
    assert read_record(path).protocol.notes == ("/", ":x")
    path.write_text(vanishing.replace('"map": 0.8,', '"map": 0.9, "map" : 0.8,', 1))
    with pytest.raises(UserError, match="has one name twice"):
        read_record(path)
    path.write_text(escaped)
    assert read_record(path).protocol.notes == ('": 1', '":', ": \\", ":")  # these are no names


def test_a_file_shows_that_its_checksum_is_right_however_it_is_spaced(tmp_path: Path):
    record = with_checksum(
        msgspec.structs.replace(made(), seconds={"a": 1e-5, "b": 1e22, "é": 2.0})
    )
    path = stored(tmp_path, record)
    good = path.read_text()
    for text, sealed in (
        (good, True),
        (json.dumps(json.loads(good), sort_keys=True), True),
        (json.dumps(json.loads(good), sort_keys=True, ensure_ascii=False), False),
        (good.replace('"map": 0.8,', '"map": 0.80,'), False),
        (good.replace('"map": 0.8,', '"map": 0.9,'), False),
    ):
        path.write_text(text, encoding="utf-8")
        assert read_sealed(path)[1] is sealed
    changed, _ = read_sealed(path)
    with pytest.raises(UserError, match="checksum doesn't follow"):
        check_record(changed)
    check_record(record)
    assert not read_sealed(stored(tmp_path / "old", made()))[1]  # has none


def test_a_name_in_a_file_cannot_steer_the_terminal(tmp_path: Path):
    path = written(tmp_path, lambda v: v["threat"].update({"\x1b[2Jx": 1}))
    with pytest.raises(UserError) as caught:
        read_record(path)
    assert r"\x1b[2Jx" in str(caught.value)
    assert str(caught.value).isprintable()


def test_no_more_of_a_file_is_read_than_a_record_can_have(tmp_path: Path, monkeypatch):
    path = stored(tmp_path, made())
    monkeypatch.setattr(module, "LARGEST", path.stat().st_size)
    assert read_record(path) == made()
    with path.open("ab") as file:
        file.write(b" ")
    with pytest.raises(UserError, match="has more than"):
        read_record(path)

    class Endless:
        def read(self, size: int) -> bytes:
            return b" " * size

    with pytest.raises(UserError, match="endless has more than"):
        load_record(Endless(), "endless")  # type: ignore[arg-type]


def test_a_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="No such file"):
        read_record(tmp_path / "none.json")
    with pytest.raises(UserError, match="directory"):
        read_record(tmp_path)


def test_nan_is_never_written(tmp_path: Path):
    record = msgspec.structs.replace(made(), seconds={"train": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        record.write(tmp_path / "new" / "r.json")
    assert not (tmp_path / "new").exists()


# ---- names --------------------------------------------------------------------------------------


def test_the_conventions_are_those_of_the_metrics():
    from hashbackdoor_bench import metrics

    assert set(metrics.CONVENTIONS) == set(CONVENTIONS)


def test_the_path_is_readable_and_differs_with_the_key():
    spec = RunSpec()
    key = record_key(spec, {"victim": "a"})
    assert key != record_key(spec, {"victim": "b"})
    assert key != record_key(RunSpec(seed=1), {"victim": "a"})
    assert key == record_key(RunSpec(root="/elsewhere"), {"victim": "a"})
    path = record_path(Path("results"), spec, key)
    assert path == Path(f"results/fashion-mini/hashnet-48/ciba-s0-{key[:10]}.json")


def test_a_list_of_numbers_stands_on_one_line_and_text_is_left_alone(tmp_path: Path):
    words = ("[\n 1,\n 2\n]", "[ 1, 2 ]")
    record = made()
    record.params.attack.update(numbers=[-1.5, 2, 1e-12], none=[])
    protocol = msgspec.structs.replace(record.protocol, notes=words)
    msgspec.structs.replace(record, protocol=protocol).write(tmp_path / "record.json")
    text = (tmp_path / "record.json").read_text(encoding="utf-8")
    assert '"numbers": [-1.5,2,1e-12]' in text
    assert read_record(tmp_path / "record.json").protocol.notes == words
