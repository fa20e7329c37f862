"""Merging folders of results of several machines."""

import csv
import json
import os
import shutil
from pathlib import Path

import pytest
from made_records import made
from msgspec.structs import replace
from PIL import Image

from hashbackdoor_bench import UserError
from hashbackdoor_bench.cli import main
from hashbackdoor_bench.records import Record, read_record, record_path
from hashbackdoor_bench.report import collect
from hashbackdoor_bench.sharing import merge
from hashbackdoor_bench.spec import digest

HEAD = ("suite", "label", "victim", "bits", "target", "seed", "record")


def put(root: Path, *records: Record, label: str = "BadNets", suite: str = "small") -> None:
    """Records with a picture each, and their index."""
    rows = []
    for record in records:
        path = record_path(root, record.spec, record.key)
        record.write(path)
        path.with_suffix("").mkdir()
        colour = (len(record.device), 0, 0)
        Image.new("RGB", (2, 2), colour).save(path.with_suffix("") / "curves.png")
        spec = record.spec
        place = path.relative_to(root).as_posix()
        rows.append((suite, label, spec.victim, spec.bits, spec.target, spec.seed, place))
    with (root / "index.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([HEAD, *rows])


def badnets(seed: int, t_map: float = 0.7) -> Record:
    return made(attack="badnets", seed=seed, t_map=t_map, knowledge="none")


@pytest.fixture
def machines(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders of one suite: seeds 0 and 1, and seeds 1 and 2; seed 1 has equal results."""
    put(tmp_path / "a", badnets(0), badnets(1))
    put(tmp_path / "b", replace(badnets(1), device="another"), badnets(2))
    return tmp_path / "a", tmp_path / "b"


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "index.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_records_of_two_machines_are_one_suite_with_one_index(machines, tmp_path: Path):
    into = tmp_path / "all"
    found = merge(machines, into)
    assert (found.copied, found.known, found.refused, found.conflicts) == (3, 1, [], [
        f"{path} differs from {into / path.relative_to(machines[1])}, of the same results: the "
        "latter is kept."
        for path in (machines[1] / "fashion-mini/hashnet-48").glob("*-s1-*/curves.png")
    ])  # fmt: skip
    assert [row["seed"] for row in rows(into)] == ["0", "1", "2"]
    read = collect([into])
    assert list(read.frame.seed) == [0, 1, 2]
    assert not read.left_out
    assert len(list(into.rglob("curves.png"))) == 3
    assert {path.read_bytes() for path in into.rglob("*.json")} <= {
        path.read_bytes() for one in machines for path in one.rglob("*.json")
    }


def test_merging_again_changes_nothing(machines, tmp_path: Path):
    into = tmp_path / "all"
    merge(machines, into)
    before = {path: path.read_bytes() for path in into.rglob("*") if path.is_file()}
    found = merge(machines, into)
    assert (found.copied, found.known) == (0, 4)
    assert {path: path.read_bytes() for path in into.rglob("*") if path.is_file()} == before


def test_other_results_of_one_run_are_kept_beside_it_and_named(tmp_path: Path, capsys):
    first, second = badnets(0), badnets(0, t_map=0.6)
    assert first.key == second.key
    put(tmp_path / "a", first)
    put(tmp_path / "b", second)
    into = tmp_path / "all"
    assert main(["merge", *(str(tmp_path / n) for n in "ab"), "--into", str(into), "-q"]) == 0
    out = capsys.readouterr().out
    place = record_path(into, first.spec, first.key)
    beside = place.with_stem(f"{place.stem}-{digest(second.scores)[:6]}")
    assert f"kept beside it as {beside.name}" in out
    assert (read_record(place), read_record(beside)) == (first, second)
    assert (beside.with_suffix("") / "curves.png").is_file()
    read = collect([into])
    assert list(read.frame.record) == [first]
    assert "it is the run of" in " ".join(read.left_out)
    assert "unread" in out


def test_three_machines_with_three_results_are_three_records(tmp_path: Path):
    for name, t_map in (("a", 0.7), ("b", 0.6), ("c", 0.5)):
        put(tmp_path / name, badnets(0, t_map))
    found = merge([tmp_path / name for name in "abc"], tmp_path / "all")
    assert (found.copied, len(found.conflicts)) == (3, 2)
    assert len(list((tmp_path / "all").rglob("*.json"))) == 3


def test_equal_scores_with_a_third_version_of_the_rest_are_refused(tmp_path: Path):
    first = badnets(0)
    for name, loss in (("a", 0.5), ("b", 0.25), ("c", 0.125)):
        losses = (loss,) * len(first.training.victim)
        put(tmp_path / name, replace(first, training=replace(first.training, victim=losses)))
    found = merge([tmp_path / name for name in "abc"], tmp_path / "all")
    assert (found.copied, len(found.refused)) == (2, 1)
    assert "one of the two was changed" in found.refused[0]


def test_what_stands_in_the_merged_folder_is_not_overwritten(machines, tmp_path: Path):
    into = tmp_path / "all"
    put(into, badnets(1, t_map=0.2), suite="mine")
    before = {path: path.read_bytes() for path in into.rglob("*.json")}
    found = merge(machines, into)
    assert all(path.read_bytes() == content for path, content in before.items())
    assert any("with other results" in text for text in found.conflicts)
    assert [row["suite"] for row in rows(into)] == ["mine", "small", "small", "small"]


def test_folders_of_several_suites_keep_their_places(tmp_path: Path):
    put(tmp_path / "a/one", badnets(0))
    put(tmp_path / "b/one", badnets(1))
    put(tmp_path / "b/two", badnets(2), suite="two")
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "all")
    assert [row["seed"] for row in rows(tmp_path / "all/one")] == ["0", "1"]
    assert [row["suite"] for row in rows(tmp_path / "all/two")] == ["two"]


def test_another_label_of_one_record_is_named_and_the_first_is_kept(tmp_path: Path):
    put(tmp_path / "a", badnets(0))
    put(tmp_path / "b", badnets(0), label="BadNets, size=3")
    found = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "all")
    assert any("'BadNets, size=3' in suite 'small'" in text for text in found.conflicts)
    assert [row["label"] for row in rows(tmp_path / "all")] == ["BadNets"]


def refusals(root: Path, reason: str, victim: str = "csq") -> None:
    root.mkdir(exist_ok=True)
    (root / "refused.csv").write_text(
        f"suite,label,victim,bits,seed,defense,reason\nsmall,BadNets,{victim},48,0,clp,{reason}\n"
    )


def test_refused_runs_are_of_all_machines_and_two_reasons_are_named(tmp_path: Path):
    put(tmp_path / "a", badnets(0))
    refusals(tmp_path / "a", "no norm")
    refusals(tmp_path / "b", "no layer")
    refusals(tmp_path / "c", "no norm", "dpsh")
    found = merge([tmp_path / name for name in "abc"], tmp_path / "all")
    assert [(one.victim, one.reason) for one in collect([tmp_path / "all"]).refused] == [
        ("csq", "no norm"), ("dpsh", "no norm"),
    ]  # fmt: skip
    assert any("no layer" in text and "no norm" in text for text in found.conflicts)


def test_a_run_refused_here_and_made_there_is_named(tmp_path: Path):
    put(tmp_path / "a", badnets(0))
    (tmp_path / "b").mkdir()
    (tmp_path / "b/refused.csv").write_text(
        "suite,label,victim,bits,seed,defense,reason\nsmall,BadNets,hashnet,48,0,none,no norm\n"
    )
    found = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "all")
    assert any("was refused on one machine (no norm)" in text for text in found.conflicts)


def test_damaged_and_misplaced_records_are_named_with_exit_code_1(machines, tmp_path, capsys):
    paths = sorted(machines[0].rglob("*.json"))
    paths[0].write_bytes(paths[0].read_bytes()[:-20])
    shutil.move(paths[1], paths[1].with_name("other.json"))
    into = tmp_path / "all"
    words = ["merge", *map(str, machines), "--into", str(into)]
    assert main([*words, "-q"]) == 1
    out = capsys.readouterr().out
    assert f"{paths[0]} is left out: it is not JSON" in out
    assert "other.json is left out: its name and folder are not those of its run" in out
    assert "its record was not taken" in out
    assert len(list(into.rglob("*.json"))) == 2
    assert main([*words, "--json"]) == 1
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(result["refused"]) == 2


def test_links_and_other_files_are_not_copied_but_named(machines, tmp_path: Path):
    one = machines[0]
    (one / "LEADERBOARD.md").write_text("#")
    (one / "figures").mkdir()
    (one / "figures/a.pdf").write_text("")
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "x.json").write_text("{}")
    os.symlink(secret, one / "linked")
    os.symlink(secret / "x.json", one / "fashion-mini/hashnet-48/x.json")
    (picture, *_) = one.rglob("curves.png")
    picture.unlink()
    os.symlink(secret / "x.json", picture)
    found = merge(machines, tmp_path / "all")
    told = " ".join(found.left + found.refused)
    for name in ("LEADERBOARD.md", "a.pdf", "linked", "x.json", str(picture)):
        assert name in told, name
    assert not any(path.is_symlink() for path in (tmp_path / "all").rglob("*"))
    assert not (tmp_path / "all/linked").exists()


@pytest.mark.parametrize("content", [b"<script>", b"", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_not_copied_but_named(machines, tmp_path: Path, content: bytes):
    (picture, *_) = machines[0].rglob("curves.png")
    picture.write_bytes(content)
    found = merge(machines[:1], tmp_path / "all")
    assert [text for text in found.left if f"{picture} is not copied: it is " in text]
    assert len(list((tmp_path / "all").rglob("*.png"))) == 1


@pytest.mark.parametrize(
    ("folders", "into", "why"),
    [
        (("a", "gone"), "all", "gone is no folder"),
        (("a", "a/."), "all", "is given twice, as .*: give each folder once"),
        (("a", "b"), "a/all", "lie in one another"),
        (("a/fashion-mini", "a"), "all", "lie in one another"),
        (("a",), "a/index.csv", "is no folder: give another name"),
    ],
)
def test_folders_that_cannot_be_merged_are_refused(machines, tmp_path, folders, into, why):
    with pytest.raises(UserError, match=why):
        merge([tmp_path / name for name in folders], tmp_path / into)


def test_a_folder_may_be_merged_into_another_of_them(machines, tmp_path: Path):
    found = merge(machines, machines[0])
    assert (found.copied, found.known) == (1, 1)
    assert [row["seed"] for row in rows(machines[0])] == ["0", "1", "2"]


def test_a_folder_of_anything_is_left_within_seconds(machines, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("hashbackdoor_bench.sharing.joined_index.MOST", 5)
    with pytest.raises(UserError, match="more than 5 files: give a folder that has results only"):
        merge([machines[0]], tmp_path / "all")
