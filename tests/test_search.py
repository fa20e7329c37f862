"""Search through indexes: exact ones equal the exact scores, others what a plain search gives."""

import json
import shutil
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_cli import records, run_arguments

from hashbackdoor_bench import metrics
from hashbackdoor_bench.cli import main
from hashbackdoor_bench.metrics import CONVENTIONS, Codes, Ranking, Truth, rank_found, recall
from hashbackdoor_bench.records import read_record
from hashbackdoor_bench.search import INDEXES, index_of, search
from hashbackdoor_bench.search.distractors import enlarged
from hashbackdoor_bench.search.index import padded
from hashbackdoor_bench.stages import Cache

faiss = pytest.importorskip("faiss")

NAMES = ("map", "t_map", "backdoor_gain", "delta_map")


def clustered(count: int, bits: int, seed: int, classes: int = 4) -> tuple[torch.Tensor, ...]:
    """Packed codes (N, ceil(K/8)) around a centre of each class, many of them equal; and labels."""
    centres = np.random.default_rng(9).random((classes, bits)) < 0.5
    rng = np.random.default_rng(seed)
    label = rng.integers(classes, size=count)
    codes = centres[label] ^ (rng.random((count, bits)) < 0.15 * rng.random((count, 1)))
    return torch.from_numpy(np.packbits(codes, axis=1)), torch.eye(classes, dtype=torch.uint8)[
        label
    ]


def tagged(count: int, seed: int, classes: int = 70) -> torch.Tensor:
    """Labels (N, C) with any number of tags, in more than one word."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy((rng.random((count, classes)) < 0.03).astype(np.uint8))


def distances(queries: torch.Tensor, database: torch.Tensor) -> NDArray[np.int64]:
    """(Q, D) Hamming distances, from unpacked bits."""
    one, other = (np.unpackbits(side.numpy(), axis=1).astype(int) for side in (queries, database))
    return (one[:, None] != other).sum(2)


def through(text: str, queries, labels, database, database_labels, bits: int, k: int) -> Ranking:
    """The ranking by an index as the command line names it."""
    index = index_of(text).settled(len(database), 8 * database.shape[1], k)
    built = index.build(faiss, padded(database))
    index.tune(built)
    found = index.candidates(built, padded(queries), k)
    return rank_found(labels, database_labels, found, bits)


def assert_exact(found: Ranking, data: tuple[torch.Tensor, ...], bits: int, k: int) -> None:
    exact = metrics.rank(*data, bits=bits, seeded=False)
    for name in ("field", "strict"):
        values = [metrics.score(one, k, CONVENTIONS[name]) for one in (found, exact)]
        assert torch.equal(*values), name
    assert torch.equal(
        values[0], metrics.average_precision(*data, k, normalizer="ideal", bits=bits)
    )
    assert recall(found, exact, k).eq(1).all()


@pytest.mark.parametrize("bits", [12, 48, 64])
@pytest.mark.parametrize(
    "text",
    ["flat", "ivf:nlist=9,nprobe=9", "mih:tables={bytes},flips=8", "hash:first=8,flips=8"],
)
@pytest.mark.parametrize("k", [1, 30, 400])
def test_an_index_that_looks_everywhere_gives_the_exact_scores_to_the_last_bit(bits, text, k):
    database, item_labels = clustered(400, bits, 0)
    queries, labels = clustered(25, bits, 1)
    data = queries, labels, database, item_labels
    found = through(text.format(bytes=database.shape[1]), *data, bits, k)
    assert_exact(found, data, bits, k)


@pytest.mark.parametrize("k", [1, 30, 400])
def test_a_graph_of_distinct_codes_that_is_walked_to_its_end_gives_the_exact_scores(k: int):
    codes = torch.from_numpy(np.random.default_rng(5).integers(0, 256, (400, 6), dtype=np.uint8))
    _, item_labels = clustered(400, 48, 0)
    queries, labels = clustered(25, 48, 1)
    data = queries, labels, codes, item_labels
    assert_exact(through("hnsw:m=32,ef=400", *data, 48, k), data, 48, k)


def plain_ap(relevance: NDArray[np.bool_], k: int, ideal: int | None) -> float:
    """AP of a list by its definition, divided by its hits, or by min(k, ideal)."""
    hits, total = 0, 0.0
    for place, hit in enumerate(relevance[:k], 1):
        if hit:
            hits += 1
            total += hits / place
    return total / max(1, hits if ideal is None else min(k, ideal))


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("k", [1, 7, 40])
def test_a_list_with_gaps_is_scored_as_the_mean_over_orders_of_its_ties(several: bool, k: int):
    """Brute force: shuffle the found items, sort by distance, cut at k, apply the formula."""
    database, item_labels = clustered(120, 16, 0)
    queries, labels = clustered(6, 16, 1)
    if several:
        item_labels, labels = tagged(120, 2), tagged(6, 3)
    near = distances(queries, database)
    rng = np.random.default_rng(4)
    kept = [np.flatnonzero(rng.random(120) < share) for share in (1, 0.5, 0.2, 0.1, 0.02, 0)]
    found = [(q, items, near[q, items]) for q, items in enumerate(kept)]
    ranking = rank_found(labels, item_labels, found, 16)
    relevant = (labels.numpy() @ item_labels.numpy().T) > 0
    draws = 4000
    for name in ("field", "strict"):
        values = metrics.score(ranking, k, CONVENTIONS[name])
        for q, items, distance in found:
            ideal = int(relevant[q].sum()) if name == "strict" else None
            drawn = []
            for _ in range(draws):
                order = rng.permutation(len(items))
                order = order[np.argsort(distance[order], kind="stable")]
                drawn.append(plain_ap(relevant[q, items[order]], k, ideal))
            error = np.std(drawn) / draws**0.5
            assert abs(np.mean(drawn) - float(values[q])) <= 5 * error + 1e-12, (name, q)


def test_an_item_that_is_not_found_takes_no_place_and_only_strict_counts_it():
    labels = torch.tensor([[1]], dtype=torch.uint8)
    items = torch.tensor([[1], [0], [1], [1]], dtype=torch.uint8)
    found = [(0, np.array([0, 1]), np.array([0, 1]))]
    ranking = rank_found(labels, items, found, 8)
    assert metrics.score(ranking, 4, CONVENTIONS["field"]).item() == 1
    assert metrics.score(ranking, 4, CONVENTIONS["strict"]).item() == pytest.approx(1 / 3)
    assert metrics.score(ranking, 2, CONVENTIONS["strict"]).item() == pytest.approx(1 / 2)


def test_any_of_the_items_at_the_last_distance_counts_for_recall():
    database = torch.tensor([[0], [1], [2], [4], [255]], dtype=torch.uint8)
    queries, one = torch.zeros(3, 1, dtype=torch.uint8), torch.ones(5, 1, dtype=torch.uint8)
    exact = metrics.rank(queries, one[:3], database, one, seeded=False)
    lists = [[0, 1, 2], [0, 3, 4], [4]]
    near = distances(queries, database)
    found = [(q, np.array(items), near[q, items]) for q, items in enumerate(lists)]
    ranking = rank_found(one[:3], one, found, 8)
    assert recall(ranking, exact, 2).tolist() == [1, 1, 0]
    assert recall(ranking, exact, 3).tolist() == pytest.approx([1, 2 / 3, 0])
    assert recall(ranking, exact, 5).tolist() == pytest.approx([3 / 5, 3 / 5, 1 / 5])


@pytest.mark.parametrize("text", ["ivf:nlist=20,nprobe=3", "hnsw:m=4", "mih:tables=6,flips=0"])
def test_what_an_index_finds_are_items_at_their_distances_and_the_nearest_of_its_list(text: str):
    database, _ = clustered(500, 48, 0)
    queries, _ = clustered(30, 48, 1)
    near, k = distances(queries, database), 50
    index = index_of(text).settled(500, 48, k)
    built = index.build(faiss, padded(database))
    index.tune(built)
    listed, ids = built.search(padded(queries), k)
    seen = set()
    for query, items, distance in index.candidates(built, padded(queries), k):
        seen.add(query)
        assert len(set(items)) == len(items)
        assert np.array_equal(distance, near[query, items])
        nearest = np.sort(distance)[:k]
        assert np.array_equal(nearest, listed[query][: len(nearest)])  # FAISS's own list
        assert len(nearest) == k or ids[query, len(nearest)] < 0  # it has no more either
    assert len(seen) == 30


@pytest.mark.parametrize("text", INDEXES)
def test_an_index_is_the_same_when_it_is_built_again(text: str):
    database, item_labels = clustered(600, 48, 0)
    queries, labels = clustered(30, 48, 1)
    both = [through(text, queries, labels, database, item_labels, 48, 60) for _ in range(2)]
    assert torch.equal(both[0].items, both[1].items)
    assert torch.equal(both[0].relevant, both[1].relevant)


def test_copies_have_the_label_of_their_source_and_its_code_but_for_some_bits():
    rng = np.random.default_rng(0)
    first, second = (
        torch.from_numpy(np.packbits(rng.random((40, 20)) < 0.5, axis=1)) for _ in range(2)
    )
    assert len(np.unique(first, axis=0)) == len(np.unique(second, axis=0)) == 40
    _, labels = clustered(40, 20, 0)
    truth = Truth(labels[:3], labels, labels[0], [f"i{n}" for n in range(40)], 10, 20, "abcd")
    models = tuple(Codes(one[:3], one, one[:2]) for one in (first, second))
    (one, other), large = enlarged(models, truth, 4000, flip=0)
    source = distances(one.database, first).argmin(1)
    assert np.array_equal(source[:40], np.arange(40))
    assert len(np.unique(source[40:])) == 40
    assert torch.equal(one.database, first[source])
    assert torch.equal(other.database, second[source])
    assert torch.equal(large.database, labels[source])
    assert len(set(large.ids)) == 4000
    (noisy, also), _ = enlarged(models, truth, 4000, flip=0.1)
    assert torch.equal(noisy.database[:40], first)
    assert torch.equal(noisy.database ^ one.database, also.database ^ other.database)
    assert not (noisy.database.numpy()[:, -1] & 15).any()  # what pads a code stays zero
    assert torch.equal(noisy.query, first[:3])


def test_the_mean_share_of_flipped_bits_is_the_one_asked_for():
    zero = torch.zeros(1, 6, dtype=torch.uint8)
    truth = Truth(zero[:, :1], zero[:, :1], zero[0, :1], ["a"], 1, 48, "a")
    (one,), _ = enlarged((Codes(zero, zero, zero),), truth, 20_001, flip=0.03)
    flipped = np.bitwise_count(one.database.numpy()).sum(1)[1:]
    assert flipped.mean() / 48 == pytest.approx(0.03, abs=0.002)
    assert (flipped == 0).mean() == pytest.approx(1 / (1 + 48 * 0.03), abs=0.02)


# ---- a finished run -----------------------------------------------------------------------------


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
    before = faiss.omp_get_max_threads(), torch.get_num_threads()
    search(
        read_record(path), [index_of("flat")], cache=Cache(finished / "cache"), rounds=1, threads=2
    )
    assert (faiss.omp_get_max_threads(), torch.get_num_threads()) == before


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
    assert (out.parent / "found-trade-off.png").stat().st_size > 10_000


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


def test_the_settings_that_a_search_changes_share_one_built_index():
    texts = ["ivf:nlist=5,nprobe=1", "ivf:nlist=5,nprobe=3", "ivf:nlist=4,nprobe=3", "hnsw:m=5"]
    settled = [index_of(text).settled(100, 48, 10) for text in texts]
    assert settled[0].foundation == settled[1].foundation
    assert all(one.foundation != other.foundation for one, other in pairwise(settled[1:]))
    for cls in INDEXES.values():
        assert set(cls.at_search) <= set(cls().settings)
        assert replace(cls()).kind == cls.kind
