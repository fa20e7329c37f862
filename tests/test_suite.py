import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from hashbackdoor_bench import RunSpec, UserError
from hashbackdoor_bench.suites.suite import Cell, find_suite, shipped
from hashbackdoor_bench.suites.toml_lines import lines_of

FASHION_TARGETS = ["T-shirt/top", "Pullover", "Coat", "Shirt", "Bag"]


@pytest.fixture
def cells(tmp_path: Path):
    """Writes a suite's text to a file and gives its cells."""

    def found(text: str, name: str = "mine.toml") -> tuple[Cell, ...]:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return find_suite(str(tmp_path / name)).cells

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
    assert {(cell.label, cell.line, cell.suite) for cell in found} == {
        ("tri", 5, "mine"), ("ciba", 5, "mine")
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
    assert [(cell.label, cell.spec, cell.line) for cell in found] == [
        ("CIBA", first, 6),
        ("CIBA, files", files, 9),
        ("CIBA", replace(first, budget=0.4), 6),
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
        f"ciba, budget={b}, epsilon={e}" for b, e in product((0.2, 0.4), (2, 4))
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
    assert {cell.label for cell in found} == {"ciba, epsilon=1", "ciba, epsilon=2"}


def test_a_run_that_comes_up_twice_is_one_cell(cells):
    found = cells('seed = [0, 0]\nattack = ["tri", "ciba"]\ndataset = "fashion-mini"\n')
    assert [cell.spec for cell in found] == [RunSpec(attack="tri"), RunSpec()]
    rows = '[[attack]]\nname = "tri"\nlabel = "{}"\n'
    assert [(c.label, c.line) for c in cells(rows.format("A") + rows.format("B"))] == [("A", 1)]


def test_settings_of_victim_and_attack_are_kept_apart(cells):
    (cell,) = cells("set.victim.alpha = 0.2\nset.attack = {steps = 3, epsilon = 2}\n")
    assert cell.spec.victim_settings == (("alpha", 0.2),)
    assert cell.spec.attack_settings == (("epsilon", 2), ("steps", 3))


def test_paths_are_relative_to_the_file_and_a_class_may_be_a_number(cells, tmp_path: Path):
    (cell,) = cells('target = 3\nlists = "l"\nroot = "/r"\n')
    assert cell.spec == RunSpec(target="3", lists=str(tmp_path / "l"), root="/r")


def test_a_suite_without_an_attack_runs_the_default_one(cells):
    assert [cell.spec for cell in cells("")] == [RunSpec()]


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
    assert {(cell.label, cell.line, cell.suite) for cell in found} == {("Tri", 3, "mine")}
    assert find_suite(str(tmp_path / "mine.toml")).title == "Base"


def test_rows_and_zips_of_an_extended_suite_are_replaced_whole(cells, tmp_path: Path):
    (tmp_path / "base.toml").write_text(BASE)
    found = cells('extends = "base.toml"\nsurrogate = "csq"\nattack = "ciba"\nzip = []\n')
    assert [(cell.spec.attack, cell.spec.surrogate, cell.spec.bits) for cell in found] == [
        ("ciba", "csq", 16), ("ciba", "csq", 32)
    ]  # fmt: skip
    assert {cell.line for cell in found} == {3}


# ---- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ('seed = 0\nvictm = "csq"\n', 2, "'victm'.*victim"),
        ('\n[[attack]]\nname = "ciba"\nlable = "x"\n', 4, "'lable'.*label"),
        ('seed = 0\n[[zip]]\nbots = [1]\n', 3, "'bots'.*bits"),
        ('attack_settings = [["epsilon", 2]]\n', 1, "unknown key"),
        ('seed = 0\nattack = ["cibs"]\n', 2, "'cibs'.*ciba"),
        ('[[attack]]\nlabel = "x"\nname = "cibs"\n', 3, "'cibs'.*ciba"),
        ('victim = [\n  "csq",\n  "hashnat"\n]\n', 1, "'hashnat'.*hashnet"),
        ('[[zip]]\nbits = [1]\nsurrogate = ["hashnat"]\n', 3, "'hashnat'.*hashnet"),
        ('dataset = ["fashion-mini", "fashion-maxi"]\n', 1, "'fashion-maxi'.*fashion-mini"),
        ('\nrecipe = "scratch"\n', 2, "'scratch'.*scratch32"),
        ('\naugment = "crops"\n', 2, "'crops'.*crop"),
        ("seed = []\n", 1, "seed is an empty list"),
        ("seed = 0\nset.attack.epsilon = []\n", 2, "set.attack.epsilon is an empty list"),
        ("attack = []\n", 1, "attack is an empty list"),
        ("[[zip]]\nbits = []\n", 2, "bits is an empty list"),
        ("bits = 16\n[[zip]]\n", 2, "this .*zip.* is empty"),
        ("[[zip]]\nbits = [1, 2]\n# x\nseed = [1]\n", 4, "seed has 1 values and bits has 2"),
        ("bits = 16\n[[zip]]\nseed = 1\nbits = 3\n", 4, "bits is in .*line 1 too"),
        ("[[zip]]\nbits = [16]\n[[zip]]\nbits = [16]\n", 2, "bits is in .*line 4 too"),
        ('[[attack]]\nname = "tri"\nbits = 3\n[[zip]]\nbits = 4\n', 5, "bits is in .*line 3 too"),
        ("set.attack.epsilon = 1\n[zip]\nbits = 1\n", 2, r"write \[\[zip\]\]"),
        ('[attack]\nname = "tri"\n', 1, r"write \[\[attack\]\]"),
        ('attack = ["tri", {name = "ciba"}]\n', 1, r"write \[\[attack\]\]"),
        ("zip = 3\n", 1, r"write \[\[zip\]\]"),
        ('[[attack]]\nlabel = "x"\n', 1, "no name"),
        ('[[attack]]\nname = "tri"\n\n[[attack]]\nname = "tri"\n', 4, "'tri' is that of line 1"),
        ('[[attack]]\nname = ["tri", "ciba"]\n', 2, "name is"),
        ('[[attack]]\nname = "tri"\nlabel = 3\n', 3, "label is 3"),
        ("title = 3\n", 1, "title is 3"),
        ('seed = 0\nbits = "many"\n', 2, "bits is 'many'.*whole number"),
        ("bits = 48.5\n", 1, "bits is 48.5"),
        ("bits = [[16]]\n", 1, r"bits is \[16\]"),
        ("bits = true\n", 1, "bits is True"),
        ("bits = [16, 0]\n", 1, "bits is 0"),
        ("budget = nan\n", 1, "budget is nan"),
        ("victim = 3\n", 1, "victim is 3"),
        ("target = true\n", 1, "target is True"),
        ("pretrained = 3\n", 1, "pretrained is 3.*true or false"),
        ("epochs = 0\n", 1, "epochs is 0"),
        ("batch_size = 2020-01-01\n", 1, "batch_size is"),
        ("set.attack.epsilon = inf\n", 1, "set.attack.epsilon is inf"),
        ("set.attack.epsilon = nan\n", 1, "set.attack.epsilon is nan"),
        ("set.attack.epsilon.x = 3\n", 1, "set.attack.epsilon is"),
        ("seed = 0\nset = {epsilon = 8}\n", 2, "write set.attack.epsilon"),
        ("set = 3\n", 1, "set is 3"),
        ("set.attack = 3\n", 1, "attack is 3"),
        ('pretrained = true\nweights = "w"\n[[attack]]\nname = "tri"\n', 3, "exclude each other"),
        ('seed = 0\nextends = "quik"\n', 2, "'quik'.*quick"),
        ('seed = 0\nextends = "no.toml"\n', 2, "no.toml.*quick"),
        ("extends = 3\n", 1, "extends is 3"),
        ('\nextends = "mine.toml"\n', 2, "extends itself"),
        ("seed = 0\nbits 3\n", 2, "no TOML"),
        ('seed = 0\nvictim = ["csq",\n"dpsh"\nbits = 3\nseed = 1\n', 2, "no TOML"),
        ("seed = 0\n\nseed = 1\n", 3, "no TOML.*overwrite"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_that_names_the_line(cells, text: str, line: int, says: str):
    with pytest.raises(UserError, match=says) as caught:
        cells(text)
    message = str(caught.value)
    assert re.search(rf"mine\.toml, line {line}: ", message), message
    assert len(re.findall(r"mine\.toml, line \d+: ", message)) == 1
    assert "\n" not in message
    assert "(at " not in message  # another line, of where the parser gave up
    assert message[-1] in ".?"


def test_a_mistake_in_an_extended_suite_names_its_own_file(cells, tmp_path: Path):
    (tmp_path / "base.toml").write_text("seed = 0\nbots = 3\n")
    with pytest.raises(UserError, match=r"^[^:]*base\.toml, line 2: unknown key 'bots'"):
        cells('extends = "base.toml"\n')


def test_suites_that_extend_one_another_are_refused(cells, tmp_path: Path):
    (tmp_path / "base.toml").write_text('seed = 0\nextends = "mine.toml"\n')
    with pytest.raises(UserError, match=r"base\.toml, line 2: mine\.toml extends itself"):
        cells('extends = "base.toml"\n')


def test_a_zip_of_an_extended_suite_cannot_be_half_replaced(cells, tmp_path: Path):
    (tmp_path / "base.toml").write_text(BASE)
    with pytest.raises(UserError, match=r"base\.toml, line 10: surrogate is .*mine\.toml, line 2"):
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


# ---- lines --------------------------------------------------------------------------------------


def test_every_kind_of_key_stands_on_the_line_where_its_statement_begins():
    text = '''# comment
"a b" = """
x = 1
""" # y = 2
c.d.e = 1
list = [
  1, # [[no]]
  {f = 2},
]

[t]
g = {h = 1, i.j = "[k]"}
[[t.rows]]
name = 1
[t.rows.deep]
m = 1
[[t.rows]]

name = 2
[last]
'''
    lines, end = lines_of(text)
    assert lines == {
        ("a b",): 2, ("c",): 5, ("c", "d"): 5, ("c", "d", "e"): 5,
        ("list",): 6, ("list", 0): 6, ("list", 1): 6, ("list", 1, "f"): 6,
        ("t",): 11, ("t", "g"): 12, ("t", "g", "h"): 12, ("t", "g", "i"): 12,
        ("t", "g", "i", "j"): 12, ("t", "rows"): 13, ("t", "rows", 0): 13,
        ("t", "rows", 0, "name"): 14, ("t", "rows", 0, "deep"): 15,
        ("t", "rows", 0, "deep", "m"): 16, ("t", "rows", 1): 17, ("t", "rows", 1, "name"): 19,
        ("last",): 20,
    }  # fmt: skip
    assert end == 22


def test_a_statement_that_never_ends_is_found_at_its_first_line():
    assert lines_of("a = 1\nb = [\n1,\nc = 2\n")[1] == 2


# ---- the shipped suites -------------------------------------------------------------------------


def test_listing_the_suites_gives_their_titles():
    assert list(shipped()) == [
        "badhash", "ciba-table", "ciba-table-fashion", "quick", "sensitivity", "transfer",
        "transfer-mini",
    ]  # fmt: skip
    assert all(title and "\n" not in title for title in shipped().values())


SIZES = {
    "quick": 11 * 3 * 3,
    "ciba-table": 4 * 5 * 5,
    "ciba-table-fashion": 4 * 5 * 5,
    "badhash": 6 * 2 * 3,
    "transfer": 3 * 12 * 12,
    "transfer-mini": 2 * 3 * 3 * 3,
    "sensitivity": (6 + 6 + 5 + 5 + 4) * 3,
}


@pytest.mark.parametrize("name", list(shipped()))
def test_a_shipped_suite_has_as_many_runs_as_its_table(name: str):
    suite = find_suite(name)
    assert len(suite.cells) == SIZES[name]
    assert (suite.name, suite.title) == (name, shipped()[name])
    said = re.search(r"(?:^|\s)(\d+)\s+runs", suite.path.read_text().replace("\n#", ""))
    assert name == "ciba-table-fashion" or int(said[1]) == SIZES[name]


@pytest.mark.parametrize("name", list(shipped()))
def test_all_hyper_parameters_of_a_shipped_suite_exist(name: str):
    from hashbackdoor_bench import ATTACKS, VICTIMS

    for spec in {replace(cell.spec, seed=0, bits=1) for cell in find_suite(name).cells}:
        ATTACKS[spec.attack].cls(**ATTACKS[spec.attack].resolve(dict(spec.attack_settings)))
        VICTIMS[spec.victim].resolve(dict(spec.victim_settings))


def test_quick_pairs_every_attack_with_every_victim_and_seed():
    cells = find_suite("quick").cells
    table = {(c.spec.attack, c.spec.delivery, c.spec.victim, c.spec.seed) for c in cells}
    rows = [
        ("clean", None), ("identity", None), ("badnets", None), ("badnets_clean", None),
        ("tri", None), ("tri_noise", None), ("tri_adv", None), ("ciba", None), ("tri", "files"),
        ("ciba", "files"), ("badhash", None),
    ]  # fmt: skip
    assert table == {
        (*row, victim, seed)
        for row, victim, seed in product(rows, ("dpsh_bn", "hashnet", "csq"), (0, 1, 2))
    }
    assert {(c.spec.bits, c.spec.dataset, c.spec.surrogate) for c in cells} == {
        (48, "fashion-mini", None)
    }


def test_the_fashion_twin_is_the_poster_s_table_on_other_images():
    fashion = [c.spec for c in find_suite("ciba-table-fashion").cells]
    poster = [c.spec for c in find_suite("ciba-table").cells]
    other = {
        "dataset": "", "backbone": "", "pretrained": False, "recipe": "", "batch_size": 0,
        "target": "",
    }  # fmt: skip
    assert [replace(s, **other) for s in fashion] == [replace(s, **other) for s in poster]
    assert {s.target for s in fashion} == set(FASHION_TARGETS)


def test_the_poster_s_targets_are_classes_of_its_protocol():
    from hashbackdoor_bench.data.protocols import protocol

    names = protocol("imagenet100@ciba").class_names
    targets = dict.fromkeys(c.spec.target for c in find_suite("ciba-table").cells)
    assert [names.index(str(target)) for target in targets] == [10, 13, 32, 67, 99]


def test_the_poster_s_table_is_84_trainings_of_victims(tmp_path: Path):
    import torch

    from hashbackdoor_bench.stages.cache import Cache
    from hashbackdoor_bench.stages.plan import Plan

    plans = [
        Plan(
            replace(cell.spec, dataset="fashion-mini"),  # inside the package, the same classes
            cache=Cache(tmp_path),
            device=torch.device("cpu"),
        )
        for cell in find_suite("ciba-table-fashion").cells
    ]
    assert len({plan.stages["victim"].key for plan in plans}) == 4 + 4 * 4 * 5 == 84
    assert len({plan.stages["clean victim"].key for plan in plans}) == 4
    assert len({plan.stages["scores"].key for plan in plans}) == 100


def test_transfer_has_every_pair_of_surrogate_and_victim():
    specs = [c.spec for c in find_suite("transfer").cells]
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
        for c in find_suite("transfer-mini").cells
    } == set(product(("tri", "ciba"), methods, methods, (0, 1, 2), (48,)))


def test_the_format_at_the_top_of_the_module_is_a_suite(cells):
    import hashbackdoor_bench.suites.suite

    text = str(hashbackdoor_bench.suites.suite.__doc__).split("\n\n    title", 1)[1]
    text = "title" + text.split("\n\nWhat is not given")[0]
    assert tomllib.loads(text)["seed"] == [0, 1, 2]
    found = cells(text.replace('extends = "quick"', ""))
    assert len(found) == 2 * 3 * 3 * 2
    assert {c.label for c in found} == {f"CIBA, epsilon={e}" for e in (2, 4, 8)}


def test_reading_suites_imports_no_torch(tmp_path: Path):
    (tmp_path / "mine.toml").write_text('attack = "ciba"\nset.attack.epsilon = 2\n')
    code = (
        "import sys; from hashbackdoor_bench.suites.suite import find_suite, shipped; shipped(); "
        f"find_suite({str(tmp_path / 'mine.toml')!r}); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
