from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pandas as pd
import pytest
from made_records import indexed, made, stored
from scipy.stats import ttest_rel

from hashbackdoor_bench import UserError
from hashbackdoor_bench.report.board import write_site
from hashbackdoor_bench.report.collection import collect
from hashbackdoor_bench.report.tables import ledger_page
from hashbackdoor_bench.report.tables.layouts import tables
from hashbackdoor_bench.report.tables.ledger import decibels
from hashbackdoor_bench.report.tables.ledger_rows import LEDGER, TIES
from hashbackdoor_bench.report.tables.parts import Line, Table
from hashbackdoor_bench.suites import find_suite

ROWS = [row for group in LEDGER.values() for row in group]
BASE, OTHER, SAME = (0.30, 0.35, 0.33, 0.41), (0.52, 0.50, 0.58, 0.66), (0.31, 0.33, 0.35, 0.41)


def frame(
    folder: Path,
    labels: dict[str, tuple[float, ...]],
    attack: str = "ciba",
    targets: tuple[str, ...] = ("Coat",),
) -> pd.DataFrame:
    """Runs of four seeds for each label, of given t-MAP; all seeds of one target, then another."""
    found = {}
    for number, (label, values) in enumerate(labels.items()):
        for place, t_map in enumerate(values):
            later, seed = divmod(place, len(values) // len(targets))
            settings = (("epsilon", number),)
            record = made(
                attack=attack,
                seed=seed,
                target=targets[later],
                t_map=t_map,
                attack_settings=settings,
                psnr=30.0 + number,
            )
            found[stored(folder, record)] = label
    indexed(folder, found)
    return collect([folder]).frame


def line(table: Table, head: str) -> Line:
    (found,) = (line for block in table.blocks for line in block.lines if line.head == head)
    return found


def test_the_suite_runs_what_the_ledger_compares_and_nothing_else():
    suite = find_suite("ledger")
    labels = [run.label for run in suite.runs]
    assert set(labels) == {label for row in ROWS for label in (row.base, row.changed)}
    assert {labels.count(label) for label in labels} == {10}  # 2 targets x 5 seeds
    assert len(suite.runs) == 250


def test_a_step_changes_one_thing_unless_its_sentence_says_more():
    specs = {run.label: run.spec for run in find_suite("ledger").runs if run.spec.seed == 0}
    for row in ROWS:
        one, other = dict(specs[row.base].attack_settings), dict(specs[row.changed].attack_settings)
        changed = [name for name in {*one, *other} if one.get(name) != other.get(name)]
        for name in ("attack", "delivery"):
            if getattr(specs[row.base], name) != getattr(specs[row.changed], name):
                changed.append(name)
        several = "All of" in row.sentence or row.head in ("corrected", "intended")
        if row.conventions:
            assert not changed, row
        elif not several and row.head not in ("noise", "perturbation", "CIBA"):
            assert len(changed) == 1, (row, changed)


def test_the_ledger_has_a_step_to_every_delivery_that_the_released_codes_allow():
    specs = {run.label: run.spec for run in find_suite("ledger").runs}
    steps = {(specs[row.base].attack, specs[row.changed].delivery) for row in ROWS}
    ciba, badhash = ({d for name, d in steps if name == wanted} for wanted in ("ciba", "badhash"))
    assert ciba >= {"stamped", "files", "jpeg"}
    assert badhash == {None, "jpeg"}  # BadHash's own are files


def test_an_effect_is_the_mean_over_pairs_with_its_interval(tmp_path: Path):
    labels = {"CIBA": BASE, "CIBA, augmented": OTHER, "CIBA, patch rounded": SAME}
    (table,) = tables(frame(tmp_path, labels), "ledger")
    assert table.columns == (
        "against", "t-MAP", "gain", "MAP", "PSNR (dB)", "n", "significant after Holm"
    )  # fmt: skip
    against, *shown = line(table, "carriers augmented").cells
    assert against.text == "CIBA"
    expected = ttest_rel(OTHER, BASE)
    low, high = expected.confidence_interval(0.95)
    mean = fmean(a - b for a, b in zip(OTHER, BASE, strict=True))
    assert shown[0].mean == pytest.approx(100 * mean)
    assert shown[0].text == f"+{100 * mean:.1f} ({100 * low:.1f} to {100 * high:.1f})"
    assert shown[2].text == "0.0 (0.0 to 0.0)"
    assert shown[3].text == "+1.00 (1.00 to 1.00)"
    assert [cell.text for cell in shown[4:]] == ["4", "t-MAP, gain, PSNR"]
    assert line(table, "patch rounded").cells[6].text == "PSNR"
    assert [cell.text for cell in line(table, "CIBA, released").cells[:2]] == ["–", "34.8 ± 4.6"]
    assert line(table, "no query skipped").cells[6].text == "–"


def test_a_row_says_which_runs_or_which_convention_it_is_compared_with(tmp_path: Path):
    labels = {"CIBA": BASE, "CIBA, as files": OTHER, "CIBA, as JPEG files": SAME}
    (table,) = tables(frame(tmp_path, labels), "ledger")
    shown = {head: line(table, head).cells[0].text for head in (
        "poison as files", "JPEG files", "no query skipped", "ties in expectation"
    )}  # fmt: skip
    assert shown == {
        "poison as files": "CIBA",
        "JPEG files": "CIBA, as files",
        "no query skipped": "CIBA, convention ciba",
        "ties in expectation": "CIBA, convention badhash",
    }
    change = fmean(SAME) - fmean(OTHER)
    assert line(table, "JPEG files").cells[1].mean == pytest.approx(100 * change)


def test_a_psnr_has_hundredths_of_a_decibel_and_no_minus_before_zero():
    assert [decibels(value) for value in (21.637, -0.294, -0.004, None)] == [
        "21.64", "-0.29", "0.00", "–"
    ]  # fmt: skip


def test_with_two_targets_a_draw_is_all_of_one_seed(tmp_path: Path):
    base, other = (*BASE, *SAME), (*OTHER, *(value + 0.3 for value in BASE))
    labels = {"CIBA": base, "CIBA, augmented": other}
    (table,) = tables(frame(tmp_path, labels, targets=("Coat", "Bag")), "ledger")
    shown = line(table, "carriers augmented").cells[1:]
    of_seeds = [
        [fmean(side[seed::4]) for seed in range(4)]  # a seed's mean over the targets
        for side in (other, base)
    ]
    low, high = ttest_rel(*of_seeds).confidence_interval(0.95)
    assert shown[0].text.endswith(f"({100 * low:.1f} to {100 * high:.1f})")
    assert shown[0].n == 8


def test_steps_between_conventions_are_scored_from_the_same_records(tmp_path: Path):
    (table,) = tables(frame(tmp_path, {"CIBA": BASE}), "ledger", "strict")
    ties = line(table, "ties in expectation").cells[1:]  # a made record has a point less in field
    assert ties[0].text == "-1.0 (-1.0 to -1.0)"
    assert ties[3].text == "–"
    assert ties[5].text == "t-MAP, MAP"
    assert line(table, "no query skipped").cells[1].text == "0.0 (0.0 to 0.0)"


def test_the_caption_says_what_each_step_is_and_which_are_missing(tmp_path: Path):
    labels = {"CIBA": BASE, "CIBA, augmented": OTHER}
    (table,) = tables(frame(tmp_path, labels), "ledger")
    heads = [row.head for row in table.blocks[0].lines[1:]]
    assert heads == ["carriers augmented", "no query skipped", "ties in expectation"]
    said = " ".join(table.caption)
    for row in ROWS:
        assert (row.sentence in said) is (
            row.base == "CIBA" and row.changed in labels
        ) or row.sentence == TIES
    assert "No runs of both sides: 'BadHash'" in said


def test_its_page_has_every_row_with_its_sentence_and_escapes_words(tmp_path: Path):
    labels = {"CIBA": BASE, "CIBA, augmented": OTHER, "CIBA, patch rounded": SAME}
    records = frame(tmp_path / "in", labels)
    page = ledger_page(records)
    (title, rows), *_ = page.groups
    assert title == "CIBA's code"
    shown = {row.head: row for row in rows}
    assert shown["carriers augmented"].sentence.startswith("The poison is cropped and flipped")
    assert shown["CIBA, released"].cells[:2] == ("–", "34.8 ± 4.6")
    assert shown["carriers augmented"].cells[0] == "CIBA"
    assert not any(sentence.startswith("Carriers augmented:") for sentence in page.caption)
    odd = replace(page, title="<b>")
    write_site([], collect([tmp_path / "in"]), tmp_path / "site", lambda record: "", ledger=odd)
    text = (tmp_path / "site" / "ledger.html").read_text("utf-8")
    assert "<h1>&lt;b&gt;</h1>" in text
    assert shown["carriers augmented"].sentence in text
    assert '<th scope="col">against</th>' in text
    assert "</span></th><td>CIBA</td>" in text
    assert 'href="ledger.html"' in (tmp_path / "site" / "index.html").read_text("utf-8")


def test_records_of_another_suite_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match="bench suite run ledger"):
        tables(frame(tmp_path, {"Blended": BASE}, "blended"), "ledger")
