import pytest
import torch
from made_records import made
from msgspec.structs import replace

from hashbackdoor_bench.cli.result import result_table
from hashbackdoor_bench.metrics import Codes, Truth, score_run
from hashbackdoor_bench.records import CleanSearch, chance, collapsed


@pytest.mark.parametrize(
    ("scores", "names", "sentence"),
    [
        ({"map": 0.8}, (), ""),
        ({"map": 0.527}, ("map",), "The poisoned victim collapsed"),
        ({"map": 0.529}, (), ""),
        ({"map_clean_victim": 0.5}, ("map_clean_victim",), "The clean victim collapsed"),
        (
            {"map": 0.5, "map_clean_victim": 0.5},
            ("map", "map_clean_victim"),
            "The poisoned victim and the clean victim collapsed",
        ),
    ],
)
def test_a_victim_whose_map_is_at_chance_is_called_collapsed(
    scores: dict[str, float], names: tuple[str, ...], sentence: str
):
    record = made(**scores)  # half of its items are relevant
    assert collapsed(record) == names
    caption = str(result_table(record).caption)
    assert sentence in caption
    assert ("random order (50.3)" in caption) is bool(names)


@pytest.mark.parametrize(
    ("items", "classes", "top_k"),
    [(400, 4, 400), (45, 3, 20), (45, 3, 45), (30, 15, 5), (6, 2, 1), (8, 2, 7)],
)
def test_chance_is_the_map_of_codes_that_are_all_equal_however_small_the_database(
    items: int, classes: int, top_k: int
):
    labels = torch.eye(classes, dtype=torch.uint8)[torch.arange(items) % classes]
    code, queries, attacked = torch.zeros(items, 1, dtype=torch.uint8), classes * 2, 2 * classes - 2
    codes = Codes(code[:1].expand(queries, -1), code, code[:1].expand(attacked, -1))
    asked = torch.eye(classes, dtype=torch.uint8)[torch.arange(queries) % classes]
    names = [str(n) for n in range(items)]
    truth = Truth(asked, labels, asked[0], names, top_k, 8, list(map(str, range(classes))))
    scores, retrieval = score_run(codes, codes, truth)
    precision = retrieval["clean_queries"]["precision_recall"]["precision"]
    record = made(map=scores["field"]["map"], top_k=top_k)
    curve = record.retrieval.clean_queries.precision_recall
    found = replace(
        record,
        protocol=replace(record.protocol, database=items),
        retrieval=replace(
            record.retrieval,
            clean_queries=CleanSearch(precision_recall=replace(curve, precision=precision)),
        ),
    )
    assert chance(found) == pytest.approx(scores["field"]["map"])
    assert collapsed(found) == ("map",)
