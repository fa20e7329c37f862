"""Records that are made again, looked at, and handed over with their poison."""

import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_records
import numpy as np
import pytest
import torch
from msgspec.structs import replace
from PIL import Image
from safetensors.torch import load, save
from test_pipeline import spec

from hashbackdoor_bench import RunSpec, UserError
from hashbackdoor_bench.cli import main
from hashbackdoor_bench.records import read_record
from hashbackdoor_bench.registry import load_plugin
from hashbackdoor_bench.report.figures import catalog
from hashbackdoor_bench.spec import digest
from hashbackdoor_bench.stages.cache import Cache
from hashbackdoor_bench.stages.pipeline import run
from hashbackdoor_bench.trust import poison_files
from hashbackdoor_bench.trust.archive import open_archive
from hashbackdoor_bench.trust.reproduction import TOLERANCE, compare, same_machine, threads_of
from hashbackdoor_bench.trust.submission import pack, unpack
from hashbackdoor_bench.trust.verification import verify


def made(tiny: Path, folder: Path, attack: str = "badnets_clean", **more: Any) -> Path:
    spec = RunSpec(attack=attack, victim="csq", dataset="lists", lists=str(tiny), root=str(tiny),
                   size=16, top_k=20, bits=12, epochs=1, batch_size=16, **more)  # fmt: skip
    return run(spec, cache=Cache(folder / "cache"), results=folder / "results", device="cpu")[1]


@pytest.fixture(scope="module")
def place(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trust")
    made(tiny, folder)
    return folder


@pytest.fixture
def record_path(place: Path) -> Path:
    (path,) = (place / "results").rglob("*.json")
    return path


def edited(path: Path, to: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    values = json.loads(path.read_text())
    change(values)
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(json.dumps(values))
    return to


def forged(change: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    """The change of somebody who computes the checksum again."""

    def with_checksum(values: dict[str, Any]) -> None:
        change(values)
        del values["checksum"]
        values["checksum"] = digest(values)

    return with_checksum


def claim(name: str, by: float) -> Callable[[dict[str, Any]], None]:
    def change(values: dict[str, Any]) -> None:
        values["scores"]["field"][name] += by

    return change


def test_a_record_is_reproduced_to_the_bit_from_nothing(record_path: Path, capsys):
    assert main(["reproduce", str(record_path), "-q"]) == 0
    assert "reproduced: all figures are equal to the last bit" in capsys.readouterr().out


def test_a_score_that_was_raised_is_found_out(record_path: Path, tmp_path: Path, capsys):
    false = edited(record_path, tmp_path / "false.json", claim("t_map", 1e-6))
    assert main(["reproduce", str(false), "-q"]) == 1
    out = capsys.readouterr().out
    assert "differs  scores.field.t_map: " in out
    assert "not reproduced: 1 figures are not equal to the last bit" in out


def test_reproducing_reads_nothing_that_is_cached(
    record_path, place, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("HASHBACKDOOR_CACHE", str(place / "cache"))
    false = edited(
        record_path,
        tmp_path / "false.json",
        lambda v: v["retrieval"]["codes_2d"].update(explained=[1, 0]),
    )
    before = sorted((place / "cache").rglob("*"))
    assert main(["reproduce", str(false), "--json", "--results-dir", str(tmp_path / "new")]) == 1
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    stages, result = {event.get("stage") for event in events}, events[-1]
    assert {"train clean victim", "train poisoned victim"} <= stages
    assert result["exact"]
    assert {one["name"].partition(".")[0] for one in result["differences"]} == {"retrieval"}
    assert result["inputs"] == []
    assert sorted((place / "cache").rglob("*")) == before
    (new,) = (tmp_path / "new").rglob("*.json")
    assert read_record(new).scores == read_record(record_path).scores


def test_another_machine_is_held_to_the_tolerance(record_path: Path, tmp_path: Path, capsys):
    def elsewhere(values: dict[str, Any]) -> None:
        values["device"] = values["device"].replace(", ", " of old, ")
        values["scores"]["ciba"]["map"] += 0.3
        values["scores"]["ciba"]["t_map"] += 0.01

    false = edited(record_path, tmp_path / "false.json", elsewhere)
    assert main(["reproduce", str(false), "-q"]) == 1
    out = capsys.readouterr().out
    assert "differs  scores.ciba.map" in out
    assert "1 figures are not within 5 points" in out


def test_a_record_is_made_again_on_its_number_of_threads(record_path, tmp_path, capsys):
    def elsewhere(values: dict[str, Any]) -> None:
        values["device"] = "Another CPU, 2 threads"

    false, threads = edited(record_path, tmp_path / "x.json", elsewhere), torch.get_num_threads()
    main(["reproduce", str(false), "-q"])
    assert torch.get_num_threads() == threads
    line = capsys.readouterr().out.splitlines()[1]
    assert line.startswith("device   Another CPU, 2 threads")
    assert line.count(", 2 threads") == 2


@pytest.mark.parametrize("by", [0.99 * TOLERANCE, 1.01 * TOLERANCE])
def test_the_tolerance_is_the_same_above_and_below(record_path: Path, tmp_path: Path, by: float):
    record = read_record(record_path)
    for sign in (1, -1):
        other = read_record(edited(record_path, tmp_path / "x.json", claim("map", sign * by)))
        assert [one.name for one in compare(other, record, exact=False)] == (
            ["scores.field.map"] if by > TOLERANCE else []
        )
        assert [one.name for one in compare(other, record, exact=True)] == ["scores.field.map"]


def test_a_score_that_is_missing_is_a_difference(record_path: Path):
    record = read_record(record_path)
    scores = replace(record.scores, strict=replace(record.scores.strict, t_map=None))
    (one,) = compare(replace(record, scores=scores), record, exact=False)
    assert (one.name, one.recorded) == ("scores.strict.t_map", None)


def test_threads_and_machine_are_read_from_the_record(record_path: Path):
    assert threads_of("AMD EPYC, 12 threads") == 12
    assert threads_of("NVIDIA H100") is None
    record = read_record(record_path)
    assert same_machine(record, record.device)
    assert not same_machine(record, record.device + "0")
    assert not same_machine(replace(record, versions={"torch": "1.0"}), record.device)


# ---- verify -------------------------------------------------------------------------------------


@pytest.fixture
def results(place: Path, tmp_path: Path) -> Path:
    shutil.copytree(place / "results", tmp_path / "results")
    return tmp_path / "results"


def only(results: Path) -> Path:
    (path,) = results.rglob("*.json")
    return path


def test_results_that_hold_together_have_no_problem(results: Path, place: Path, capsys):
    found = verify(results, Cache(place / "cache"))
    assert (found.records, found.rescored, found.problems) == (1, 1, ())
    where = ["-q", "--cache-dir", str(place / "cache")]
    assert main(["verify", str(results), *where, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["problems"] == []
    assert main(["verify", str(results), *where]) == 0
    assert "1 records, 1 scored again" in capsys.readouterr().out


def test_scores_that_do_not_follow_from_the_codes_are_told(results: Path, place: Path, capsys):
    where = ["-q", "--cache-dir", str(place / "cache")]
    original = only(results).read_text()
    for name, edit in (
        ("scores.field.intervals", lambda v: v["scores"]["field"]["intervals"].update(
            map=[0.0, 1.0])),
        ("retrieval.codes_2d.explained.0", lambda v: v["retrieval"]["codes_2d"].update(
            explained=[0.0, 0.0])),
        ("retrieval.clean_queries.precision_recall.precision.3", lambda v: v["retrieval"][
            "clean_queries"]["precision_recall"]["precision"].__setitem__(3, 0.5)),
    ):  # fmt: skip
        only(results).write_text(original)
        edited(only(results), only(results), forged(edit))
        assert main(["verify", str(results), *where]) == 1
        assert f"{name} is " in capsys.readouterr().out


def test_without_codes_the_records_alone_are_looked_at(results: Path, tmp_path: Path):
    found = verify(results, Cache(tmp_path / "empty"))
    assert (found.records, found.rescored, found.problems) == (1, 0, ())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v["spec"].update(seed=7), "its key doesn't follow from it"),
        (lambda v: v.update(schema=0), "its schema is 0"),
        (lambda v: v.update(extra=1), "unknown field `extra`"),
        (lambda v: v["scores"]["field"].update(backdoor_gain=0.9), "was changed"),
    ],
)
def test_a_damaged_record_is_told_among_good_ones(results, place, change, words: str):
    edited(only(results), results / "a" / "b" / "bad.json", change)
    found = verify(results, Cache(place / "cache"))
    assert found.records == 1
    (problem,) = found.problems
    assert "bad.json" in problem
    assert words in problem


def index(results: Path, row: str) -> None:
    head = "suite,label,victim,bits,target,seed,record\n"
    (results / "index.csv").write_text(head + row + "\n")


def test_an_index_must_say_what_its_records_say(results: Path, tmp_path: Path):
    path, cache = only(results).relative_to(results).as_posix(), Cache(tmp_path / "empty")
    index(results, f"s,Label,csq,12,,0,{path}")
    assert verify(results, cache).problems == ()
    index(results, f"s,Label,csq,16,,1,{path}")
    (bits,) = verify(results, cache).problems
    assert bits.endswith("line 2 is refused: it has bits 16, but its record has 12.")
    index(results, f"s,Label,csq,12,,1,{path}")
    (seed,) = verify(results, cache).problems
    assert seed.endswith("line 2 is refused: it has seed 1, but its record has 0.")
    index(results, "s,Label,csq,12,,0,lists/csq-12/gone.json")
    assert "line 2 names lists/csq-12/gone.json" in verify(results, cache).problems[0]


def test_a_leaderboard_must_be_what_the_records_give(results: Path, tmp_path: Path, capsys):
    path, cache = only(results).relative_to(results).as_posix(), Cache(tmp_path / "empty")
    index(results, f"quick,Label,csq,12,,0,{path}")
    board = results / "LEADERBOARD.md"
    assert main(["leaderboard", str(results), "--out", str(board)]) == 0
    assert verify(results, cache).problems == ()
    board.write_text(board.read_text().replace("Label", "Winner"))
    (problem,) = verify(results, cache).problems
    assert "is not what the records give: make it again with bench leaderboard" in problem


@pytest.mark.parametrize("delivery", ["files", "jpeg:75"])
def test_a_board_of_every_delivery_is_made_again(tmp_path: Path, delivery: str):
    folder = tmp_path / "quick"
    record = made_records.stored(folder, made_records.made(delivery=delivery))
    made_records.indexed(folder, {record: "Label"})
    board, cache = folder / "LEADERBOARD.md", Cache(tmp_path / "cache")
    assert main(["leaderboard", str(folder), "--out", str(board)]) == 0
    assert f"delivery {delivery}," in board.read_text()
    assert verify(folder, cache).problems == ()
    board.write_text(board.read_text().replace("Label", "Winner"))
    (problem,) = verify(folder, cache).problems
    assert "is not what the records give" in problem


def test_figures_must_be_what_the_records_give(results: Path, tmp_path: Path, monkeypatch):
    two = {name: catalog.FIGURES[name] for name in ("gains", "distances")}  # as good as all ten
    monkeypatch.setattr(catalog, "FIGURES", two)
    cache = Cache(tmp_path / "empty")
    assert main(["figure", "--all", str(results)]) == 0
    figures = results / "figures"
    captions = sorted(figures.glob("*.md"))
    assert captions
    assert verify(results, cache).problems == ()
    captions[0].write_text("A better gain.")
    captions[1].unlink()  # who keeps only some of the figures breaks nothing
    (figures / "foreign.png").write_bytes(b"x")
    edited_, foreign = verify(results, cache).problems
    assert captions[0].name in edited_
    assert "the records give other bytes" in edited_
    assert foreign.endswith("foreign.png: bench figure --all of these records doesn't make it.")


# ---- submissions --------------------------------------------------------------------------------


def changed(path: Path, to: Path, **parts: bytes | None) -> Path:
    """A zip with some of its parts changed or left out."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(to, "w") as new:
        for name in old.namelist():
            content = parts.get(name.partition(".")[0].replace("/", "_"), old.read(name))
            if content is not None:
                new.writestr(name, content)
    return to


@pytest.fixture
def packed(record_path: Path, place: Path, tmp_path: Path) -> Path:
    assert pack(read_record(record_path), Cache(place / "cache"), tmp_path / "s.zip") == 12
    return tmp_path / "s.zip"


def test_a_submission_holds_the_poison_as_pictures(packed: Path, record_path: Path, place: Path):
    record = read_record(record_path)
    stored = Cache(place / "cache").find("backdoor", record.artifacts["backdoor"]).tensors
    with zipfile.ZipFile(packed) as file:
        rows = file.read("poison.csv").decode().splitlines()
        assert rows[0] == "slot,index,item,kind,label"
        assert len(rows) == 13
        slot, place_, item, kind, label = rows[3].split(",")
        assert (slot, place_, kind) == ("2", str(int(stored["index"][2])), "0")
        assert item == f"train-{place_}.png"
        assert label.split() == [str(int(v)) for v in stored["label"][2]]
        with file.open("carriers/000002.png") as png:
            assert np.array_equal(
                np.asarray(Image.open(png)).transpose(2, 0, 1), stored["carrier"][2]
            )
        assert set(load(file.read("trigger.safetensors"))) == {"patch"}
        assert "attack.py" not in file.namelist()
    assert unpack(packed).record == record
    ids = [f"train-{number}.png" for number in range(60)]
    with open_archive(packed, UserError) as archive:
        tensors, planted = poison_files.read(archive, 12, 16, 3, ids)
    assert set(tensors) == set(stored)
    assert all(torch.equal(tensors[k], stored[k]) for k in stored)
    with zipfile.ZipFile(packed) as file, file.open("planted/000002.png") as png:
        assert np.array_equal(np.asarray(Image.open(png)).transpose(2, 0, 1), planted[2])


def test_a_submission_has_the_same_bytes_every_time(packed: Path, record_path, place, tmp_path):
    pack(read_record(record_path), Cache(place / "cache"), tmp_path / "t.zip")
    assert (tmp_path / "t.zip").read_bytes() == packed.read_bytes()


def test_a_maintainer_trains_on_the_submitted_poison(packed: Path, capsys, monkeypatch):
    from hashbackdoor_bench import ATTACKS

    def no_crafting(self: Any, view: Any) -> Any:
        raise AssertionError("it was crafted again")

    monkeypatch.setattr(ATTACKS["badnets"].cls, "craft", no_crafting)
    assert main(["reproduce", str(packed), "-q"]) == 0
    assert "reproduced: all figures are equal to the last bit" in capsys.readouterr().out


def test_poison_that_is_not_what_the_trigger_plants_is_refused(packed, tmp_path, capsys):
    with zipfile.ZipFile(packed) as file:
        other = file.read("planted/000001.png")
    false = changed(packed, tmp_path / "false.zip", planted_000002=other)
    assert main(["reproduce", str(false), "-q"]) == 2
    assert "are not what the trigger makes of the carriers" in capsys.readouterr().err


def test_poison_outside_the_drawn_items_or_with_another_label_is_refused(packed, tmp_path, capsys):
    with zipfile.ZipFile(packed) as file:
        rows = file.read("poison.csv").decode().splitlines()
    cells = rows[1].split(",")
    drawn = {row.split(",")[1] for row in rows[1:]}
    other = next(str(item) for item in range(60) if str(item) not in drawn)
    for place_, value, words in ((1, other, "outside the index"), (4, "0 0 1", "changed a label")):
        assert cells[place_] != value
        wrong = [*cells[:place_], value, *cells[place_ + 1 :]]
        wrong[2] = f"train-{wrong[1]}.png"  # the item of that place
        text = "\n".join([rows[0], ",".join(wrong), *rows[2:]])
        false = changed(packed, tmp_path / "false.zip", poison=text.encode())
        assert main(["reproduce", str(false), "-q"]) == 2
        assert words in capsys.readouterr().err


@pytest.mark.parametrize("part", ["record", "poison", "trigger", "carriers_000003"])
def test_a_submission_that_lacks_a_part_is_told(packed: Path, tmp_path: Path, capsys, part: str):
    with pytest.raises(UserError, match=r"not a complete submission .*bench submit"):
        unpack(changed(packed, tmp_path / "part.zip", **{part: None}))
    words = "its record.json is not JSON" if part == "record" else "not a complete submission"
    garbage = changed(packed, tmp_path / "part.zip", **{part: b"garbage"})
    assert main(["reproduce", str(garbage), "-q"]) == 2
    assert words in capsys.readouterr().err


def test_what_is_no_zip_or_has_no_poison_here_is_told(record_path, tmp_path, capsys):
    (tmp_path / "x.zip").write_text("hello")
    assert main(["reproduce", str(tmp_path / "x.zip")]) == 2
    assert main(["reproduce", str(tmp_path / "y.zip")]) == 2
    assert main(["submit", str(record_path), "--out", str(tmp_path / "x.tar")]) == 2
    empty = ["--cache-dir", str(tmp_path / "empty")]
    assert main(["submit", str(record_path), "--out", str(tmp_path / "z.zip"), *empty]) == 2
    err = capsys.readouterr().err
    for words in ("is not a complete submission", "give a zip of bench submit", "ends in .zip",
                  "give the --cache-dir that has it"):  # fmt: skip
        assert words in err
    assert not (tmp_path / "z.zip").exists()


@pytest.mark.parametrize("name", poison_files.STATE)
def test_tensors_cannot_override_what_the_pictures_and_the_table_show(
    packed: Path, tmp_path: Path, capsys, name: str
):
    with zipfile.ZipFile(packed) as file:
        own = load(file.read("trigger.safetensors"))
    content = save(own | {name: torch.zeros(12, dtype=torch.uint8)})
    false = changed(packed, tmp_path / "false.zip", trigger=content)
    assert main(["reproduce", str(false), "-q"]) == 2
    said = capsys.readouterr().err
    assert f"its trigger.safetensors has a tensor '{name}', which would replace what" in said


def test_an_item_of_the_table_is_the_one_at_its_place(packed: Path, tmp_path: Path, capsys):
    with zipfile.ZipFile(packed) as file:
        rows = file.read("poison.csv").decode().splitlines()
    rows[2] = rows[2].replace(",train-", ",train-9")
    false = changed(packed, tmp_path / "false.zip", poison="\n".join(rows).encode())
    assert main(["reproduce", str(false), "-q"]) == 2
    assert "row 1 of its poison.csv names item" in capsys.readouterr().err


def test_the_attacks_file_of_a_zip_is_the_one_that_is_used(tiny: Path, tmp_path: Path, capsys):
    plugin = tmp_path / "mine.py"
    source = Path(__file__).parents[1] / "attacks" / "badnets.py"
    plugin.write_text(re.sub(r"@ATTACKS.register.*", "@ATTACKS.register", source.read_text()))
    load_plugin(plugin)
    path = made(tiny, tmp_path, "mine")
    zip_ = tmp_path / "mine.zip"
    pack(read_record(path), Cache(tmp_path / "cache"), zip_)
    assert unpack(zip_).record.spec.attack == "mine"
    other = changed(zip_, tmp_path / "other.zip", attack=b"# read me")
    assert main(["reproduce", str(other), "-q"]) == 2
    said = capsys.readouterr().err
    assert "is not the file of attack 'mine' that was given with --plugin" in said


def test_threads_that_no_machine_has_are_ignored():
    assert threads_of("CPU, 1024 threads") == 1024
    for many in ("1025", "0", "99999999999"):
        assert threads_of(f"CPU, {many} threads") is None


@pytest.mark.parametrize("command", ["score", "submit", "verify"])
def test_images_elsewhere_are_given_to_each_command_by_path(command, tiny, tmp_path, capsys):
    cache, results = tmp_path / "cache", tmp_path / "results"
    _, path, _ = run(spec(tiny), cache=Cache(cache), results=results, device="cpu")
    what = [str(results)] if command == "verify" else [str(path)]
    more = ["--out", str(tmp_path / "z.zip")] if command == "submit" else []
    moved = ["--root", str(tiny), "--lists", str(tiny), "--cache-dir", str(cache)]
    assert main([command, *what, *more, *moved]) == 0, capsys.readouterr().err
