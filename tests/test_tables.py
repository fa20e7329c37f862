import math
import statistics
from collections.abc import Iterable
from itertools import combinations, groupby
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_records import indexed, made, rounded, stored
from msgspec.structs import replace
from scipy.stats import ttest_rel
from test_statistics import holm_by_its_definition

from hashbackdoor_bench import VICTIMS, UserError
from hashbackdoor_bench.cli import main
from hashbackdoor_bench.records import Record
from hashbackdoor_bench.report.collection import collect
from hashbackdoor_bench.report.selection import (
    choose,
    surrogate_difference,
    surrogates_start,
    without_surrogate,
)
from hashbackdoor_bench.report.tables.layouts import tables
from hashbackdoor_bench.report.tables.paper_numbers import published_numbers
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
    assert heads(table) == [["CIBA", "Tri"], ["CIBA", "Tri"]]
    shown = cell(table, "t-MAP", "CIBA", "16 bits")
    values = T_MAPS["ciba", 16]
    assert shown.mean == pytest.approx(100 * sum(values) / 3)
    assert shown.deviation == pytest.approx(100 * statistics.stdev(values))
    assert (shown.text, shown.n) == ("65.0 ± 12.5", 3)
    assert cell(table, "MAP", "Tri", "16 bits").text == "80.0 ± 0.0"


def test_a_cell_of_one_run_says_so_and_has_no_spread(tmp_path: Path):
    (table,) = tables(grid(tmp_path), "ciba")
    assert cell(table, "t-MAP", "CIBA", "32 bits") == Cell(
        "70.0 (n = 1)", pytest.approx(70), None, 1
    )
    assert cell(table, "t-MAP", "Tri", "32 bits") == Cell("–")


def test_where_all_cells_are_single_runs_each_is_marked(tmp_path: Path):
    (table,) = tables(frame(tmp_path, [made(), made(attack="tri")]), "ciba")
    assert "(n = 1)" in cell(table, "t-MAP", "Tri", "48 bits").text
    assert "A cell of one run says n = 1" in said(table)


def test_a_caption_does_not_call_a_cell_of_three_runs_one_run(tmp_path: Path):
    some = [made(attack=name) for name in ("tri", "tri_noise", "tri_adv")]
    some += [made(seed=seed, t_map=0.5 + seed / 10) for seed in range(3)]
    (table,) = tables(frame(tmp_path, some), "ciba")
    assert "(n = 3)" in cell(table, "t-MAP", "CIBA", "48 bits").text
    assert "one of more has the mean ± standard deviation over its n runs" in said(table)


def test_a_mean_goes_over_targets_and_seeds(tmp_path: Path):
    values = {("Coat", 0): 0.2, ("Coat", 1): 0.3, ("Bag", 0): 0.7}
    records = [made(target=t, seed=s, t_map=v) for (t, s), v in values.items()]
    (table,) = tables(frame(tmp_path, records), "ciba")
    shown = cell(table, "t-MAP", "CIBA", "48 bits")
    assert (shown.mean, shown.n) == (pytest.approx(40), 3)
    assert "targets Bag, Coat; seeds 0, 1" in said(table)


@pytest.mark.parametrize(("convention", "shift"), [("field", 0), ("ciba", 1), ("strict", -1)])
def test_the_convention_decides_the_scores_and_is_named(
    tmp_path: Path, convention: str, shift: int
):
    (table,) = tables(grid(tmp_path, shift=0.01), "ciba", convention)
    assert cell(table, "t-MAP", "Tri", "16 bits").mean == pytest.approx(50 + shift)
    assert f"Convention {convention}: " in said(table)
    assert all(
        line.facts["convention"] == convention for block in table.blocks for line in block.lines
    )


def test_the_ciba_table_has_the_code_lengths_of_every_victim_side_by_side(tmp_path: Path):
    records = [made(victim="csq", bits=bits, t_map=bits / 100) for bits in (16, 32)]
    records += [made(victim="dpsh"), made(victim="csq", backbone="vgg11")]
    (table,) = tables(frame(tmp_path, records), "ciba")
    assert sorted(table.heads) == [
        "CSQ (cnn32), 16 bits", "CSQ (cnn32), 32 bits", "CSQ (vgg11), 48 bits", "DPSH, 48 bits",
    ]  # fmt: skip
    assert [f"{bits}.0 (n = 1)" for bits in (16, 32)] == [
        table.blocks[0].lines[0].cells[table.heads.index(f"CSQ (cnn32), {bits} bits")].text
        for bits in (16, 32)
    ]
    assert [len(list(columns)) for _, columns in groupby(table.over)] == [
        len([head for head in table.heads if head.startswith(network)])
        for network in dict.fromkeys(table.over)
    ]  # the columns of a victim stand side by side
    (alone,) = tables(frame(tmp_path / "alone", [made(victim="dpsh")]), "ciba")
    assert (alone.title, alone.over) == ("t-MAP and MAP (%) of DPSH by code length", ())


def test_pairs_shows_four_figures_of_attacks_against_victims(tmp_path: Path):
    records = [
        made(attack=attack, victim=victim, seed=seed, map=0.8, map_clean_victim=0.82)
        for attack in ("ciba", "tri")
        for victim in ("csq", "dpsh")
        for seed in (0, 1)
    ]
    (table,) = tables(frame(tmp_path, records), "pairs")
    assert table.columns == ("CSQ", "DPSH")
    texts = [cell(table, block.title, "Tri", "DPSH").text for block in table.blocks]
    assert texts == ["70.0 ± 0.0", "+60.0 ± 0.0", "80.0 ± 0.0", "-2.0 ± 0.0"]
    assert [block.title for block in table.blocks] == [
        "t-MAP", "backdoor gain", "MAP", "delta MAP",
    ]  # fmt: skip


def test_pairs_tells_code_lengths_apart(tmp_path: Path):
    (table,) = tables(frame(tmp_path, [made(bits=16), made(bits=32)]), "pairs")
    assert table.columns == ("HashNet, 16 bits", "HashNet, 32 bits")


def test_two_victims_that_are_written_alike_stay_apart(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(VICTIMS, "published", lambda name: "DPSH")
    data = frame(tmp_path, [made(victim=victim, seed=n) for n, victim in enumerate(("a", "b"))])
    (table,) = tables(data, "pairs")
    assert table.columns == ("DPSH (a)", "DPSH (b)")


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
    assert [block.title for block in table.blocks] == ["CIBA", "Tri"]
    assert [sorted(block) for block in heads(table)] == [["CSQ", "DPSH"]] * 2
    for (surrogate, victim), gain in gains.items():
        shown = cell(table, "CIBA", surrogate.upper(), victim.upper())
        assert (shown.mean, shown.n) == (pytest.approx(100 * gain + 5), 2)
        assert "(n" not in shown.text
    assert "n = 2 runs of a cell" in said(table)


def test_transfer_tells_backbones_and_bits_of_surrogates_apart(tmp_path: Path):
    records = [
        made(surrogate="csq", surrogate_backbone=backbone, surrogate_bits=bits)
        for backbone, bits in (("resnet50", 16), ("vgg11", 16), ("vgg11", 32))
    ]
    (table,) = tables(frame(tmp_path, records), "transfer")
    assert sorted(heads(table)[0]) == ["CSQ, resnet50, 16", "CSQ, vgg11, 16", "CSQ, vgg11, 32"]


def test_transfer_tells_recipes_and_starts_of_one_backbone_apart(tmp_path: Path):
    ways = {
        "CSQ, frozen, random weights": ("frozen", None),
        "CSQ, scratch32, pretrained": ("scratch32", True),
        "CSQ, scratch32, random weights": ("scratch32", None),
    }
    victim = {
        "victim": "csq",
        "backbone": "vit",
        "surrogate_backbone": "vit",
        "recipe": "scratch32",
    }
    records = []
    for k, (recipe, start) in enumerate(ways.values()):
        own = None if recipe == "scratch32" else recipe
        records.append(
            made(**victim, t_map=0.3 + k / 10, surrogate_recipe=own, surrogate_pretrained=start)
        )
    shown = frame(tmp_path, records)
    (table,) = tables(shown, "transfer")
    assert sorted(heads(table)[0]) == sorted(ways)
    for k, head in enumerate(ways):
        assert cell(table, "CIBA", head, "CSQ").mean == pytest.approx(20 + 10 * k)
    told = [surrogate_difference(row) for row in shown.to_dict("records")]
    assert sorted(told) == [[], ["frozen"], ["pretrained"]]


def test_a_surrogate_of_the_users_file_is_no_random_one():
    own = made(weights="/w").spec
    assert surrogates_start(own) == "weights of a file"
    assert surrogates_start(made(weights="/w", surrogate_pretrained=False).spec) == "random weights"
    assert surrogates_start(made(weights="/w", surrogate_backbone="vit").spec) == "random weights"


def test_transfer_without_surrogates_names_another_layout(tmp_path: Path):
    with pytest.raises(UserError, match="--layout pairs"):
        tables(frame(tmp_path, [made(attack="badnets", knowledge="none")]), "transfer")


def rivals(folder: Path, ours: Iterable[float], theirs: Iterable[float], **more: Any) -> Any:
    """Attacks ciba and tri by their values of equal seeds; ``more`` is of tri."""
    return frame(
        folder,
        (
            made(attack=attack, seed=seed, t_map=t_map, **(more if attack == "tri" else {}))
            for attack, values in (("ciba", ours), ("tri", theirs))
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
def test_of_one_pair_bold_is_what_a_paired_t_test_says(tmp_path: Path, ours, theirs):
    p = ttest_rel(ours, theirs).pvalue
    (table,) = tables(rivals(tmp_path, ours, theirs), "pairs")
    assert cell(table, "t-MAP", "CIBA", "HashNet").best == bool(p < 0.05)
    assert cell(table, "backdoor gain", "CIBA", "HashNet").best == bool(p < 0.05)
    assert not cell(table, "t-MAP", "Tri", "HashNet").best


# t-MAP by victim and attack: csq tells tri from all the others, hashnet ciba only if not corrected
SEVERAL = {
    ("csq", "tri"): (0.80, 0.70, 0.75), ("csq", "ciba"): (0.6, 0.501, 0.549),
    ("csq", "badnets"): (0.6, 0.499, 0.551), ("hashnet", "tri"): (0.55, 0.5, 0.52),
    ("hashnet", "ciba"): (0.65, 0.65, 0.72), ("hashnet", "badnets"): (0.2, 0.21, 0.19),
}  # fmt: skip


def test_bold_is_what_holms_correction_over_all_columns_leaves(tmp_path: Path):
    keys = [
        (victim, *pair)
        for victim in ("csq", "hashnet")
        for pair in combinations(("tri", "ciba", "badnets"), 2)
    ]
    tests = [ttest_rel(SEVERAL[victim, a], SEVERAL[victim, b]) for victim, a, b in keys]
    corrected = holm_by_its_definition([test.pvalue for test in tests])
    beaten: dict[tuple[str, str], set[str]] = {key: set() for key in SEVERAL}
    alone = dict.fromkeys(SEVERAL, 0)
    for (victim, a, b), test, p in zip(keys, tests, corrected, strict=True):
        winner, loser = (a, b) if test.statistic > 0 else (b, a)
        alone[victim, winner] += test.pvalue < 0.05
        if p < 0.05:
            beaten[victim, winner].add(loser)
    known = {key for key, losers in beaten.items() if len(losers) == 2}
    assert known == {("csq", "tri")}
    assert alone["hashnet", "ciba"] == 2  # without a correction it would be bold too
    records = [
        made(attack=attack, victim=victim, seed=seed, t_map=t_map)
        for (victim, attack), values in SEVERAL.items()
        for seed, t_map in enumerate(values)
    ]
    (table,) = tables(frame(tmp_path, records), "pairs")
    written = {"tri": "Tri", "ciba": "CIBA", "badnets": "BadNets", "csq": "CSQ"}
    assert {
        (victim, attack)
        for victim, attack in SEVERAL
        if cell(table, "t-MAP", written[attack], written.get(victim, "HashNet")).best
    } == known
    assert "Holm's correction over all pairs of rows in all columns of the block" in said(table)


def test_no_map_is_the_best(tmp_path: Path):
    records = [
        made(attack=attack, seed=seed, map=value + seed / 100)
        for attack, value in (("ciba", 0.5), ("tri", 0.8))
        for seed in range(3)
    ]
    (table,) = tables(frame(tmp_path, records), "pairs")
    for block in ("MAP", "delta MAP"):
        assert not cell(table, block, "Tri", "HashNet").best


def test_one_run_is_never_the_best(tmp_path: Path):
    (table,) = tables(rivals(tmp_path, [0.9], [0.3]), "pairs")
    assert not any(line.cells[0].best for line in table.blocks[0].lines)


def test_seeds_are_paired_by_their_number(tmp_path: Path):
    ours = {0: 0.7, 1: 0.8, 2: 0.9, 4: 0.6}
    theirs = {1: 0.71, 2: 0.8095, 4: 0.51, 3: 0.0}  # seed 3 has no partner, nor has 0
    records = [made(seed=s, t_map=v) for s, v in ours.items()]
    records += [made(attack="tri", seed=s, t_map=v) for s, v in theirs.items()]
    p = ttest_rel([0.8, 0.9, 0.6], [0.71, 0.8095, 0.51]).pvalue
    assert p < 0.05
    (table,) = tables(frame(tmp_path, records), "pairs")
    assert cell(table, "t-MAP", "CIBA", "HashNet").best


def test_every_delivery_has_its_own_best(tmp_path: Path):
    data = rivals(tmp_path, [0.6, 0.71, 0.79], [0.7, 0.8, 0.9], delivery="stamped")
    far = frame(tmp_path, [made(attack="badnets", seed=s, t_map=0.2) for s in range(3)])
    assert len(far) == len(data) + 3
    (table,) = tables(far, "pairs")
    marked = {line.head: line.cells[0].best for line in table.blocks[0].lines}
    assert marked == {"CIBA": True, "Tri": False, "BadNets": False}
    assert "Delivery of poison is stamped for: Tri." in said(table)
    assert "all pairs of rows of one delivery" in said(table)


def test_a_label_under_two_deliveries_is_two_rows(tmp_path: Path):
    data = frame(tmp_path, [made(), made(delivery="stamped")])
    (table,) = tables(data.assign(label="CIBA"), "pairs")
    assert sorted(heads(table)[0]) == ["CIBA, files", "CIBA, stamped"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"protocol": "77aa"}, r"protocol (9e12|77aa)\w* .* and (9e12|77aa)"),
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
@pytest.mark.parametrize("layout", ["ciba", "pairs"])
def test_runs_that_differ_in_more_than_draws_are_refused(
    tmp_path: Path, layout: str, change: dict[str, Any], words: str
):
    free = {"dataset": "lists"}  # whose sizes and hashes are not known to the package
    data = frame(tmp_path, [made(**free), made(**(free | {"seed": 1} | change))])
    with pytest.raises(UserError, match=words):
        tables(data.assign(label="x"), layout)


def test_runs_on_other_images_of_one_name_are_refused(tmp_path: Path):
    one, other = (made(dataset="lists", seed=seed) for seed in (0, 1))
    moved = replace(other, protocol=replace(other.protocol, pixels="ab" * 32))
    with pytest.raises(UserError, match="other images of data lists"):
        tables(frame(tmp_path, [one, moved]), "pairs")


def test_a_budget_that_rounding_changed_is_the_same_budget(tmp_path: Path):
    one, other = made(seed=0), made(seed=1)
    (table,) = tables(frame(tmp_path, [one, rounded(other)]), "pairs")
    assert cell(table, "t-MAP", "CIBA", "HashNet").n == 2


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


@pytest.mark.parametrize("order", [1, -1])
def test_a_copy_outside_a_suite_is_no_second_run_of_its_draw(tmp_path, capsys, order):
    path = stored(tmp_path / "suite", made())
    indexed(tmp_path / "suite", {path: "CIBA"})
    copy = stored(tmp_path / "copy", made())
    stored(tmp_path / "copy", made(seed=1))
    places = [str(tmp_path / name) for name in ("suite", "copy")][::order]
    assert main(["table", *places, "--format", "csv", "--layout", "pairs"]) == 0
    out, err = capsys.readouterr()
    assert f"note: {copy.as_posix()} is left out: it is the run of {path.as_posix()} again" in err
    assert ",2," in out
    assert main(["table", *places, "--where", "suite=none"]) == 0
    assert "left out" not in capsys.readouterr().err


def test_a_condition_on_the_surrogate_names_the_runs_that_take_none(tmp_path: Path):
    data = frame(
        tmp_path,
        [made(), made(attack="tri", surrogate="csq"), made(attack="badnets", knowledge="none")],
    )
    (said,) = without_surrogate(data, ["surrogate=csq"])
    assert "leaves out 1 run of BadNets without a surrogate" in said
    assert len(choose(data, ["surrogate=csq"])) == 1
    assert said.endswith("add --where surrogate=none to keep them.")
    assert set(choose(data, ["surrogate=csq", "surrogate=none"])["attack"]) == {"badnets", "tri"}
    for conditions in (["surrogate=csq", "surrogate=none"], ["surrogate=csq", "attack=tri"], []):
        assert without_surrogate(data, conditions) == []


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
    shown = cell(table, "t-MAP", "CIBA", "HashNet")
    assert (shown.mean, shown.n, shown.text) == (pytest.approx(50), 2, "50.0 ± 14.1 (n = 2)")


def test_published_numbers_stand_apart_and_change_nothing_of_ours(tmp_path: Path):
    data = grid(tmp_path)
    (alone,), (table,) = tables(data, "ciba"), tables(data, "ciba", numbers=published_numbers())
    assert table.columns == ("16 bits", "32 bits", "48 bits", "64 bits")
    for block, before in zip(table.blocks, alone.blocks, strict=True):
        ours = [line for line in block.lines if not line.from_paper]
        assert [line.cells[:2] for line in ours] == [line.cells for line in before.lines]
        theirs = [line for line in block.lines if line.from_paper]
        assert block.lines[-len(theirs) :] == tuple(theirs)
        for line in theirs:
            assert line.head.endswith(" (published)")
            assert not any(cell.best for cell in line.cells)
            assert line.facts["source"] != "records"
            assert "protocol" not in line.facts
    assert "stand in no mean and no test" in said(table)


def test_published_numbers_are_those_of_the_poster(tmp_path: Path):
    (table,) = tables(grid(tmp_path), "ciba", numbers=published_numbers())
    texts = {
        (block.title, line.head.split()[0]): [cell.text for cell in line.cells]
        for block in table.blocks
        for line in block.lines
        if line.from_paper
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
        tables(grid(tmp_path), "pairs", numbers=published_numbers())


def test_the_caption_names_what_all_numbers_share(tmp_path: Path):
    records = [made(seed=0, commit=None), made(seed=1, dirty=True)]
    records += [made(attack="badhash", seed=s, surrogate="csq", surrogate_bits=16) for s in (0, 1)]
    (table,) = tables(frame(tmp_path, records), "pairs")
    for words in (
        "n = 2 runs of a cell",
        "fashion-mini, R = 1000 (lists 9e122d7343); 48 bits; target Coat; seeds 0, 1.",
        "Convention field: the mean over all orders of ties",
        "Delivery of poison: files.",
        "Surrogates differ from the victim's kind of network for BadHash: CSQ 16.",
        "From 4 records; commit c0ffee; 1 of an unknown commit; 1 of them from a checkout with",
    ):
        assert words in said(table)


def test_forms_of_a_victim_that_one_draw_was_tried_on_are_columns(tmp_path: Path):
    flat = {"pool": "flatten", "epochs": 12}
    forms = [flat | {"pool": None}, flat, flat | {"epochs": 36}]
    data = frame(tmp_path, [made(**form, seed=seed) for form in forms for seed in (0, 1)])
    (table,) = tables(data, "pairs")
    assert sorted(table.columns) == [
        "HashNet (flattened, 12 epochs)", "HashNet (flattened, 36 epochs)",
        "HashNet (own pooling, 12 epochs)",
    ]  # fmt: skip


def test_the_layout_victims_is_pairs_turned_on_its_side(tmp_path: Path):
    data = grid(tmp_path)
    (pairs,), (turned,) = tables(data, "pairs"), tables(data, "victims")
    assert turned.columns == tuple(heads(pairs)[0])
    assert tuple(heads(turned)[0]) == pairs.columns
    for measure in ("t-MAP", "backdoor gain", "MAP"):
        for attack in turned.columns:
            for victim in pairs.columns:
                one, other = (
                    cell(pairs, measure, attack, victim),
                    cell(turned, measure, victim, attack),
                )
                assert (one.text, one.mean) == (other.text, other.mean)
                assert not other.best  # a victim is no better than another
    assert "Bold" in said(pairs)
    assert "Bold" not in said(turned)
