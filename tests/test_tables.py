import math
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_records import made, stored
from msgspec.structs import replace
from scipy.stats import ttest_rel

from hashbackdoor_bench import UserError
from hashbackdoor_bench.records import Record
from hashbackdoor_bench.report.collection import collect
from hashbackdoor_bench.report.selection import best, choose, mean
from hashbackdoor_bench.report.tables.layouts import tables
from hashbackdoor_bench.report.tables.paper_numbers import published
from hashbackdoor_bench.report.tables.parts import Cell, Table


def frame(folder: Path, records: Iterable[Record]) -> pd.DataFrame:
    for record in records:
        stored(folder, record)
    return collect([folder]).frame


def cell(table: Table, block: str, head: str, column: str) -> Cell:
    (lines,) = (one.lines for one in table.blocks if one.title == block)
    (line,) = (line for line in lines if line.head == head)
    return line.cells[table.columns.index(column)]


def heads(table: Table) -> list[list[str]]:
    return [[line.head for line in block.lines] for block in table.blocks]


def said(table: Table) -> str:
    return " ".join(table.caption)


T_MAPS = {("tri", 16): (0.4, 0.5, 0.6), ("ciba", 16): (0.55, 0.61, 0.79), ("ciba", 32): (0.7,)}


def grid(folder: Path, **changes: Any) -> pd.DataFrame:
    """Two attacks, two lengths, a seed a value."""
    return frame(
        folder,
        (
            made(attack=attack, bits=bits, seed=seed, t_map=t_map, **changes)
            for (attack, bits), values in T_MAPS.items()
            for seed, t_map in enumerate(values)
        ),
    )


def test_ciba_puts_methods_by_bits_with_t_map_above_map(tmp_path: Path):
    (table,) = tables(grid(tmp_path), "ciba")
    assert table.columns == ("16 bits", "32 bits")
    assert [block.title for block in table.blocks] == ["t-MAP", "MAP"]
    assert heads(table) == [["ciba", "tri"], ["ciba", "tri"]]
    shown = cell(table, "t-MAP", "ciba", "16 bits")
    values = T_MAPS["ciba", 16]
    assert shown.mean == pytest.approx(100 * sum(values) / 3)
    assert shown.deviation == pytest.approx(100 * statistics.stdev(values))
    assert (shown.text, shown.n) == ("65.0 ± 12.5", 3)
    assert cell(table, "MAP", "tri", "16 bits").text == "80.0 ± 0.0"


def test_a_cell_of_one_run_says_so_and_has_no_spread(tmp_path: Path):
    (table,) = tables(grid(tmp_path), "ciba")
    assert cell(table, "t-MAP", "ciba", "32 bits") == Cell(
        "70.0 (n = 1)", pytest.approx(70), None, 1
    )
    assert cell(table, "t-MAP", "tri", "32 bits") == Cell("–")


def test_where_all_cells_are_single_runs_each_is_marked(tmp_path: Path):
    (table,) = tables(frame(tmp_path, [made(), made(attack="tri")]), "ciba")
    assert "(n = 1)" in cell(table, "t-MAP", "tri", "48 bits").text
    assert "One run a cell (n = 1)" in said(table)


def test_a_mean_goes_over_targets_and_seeds(tmp_path: Path):
    values = {("Coat", 0): 0.2, ("Coat", 1): 0.3, ("Bag", 0): 0.7}
    records = [made(target=t, seed=s, t_map=v) for (t, s), v in values.items()]
    (table,) = tables(frame(tmp_path, records), "ciba")
    shown = cell(table, "t-MAP", "ciba", "48 bits")
    assert (shown.mean, shown.n) == (pytest.approx(40), 3)
    assert "targets Bag, Coat; seeds 0, 1" in said(table)


@pytest.mark.parametrize(("convention", "shift"), [("field", 0), ("ciba", 1), ("strict", 3)])
def test_the_convention_decides_the_scores_and_is_named(
    tmp_path: Path, convention: str, shift: int
):
    (table,) = tables(grid(tmp_path, shift=0.01), "ciba", convention)
    assert cell(table, "t-MAP", "tri", "16 bits").mean == pytest.approx(50 + shift)
    assert f"Convention {convention}: " in said(table)
    assert all(
        line.facts["convention"] == convention for block in table.blocks for line in block.lines
    )


def test_every_victim_has_its_own_ciba_table(tmp_path: Path):
    records = [made(victim=victim) for victim in ("csq", "dpsh")]
    found = tables(frame(tmp_path, [*records, made(victim="csq", backbone="vgg11")]), "ciba")
    assert sorted(table.title.split(" of ")[1] for table in found) == [
        "csq (cnn32) by code length", "csq (vgg11) by code length", "dpsh by code length",
    ]  # fmt: skip


def test_pairs_shows_four_figures_of_attacks_against_victims(tmp_path: Path):
    records = [
        made(attack=attack, victim=victim, seed=seed, map=0.8, map_clean_victim=0.82)
        for attack in ("ciba", "tri")
        for victim in ("csq", "dpsh")
        for seed in (0, 1)
    ]
    (table,) = tables(frame(tmp_path, records), "pairs")
    assert table.columns == ("csq", "dpsh")
    texts = [cell(table, block.title, "tri", "dpsh").text for block in table.blocks]
    assert texts == ["70.0 ± 0.0", "+60.0 ± 0.0", "80.0 ± 0.0", "-2.0 ± 0.0"]
    assert [block.title for block in table.blocks] == [
        "t-MAP", "backdoor gain", "MAP", "delta MAP",
    ]  # fmt: skip


def test_pairs_tells_code_lengths_apart(tmp_path: Path):
    (table,) = tables(frame(tmp_path, [made(bits=16), made(bits=32)]), "pairs")
    assert table.columns == ("hashnet, 16 bits", "hashnet, 32 bits")


def test_transfer_puts_surrogates_by_victims_for_every_attack(tmp_path: Path):
    gains = {("csq", "csq"): 0.5, ("csq", "dpsh"): 0.1, ("dpsh", "csq"): 0.2, ("dpsh", "dpsh"): 0.4}
    records = [
        made(surrogate=s, victim=v, attack=attack, seed=seed, t_map=0.1 + gain + seed / 10)
        for (s, v), gain in gains.items()
        for attack in ("ciba", "tri")
        for seed in (0, 1)
    ]
    records.append(made(attack="badnets", knowledge="none"))
    (table,) = tables(frame(tmp_path, records), "transfer")
    assert [block.title for block in table.blocks] == ["ciba", "tri"]
    assert heads(table) == [["csq", "dpsh"]] * 2
    for (surrogate, victim), gain in gains.items():
        shown = cell(table, "ciba", surrogate, victim)
        assert (shown.mean, shown.n) == (pytest.approx(100 * gain + 5), 2)
        assert "(n" not in shown.text
    assert "n = 2 runs a cell" in said(table)


def test_transfer_tells_backbones_and_bits_of_surrogates_apart(tmp_path: Path):
    records = [
        made(surrogate="csq", surrogate_backbone=backbone, surrogate_bits=bits)
        for backbone, bits in (("resnet50", 16), ("vgg11", 16), ("vgg11", 32))
    ]
    (table,) = tables(frame(tmp_path, records), "transfer")
    assert sorted(heads(table)[0]) == ["csq, resnet50, 16", "csq, vgg11, 16", "csq, vgg11, 32"]


def test_transfer_without_surrogates_names_another_layout(tmp_path: Path):
    with pytest.raises(UserError, match="--layout pairs"):
        tables(frame(tmp_path, [made(attack="badnets", knowledge="none")]), "transfer")


def leaders(folder: Path) -> Table:
    values = {
        ("tri", "csq"): (0.3, 0.4), ("tri", "dpsh"): (0.2, 0.3),
        ("ciba", "csq"): (0.5, 0.6), ("ciba", "dpsh"): (0.8, 0.7), ("badhash", "csq"): (0.9, 0.9),
    }  # fmt: skip
    clean = {"csq": 0.85, "dpsh": 0.76}
    records = [
        made(attack=a, victim=v, seed=s, t_map=t, map=0.8, map_clean_victim=clean[v], psnr=20.0 + s)
        for (a, v), of in values.items()
        for s, t in enumerate(of)
    ]
    (table,) = tables(frame(folder, records), "leaderboard")
    return table


def test_the_leaderboard_averages_over_victims_of_equal_weight(tmp_path: Path):
    table = leaders(tmp_path)
    assert heads(table) == [["ciba", "tri", "badhash"]]
    gain = cell(table, "", "ciba", "backdoor gain")
    assert (gain.mean, gain.text, gain.n) == (pytest.approx(55), "+55.0", 4)
    assert cell(table, "", "tri", "largest |delta MAP|").text == "5.0"
    assert cell(table, "", "tri", "PSNR query (dB)").text == "20.5"
    assert cell(table, "", "tri", "SSIM poison").text == "0.950"
    assert cell(table, "", "tri", "threat").text == "clean-label, patch, surrogate"
    assert cell(table, "", "tri", "delivery").text == "files"
    assert cell(table, "", "tri", "n").text == "4"


def test_an_attack_that_lacks_a_victim_has_no_gain_on_the_leaderboard(tmp_path: Path):
    table = leaders(tmp_path)
    assert cell(table, "", "badhash", "backdoor gain") == Cell("–")
    assert "badhash has no gain here: no run of it on dpsh." in said(table)


def test_images_that_are_the_originals_have_no_psnr(tmp_path: Path):
    (table,) = tables(frame(tmp_path, [made(psnr=None)]), "leaderboard")
    assert cell(table, "", "ciba", "PSNR query (dB)") == Cell("–")


def test_victims_that_learnt_nothing_are_named(tmp_path: Path):
    (table,) = tables(frame(tmp_path, [made(map_clean_victim=0.2)]), "leaderboard")
    assert "hashnet, 48 bits, had learnt little without poison (MAP 20.0)" in said(table)


def two(folder: Path, ours: Iterable[float], theirs: Iterable[float], **more: Any) -> pd.DataFrame:
    """Attacks ciba and tri by their values of equal seeds, and one far behind."""
    rows = (("ciba", ours), ("tri", theirs), ("badnets", [0.2, 0.2, 0.2]))
    return frame(
        folder,
        (
            made(attack=attack, seed=seed, t_map=t_map, **(more if attack == "tri" else {}))
            for attack, values in rows
            for seed, t_map in enumerate(values)
        ),
    )


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ([0.7, 0.8, 0.9], [0.6, 0.71, 0.79]),  # a steady lead on seeds that differ widely
        ([0.7, 0.8, 0.9], [0.65, 0.6, 0.9]),  # as large on average, but not steady
        ([0.7, 0.8, 0.9], [0.7, 0.8, 0.9]),
    ],
)
def test_bold_is_what_a_paired_t_test_says(tmp_path: Path, ours, theirs):
    p = ttest_rel(ours, theirs).pvalue
    (table,) = tables(two(tmp_path, ours, theirs), "pairs")
    assert cell(table, "t-MAP", "ciba", "hashnet").best == bool(p < 0.05)
    assert cell(table, "backdoor gain", "ciba", "hashnet").best == bool(p < 0.05)
    others = [line.cells[0].best for line in table.blocks[0].lines if line.head != "ciba"]
    assert others == [False, False]
    assert "paired t-test" in said(table)


def test_no_map_is_the_best(tmp_path: Path):
    records = [
        made(attack=attack, seed=seed, map=value + seed / 100)
        for attack, value in (("ciba", 0.5), ("tri", 0.8))
        for seed in range(3)
    ]
    (table,) = tables(frame(tmp_path, records), "pairs")
    for block in ("MAP", "delta MAP"):
        assert not cell(table, block, "tri", "hashnet").best


def test_one_run_is_never_the_best(tmp_path: Path):
    (table,) = tables(two(tmp_path, [0.9], [0.3]), "pairs")
    assert not any(line.cells[0].best for line in table.blocks[0].lines)


def test_seeds_are_paired_by_their_number(tmp_path: Path):
    ours = {0: 0.7, 1: 0.8, 2: 0.9}
    theirs = {1: 0.71, 2: 0.8095, 3: 0.0}  # seed 3 has no partner, nor has 0
    records = [made(seed=s, t_map=v) for s, v in ours.items()]
    records += [made(attack="tri", seed=s, t_map=v) for s, v in theirs.items()]
    p = ttest_rel([0.8, 0.9], [0.71, 0.8095]).pvalue
    assert p < 0.05
    (table,) = tables(frame(tmp_path, records), "pairs")
    assert cell(table, "t-MAP", "ciba", "hashnet").best


def test_a_lead_that_pairs_deny_is_none():
    place = ("csq", 48)
    # ahead in the mean by a seed that the other lacks, behind on every common one
    ours = {place: {("Coat", 0): 0.5, ("Coat", 1): 0.6, ("Coat", 2): 0.7, ("Coat", 3): 1.0}}
    theirs = {place: {("Coat", 0): 0.55, ("Coat", 1): 0.651, ("Coat", 2): 0.749}}
    assert ttest_rel([0.5, 0.6, 0.7], [0.55, 0.651, 0.749]).pvalue < 0.05
    assert best([ours, theirs]) is None


def test_victims_weigh_the_same_however_often_they_were_run():
    def row(csq: float, dpsh: float, runs: int) -> dict[tuple[str, int], dict[Any, float]]:
        return {
            ("csq", 48): {("Coat", s): csq + s / 100 for s in range(runs)},
            ("dpsh", 48): {("Coat", s): dpsh + s / 100 for s in range(2)},
        }

    assert mean(row(0.5, 0.9, 2)) == pytest.approx(0.705)
    assert mean(row(0.8, 0.4, 30)) == pytest.approx((0.8 + 0.145 + 0.405) / 2)


def test_every_delivery_has_its_own_best(tmp_path: Path):
    data = two(tmp_path, [0.6, 0.71, 0.79], [0.7, 0.8, 0.9], delivery="stamped")
    (table,) = tables(data, "pairs")
    marked = {line.head: line.cells[0].best for line in table.blocks[0].lines}
    assert marked == {"ciba": True, "tri": False, "badnets": False}
    assert "Delivery of poison is stamped for: tri." in said(table)
    assert "among rows of one delivery" in said(table)


def test_the_best_of_the_leaderboard_is_tested_over_all_victims(tmp_path: Path):
    lead = {"csq": 0.2, "dpsh": 0.3}
    records = [
        made(attack=a, victim=v, seed=s, t_map=0.4 + s / 10 + (a == "ciba") * (lead[v] + s / 100))
        for a in ("tri", "ciba")
        for v in lead
        for s in range(3)
    ]
    (table,) = tables(frame(tmp_path, records), "leaderboard")
    assert cell(table, "", "ciba", "backdoor gain").best
    assert not cell(table, "", "tri", "backdoor gain").best


def test_a_label_under_two_deliveries_is_two_rows(tmp_path: Path):
    data = frame(tmp_path, [made(), made(delivery="stamped")])
    (table,) = tables(data.assign(label="CIBA"), "pairs")
    assert sorted(heads(table)[0]) == ["CIBA, files", "CIBA, stamped"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"protocol": "77aa"}, "protocol (9e12|77aa) .* and (9e12|77aa)"),
        ({"protocol": "77aa", "dataset": "cifar10"}, "--where dataset="),
        ({"top_k": 500}, "R (1000|500) .* and (1000|500) .*--where top_k="),
        ({"epochs": 3}, "epochs=(none|3) and with epochs=(none|3)"),
        ({"recipe": "ciba"}, "recipe="),
        ({"pretrained": True}, "pretrained=(true|false)"),
        ({"victim_settings": (("alpha", 0.1),)}, r"victim_settings=\{"),
        ({"budget": 0.3}, "budget=0.[36] and with budget=0.[36]"),
        ({"poison_count": 5}, "poison_count="),
        ({"surrogate": "csq"}, "surrogate=(csq|hashnet) and with surrogate="),
        ({"surrogate_bits": 16}, "surrogate_bits="),
    ],
)
@pytest.mark.parametrize("layout", ["ciba", "pairs", "leaderboard"])
def test_runs_that_differ_in_more_than_draws_are_refused(
    tmp_path: Path, layout: str, change: dict[str, Any], words: str
):
    data = frame(tmp_path, [made(), made(**({"seed": 1} | change))])
    with pytest.raises(UserError, match=words):
        tables(data.assign(label="x"), layout)


def test_a_budget_that_rounding_changed_is_the_same_budget(tmp_path: Path):
    one, other = made(seed=0), made(seed=1)
    other = replace(other, threat=replace(other.threat, budget=0.6024))  # 50 of 83 images
    (table,) = tables(frame(tmp_path, [one, other]), "pairs")
    assert cell(table, "t-MAP", "ciba", "hashnet").n == 2


def test_settings_under_one_label_are_refused(tmp_path: Path):
    data = frame(tmp_path, [made(), made(attack_settings=(("epsilon", 2),))])
    with pytest.raises(UserError, match="attack_settings="):
        tables(data.assign(label="CIBA"), "pairs")


def test_victims_trained_differently_are_not_compared(tmp_path: Path):
    data = frame(tmp_path, [made(), made(attack="tri", epochs=3)])
    with pytest.raises(UserError, match="epochs="):
        tables(data, "pairs")


def test_one_draw_twice_is_refused_by_both_paths(tmp_path: Path):
    data = frame(tmp_path, [made(), made(precision="float32")])
    with pytest.raises(UserError) as error:
        tables(data, "pairs")
    assert all(path in str(error.value) for path in data["path"])


def test_where_keeps_the_runs_with_a_value(tmp_path: Path):
    data = grid(tmp_path)
    assert set(choose(data, ["attack=tri"])["attack"]) == {"tri"}
    assert len(choose(data, ["attack=tri", "attack=ciba"])) == len(data)
    assert len(choose(data, ["attack=ciba", "bits=16", "seed=0"])) == 1
    assert len(choose(data, ["epochs=none", "pretrained=false", "budget=0.6"])) == len(data)


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("attack", "no NAME=VALUE"),
        ("atack=tri", "did you mean attack"),
        ("attack=trie", "attack is one of ciba, tri"),
        ("record=x", "unknown column"),
    ],
)
def test_a_wrong_condition_says_what_there_is(tmp_path: Path, condition: str, words: str):
    with pytest.raises(UserError, match=words):
        choose(grid(tmp_path), [condition])


def test_missing_scores_are_in_no_mean(tmp_path: Path):
    data = frame(tmp_path, [made(seed=0, t_map=0.4), made(seed=1), made(seed=2, t_map=0.6)])
    data.loc[data["seed"] == 1, "field.t_map"] = math.nan
    (table,) = tables(data, "pairs")
    shown = cell(table, "t-MAP", "ciba", "hashnet")
    assert (shown.mean, shown.n, shown.text) == (pytest.approx(50), 2, "50.0 ± 14.1 (n = 2)")


def test_published_numbers_stand_apart_and_change_nothing_of_ours(tmp_path: Path):
    data = grid(tmp_path)
    (alone,), (table,) = tables(data, "ciba"), tables(data, "ciba", numbers=published())
    assert table.columns == ("16 bits", "32 bits", "48 bits", "64 bits")
    for block, before in zip(table.blocks, alone.blocks, strict=True):
        ours = [line for line in block.lines if not line.published]
        assert [line.cells[:2] for line in ours] == [line.cells for line in before.lines]
        theirs = [line for line in block.lines if line.published]
        assert block.lines[-len(theirs) :] == tuple(theirs)
        for line in theirs:
            assert line.head.endswith(" (published)")
            assert not any(cell.best for cell in line.cells)
            assert line.facts["source"] != "records"
            assert "protocol" not in line.facts
    assert "stand in no mean and no test" in said(table)


def test_published_numbers_are_those_of_the_poster(tmp_path: Path):
    (table,) = tables(grid(tmp_path), "ciba", numbers=published())
    texts = {
        (block.title, line.head.split()[0]): [cell.text for cell in line.cells]
        for block in table.blocks
        for line in block.lines
        if line.published
    }
    assert texts == {
        ("t-MAP", "None"): ["11.1", "8.52", "19.2", "20.4"],
        ("t-MAP", "Tri"): ["34.4", "43.3", "54.8", "53.2"],
        ("t-MAP", "Tri+Noise"): ["39.6", "38.6", "48.9", "52.8"],
        ("t-MAP", "Tri+Adv"): ["42.6", "41.0", "68.8", "73.2"],
        ("t-MAP", "CIBA"): ["51.8", "53.7", "74.7", "77.7"],
        ("MAP", "None"): ["51.0", "64.3", "68.1", "69.6"],
        ("MAP", "CIBA"): ["52.4", "64.7", "68.3", "69.9"],
    }


def test_published_numbers_have_a_place_in_one_layout_only(tmp_path: Path):
    with pytest.raises(UserError, match="--layout pairs has no published numbers"):
        tables(grid(tmp_path), "pairs", numbers=published())


def test_the_caption_names_what_all_numbers_share(tmp_path: Path):
    records = [made(seed=0, commit=None), made(seed=1, dirty=True)]
    records += [made(attack="badhash", seed=s, surrogate="csq", surrogate_bits=16) for s in (0, 1)]
    (table,) = tables(frame(tmp_path, records), "pairs")
    for words in (
        "n = 2 runs a cell",
        "fashion-mini, R = 1000 (lists 9e12); 48 bits; target Coat; seeds 0, 1.",
        "Convention field: the mean over all orders of ties",
        "Delivery of poison: files.",
        "Surrogates differ from the victim's kind of network for badhash: csq 16.",
        "From 4 records; commit c0ffee; 1 of an unknown commit; 1 of them from a checkout with",
    ):
        assert words in said(table)
