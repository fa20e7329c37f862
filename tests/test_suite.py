import os
import re
import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from hashbackdoor_bench import DEFENSES, RunSpec, UserError
from hashbackdoor_bench.suites.suite import SuiteRun, find_suite, shipped, suite_with

FASHION_TARGETS = ["T-shirt/top", "Pullover", "Coat", "Shirt", "Bag"]


@pytest.fixture
def cells(tmp_path: Path):
    """Writes a suite's text to a file and gives its cells."""

    def found(text: str, name: str = "mine.toml") -> tuple[SuiteRun, ...]:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return find_suite(str(tmp_path / name)).runs

    return found


# ---- what a file means --------------------------------------------------------------------------


def test_lists_multiply_and_rows_and_seeds_come_in_order(cells):
    found = cells(
        """
        seed = [0, 1]
        victim = ["dpsh", "csq"]
        bits = 16
        attack = ["tri", "ciba"]
        """
    )
    assert [cell.spec for cell in found] == [
        RunSpec(attack=attack, victim=victim, bits=16, seed=seed)
        for seed, victim, attack in product((0, 1), ("dpsh", "csq"), ("tri", "ciba"))
    ]
    assert {(cell.label, cell.key_path, cell.suite) for cell in found} == {
        ("Tri", "attack[1]", "mine"), ("CIBA", "attack[2]", "mine")
    }  # fmt: skip


def test_seeds_come_first_wherever_they_stand(cells):
    found = cells('bits = [16, 32]\nseed = [3, 1]\n[[attack]]\nname = "tri"\n')
    assert [(cell.spec.seed, cell.spec.bits) for cell in found] == [
        (1, 16), (1, 32), (3, 16), (3, 32)
    ]  # fmt: skip


def test_a_row_wins_over_what_stands_above(cells):
    found = cells(
        """
        delivery = "stamped"
        budget = [0.2, 0.4]
        set.attack.epsilon = 4
        set.attack.steps = 10
        [[attack]]
        name = "ciba"
        label = "CIBA"
        [[attack]]
        name = "ciba"
        label = "CIBA, files"
        delivery = "files"
        budget = 1
        set.attack.epsilon = 8
        """
    )
    settings = (("epsilon", 4), ("steps", 10))
    first = RunSpec(delivery="stamped", budget=0.2, attack_settings=settings)
    files = RunSpec(delivery="files", budget=1.0, attack_settings=(("epsilon", 8), ("steps", 10)))
    assert [(cell.label, cell.spec, cell.key_path) for cell in found] == [
        ("CIBA", first, "attack[1]"),
        ("CIBA, files", files, "attack[2]"),
        ("CIBA", replace(first, budget=0.4), "attack[1]"),
    ]
    assert found[1].spec.key == files.key  # 1 is the number 1.0


def test_what_a_row_or_an_attacks_setting_varies_stands_in_the_label(cells):
    found = cells(
        """
        bits = [16, 32]
        set.attack.steps = [5, 6]
        [[attack]]
        name = "ciba"
        label = "CIBA"
        seed = [0, 1]
        bits = [48, 64]
        budget = [0.2, 0.4]
        set.attack.epsilon = [2, 4]
        """
    )
    assert len(found) == 2 * 2 * 2 * 2 * 2
    for cell in found:
        values = dict(cell.spec.attack_settings)
        assert cell.label == (
            f"CIBA, steps={values['steps']}, budget={cell.spec.budget}, epsilon={values['epsilon']}"
        )


def test_a_label_names_what_a_row_varies_and_the_suite_holds_fixed(cells):
    found = cells(
        """
        budget = 0.6
        set.attack.epsilon = 8
        [[attack]]
        name = "ciba"
        budget = [0.2, 0.4]
        set.attack.epsilon = [2, 4]
        """
    )
    assert {cell.label for cell in found} == {
        f"CIBA, budget={b}, epsilon={e}" for b, e in product((0.2, 0.4), (2, 4))
    }


def test_two_rows_may_share_a_label_if_they_vary_different_things(cells):
    found = cells(
        """
        [[attack]]
        name = "ciba"
        label = "CIBA"
        budget = [0.2, 0.4]
        [[attack]]
        name = "ciba"
        label = "CIBA"
        set.attack.epsilon = [2, 4]
        """
    )
    assert [c.label[6:] for c in found] == ["budget=0.2", "budget=0.4", "epsilon=2", "epsilon=4"]


def test_zipped_lists_vary_together_and_multiply_with_the_rest(cells):
    found = cells(
        """
        bits = [16, 32]
        [[zip]]
        surrogate = ["hashnet", "csq"]
        surrogate_bits = [48, 64]
        [[zip]]
        budget = [0.1, 0.2]
        set.attack.epsilon = [1, 2]
        """
    )
    assert [
        (s.bits, s.surrogate, s.surrogate_bits, s.budget, dict(s.attack_settings)["epsilon"])
        for s in (cell.spec for cell in found)
    ] == [
        (bits, *pair, *both)
        for bits, pair, both in product(
            (16, 32), (("hashnet", 48), ("csq", 64)), ((0.1, 1), (0.2, 2))
        )
    ]
    assert {cell.label for cell in found} == {"CIBA, epsilon=1", "CIBA, epsilon=2"}


def test_a_run_of_two_rows_is_one_cell(cells):
    rows = '[[attack]]\nname = "tri"\nlabel = "{}"\n'
    (cell,) = cells(rows.format("A") + rows.format("B"))
    assert (cell.label, cell.key_path) == ("A", "attack[1]")


def test_settings_of_victim_and_attack_are_kept_apart(cells):
    (cell,) = cells("set.victim.alpha = 0.2\nset.attack = {steps = 3, epsilon = 2}\n")
    assert cell.spec.victim_settings == (("alpha", 0.2),)
    assert cell.spec.attack_settings == (("epsilon", 2), ("steps", 3))


def test_paths_are_relative_to_the_file_and_a_class_may_be_a_number(cells, tmp_path: Path):
    (cell,) = cells('target = 3\nlists = "l"\nroot = "/r"\n')
    assert cell.spec == RunSpec(target="3", lists=str(tmp_path / "l"), root="/r")


def test_a_path_among_the_settings_is_relative_to_the_file_that_gives_it(cells, tmp_path: Path):
    """Seen from the working directory; a word that stands for no path stays as it is."""
    row = '[[attack]]\nname = "{}"\nset.attack.{} = {}\n'
    text = row.format("blended", "key", '["noise", "k.png", "/k.png"]')
    text += row.format("darkhash", "pictures", '"drawn"') + 'label = "D"\n'
    text += row.format("darkhash-shadow", "pictures", '"drawn/"') + row.format("tri", "key", '"k"')
    here = os.path.relpath(tmp_path)
    expected = ["noise", f"{here}/k.png", "/k.png", "drawn", f"{here}/drawn", "k"]
    assert [dict(run.spec.attack_settings).popitem()[1] for run in cells(text)] == expected
    (tmp_path / "below").mkdir()
    cells(text, "below/base.toml")
    (run, *_) = cells('extends = "below/base.toml"\nseed = 1\n')[1:]
    assert dict(run.spec.attack_settings) == {"key": f"{here}/below/k.png"}
    (own, *_) = suite_with(str(tmp_path / "mine.toml"), "blended", {"key": "k.png"}).runs
    assert dict(own.spec.attack_settings) == {"key": "k.png"}


def test_a_suite_without_an_attack_runs_the_default_one(cells):
    assert [(cell.spec, cell.key_path) for cell in cells("")] == [(RunSpec(), "attack")]


def test_title_and_path_are_the_files(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text('title = "Mine"\n')
    suite = find_suite(str(path))
    assert (suite.name, suite.title, suite.path) == ("mine", "Mine", path)


BASE = """
title = "Base"
bits = [16, 32]
seed = 4
set.attack.steps = 7
[[attack]]
name = "tri"
label = "Tri"
[[zip]]
surrogate = ["hashnet", "csq"]
surrogate_bits = [48, 64]
"""


def test_an_extended_suite_is_taken_over_key_by_key(cells, tmp_path: Path):
    (tmp_path / "base.toml").write_text(BASE)
    found = cells('bits = 64\nset.attack.epsilon = 2\nextends = "base.toml"\n')
    assert [cell.spec for cell in found] == [
        RunSpec(
            attack="tri", bits=64, seed=4, surrogate=surrogate, surrogate_bits=bits,
            attack_settings=(("epsilon", 2), ("steps", 7)),
        )
        for surrogate, bits in (("hashnet", 48), ("csq", 64))
    ]  # fmt: skip
    assert {(c.label, c.key_path, c.suite) for c in found} == {("Tri", "extends", "mine")}
    assert find_suite(str(tmp_path / "mine.toml")).title == "Base"


def test_rows_and_zips_of_an_extended_suite_are_replaced_whole(cells, tmp_path: Path):
    (tmp_path / "base.toml").write_text(BASE)
    found = cells('extends = "base.toml"\nsurrogate = "csq"\nattack = "ciba"\nzip = []\n')
    assert [(cell.spec.attack, cell.spec.surrogate, cell.spec.bits) for cell in found] == [
        ("ciba", "csq", 16), ("ciba", "csq", 32)
    ]  # fmt: skip
    assert {cell.key_path for cell in found} == {"attack"}


# ---- defenses -----------------------------------------------------------------------------------


def test_a_setting_belongs_to_the_defense_in_whose_table_it_stands(cells):
    found = cells(
        """
        attack = ["tri", "ciba"]
        [[defense]]
        name = "none"
        [[defense]]
        name = "clp"
        set.defense.u = [2, 3]
        [[defense]]
        name = "jpeg"
        operating_point = ["published", "tuned"]
        """
    )
    assert [
        (c.spec.attack, c.spec.defense, dict(c.spec.defense_settings), c.spec.operating_point)
        for c in found
    ] == [
        ("tri", "none", {}, "published"),
        ("tri", "clp", {"u": 2}, "published"),
        ("tri", "clp", {"u": 3}, "published"),
        ("tri", "jpeg", {}, "published"),
        ("tri", "jpeg", {}, "tuned"),
        ("ciba", "none", {}, "published"),
        ("ciba", "clp", {"u": 2}, "published"),
        ("ciba", "clp", {"u": 3}, "published"),
        ("ciba", "jpeg", {}, "published"),
        ("ciba", "jpeg", {}, "tuned"),
    ]
    assert {cell.label for cell in found} == {"Tri", "CIBA"}  # what a defense varies is no row


def test_a_row_with_a_defense_of_its_own_is_run_with_that_one_only(cells):
    found = cells(
        """
        [[defense]]
        name = "clp"
        [[attack]]
        name = "tri"
        [[attack]]
        name = "ciba"
        defense = "jpeg"
        set.defense.quality = 50
        """
    )
    assert [(c.spec.attack, c.spec.defense, c.spec.defense_settings) for c in found] == [
        ("tri", "clp", ()), ("ciba", "jpeg", (("quality", 50),))
    ]  # fmt: skip


def test_the_label_of_a_row_with_several_defenses_names_none_of_them(cells):
    found = cells("""
        [[attack]]
        name = "tri"
        defense = ["none", "jpeg"]
        budget = [0.2, 0.6]
    """)
    labels = {(c.label, c.spec.defense) for c in found}
    names = ("Tri, budget=0.2", "Tri, budget=0.6")
    assert labels == {(label, defense) for label in names for defense in ("none", "jpeg")}


def test_the_defenses_of_an_extended_suite_are_replaced_whole(cells, tmp_path: Path):
    tables = '[[defense]]\nname = "clp"\nset.defense.u = 2\n'
    (tmp_path / "base.toml").write_text(tables)
    names = cells('extends = "base.toml"\ndefense = ["none", "jpeg"]\n')
    assert [(c.spec.defense, c.spec.defense_settings) for c in names] == [
        ("none", ()),
        ("jpeg", ()),
    ]
    (tmp_path / "base.toml").write_text('defense = ["none", "jpeg"]\n')
    (again,) = cells(f'extends = "base.toml"\n{tables}')
    assert (again.spec.defense, again.spec.defense_settings) == ("clp", (("u", 2),))


def test_one_defense_may_have_its_setting_above_all_rows_and_a_zip_pairs_them(cells):
    (one,) = cells('defense = "clp"\nset.defense.u = 2\n')
    assert one.spec.defense_settings == (("u", 2),)
    found = cells('[[zip]]\ndefense = ["clp", "clp"]\nset.defense.u = [2, 3]\n')
    assert [cell.spec.defense_settings for cell in found] == [(("u", 2),), (("u", 3),)]


# ---- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key", "says"),
    [
        ('seed = 0\nvictm = "csq"\n', "", "'victm'.*victim"),
        ('\n[[attack]]\nname = "ciba"\nlable = "x"\n', "attack[1]", "'lable'.*label"),
        ('seed = 0\n[[zip]]\nbots = [1]\n', "zip[1]", "'bots'.*bits"),
        ('attack_settings = [["epsilon", 2]]\n', "", "unknown key"),
        ('seed = 0\nattack = ["cibs"]\n', "attack[1]", "'cibs'.*ciba"),
        ('attack = "cibs"\n', "attack", "'cibs'.*ciba"),
        ('[[attack]]\nlabel = "x"\nname = "cibs"\n', "attack[1].name", "'cibs'.*ciba"),
        ('victim = [\n  "csq",\n  "hashnat"\n]\n', "victim[2]", "'hashnat'.*hashnet"),
        ('[[zip]]\nsurrogate = ["hashnat"]\n', "zip[1].surrogate[1]", "'hashnat'.*hashnet"),
        ('dataset = ["fashion-mini", "fashion-maxi"]\n', "dataset[2]", "'fashion-maxi'.*n-mini"),
        ('\nrecipe = "scratch"\n', "recipe", "'scratch'.*scratch32"),
        ('\naugment = "crops"\n', "augment", "'crops'.*crop"),
        ("seed = []\n", "seed", "an empty list"),
        ('[[attack]]\nname = "ciba"\nattack = ["tri"]\n', "attack[1].attack",
         'write name = "ciba"'),
        ("seed = 99999999999999999999999\n", "seed",
         "is 99999999999999999999999: it must be between 0 and 2147483648"),
        ("seed = 9007199254740993\n", "seed", "is 9007199254740993: it must be"),
        ("bits = 99999999999999999999999\n", "bits", "is 99999999999999999999999: it must be"),
        ("seed = [0, 1, 0]\n", "seed[3]", "0 is there as number 1 too"),
        ("budget = [0.1, 0.10]\n", "budget[2]", "0.1 is there as number 1 too"),
        ('target = [1, "1"]\n', "target[2]", "'1' is there as number 1 too"),
        ('set.attack.epsilon = [2, 2.0]\n', "set.attack.epsilon[2]", "2.0 is there"),
        ('[[attack]]\nname = "tri"\nbits = [8, 8]\n', "attack[1].bits[2]", "8 is there"),
        ("[[zip]]\nbits = [1, 2, 1]\nseed = [3, 3, 3]\n", "zip[1][3]", r"\(1, 3\) is there"),
        ('[[defense]]\nname = "clp"\n[[defense]]\nname = "jpeg"\n[[defense]]\nname = "clp"\n',
         "defense[3]", "an earlier .* has the same values"),
        ("seed = 0\nset.attack.epsilon = []\n", "set.attack.epsilon", "an empty list"),
        ("attack = []\n", "attack", "an empty list"),
        ("[[zip]]\nbits = []\n", "zip[1].bits", "an empty list"),
        ("bits = 16\n[[zip]]\n", "zip[1]", "this .*zip.* is empty"),
        ("[[zip]]\nbits = [1, 2]\nseed = [1]\n", "zip[1].seed", "seed has 1 values and bits has 2"),
        ("bits = 16\n[[zip]]\nseed = 1\nbits = 3\n", "zip[1].bits", "bits is in .*toml: bits too"),
        ("[[zip]]\nbits = 16\n[[zip]]\nbits = 16\n", "zip[1].bits", r"at .*: zip\[2\]\.bits too"),
        ('[[attack]]\nname = "tri"\nbits = 3\n[[zip]]\nbits = 4\n', "zip[1].bits",
         r"bits is in .*: attack\[1\]\.bits too"),
        ("set.attack.epsilon = 1\n[zip]\nbits = 1\n", "zip", r"write \[\[zip\]\]"),
        ('[attack]\nname = "tri"\n', "attack", r"write \[\[attack\]\]"),
        ('attack = ["tri", {name = "ciba"}]\n', "attack", r"write \[\[attack\]\]"),
        ("zip = 3\n", "zip", r"write \[\[zip\]\]"),
        ('[[attack]]\nlabel = "x"\n', "attack[1]", "no name"),
        ('[[attack]]\nname = "tri"\n\n[[attack]]\nname = "tri"\n', "attack[2]",
         r"'Tri' is that of attack\[1\]"),
        ('attack = ["tri", "ciba", "tri"]\n', "attack[3]", r"'Tri' is that of attack\[1\]"),
        ('[[attack]]\nname = ["tri", "ciba"]\n', "attack[1].name", "name is"),
        ('[[attack]]\nname = "tri"\nlabel = 3\n', "attack[1].label", "label is 3"),
        ("title = 3\n", "title", "title is 3"),
        ('seed = 0\nbits = "many"\n', "bits", "bits is 'many'.*whole number"),
        ("bits = 48.5\n", "bits", "bits is 48.5"),
        ("bits = [[16]]\n", "bits[1]", r"bits is \[16\]"),
        ("bits = true\n", "bits", "bits is True"),
        ("bits = [16, 0]\n", "bits[2]", "bits is 0"),
        ("budget = nan\n", "budget", "budget is nan"),
        ("victim = 3\n", "victim", "victim is 3"),
        ("target = true\n", "target", "target is True"),
        ("pretrained = 3\n", "pretrained", "pretrained is 3.*true or false"),
        ("epochs = 0\n", "epochs", "epochs is 0"),
        ("batch_size = 2020-01-01\n", "batch_size", "batch_size is"),
        ("set.attack.epsilon = inf\n", "set.attack.epsilon", "inf is no setting"),
        ("set.attack.epsilon = nan\n", "set.attack.epsilon", "nan is no setting"),
        ("set.attack.epsilon.x = 3\n", "set.attack.epsilon", "{'x': 3} is no setting"),
        ('[[attack]]\nname = "tri"\n[[attack]]\nname = "ciba"\nset.attack.epsilon = [2, nan]\n',
         "attack[2].set.attack.epsilon[2]", "nan is no setting"),
        ('set.attack."a\\nb" = nan\n', 'set.attack."a\\nb"', "nan is no setting"),
        ("seed = 0\nset = {epsilon = 8}\n", "set.epsilon", "write set.attack.NAME"),
        ("set = 3\n", "set", "it is 3: write set.attack.NAME"),
        ("set.attack = 3\n", "set.attack", "it is 3: write set.attack.NAME"),
        ('pretrained = true\nweights = "w"\n[[attack]]\nname = "tri"\n', "attack[1]",
         "exclude each other"),
        ('seed = 0\nextends = "quik"\n', "extends", "'quik'.*quick"),
        ('seed = 0\nextends = "no.toml"\n', "extends", "no.toml.*quick"),
        ("extends = 3\n", "extends", "extends is 3"),
        ('defense = ["clp", "jpeg"]\nset.defense.u = 3\n', "set.defense.u", "several defenses"),
        ('set.defense.u = 3\n[[defense]]\nname = "clp"\n', "set.defense.u", "several defenses"),
        ('defense = ["clp", "jpeg"]\n[[attack]]\nname = "tri"\nset.defense.u = 3\n',
         "attack[1].set.defense.u", "several defenses"),
        ('[[defense]]\nset.defense.u = 3\n', "defense[1]", "no name"),
        ('[[defense]]\nname = "clq"\n', "defense[1].name", "'clq'.*clp"),
        ('[[defense]]\nname = "clp"\nbudget = 0.1\n', "defense[1]", "unknown key 'budget'"),
        ('[[defense]]\nname = "clp"\nset.attack.epsilon = 3\n', "defense[1].set.attack.epsilon",
         "settings of it only"),
        ('defense = ["clp", {name = "jpeg"}]\n', "defense", r"write \[\[defense\]\]"),
        ('[defense]\nname = "clp"\n', "defense", r"write \[\[defense\]\]"),
        ('\nextends = "mine.toml"\n', "extends", "extends itself"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_that_names_the_key(cells, text: str, key: str, says: str):
    with pytest.raises(UserError, match=says) as caught:
        cells(text)
    message = str(caught.value)
    file, path, _ = f"{message} ".split(": ", 2) if key else (*message.split(": ", 1), "")
    assert file.endswith("/mine.toml")
    assert path == key or (not key and path.startswith("unknown key"))
    assert "\n" not in message
    assert message[-1] in ".?"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed = 0\nbits 3\n", "at line 2, column 6"),
        ('seed = 0\nvictim = ["csq",\n"dpsh"\nbits = 3\n', "at line 4, column 1"),
        ("seed = 0\n\nseed = 1\nbits = 3\n", "overwrite.*at line 3, column 9"),
        ('attack = ["tri"]\n[[attack]]\nname = "ciba"\n', r"gives attack as attack = … and as a"),
        ('seed = 3\nattack = "tri"\n[attack]\nname = "ciba"\n', "gives attack as attack = …"),
        ('defense = [\n"clp"]\n\n[[defense]]\nname = "jpeg"\n', "gives defense as defense = …"),
        (f"seed = {10_000 * '['}", "nested too deeply"),
        (f"set.{10_000 * 'a.'}b = 1", "nested too deeply"),
    ],
)
def test_what_is_no_toml_is_told_as_the_parser_tells_it(cells, text: str, says: str):
    with pytest.raises(UserError, match=rf"^[^:]*/mine\.toml (is .*)?{says}"):
        cells(text)


def test_ten_thousand_lines_are_read_in_two_seconds(cells):
    row = '[[attack]]\nname = "ciba"\nlabel = "{0}"\nset.attack.epsilon = {0}\n'
    start = time.process_time()
    found = cells("seed = [0, 1]\n" + "".join(row.format(number) for number in range(2500)))
    assert time.process_time() - start < 2
    assert len(found) == 5000


def test_a_mistake_in_an_extended_suite_names_its_own_file(cells, tmp_path: Path):
    (tmp_path / "base.toml").write_text("seed = 0\nbots = 3\n")
    with pytest.raises(UserError, match=r"^[^:]*base\.toml: unknown key 'bots'"):
        cells('extends = "base.toml"\n')


def test_suites_that_extend_one_another_are_refused(cells, tmp_path: Path):
    (tmp_path / "base.toml").write_text('seed = 0\nextends = "mine.toml"\n')
    with pytest.raises(UserError, match=r"base\.toml: extends: mine\.toml extends itself"):
        cells('extends = "base.toml"\n')


def test_a_zip_of_an_extended_suite_cannot_be_half_replaced(cells, tmp_path: Path):
    (tmp_path / "base.toml").write_text(BASE)
    says = r"base\.toml: zip\[1\]\.surrogate: surrogate is .* at .*mine\.toml: surrogate too"
    with pytest.raises(UserError, match=says):
        cells('extends = "base.toml"\nsurrogate = "csq"\n')


def test_a_suite_that_is_not_there_is_told_with_the_nearest():
    with pytest.raises(UserError, match=r"'quik': did you mean quick"):
        find_suite("quik")
    with pytest.raises(UserError, match=r"no file nowhere\.toml.*quick"):
        find_suite("nowhere.toml")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path):
    (tmp_path / "mine.toml").write_bytes(b"title = '\xff'\n")
    with pytest.raises(UserError, match=r"mine\.toml can't be read"):
        find_suite(str(tmp_path / "mine.toml"))


# ---- the shipped suites -------------------------------------------------------------------------


def test_listing_the_suites_gives_their_titles():
    assert list(shipped()) == [
        "aware", "badhash", "baselines", "baselines_frozen", "bistable", "ciba-table",
        "ciba-table-fashion", "defenses", "faint", "finetuned", "frontier", "frozen", "ledger",
        "quick", "sensitivity", "standard", "standard_frozen", "takes", "takes96", "transfer",
        "transfer-mini", "transfer-regimes", "victims",
    ]  # fmt: skip
    assert all(title and "\n" not in title for title in shipped().values())


SIZES = {
    "quick": 13 * 3 * 3,
    "ciba-table": 4 * 5 * 5,
    "ciba-table-fashion": 4 * 5 * 5,
    "badhash": 6 * 2 * 3,
    "transfer": 3 * 12 * 12,
    "transfer-mini": 2 * 3 * 3 * 3,
    "transfer-regimes": 2 * 3 * 3 * 3,
    "finetuned": (1 + 5 * 2) * 2 * 3,
    "frozen": (2 + 5 * 3) * 5 * 4 * 4,
    "victims": 3 * 11 * 3,
    "takes": 4 * 6 * 2 * 2,
    "takes96": 4 * 4 * 2,
    "defenses": (5 * 2 + 1) * 24 * 2 * 3,
    "aware": (4 + 3 * 2) * 2 * 3,
    "baselines": (3 + 23 * 2) * 2 * 2 * 3 + 2 * 3,
    "baselines_frozen": (3 + 23 * 2) * 2 * 4 * 4 + 2 * 4,
    "faint": 6 * 3 * 2 * 3,
    "sensitivity": (4 + 4 + 3 + 2 + 2 + 3 + 3) * 2,
    "ledger": 25 * 2 * 5,
    "bistable": 2 * 10,
    "frontier": 16 * 2 * 2,
    "standard": 13 * 4 * 20,
    "standard_frozen": 13 * 4 * 60,
}


@pytest.mark.parametrize("name", list(shipped()))
def test_a_shipped_suite_has_as_many_runs_as_its_table(name: str):
    suite = find_suite(name)
    assert len(suite.runs) == SIZES[name]
    assert (suite.name, suite.title) == (name, shipped()[name])
    said = re.findall(r"(?:^|\s)(\d+)\s+runs", suite.path.read_text().replace("\n#", ""))
    assert name == "ciba-table-fashion" or str(SIZES[name]) in said  # that one says none


@pytest.mark.parametrize("name", list(shipped()))
def test_all_hyper_parameters_of_a_shipped_suite_exist(name: str):
    from hashbackdoor_bench import ATTACKS, VICTIMS

    for spec in {replace(cell.spec, seed=0, bits=1) for cell in find_suite(name).runs}:
        ATTACKS[spec.attack].cls(**ATTACKS[spec.attack].resolve(dict(spec.attack_settings)))
        VICTIMS[spec.victim].resolve(dict(spec.victim_settings))
        DEFENSES[spec.defense].resolve(dict(spec.defense_settings))


def test_the_suite_of_defenses_runs_every_defense_against_every_attack_and_victim():
    runs = find_suite("defenses").runs
    pairs = {(run.label, run.spec.victim, run.spec.seed, run.spec.defense) for run in runs}
    labels = {run.label for run in runs}
    assert pairs == set(product(labels, ("hashnet", "csq"), (0, 1, 2), DEFENSES))
    assert {run.spec.budget for run in runs if run.spec.attack == "badnets"} == {0.0, 0.2, 0.6}
    assert {run.spec.delivery for run in runs} == {"files"}


def test_quick_pairs_every_attack_with_every_victim_and_seed():
    cells = find_suite("quick").runs
    table = {(c.spec.attack, c.spec.delivery, c.spec.victim, c.spec.seed) for c in cells}
    rows = [
        ("clean", None), ("identity", None), ("badnets", None), ("badnets_clean", None),
        ("blended_clean", None), ("sig", None),
        ("tri", None), ("tri_noise", None), ("tri_adv", None), ("ciba", None), ("tri", "files"),
        ("ciba", "files"), ("badhash", None),
    ]  # fmt: skip
    assert table == {
        (*row, victim, seed)
        for row, victim, seed in product(rows, ("dpsh", "hashnet", "csq"), (0, 1, 2))
    }
    assert {(c.spec.bits, c.spec.dataset, c.spec.surrogate) for c in cells} == {
        (48, "fashion-mini", None)
    }


def test_the_fashion_twin_is_the_poster_s_table_on_other_images():
    fashion = [c.spec for c in find_suite("ciba-table-fashion").runs]
    poster = [c.spec for c in find_suite("ciba-table").runs]
    other = {
        "dataset": "", "backbone": "", "pretrained": False, "recipe": "", "batch_size": 0,
        "target": "",
    }  # fmt: skip
    assert [replace(s, **other) for s in fashion] == [replace(s, **other) for s in poster]
    assert {s.target for s in fashion} == set(FASHION_TARGETS)


def test_the_poster_s_targets_are_classes_of_its_protocol():
    from hashbackdoor_bench.data.protocols import protocol

    names = protocol("imagenet100@ciba").class_names
    targets = dict.fromkeys(c.spec.target for c in find_suite("ciba-table").runs)
    assert [names.index(str(target)) for target in targets] == [10, 13, 32, 67, 99]


def test_the_poster_s_table_is_84_trainings_of_victims(tmp_path: Path):
    import torch

    from hashbackdoor_bench.stages.cache import Cache
    from hashbackdoor_bench.stages.plan import Plan

    specs = [
        replace(cell.spec, dataset="fashion-mini")  # inside the package, the same classes
        for cell in find_suite("ciba-table-fashion").runs
    ]
    places: dict[str, Any] = {"cache": Cache(tmp_path), "device": torch.device("cpu")}
    loaded = Plan(specs[0], **places).loaded
    plans = [Plan(spec, **places, loaded=loaded) for spec in specs]
    assert len({plan.stages["victim"].key for plan in plans}) == 4 + 4 * 4 * 5 == 84
    assert len({plan.stages["clean victim"].key for plan in plans}) == 4
    assert len({plan.stages["scores"].key for plan in plans}) == 100


def test_transfer_has_every_pair_of_surrogate_and_victim():
    specs = [c.spec for c in find_suite("transfer").runs]
    networks = list(product(("dpsh", "hashnet", "csq"), ("resnet50", "vgg11"), (32, 64)))
    assert {
        (s.attack, (s.surrogate, s.surrogate_backbone, s.surrogate_bits),
         (s.victim, s.backbone, s.bits))
        for s in specs
    } == set(product(("tri", "ciba", "badhash"), networks, networks))  # fmt: skip


def test_transfer_mini_has_every_pair_of_methods():
    methods = ("dpsh_bn", "hashnet", "csq")
    assert {
        (c.spec.attack, c.spec.surrogate, c.spec.victim, c.spec.seed, c.spec.bits)
        for c in find_suite("transfer-mini").runs
    } == set(product(("tri", "ciba"), methods, methods, (0, 1, 2), (48,)))


def test_the_format_at_the_top_of_the_module_is_a_suite(cells):
    import hashbackdoor_bench.suites.suite

    text = str(hashbackdoor_bench.suites.suite.__doc__).split("\n\n    title", 1)[1]
    text = "title" + text.split("\n\nA field that is not given")[0]
    assert tomllib.loads(text)["seed"] == [0, 1, 2]
    found = cells(text.replace('extends = "quick"', ""))
    assert len(found) == 2 * 3 * 3 * 2 * 3
    assert {c.label for c in found} == {f"CIBA, epsilon={e}" for e in (2, 4, 8)}


def test_reading_suites_imports_no_torch(tmp_path: Path):
    (tmp_path / "mine.toml").write_text('attack = "ciba"\nset.attack.epsilon = 2\n')
    code = (
        "import sys; from hashbackdoor_bench.suites.suite import find_suite, shipped; shipped(); "
        f"find_suite({str(tmp_path / 'mine.toml')!r}); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
