"""``bench search`` on a finished run."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from test_cli import records, run_arguments

from hashbackdoor_bench.cli import main
from hashbackdoor_bench.records import read_record
from hashbackdoor_bench.search import index_of, search
from hashbackdoor_bench.search.indexes import Flat
from hashbackdoor_bench.stages import Cache

faiss = pytest.importorskip("faiss")

NAMES = ("map", "t_map", "backdoor_gain", "delta_map")


@pytest.fixture(scope="module")
def finished(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    assert main(run_arguments(tiny, folder)) == 0
    return folder


@pytest.fixture
def done(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    (path,) = records(tmp_path)
    return path


def given(done: Path, *more: str) -> list[str]:
    cache = next(path for path in done.parents if (path / "cache").is_dir()) / "cache"
    return ["search", str(done), "--cache-dir", str(cache), *more]


def test_the_exact_scan_and_a_flat_index_give_the_scores_of_the_record(finished: Path):
    (path,) = records(finished)
    record = read_record(path)
    cache = Cache(finished / "cache")
    found = search(record, [index_of("flat"), index_of("ivf")], cache=cache, rounds=1)
    assert [row.index for row in found.rows] == ["exact scan", "flat", "ivf"]
    for row in found.rows[:2]:
        for convention in ("field", "strict"):
            for name in (*NAMES, "t_map_clean_victim", "t_map_untriggered", "map_clean_victim"):
                assert row.scores[convention][name] == getattr(record.scores[convention], name)
        assert row.recall == {"plain": 1, "triggered": 1}
    assert found.record == record.key
    assert all(row.queries_per_second > 0 and row.bytes > 0 for row in found.rows)


def test_the_controls_of_an_index_are_searched_through_the_same_index(finished: Path):
    """With one list of few, controls differ from their exact values and the gain follows them."""
    (path,) = records(finished)
    cache = Cache(finished / "cache")
    found = search(
        read_record(path), [index_of("ivf:nlist=6,nprobe=1")], cache=cache, rounds=1, k=40
    )
    scan, approximate = (row.scores["strict"] for row in found.rows)
    controls = ("t_map_clean_victim", "t_map_untriggered")
    assert any(scan[name] != approximate[name] for name in controls)
    assert approximate["backdoor_gain"] == approximate["t_map"] - max(
        approximate[name] for name in controls
    )


def test_the_threads_of_faiss_and_torch_are_as_before(finished: Path):
    (path,) = records(finished)
    first = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(3)  # in some builds these are torch's threads too
    try:
        before = faiss.omp_get_max_threads(), torch.get_num_threads()
        cache = Cache(finished / "cache")
        search(read_record(path), [index_of("flat")], cache=cache, rounds=1, threads=2)
        assert (faiss.omp_get_max_threads(), torch.get_num_threads()) == before
    finally:
        faiss.omp_set_num_threads(first)


def test_an_index_is_built_by_one_thread_and_searched_by_those_asked_for(finished, monkeypatch):
    (path,) = records(finished)
    seen: dict[str, set[int]] = {"build": set(), "candidates": set(), "tune": set()}
    for name, threads in seen.items():
        plain = getattr(Flat, name)

        def noted(self, *given, plain=plain, threads=threads):
            threads.add(faiss.omp_get_max_threads())
            return plain(self, *given)

        monkeypatch.setattr(Flat, name, noted)
    cache = Cache(finished / "cache")
    search(read_record(path), [index_of("flat")], cache=cache, rounds=1, threads=2)
    assert seen == {"build": {1}, "candidates": {2}, "tune": {2}}


def test_the_command_prints_a_table_and_writes_json_a_page_and_a_figure(done, tmp_path, capsys):
    out = tmp_path / "out" / "found.json"
    assert main(given(done, "--items", "300", "--k", "20", "--out", str(out))) == 0
    printed = capsys.readouterr().out
    assert "hnsw:m=16,build_ef=40,ef=20" in printed
    assert "recall, triggered" in printed
    found = json.loads(out.read_text())
    (run,) = found["runs"]
    assert (run["items"], run["copies"], run["k"]) == (300, 255, 20)
    assert [len(row["seconds"]) for row in run["rows"]] == [5] * 5
    assert found["versions"]["faiss-cpu"]
    assert (found["threads"], found["rounds"]) == (1, 5)
    page = out.with_suffix(".md").read_text()
    widths = {line.count("|") for line in page.splitlines() if line.startswith("|")}
    assert len(widths) == 1
    assert "255 of the items are copies" in page
    assert (out.parent / "found-trade-off.png").stat().st_size > 2_000


def test_with_json_standard_output_holds_one_object(done, capsys):
    assert main(given(done, "--json", "--index", "flat")) == 0
    *_, last = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert last["event"] == "result"
    assert [row["index"] for row in last["runs"][0]["rows"]] == ["exact scan", "flat"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--index", "ivff"], "unknown index 'ivff': did you mean ivf?"),
        (["--index", "ivf:nprobe=0"], "ivf:nprobe is 0: it must be between 1 and 6"),
        (["--index", "ivf:nprobe=7"], "ivf:nprobe is 7: it must be between 1 and 6"),
        (["--index", "ivf:nprobe=1.5"], "ivf:nprobe is '1.5': it must be a whole number"),
        (["--index", "ivf:nlist=46"], "ivf:nlist is 46: it must be between 1 and 45"),
        (["--index", "ivf:probes=4"], "unknown setting of index ivf 'probes'"),
        (["--index", "ivf:nprobe"], "write it as INDEX or INDEX:NAME=VALUE"),
        (["--index", "ivf:"], "write it as INDEX or INDEX:NAME=VALUE"),
        (["--index", "hnsw:ef=3"], "hnsw:ef is 3: it must be between 20 and 45"),
        (["--index", "mih:flips=-1"], "mih:flips is -1"),
        (["--index", "mih:tables=17"], "mih:tables is 17: it must be between 1 and 16"),
        (["--index", "hash:first=0"], "hash:first is 0"),
        (["--k", "46"], "--k is 46: give 1 to 45"),
        (["--k", "0"], "--k is 0: give 1 to 45"),
        (["--items", "44"], "--items is 44: it must be between 45 and"),
        (["--items", "99", "--flip", "1.5"], "--flip is 1.5"),
        (["--out", "found.txt"], "give a name that ends in .json"),
        (["--cache-dir", "{empty}"], "run the record's command again, or give the --cache-dir"),
        (["nowhere.json"], "nowhere.json"),
    ],
)
def test_a_mistake_is_one_sentence(done, tmp_path, capsys, arguments: list[str], words: str):
    capsys.readouterr()
    arguments = [word.format(empty=tmp_path / "empty") for word in arguments]
    assert main(given(done, *arguments)) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert len([line for line in captured.err.splitlines() if line.startswith("bench: ")]) == 1
    assert captured.out == ""


def test_without_faiss_the_command_says_what_to_install(done, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert main(given(done)) == 2
    error = capsys.readouterr().err
    assert 'pip install "hashbackdoor-bench[search]"' in error
    assert len(error.splitlines()) == 1
