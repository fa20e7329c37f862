"""What attacks refuse before anything is trained, in one sentence."""

import pytest

from hashbackdoor_bench import UserError, check
from hashbackdoor_bench.cli import main

NONE = "has none of the target's label alone: give another --target."


@pytest.mark.parametrize(
    ("attack", "words", "says"),
    [
        ("ciba", ["--set", "attack.epsilon=2.5"], "must be a whole number between 0 and 255"),
        ("htba", ["--set", "attack.epsilon=.5"], "must be a whole number between 0 and 255"),
        ("gradient-matching", ["--set", "attack.epsilon=7.5"], "must be a whole number between"),
        ("wanet", ["--set", "attack.control=33"], "attack.control is 33: it must be between 2 and"),
        ("wanet", ["--set", "attack.strength=1e300"], "it must be between 0 and 32"),
        ("ftrojan", ["--set", "attack.magnitude=1e300"], "it must be between 0 and 10000"),
        ("narcissus", ["--set", "attack.amplify=1e300"], "it must be between 0 and 255"),
        ("htba", ["--set", "attack.patch=33"], "attack.patch is 33: it must be between 1 and 32"),
        (
            "darkhash",
            ["--set", "attack.patch=31"],
            "attack.patch is 31: it must be between 1 and 30",
        ),
        ("badnets", ["--set", "attack.patch=0"], "attack.patch is 0: it must be between 1 and 32"),
        ("ciba", ["--set", "attack.patch=33"], "attack.patch is 33: it must be between 1 and 32"),
        ("tri", ["--target", "Bag + Coat", "--budget", "0"], "no training image has the target's"),
        ("narcissus", ["--target", "Bag + Coat", "--poison-count", "0"], "no training image has"),
        ("htba", ["--target", "Bag + Coat", "--poison-count", "20"], NONE),
        (
            "darkhash",
            ["--target", "Bag + Coat"],
            "the query split has none: give another --target.",
        ),
    ],
)
def test_a_setting_that_cannot_be_crafted_is_refused_before_anything_is_trained(
    attack: str, words: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path
):
    places = ["--cache-dir", str(tmp_path), "--results-dir", str(tmp_path)]
    run = ["run", "--attack", attack, "--victim", "csq", "--dry-run", *places, *words]
    assert main(run) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1


def test_a_whole_number_is_no_fraction():
    check("x", 3.0, 0, 5, whole=True)
    with pytest.raises(UserError, match=r"x is 2\.5: it must be a whole number at least 0"):
        check("x", 2.5, 0, whole=True)
