"""Suite files that are too large, too deep or of wrong types: a sentence, within seconds."""

import time
from pathlib import Path

import pytest

from hashbackdoor_bench import UserError
from hashbackdoor_bench.suites import find_suite
from hashbackdoor_bench.suites.suite_file import LARGEST_SUITE, read_suite

SEEDS = f"seed = {list(range(1000))}\n"
BITS = f"bits = {list(range(1, 1001))}\n"


def told(folder: Path, text: str | bytes) -> str:
    path = folder / "mine.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    start = time.process_time()
    with pytest.raises(UserError) as caught:
        find_suite(str(path))
    assert time.process_time() - start < 10
    said = str(caught.value)
    assert said.startswith(str(path))
    assert len(said) < 1200
    assert said.isprintable()
    return said


def test_a_million_combinations_are_refused_before_one_is_built(tmp_path):
    said = told(tmp_path, SEEDS + BITS)
    assert f"multiply to 1000000 runs, and a suite has at most {LARGEST_SUITE}" in said
    assert "split it into several files" in said
    zips = "".join(f"[[zip]]\nset.attack.a{n} = [1, 2]\n" for n in range(9999))
    assert "more than 10^12 runs" in told(tmp_path, zips)


def test_the_count_is_that_of_the_product(tmp_path):
    text = (
        'seed = [0, 1, 2]\nvictim = ["csq", "dpsh"]\n'
        "[[zip]]\nbits = [8, 16]\nsurrogate_bits = [8, 16]\n"
        '[[attack]]\nname = "ciba"\nset.attack.epsilon = [2, 4, 8]\n[[attack]]\nname = "badnets"\n'
    )
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    assert read_suite(path).count == len(find_suite(str(path)).runs) == 3 * 2 * 2 * (3 + 1)


def test_a_suite_of_the_largest_size_is_read(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(f"seed = {list(range(LARGEST_SUITE))}\n", encoding="utf-8")
    assert len(find_suite(str(path)).runs) == LARGEST_SUITE
    assert "a suite has at most" in told(tmp_path, f"seed = {list(range(LARGEST_SUITE + 1))}\n")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("title = '" + "x" * 100_000_000 + "'", "has more than 1000 kB"),
        ("a = " + "[" * 100_000, "nested too deeply"),
        ("a = " + "[" * 50 + "]" * 50, "unknown key 'a'"),
        (".".join(["a"] * 400_000) + " = 1", "nested too deeply"),
        ('"a" . ' * 60_000 + "b = 1", "nested too deeply"),
        ("seed = nan", "seed is nan: it must be a whole number"),
        ("budget = inf", "budget is inf: it must be a number"),
        ("bits = " + "9" * 400, "it must be a whole number"),
        ("bits = " + "9" * 5000, "holds a number that is too long"),
        ("bits = 0x" + "f" * 5000, "holds a number that is too long"),
        ("set.attack.epsilon = " + "9" * 400, "is no setting"),
        ("set.attack.epsilon = nan", "nan is no setting"),
        ("seed = 2026-01-01", "it must be a whole number"),
        ("set.attack.epsilon = 2026-01-01T00:00:00Z", "is no setting"),
        ("seed = true", "seed is True: it must be a whole number"),
        ("victim = 5", "it must be a word"),
        ("victim = {a = 1}", "it must be a word"),
        ("seed = [[1, 2], 3]", "it must be a whole number"),
        ('recipe = ""', "is empty"),
        ('surrogate = " "', "surrogate: --surrogate is empty"),
        ('lists = "a\\u0000b"', "holds a null character"),
        ('target = "\\u001b[2J"\nbits = "\\u202e"', "\\u202e"),
        ("title = 5", 'write title = "…"'),
        ("seed = " + str(["x" * 9999]), "characters)"),
        (b"\xff\xfe", "UTF-8"),
        (b"a = 1\x00", "is not valid TOML"),
    ],
)
def test_a_strange_file_is_one_sentence(text, rule, tmp_path):
    assert rule in told(tmp_path, text)
