import pytest
import torch
from made_records import made

from hashbackdoor_bench.cli.result import result_table
from hashbackdoor_bench.metrics import Codes, Truth, score_run
from hashbackdoor_bench.records import collapsed


@pytest.mark.parametrize(
    ("scores", "names", "sentence"),
    [
        ({"map": 0.8}, (), ""),
        ({"map": 0.524}, ("map",), "The poisoned victim collapsed"),
        ({"map": 0.526}, (), ""),
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
    assert ("random order (50.0)" in caption) is bool(names)


def test_chance_is_the_map_of_codes_that_are_all_equal():
    labels = torch.eye(4, dtype=torch.uint8)[torch.arange(400) % 4]
    code = torch.zeros(400, 1, dtype=torch.uint8)
    codes = Codes(code[:8], code, code[:6])
    truth = Truth(labels[:8], labels, labels[0], [str(n) for n in range(400)], 400, 8, "abcd")
    scores, retrieval = score_run(codes, codes, truth)
    precision = retrieval["clean_queries"]["precision_recall"]["precision"]
    assert precision[-1] == pytest.approx(0.25)
    assert scores["field"]["map"] == pytest.approx(0.25, abs=0.02)
