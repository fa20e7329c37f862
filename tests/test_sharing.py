"""Pushing to a folder and pulling from it, and what a stranger's folder may not do."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from hashbackdoor_bench import RunSpec, UserError
from hashbackdoor_bench.cli import main
from hashbackdoor_bench.cli.sharing import PARTS as WORDS
from hashbackdoor_bench.report import collect
from hashbackdoor_bench.sharing import PARTS, listing_from, pull, push, source_of
from hashbackdoor_bench.sharing.listing import KINDS, Listing, list_folder, read_listing
from hashbackdoor_bench.sharing.sources import Folder
from hashbackdoor_bench.spec import canonical, digest
from hashbackdoor_bench.stages import FILES, STAGES
from hashbackdoor_bench.stages.cache import READ_ONLY, Cache
from hashbackdoor_bench.stages.pipeline import run
from hashbackdoor_bench.trust.verification import verify


@pytest.fixture(scope="module")
def made(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run: ``cache`` and ``quick``."""
    folder = tmp_path_factory.mktemp("made")
    spec = RunSpec(attack="badnets_clean", victim="csq", dataset="lists", lists=str(tiny),
                   root=str(tiny), size=16, top_k=20, bits=12, epochs=1, batch_size=16)  # fmt: skip
    _, path, _ = run(spec, cache=Cache(folder / "cache"), results=folder / "quick", device="cpu")
    place = path.relative_to(folder / "quick").as_posix()
    (folder / "quick/index.csv").write_text(
        f"suite,label,victim,bits,target,seed,record\nquick,BadNets,csq,12,,0,{place}\n"
    )
    return folder


@pytest.fixture(scope="module")
def pushed(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pushed") / "share"
    push([made / "quick"], folder, Cache(made / "cache"), ["clean-victims", "poison", "codes"])
    return folder


@pytest.fixture
def shared(pushed: Path, tmp_path: Path) -> Path:
    """A shared folder that a test may change."""
    shutil.copytree(pushed, tmp_path / "share")
    return tmp_path / "share"


def pulled(shared: Path, here: Path, *more: str) -> int:
    where = ["--cache-dir", str(here / "cache"), "--results-dir", str(here / "runs")]
    return main(["pull", str(shared), *where, "-q", *more])


def files(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def relisted(shared: Path) -> None:
    """Write the listing again as its owner would, after a change."""
    (shared / "sharing.json").write_bytes(list_folder(shared).to_json())


def rewritten(shared: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    body = json.loads((shared / "sharing.json").read_text())
    change(body["files"])
    (shared / "sharing.json").write_text(json.dumps(body))


def test_what_was_pushed_is_pulled_and_its_scores_follow_from_its_codes(
    shared: Path, made: Path, tmp_path: Path, capsys
):
    assert pulled(shared, tmp_path) == 0
    out = capsys.readouterr().out
    assert "6 artifacts came into" in out
    assert "1 records copied into" in out
    here = files(tmp_path / "runs/quick")
    assert here == files(made / "quick")
    found = verify(tmp_path / "runs", Cache(tmp_path / "cache"))
    assert (found.records, found.rescored, found.problems) == (1, 1, ())
    kinds = [kind for kind, *_ in Cache(tmp_path / "cache").stored()]
    assert sorted(kinds) == ["backdoor", "codes", "codes", "codes", "codes", "train"]
    for kind in kinds:
        assert files(tmp_path / "cache" / kind).items() <= files(made / "cache" / kind).items()


def test_the_listing_names_every_file_with_its_size_and_hash(pushed: Path):
    listing = listing_from(Folder(pushed))
    there = {name: content for name, content in files(pushed).items() if name != "sharing.json"}
    assert {name: (one.size, one.sha256) for name, one in listing.files.items()} == {
        name: (len(c), hashlib.sha256(c).hexdigest()) for name, c in there.items()
    }
    assert listing.sha256 == hashlib.sha256((pushed / "sharing.json").read_bytes()).hexdigest()


def test_pushing_and_pulling_again_change_nothing(shared: Path, made: Path, tmp_path, capsys):
    before = files(shared)
    again = push([made / "quick"], shared, Cache(made / "cache"), ["codes"])
    assert (again.merged.copied, again.merged.known, again.artifacts, again.known) == (0, 1, 0, 4)
    assert files(shared) == before
    pulled(shared, tmp_path)
    here = files(tmp_path / "runs"), files(tmp_path / "cache/codes")
    capsys.readouterr()
    assert pulled(shared, tmp_path) == 0
    assert "0 artifacts came" in capsys.readouterr().out
    assert (files(tmp_path / "runs"), files(tmp_path / "cache/codes")) == here


def test_the_artifacts_of_a_shared_folder_are_a_cache_that_others_read(
    shared: Path, tmp_path: Path
):
    key = next(iter(listing_from(Folder(shared)).artifacts))
    assert Cache(tmp_path / "own", [shared / "artifacts"]).has(*key)


def test_parts_are_stages_and_the_command_has_a_word_for_each():
    names = {row.name for row in STAGES}
    assert all(stages <= names for stages in PARTS.values())
    assert set(WORDS) == {*PARTS, "none"}
    assert {row.kind for row in STAGES} < KINDS


def test_only_the_parts_that_were_asked_for_are_pushed(made: Path, tmp_path: Path):
    def kinds(*parts: str) -> set[str]:
        to = tmp_path / "-".join(["x", *parts])
        push([made / "quick"], to, Cache(made / "cache"), parts)
        return {kind for kind, _ in listing_from(Folder(to)).artifacts}

    assert kinds() == set()
    assert kinds("clean-victims") == {"train"}
    assert kinds("poison") == {"backdoor"}
    assert kinds("all") == {"train", "backdoor", "codes", "scores", "visibility"}


def test_artifacts_that_are_damaged_or_missing_here_are_not_pushed_but_named(
    made: Path, tmp_path: Path, capsys
):
    shutil.copytree(made / "cache", tmp_path / "cache")
    (backdoor,) = (tmp_path / "cache/backdoor").rglob("tensors.safetensors")
    backdoor.write_bytes(backdoor.read_bytes()[:-1] + b"\x7f")
    shutil.rmtree(tmp_path / "cache/codes")
    words = ["push", str(made / "quick"), "--to", str(tmp_path / "to"), "-q"]
    assert main([*words, "--cache-dir", str(tmp_path / "cache")]) == 0
    out = capsys.readouterr().out
    assert "backdoor" in out
    assert "is damaged" in out
    assert "4 are not in" in out
    assert {kind for kind, _ in listing_from(Folder(tmp_path / "to")).artifacts} == {"train"}


def test_artifacts_of_a_run_with_other_results_are_not_mixed_with_those_there(
    shared: Path, made: Path, tmp_path: Path
):
    for codes in (shared / "artifacts/codes").iterdir():
        shutil.rmtree(codes)
    there = next((shared / "results").rglob("badnets*.json"))
    changed = json.loads(there.read_text())
    changed["training"]["victim"] = [0.25]
    del changed["checksum"]
    changed["checksum"] = digest({k: v for k, v in changed.items() if k != "checksum"})
    there.write_text(json.dumps(changed))
    found = push([made / "quick"], shared, Cache(made / "cache"), ["codes"])
    assert len(found.merged.apart) == 1
    assert found.artifacts == 0
    again = push([made / "quick"], shared, Cache(made / "cache"), ["codes"])
    assert again.artifacts == 0


def test_an_artifact_that_is_here_with_other_content_stays(shared: Path, tmp_path: Path, capsys):
    (kind, key), *_ = listing_from(Folder(shared)).artifacts
    folder = tmp_path / "cache" / kind / key
    shutil.copytree(shared / "artifacts" / kind / key, folder)
    forge(folder)
    before = files(folder)
    assert pulled(shared, tmp_path) == 0
    assert files(folder) == before
    assert "already with other content" in capsys.readouterr().out


def forge(folder: Path, **facts: Any) -> None:
    """Change the tensors of an artifact, and all that shows it."""
    tensors = load_file(folder / "tensors.safetensors")
    save_file({name: one * 0 for name, one in tensors.items()}, folder / "tensors.safetensors")
    body = json.loads((folder / "facts.json").read_text()) | facts
    del body["check"]
    body["sha256"] = hashlib.sha256((folder / "tensors.safetensors").read_bytes()).hexdigest()
    (folder / "facts.json").write_text(canonical({**body, "check": digest(body)}))


# ---- what a stranger's folder may not do --------------------------------------------------------


def refused(shared: Path, here: Path, capsys) -> str:
    """The one sentence with which a pull is refused; nothing incomplete is left."""
    assert pulled(shared, here) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    (line,) = streams.err.splitlines()
    for folder in (here / "cache").rglob("facts.json"):
        if "work" not in folder.parts:
            assert Cache(here / "cache").find(folder.parts[-3], folder.parts[-2])
    assert not list((here / "runs").rglob("*.json"))
    return line


@pytest.mark.parametrize("name", ["facts.json", "tensors.safetensors"])
@pytest.mark.parametrize("harm", ["flip", "cut", "longer", "gone", "link", "folder", "pipe"])
def test_a_file_that_is_not_what_the_listing_says_is_refused(
    shared: Path, tmp_path: Path, capsys, name: str, harm: str
):
    path = sorted((shared / "artifacts").rglob(name))[0]
    content = path.read_bytes()
    path.unlink()
    middle = len(content) // 2
    if harm == "flip":
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif harm in ("cut", "longer"):
        path.write_bytes(content[:-1] if harm == "cut" else content + b"\0")
    elif harm == "link":
        (tmp_path / "elsewhere").write_bytes(content)
        path.symlink_to(tmp_path / "elsewhere")
    elif harm == "folder":
        path.mkdir()
    elif harm == "pipe":
        os.mkfifo(path)
    line = refused(shared, tmp_path, capsys)
    assert name in line


def test_an_index_that_is_not_what_the_listing_says_is_refused(shared, tmp_path: Path, capsys):
    index = shared / "results/quick/index.csv"
    index.write_text(index.read_text().replace("BadNets", "BadBets"))
    assert "its SHA-256 is not the one in sharing.json" in refused(shared, tmp_path, capsys)


def test_another_artifact_under_a_key_is_refused(shared: Path, tmp_path: Path, capsys):
    one, other = sorted((shared / "artifacts/codes").iterdir())[:2]
    shutil.rmtree(one)
    shutil.copytree(other, one)
    relisted(shared)
    line = refused(shared, tmp_path, capsys)
    assert "they are not the artifact of that key" in line


def test_inputs_that_do_not_give_the_key_are_refused(shared: Path, tmp_path: Path, capsys):
    folder = sorted((shared / "artifacts/codes").iterdir())[0]
    forge(folder, inputs={"seed": 1})
    relisted(shared)
    assert "its inputs belong to another artifact" in refused(shared, tmp_path, capsys)


def test_a_pickle_is_never_loaded(shared: Path, tmp_path: Path, capsys):
    import pickle

    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "bomb",))

    folder = sorted((shared / "artifacts/codes").iterdir())[0]
    (folder / "tensors.safetensors").write_bytes(pickle.dumps(Bomb()))
    body = json.loads((folder / "facts.json").read_text())
    del body["check"]
    body["sha256"] = hashlib.sha256((folder / "tensors.safetensors").read_bytes()).hexdigest()
    (folder / "facts.json").write_text(canonical({**body, "check": digest(body)}))
    relisted(shared)
    refused(shared, tmp_path, capsys)
    assert not (tmp_path / "bomb").exists()


def test_a_record_that_was_edited_is_refused_and_the_rest_comes(shared: Path, tmp_path, capsys):
    path = next((shared / "results").rglob("badnets*.json"))
    text = path.read_text()
    path.write_text(text.replace('"t_map": 0.', '"t_map": 0.9', 1))
    assert path.read_text() != text
    relisted(shared)
    assert pulled(shared, tmp_path) == 1
    out = capsys.readouterr().out
    assert f"refused   {shared}/quick" in out
    assert "its checksum doesn't follow from it" in out
    assert not list((tmp_path / "runs").rglob("badnets*.json"))


KEY = "0" * 64
HASH = hashlib.sha256(b"x").hexdigest()


def entry(path: str, size: Any = 1, sha256: Any = HASH) -> dict[str, Any]:
    return {"path": path, "size": size, "sha256": sha256}


@pytest.mark.parametrize(
    "path",
    [
        "../x.json", "results/../../x.json", "/etc/passwd", "results//x.json", "results/./x.json",
        "results/quick/../../../x.json", "artifacts/train/../../../x", "results/.hidden/x.json",
        "results/quick/x.py", "results/quick/x.pt", "results/quick/x.pkl", "results/quick/x.csv",
        "results/x", "sharing.json", "", "results/quick/a\0b.json", "results/quick/a\nb.json",
        "results/qüick/x.json", "results/quick/\u202egnp.json", "results/quick/x.json ",
        "results\\quick\\x.json", "C:/x.json", "results/quick/x.json/", "~/x.json",
        f"artifacts/locks/{KEY}/facts.json", f"artifacts/train/{KEY}/attack.py",
        f"artifacts/train/{KEY[1:]}/facts.json", f"artifacts/Train/{KEY}/facts.json",
        f"results/{'x' * 300}/x.json", "results/" + "a/" * 30 + "x.json",
    ],
)  # fmt: skip
def test_a_path_that_is_not_of_a_shared_folder_is_refused(
    shared: Path, tmp_path: Path, capsys, path: str
):
    rewritten(shared, lambda entries: entries.append(entry(path)))
    line = refused(shared, tmp_path, capsys)
    assert "is no listing of a shared folder" in line
    assert not [p for p in tmp_path.rglob("*") if p.name in ("x.json", "x")]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ([entry("results/q/a.json"), entry("results/q/a.json")], "is there twice"),
        ([entry("results/q/a.json"), entry("results/q/A.json")], "nothing but small and capitals"),
        ([entry("results/q/a.json"), entry("results/Q/b.json")], "nothing but small and capitals"),
        ([entry("results/q/a.json"), entry("results/q/a.json/b.json")], "a file and a folder"),
        ([entry("results/q/a.json", 4_000_001)], "4000001 bytes, and 4000000 are allowed"),
        ([entry("results/q/a.png", 10**9)], "50000000 are allowed"),
        ([entry("results/q/a.json", 10**30)], "expected"),
        ([entry("results/q/a.json", -1)], "expected"),
        ([entry("results/q/a.json", "1")], "expected"),
        ([entry("results/q/a.json", 1, "0")], "expected"),
        ([entry("results/q/a.json") | {"url": "file:///etc/passwd"}], "unknown field"),
        ([entry(f"artifacts/train/{KEY}/facts.json")], "without"),
        ([entry(f"artifacts/locks/{KEY}/{name}") for name in FILES], "is no path of a shared"),
        ([entry(f"artifacts/train/{KEY}/tensors.safetensors", 10**12)], "expected"),
    ],
)  # fmt: skip
def test_a_listing_that_contradicts_itself_or_asks_too_much_is_refused(
    shared: Path, tmp_path: Path, capsys, more: list[dict[str, Any]], why: str
):
    rewritten(shared, lambda entries: entries.extend(more))
    assert why in refused(shared, tmp_path, capsys)


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff\xfe", b"[]", b"{}", b'{"format": "x", "files": []}', b"[" * 100_000,
     b'{"format": "hashbackdoor_bench sharing 1", "files": [{"path": "\xff"}]}'],
)  # fmt: skip
def test_what_is_no_listing_is_refused(data: bytes):
    with pytest.raises(UserError, match="is no listing of a shared folder"):
        read_listing(data, "x")


def test_a_listing_that_is_too_large_is_not_parsed(monkeypatch, shared: Path, tmp_path, capsys):
    monkeypatch.setattr("hashbackdoor_bench.sharing.listing.LARGEST_LISTING", 100)
    monkeypatch.setattr("hashbackdoor_bench.sharing.pulling.LARGEST_LISTING", 100)
    assert "it has more than" in refused(shared, tmp_path, capsys)


def test_what_does_not_fit_on_the_disk_is_refused_before_anything_comes(
    shared: Path, tmp_path: Path, capsys, monkeypatch
):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=10))
    assert "has room for 0 MB: free some space" in refused(shared, tmp_path, capsys)


def test_another_listing_than_the_expected_one_is_refused(shared: Path, tmp_path: Path, capsys):
    known = listing_from(Folder(shared)).sha256
    assert pulled(shared, tmp_path, "--sha256", known.upper(), "--dry-run") == 0
    assert "codes                4" in capsys.readouterr().out
    assert pulled(shared, tmp_path, "--sha256", "0" * 64) == 2
    assert f"has SHA-256 {known} and not 000" in capsys.readouterr().err
    assert pulled(shared, tmp_path, "--sha256", "12") == 2
    assert "give the 64 digits" in capsys.readouterr().err


def test_an_interrupted_pull_goes_on(shared: Path, tmp_path: Path, monkeypatch):
    fetched = list[str]()
    fetch = Folder.fetch

    def counted(self: Folder, path: str, *more: Any) -> None:
        if len(fetched) == 5:
            raise KeyboardInterrupt
        fetched.append(path)
        fetch(self, path, *more)

    monkeypatch.setattr(Folder, "fetch", counted)
    assert pulled(shared, tmp_path) == 130
    first = list(fetched)
    fetched.clear()
    monkeypatch.setattr(
        Folder, "fetch", lambda self, path, *more: (fetched.append(path), fetch(self, path, *more))
    )
    assert pulled(shared, tmp_path) == 0
    assert not set(first) & set(fetched)
    assert set(first) | set(fetched) == set(listing_from(Folder(shared)).files)
    assert not list((tmp_path / "cache/work").iterdir())


def test_nothing_and_something_are_not_pushed_together(tmp_path: Path, capsys):
    words = ["push", str(tmp_path), "--to", str(tmp_path / "shared"), "--with", "none"]
    assert main([*words, "--with", "codes"]) == 2
    assert "--with none goes with no other" in capsys.readouterr().err
    assert not (tmp_path / "shared").exists()


def test_only_records_or_only_artifacts_can_be_pulled(shared: Path, tmp_path: Path):
    assert pulled(shared, tmp_path / "a", "--only", "artifacts") == 0
    assert not (tmp_path / "a/runs").exists()
    assert pulled(shared, tmp_path / "b", "--only", "records") == 0
    assert not list(Cache(tmp_path / "b/cache").stored())
    assert len(collect([tmp_path / "b/runs"]).frame) == 1


def test_a_dry_run_counts_what_is_there_and_brings_nothing(shared: Path, tmp_path: Path, capsys):
    assert pulled(shared, tmp_path, "--dry-run", "--json") == 0
    (line,) = capsys.readouterr().out.splitlines()
    rows = {row["kind"]: (row["count"], row["bytes"]) for row in json.loads(line)["contents"]}
    files = [path for path in (shared / "results").rglob("*") if path.is_file()]
    assert rows.pop("results") == (len(files), sum(path.stat().st_size for path in files))
    for kind, found in rows.items():
        folders = list((shared / "artifacts" / kind).iterdir())
        sizes = [path.stat().st_size for folder in folders for path in folder.iterdir()]
        assert found == (len(folders), sum(sizes))
    assert rows.keys() == {path.name for path in (shared / "artifacts").iterdir()}
    assert pulled(shared, tmp_path, "--dry-run") == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ["kind", "count", "size"]
    assert not (tmp_path / "runs").exists()


def test_own_records_and_indexes_are_kept_beside_those_that_come(shared: Path, made, tmp_path):
    shutil.copytree(made / "quick", tmp_path / "runs/quick")
    index = tmp_path / "runs/quick/index.csv"
    index.write_text(index.read_text().replace("quick,BadNets,", "mine,BadNets,"))
    source = source_of(str(shared))
    found = pull(source, listing_from(source), Cache(tmp_path / "cache"), results=tmp_path / "runs")
    assert found.merged is not None
    assert (found.merged.copied, found.merged.known) == (0, 1)
    assert any("'mine'" in text for text in found.merged.conflicts)
    assert "mine,BadNets," in index.read_text()


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("gone", "gone is no folder: give a folder that `bench push` has written"),
        ("ftp://x/y", "begins with https:// or http://"),
        ("file:///etc", "begins with https:// or http://"),
        ("hf:x", "names no repository: give hf:OWNER/NAME"),
    ],
)
def test_what_is_no_source_is_refused_with_what_to_type(source: str, why: str):
    with pytest.raises(UserError, match=why):
        source_of(source)


def test_a_folder_that_was_never_pushed_is_refused(tmp_path: Path, capsys):
    (tmp_path / "empty").mkdir()
    assert pulled(tmp_path / "empty", tmp_path) == 2
    assert "sharing.json can't be pulled (No such file" in capsys.readouterr().err


def test_pushing_into_a_folder_of_something_else_is_refused(made: Path, tmp_path: Path, capsys):
    (tmp_path / "home").mkdir()
    (tmp_path / "home/letter.txt").write_text("dear")
    words = ["push", str(made / "quick"), "-q", "--cache-dir", str(made / "cache"), "--to"]
    assert main([*words, str(tmp_path / "home")]) == 2
    assert "holds other files and no sharing.json" in capsys.readouterr().err
    assert main([*words, "https://example.org/x"]) == 2
    assert "push to a folder, and put that on the server" in capsys.readouterr().err
    assert main(["push", str(tmp_path / "gone"), "--to", str(tmp_path / "to")]) == 2
    assert "gone is no folder" in capsys.readouterr().err
    assert not (tmp_path / "to").exists()
    assert main([*words, str(made / "quick/share")]) == 2
    assert "lie in one another" in capsys.readouterr().err
    assert not (made / "quick/share").exists()


def test_a_folder_whose_name_cannot_be_shared_is_refused(made: Path, tmp_path: Path):
    shutil.copytree(made / "quick", tmp_path / "my results")
    with pytest.raises(UserError, match="rename it"):
        push([tmp_path / "my results"], tmp_path / "to", Cache(made / "cache"), [])


def test_artifacts_of_another_cache_are_pushed_too(made: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setenv(READ_ONLY, str(made / "cache"))
    words = ["push", str(made / "quick"), "--to", str(tmp_path / "to"), "-q"]
    assert main([*words, "--cache-dir", str(tmp_path / "own")]) == 0
    assert len(listing_from(Folder(tmp_path / "to")).artifacts) == 6


def test_an_empty_listing_is_one():
    assert read_listing(Listing({}).to_json(), "x") == Listing({})


def test_a_link_that_leads_in_a_circle_is_one_sentence(made: Path, tmp_path: Path, capsys):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for words in (
        ["push", str(made / "quick"), "--to", str(tmp_path / "loop")],
        ["merge", str(made / "quick"), "--into", str(tmp_path / "loop")],
        ["merge", str(tmp_path / "loop"), "--into", str(tmp_path / "all")],
        ["pull", str(tmp_path / "loop")],
    ):
        assert main([*words, "-q"]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
