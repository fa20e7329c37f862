"""``bench compare``: a stranger's attack among those of a suite."""

import csv
import json
import shutil
from dataclasses import replace
from html import escape
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

import hashbackdoor_bench as hb
from hashbackdoor_bench.cli import main
from hashbackdoor_bench.cli.looking import count_of, in_groups, verdict_on
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.report.board.boards import Board, boards
from hashbackdoor_bench.report.board.contest import Contest, contest
from hashbackdoor_bench.report.board.entries import Entry, ScoredRun, Victim
from hashbackdoor_bench.report.board.standing import power_text, standing, standing_text
from hashbackdoor_bench.report.collection import collect
from hashbackdoor_bench.report.statistics import Estimate
from hashbackdoor_bench.stages.cache import Cache
from hashbackdoor_bench.stages.pipeline import run
from hashbackdoor_bench.suites.index import write_index
from hashbackdoor_bench.suites.layout import lay_out
from hashbackdoor_bench.suites.suite import find_suite, suite_with
from hashbackdoor_bench.templates import write_skeleton

A, B, WEAK = Victim("csq", 12, 0.9), Victim("hashnet", 12, 0.8), Victim("dpsh", 12, 0.2)
Gains = dict[Victim, list[float | None]]


def entry(
    label: str, gains: Gains, place: Any = (1, 2), why: str = "", trigger: str = "patch"
) -> Entry:
    threat = SimpleNamespace(trigger=trigger)
    record: Any = SimpleNamespace(
        device="cpu", threat=threat, key="k", seconds={"victim": 60.0}, artifacts={}
    )
    draws = {
        victim.key: {("coat", seed): gain for seed, gain in enumerate(values) if gain is not None}
        for victim, values in gains.items()
    }
    runs = [ScoredRun("p", victim, "coat", 0, record) for victim in gains]
    estimate = Estimate(0.4, 0.3, 0.5, 0.01, 6)
    return Entry(
        label, label, place, why, draws, estimate, (), 0.0, 0.6, 0.6, tuple(runs), not why, why
    )


def board(*entries: Entry) -> Board:
    protocol: Any = SimpleNamespace(name="mini", top_k=20, sha256="f" * 64, classes=10)
    return Board(
        "s", "files", protocol, ("coat",), (0, 1, 2), (A, WEAK, B), entries, "from scratch", "clean"
    )


def lead(one: Entry, other: Entry) -> Estimate | None:
    ((_, found),) = standing(board(other, one), one.label).leads
    return found


MINE = entry("mine", {A: [0.5, 0.6, 0.55], B: [0.3, 0.35, 0.2], WEAK: [0.0, 0.9, 0.0]})
OTHER = entry("other", {A: [0.4, 0.3, 0.5], B: [0.3, 0.30, 0.1], WEAK: [0.9, 0.0, 0.9]})


def test_a_difference_is_paired_by_victim_target_and_seed():
    gap = lead(MINE, OTHER)
    assert gap is not None
    a, b = np.array([0.1, 0.3, 0.05]), np.array([0.0, 0.05, 0.1])
    assert gap.mean == pytest.approx((a.mean() + b.mean()) / 2)
    assert gap.n == 6
    oracle = stats.ttest_1samp((a + b) / 2, 0).confidence_interval(0.95)
    assert (gap.low, gap.high) == (pytest.approx(oracle.low), pytest.approx(oracle.high))
    back = lead(OTHER, MINE)
    assert back is not None
    assert back.mean == pytest.approx(-gap.mean)


def test_only_cells_of_both_attacks_are_compared():
    part = entry("part", {A: [0.4, None, 0.5]})
    gap = lead(MINE, part)
    assert gap is not None
    assert (gap.mean, gap.n) == (pytest.approx((0.1 + 0.05) / 2), 2)
    assert lead(MINE, entry("none", {WEAK: [0.1, 0.1, 0.1]})) is None
    assert lead(MINE, entry("nothing", {A: [None]})) is None


def test_gains_of_each_victim_have_students_interval():
    found = standing(board(OTHER, MINE), "mine")
    values = np.array([0.5, 0.6, 0.55])
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    gain = found.gains[0]
    assert gain is not None
    assert (gain.low, gain.high) == (pytest.approx(low), pytest.approx(high))


def test_an_attack_is_not_compared_with_controls_or_itself():
    control = entry("clean", {A: [0.0, 0.0, 0.0]}, None, "a control: it has no trigger", "none")
    found = standing(board(OTHER, MINE, control), "mine")
    assert [other.label for other, _ in found.leads] == ["other"]


def test_the_text_says_place_intervals_and_who_is_how_far():
    text = standing_text(standing(board(MINE, OTHER), "mine"))
    assert "place 1-2 of 2" in text
    assert "on DPSH (doesn't count)" in text
    assert "MAP without poison 20.0" in text
    (line,) = [line for line in text.splitlines() if line.startswith("other (place 1-2)")]
    gap = lead(MINE, OTHER)
    assert gap is not None
    assert gap.low is not None
    assert line.split()[3:6] == ["10.0", f"{100 * gap.low:.1f}", "to"]
    (mean,) = [line for line in text.splitlines() if line.startswith("over the victims")]
    assert mean.split()[-5:] == ["40.0", "30.0", "to", "50.0", "6"]


def test_the_text_says_what_the_runs_can_tell_and_what_five_points_need():
    found = standing(board(MINE, OTHER), "mine")
    assert found.power is not None
    assert found.seconds == 30  # two runs share a stage of a minute
    assert found.power.runs_for(0.05) == 32
    (line,) = [one for one in standing_text(found).splitlines() if "can tell" in one]
    assert line == (
        f"These 6 runs can tell {100 * found.power.tells:.1f} points from another attack (in 80 % "
        "of cases, tested at 5 % over 1 pair, estimated from 3 seeds); 5 points need 32 runs, "
        "about 16 minutes one after another, as measured in the records."
    )
    (line,) = [one for one in standing_text(found, 0.9).splitlines() if "can tell" in one]
    assert line.endswith("over 1 pair, estimated from 3 seeds).")


def test_the_text_says_why_it_is_not_known_what_the_runs_can_tell():
    def said(*entries: Entry, **changes: Any) -> str:
        found = replace(board(*entries), **changes)
        return power_text(standing(found, "mine"))

    few = [entry(name, {A: [0.5, 0.6], B: [0.3, 0.1]}) for name in ("mine", "few")]
    assert said(*few).endswith(
        "an interval from 3 targets on, or from 3 seeds that all targets share."
    )
    above = entry("above", {A: [0.6, 0.7, 0.65], B: [0.4, 0.45, 0.3], WEAK: [0.0, 0.0, 0.0]})
    assert said(MINE, above).endswith("is the same in all of them, so it has no spread.")
    assert said(MINE) == ""  # the lines before it say that there is no other attack
    wide = entry("wide", {A: [-0.9, 1.0, 0.0], B: [-1.0, 0.9, -1.0], WEAK: [0.0, 0.0, 0.0]})
    assert said(MINE, wide).startswith("These 6 runs can't tell 100 points from another attack")
    spread = [_of_targets(one) for one in (MINE, OTHER)]
    single, several = ("coat", "bag"), ("coat + bag", "bag + shirt")
    assert "and this data has 10" in said(*spread, targets=single)
    assert "and this data has 10" not in said(*spread, targets=several)
    assert "and this data has 10" not in said(MINE, OTHER)


def _of_targets(one: Entry) -> Entry:
    """The same gains, each seed's on a target of its own."""
    draws = {
        column: {(f"class{seed}", seed): gain for (_, seed), gain in some.items()}
        for column, some in one.draws.items()
    }
    return replace(one, draws=draws)


def test_a_contest_is_decided_by_a_difference_or_by_nearness():
    same = entry("same", {A: [0.5, 0.6, 0.55], B: [0.3, 0.35, 0.2]})
    low = entry("low", {A: [0.1, 0.2, 0.15], B: [0.0, 0.05, -0.1]})
    control = entry("clean", {A: [0.0, 0.0, 0.0]}, None, "a control: it has no trigger", "none")
    found = contest(board(MINE, same, low, OTHER, control), "mine", [3], 0, 0.05, "seed")
    assert found.rivals == {"same": "near", "low": "above", "other": ""}
    assert (found.place, found.open) == ((1, 3), ["other"])
    assert found.text() == ("place 1-3 of 4; too near to tell from same; open against other")
    earlier = contest(board(MINE, low), "mine", [3, 4], 0, 0.05, "seed")
    assert earlier.rivals == {"low": "above"}  # the same lead in each seed


def test_an_attack_without_a_place_says_why():
    out = entry("mine", {A: [0.5]}, None, "2 of 6 runs missing")
    text = standing_text(standing(board(OTHER, out), "mine"))
    assert "no place: 2 of 6 runs missing" in text
    assert "on HashNet" in text
    assert "not run" in text
    assert "no interval" in text


# ---- from a stranger's folder -------------------------------------------------------------------

pytestmark = pytest.mark.usefixtures("warm_workers")

SUITE = """
dataset = "lists"
lists = "{tiny}"
root = "{tiny}"
size = 16
top_k = 20
bits = 12
epochs = 1
batch_size = 16
seed = [0, 1]
victim = ["csq"]
[[attack]]
name = "badnets_clean"
label = "BadNets"
"""


@pytest.fixture(scope="module")
def stranger(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a suite, its records in results/small, and an attack of their own."""
    folder = tmp_path_factory.mktemp("stranger")
    (folder / "small.toml").write_text(SUITE.format(tiny=tiny))
    write_skeleton("attack", "foreign_blend", folder)
    suite, cache = find_suite(str(folder / "small.toml")), Cache(folder / "cache")
    results = folder / "results" / "small"
    for cell in suite.runs:
        run(cell.spec, cache=cache, results=results, device="cpu")
    cpu = torch.device("cpu")
    write_index(lay_out(suite.runs, cache=cache, results=results, device=cpu), results)
    return folder


def compare(folder: Path, *more: str, plugin: bool = False) -> int:
    where = ["--cache-dir", "cache", "--suite", "small.toml", "-q", "--jobs", "1"]
    own = ["--plugin", "foreign_blend.py"] if plugin else []
    return main(["compare", *more, *where, *own])


def test_a_foreign_attack_is_run_on_the_suite_and_ranked(stranger, capsys, monkeypatch):
    monkeypatch.chdir(stranger)
    logs = ["--log-dir", "logs"] if find_spec("tensorboard") else []
    assert compare(stranger, "foreign-blend", *logs, plugin=True) == 0
    out = capsys.readouterr().out
    trained = sorted(path.parent.name for path in Path("logs").rglob("events.*"))
    assert trained == ["train_poisoned_victim"] * len(logs)  # of both seeds
    assert out.startswith("Foreign blend: ")
    assert "delivery files" in out
    assert "BadNets (place " in out or "no place" in out
    folder = Path("runs/small-foreign_blend")
    rows = list(csv.DictReader((folder / "index.csv").open()))
    assert [(r["suite"], r["label"], r["seed"]) for r in rows] == [
        ("small", "Foreign blend", "0"), ("small", "Foreign blend", "1")
    ]  # fmt: skip
    files = sorted(folder.rglob("*.json"))
    stamps = [path.stat().st_mtime_ns for path in files]
    assert len(files) == 2
    # the board of bench leaderboard over both folders has it too
    (found,) = boards(
        collect([Path("results"), Path("runs")]).frame.query("delivery == 'files'"), ["small"]
    )
    assert {one.label for one in found.entries} == {"BadNets", "Foreign blend"}
    # again: nothing is run, the same is said
    assert compare(stranger, "foreign_blend") == 0
    assert capsys.readouterr().out == out
    assert [path.stat().st_mtime_ns for path in sorted(folder.rglob("*.json"))] == stamps


def test_an_attack_of_the_suite_is_not_run_again(stranger, capsys, monkeypatch):
    monkeypatch.chdir(stranger)
    before = set(Path("cache").rglob("facts.json"))
    assert compare(stranger, "badnets-clean") == 0
    assert capsys.readouterr().out.startswith("BadNets: ")
    assert set(Path("cache").rglob("facts.json")) == before
    assert not list(Path("runs/small-badnets_clean").rglob("*.json"))


def test_runs_with_a_defense_are_no_part_of_a_comparison(stranger, tiny, capsys, monkeypatch):
    monkeypatch.chdir(stranger)
    text = SUITE.format(tiny=tiny)
    (stranger / "both").mkdir()
    suite = stranger / "both" / "small.toml"
    command = ["compare", "badnets-clean", "--cache-dir", "cache", "-q", "--jobs", "1",
               "--suite", str(suite)]  # fmt: skip
    suite.write_text('defense = ["none", "jpeg"]\n' + text)
    assert main(command) == 0
    said = capsys.readouterr()
    assert said.out.startswith("BadNets: ")
    assert "note: 2 runs with a defense left out: attacks are compared without." in said.err
    suite.write_text('defense = "jpeg"\n' + text)
    assert main(command) == 2
    assert "all runs of suite small have a defense" in capsys.readouterr().err
    assert main([*command, "--set", "defense.quality=50"]) == 2
    assert "attacks are compared without defenses" in capsys.readouterr().err


def test_a_comparison_from_python_is_that_of_the_command(stranger, capsys, monkeypatch):
    monkeypatch.chdir(stranger)
    again = {"suite": Path("small.toml"), "cache_dir": "cache", "jobs": 1, "quiet": True}
    found = hb.compare("foreign-blend", plugin="foreign_blend.py", **again)
    assert compare(stranger, "foreign_blend") == 0
    assert capsys.readouterr().out == f"{found}\n\nrecords  runs/small-foreign_blend\n"
    assert escape(str(found)) in found._repr_html_()
    mine = hb.read_records("runs/small-foreign_blend")["field.backdoor_gain"]
    theirs = hb.read_records("results/small")
    theirs = theirs[theirs["delivery"] == "files"].set_index("seed")["field.backdoor_gain"]
    row = found.gains.loc["csq"]
    assert (row["bits"], row["n"], row["counts"]) == (12, 2, True)
    assert row["mean"] == found.gain["mean"] == pytest.approx(mine.mean())
    assert row["high"] is None  # two seeds have no interval
    gap = (mine - theirs.loc[[0, 1]].to_numpy()).to_numpy()
    difference = found.differences.loc["BadNets"]
    assert difference["mean"] == pytest.approx(gap.mean())
    assert difference["low"] is None
    assert (difference["best"], difference["worst"]) == (1, 2)
    assert (found.label, found.place, found.why) == ("Foreign blend", (1, 2), "")
    assert (found.records, found.failures) == (Path("runs/small-foreign_blend"), ())


def test_an_attack_that_fails_warns_of_each_run_and_then_says_that_there_is_none(
    stranger, tmp_path, monkeypatch
):
    monkeypatch.chdir(stranger)
    write_skeleton("attack", "broken_blend", tmp_path)
    path = tmp_path / "broken_blend.py"
    head, craft, _ = path.read_text(encoding="utf-8").partition("    def craft(")
    path.write_text(f"{head}{craft}self, view):\n        raise RuntimeError('no backdoor today')\n")
    with (
        pytest.warns(UserWarning, match="failed") as told,
        pytest.raises(UserError, match="no backdoor today"),
    ):
        hb.compare(
            "broken_blend", plugin=[path], suite="small.toml", cache_dir="cache", jobs=1,
            results_dir=tmp_path / "r", quiet=True,
        )  # fmt: skip
    sentences = [str(one.message) for one in told if "failed" in str(one.message)]
    assert len(sentences) == 2
    assert "on csq, 12 bits, seed 1 failed: craft" in sentences[1]


def test_a_plugin_is_loaded_once_and_one_that_has_changed_is_refused(stranger, tmp_path):
    path = tmp_path / "foreign_blend.py"
    path.write_text((stranger / "foreign_blend.py").read_text(encoding="utf-8"), encoding="utf-8")
    for _ in range(2):
        with pytest.raises(UserError, match="unknown suite 'no'"):
            hb.compare("foreign_blend", plugin=path, suite="no")
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    with pytest.raises(UserError, match="it has changed since it was loaded; restart Python"):
        hb.compare("foreign_blend", plugin=path, suite="no")
    with pytest.raises(UserError, match="foreign_blend' exists; rename it"):
        hb.compare("foreign_blend", plugin=stranger / "foreign_blend.py", suite="no")


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"attack": 3}, "attack is 3: it must be a word"),
        ({"attack": "blend"}, "unknown attack 'blend': did you mean"),
        ({"suite": "quik"}, "unknown suite 'quik': did you mean quick"),
        ({"suite": 3}, "suite is 3: it must be a path"),
        ({"attack_settings": 3}, r"attack_settings is 3: give a dict"),
        ({"against": "nowhere"}, "nowhere"),
        ({"against": [3]}, r"against is 3: it must be a path"),
        ({"plugin": "no.py"}, "no.py: give the path of a Python file that exists"),
        ({"jobs": 0}, "jobs is 0: it must be at least 1"),
        ({"threads": 1.5}, "threads is 1.5: it must be a whole number"),
        ({"until": 0}, "until is 0: it must be more than 0"),
        ({"until": float("nan")}, "until is nan"),
        ({"minutes": 5}, "limits --until: give --until 5 too"),
    ],
)
def test_a_wrong_argument_of_a_comparison_is_one_sentence(given, match, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=match) as raised:
        hb.compare(**{"attack": "badnets", **given}, cache_dir=tmp_path / "cache")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "runs").exists()


def test_rivals_of_a_suite_of_another_name_are_compared_with(
    stranger, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(stranger)
    text = (stranger / "small.toml").read_text(encoding="utf-8")
    (tmp_path / "other.toml").write_text(text.replace("small", "other"), encoding="utf-8")
    where = ["--suite", str(tmp_path / "other.toml"), "--against", "results/small"]
    more = ["--cache-dir", "cache", "-q", "--jobs", "1", "--results-dir", str(tmp_path / "r")]
    assert main(["compare", "foreign_blend", "--plugin", "foreign_blend.py", *where, *more]) == 0
    out, err = capsys.readouterr()
    assert "place 1-2 of 2" in out
    assert "BadNets (place 1-2)" in out
    assert "left out" not in err


def test_until_is_refused_where_no_look_can_decide(stranger, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(stranger)
    where = ["--results-dir", str(tmp_path / "r")]
    assert compare(stranger, "foreign_blend", "--until", "99", *where, plugin=True) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "bench: --until can decide nothing: suite small has 1 target and 2 seeds, and two attacks "
        "are told apart over 3 targets or more, or as many seeds that all targets share. Leave "
        "--until out, or give a --suite with more."
    )
    assert not (tmp_path / "r").exists()
    assert compare(stranger, "foreign_blend", "--minutes", "5") == 2
    assert "--minutes 5 limits --until" in capsys.readouterr().err


@pytest.fixture(scope="module")
def three_seeds(stranger: Path) -> list[str]:
    """The end of a command that compares an attack in three seeds with the stranger's records."""
    (stranger / "three").mkdir()
    path, text = stranger / "three" / "small.toml", (stranger / "small.toml").read_text("utf-8")
    path.write_text(text.replace("[0, 1]", "[0, 1, 2]"), "utf-8")
    return ["--plugin", "foreign_blend.py", "--suite", str(path), "--cache-dir", "cache", "-q",
            "--jobs", "1", "--results-dir", "three/r"]  # fmt: skip


def test_until_stops_as_soon_as_the_place_is_decided(stranger, three_seeds, capsys, monkeypatch):
    monkeypatch.chdir(stranger)
    suite, cache = find_suite(three_seeds[3]), Cache(stranger / "cache")
    rivals = stranger / "three" / "rivals"
    for cell in suite.runs:
        run(cell.spec, cache=cache, results=rivals, device="cpu")
    write_index(
        lay_out(suite.runs, cache=cache, results=rivals, device=torch.device("cpu")), rivals
    )
    command = ["compare", "foreign_blend", "--against", str(rivals), *three_seeds]
    assert main([*command, "--until", "99"]) == 0
    out = capsys.readouterr().out
    assert "ecided after 3 of 3 runs" in out


def test_where_no_other_attack_has_a_place_nothing_is_decided(
    stranger, three_seeds, capsys, monkeypatch
):
    monkeypatch.chdir(stranger)
    command = ["compare", "foreign_blend", "--against", "results/small", *three_seeds]
    assert main([*command, "--until", "5"]) == 0
    out = capsys.readouterr().out
    assert "Decided" not in out
    assert (
        "Nothing can be decided after 3 of 3 runs: no other attack has a place there: run those of "
        "the suite with `bench suite run small`, or give their records with --against."
    ) in out


def test_the_result_is_one_object_with_quiet_and_json(stranger, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(stranger)
    assert compare(stranger, "foreign_blend", "--json", plugin=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["event"], found["attack"], found["label"]) == (
        "result", "foreign_blend", "Foreign blend"
    )  # fmt: skip
    assert (found["place"], found["placed"], found["suite"]) == ([1, 2], 2, "small")
    assert found["gain"]["n"] == 2
    assert found["gain"]["low"] is None
    (victim,) = found["victims"]
    assert (victim["victim"], victim["bits"], victim["n"]) == ("csq", 12, 2)
    (rival,) = found["rivals"]
    assert (rival["attack"], rival["best"], rival["worst"], rival["n"]) == ("BadNets", 1, 2, 2)
    assert "an interval from 3 targets on" in found["power"]
    assert (found["records"], len(found["files"])) == ("runs/small-foreign_blend", 2)
    assert all(Path(path).is_file() for path in found["files"])
    assert (found["verdict"], found["failures"]) == ("", [])


def test_what_failed_stands_in_the_object_and_a_refusal_leaves_no_folder(
    stranger, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(stranger)
    write_skeleton("attack", "failing_blend", tmp_path)
    path = tmp_path / "failing_blend.py"
    head, craft, tail = path.read_text(encoding="utf-8").partition("    def craft(")
    signature, _, rest = tail.partition('"""')
    fault = '        if view.seed == 1:\n            raise RuntimeError("no luck")\n'
    doc, _, body = rest.partition('"""\n')
    path.write_text(f'{head}{craft}{signature}"""{doc}"""\n{fault}{body}', encoding="utf-8")
    made = tmp_path / "deep" / "r"
    more = ["--plugin", str(path), "--results-dir", str(made)]
    assert compare(stranger, "failing_blend", "--json", *more) == 1
    found = json.loads(capsys.readouterr().out)
    (failure,) = found["failures"]
    assert "no luck" in failure["message"]
    assert found["place"] is None
    assert found["why"] == "1 of 2 runs missing"
    everything = tmp_path / "failing_more.py"
    everything.write_text(path.read_text("utf-8").replace("if view.seed == 1:", "if True:"))
    gone = tmp_path / "gone" / "r"
    more = ["--plugin", str(everything), "--results-dir", str(gone)]
    assert compare(stranger, "failing_more", "--json", *more) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "no run of failing_more on the victims of small worked" in err
    assert not gone.parent.exists()


def test_a_comparison_into_a_suite_s_folder_keeps_the_labels_of_the_suite(
    stranger, tmp_path, monkeypatch
):
    monkeypatch.chdir(stranger)
    folder = tmp_path / "small"
    shutil.copytree("results/small", folder)
    before = set((folder / "index.csv").read_text().splitlines())
    where = ["--results-dir", str(folder)]
    assert compare(stranger, "foreign_blend", *where, plugin=True) == 0
    after = set((folder / "index.csv").read_text().splitlines())
    assert before < after
    assert all("Foreign blend" in line for line in after - before)


def test_a_comparison_that_is_refused_or_runs_nothing_leaves_no_folder(
    stranger, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(stranger)
    made = tmp_path / "deep" / "r"
    where = ["--results-dir", str(made)]
    assert compare(stranger, "badnets_clean", "--set", "attack.patch=99", *where) in (1, 2)
    assert compare(stranger, "badnets_clean", "--device", "tpu", *where) == 2
    assert compare(stranger, "badnets_clean", *where) == 0
    assert not made.parent.exists()


def test_a_suite_is_looked_at_target_by_target_and_one_target_seed_by_seed(tmp_path):
    text = 'dataset = "fashion-mini"\nvictim = ["csq", "dpsh"]\nseed = [0, 1]\ntarget = [TARGETS]\n'
    path = tmp_path / "s.toml"
    path.write_text(text.replace("TARGETS", '"Coat", "Bag", "Shirt", "Dress"'))
    parts = in_groups(find_suite(str(path)))
    assert [count_of(part, "target") for part in parts] == [3, 4]
    assert [len(part.runs) for part in parts] == [12, 16]
    path.write_text(text.replace("TARGETS", '"Coat"'))
    assert [count_of(part, "seed") for part in in_groups(find_suite(str(path)))] == [2]


def test_a_verdict_says_why_to_stop():
    suite = find_suite("standard")
    parts = [replace(suite, runs=suite.runs[:n]) for n in (10, 20)]
    still, done = Contest({"a": "", "b": "below"}), Contest({"a": "above", "b": "below"})
    verdicts = [
        verdict_on(found, parts, look, spent, minutes)
        for found, look, spent, minutes in (
            (done, 0, 1.0, None), (still, 0, 1.0, None), (still, 0, 3.0, 6.0), (still, 0, 3.1, 6.0),
            (still, 1, 1.0, None),
        )
    ]  # fmt: skip
    assert verdicts[0] == "Decided after 10 of 20 runs: place 2 of 3."
    assert verdicts[1:3] == ["", ""]
    assert "Not decided after 10 of 20 runs: place 2-3 of 3; open against a." in verdicts[3]
    assert "about 3.1 minutes, and 3.1 of 6 are spent" in verdicts[3]
    assert "all of the suite" in verdicts[4]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("epochs = 1", "epochs of csq is '1', and in the suite '2'"),
        ("bits = 12", "the suite has no victim csq of 12 bits"),
        ("top_k = 20", "their R is 20, and here it is 21"),
        ("seed = [0, 1]", "the suite has no run of target '0' and seed 0"),
    ],
)
def test_a_rival_that_is_left_out_is_named_with_the_reason(
    stranger, tmp_path, capsys, monkeypatch, line, reason
):
    monkeypatch.chdir(stranger)
    changed = {"seed = [0, 1]": "seed = [2]", "epochs = 1": "epochs = 2", "bits = 12": "bits = 13"}
    text = (stranger / "small.toml").read_text(encoding="utf-8")
    text = text.replace(line, changed.get(line, "top_k = 21"))
    (tmp_path / "other.toml").write_text(text, encoding="utf-8")
    where = ["--suite", str(tmp_path / "other.toml"), "--against", "results/small"]
    more = ["--cache-dir", "cache", "-q", "--jobs", "1", "--results-dir", str(tmp_path / "r")]
    assert main(["compare", "foreign_blend", "--plugin", "foreign_blend.py", *where, *more]) == 0
    out, err = capsys.readouterr()
    assert reason in err
    assert "of BadNets left out of the comparison" in err
    assert "there is no other attack with a place" in out or "no place" in out


def test_mistakes_are_told_before_anything_is_run(stranger, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(stranger)
    assert compare(stranger, "blend") == 2
    assert compare(stranger, "badnets", "--set", "victim.x=1") == 2
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "badnets", "--suite", "quick", "--cache-dir", "c"]) == 2
    err = capsys.readouterr().err
    for words in ("unknown attack 'blend'", "the suite sets its victims", "bench suite run quick"):
        assert words in err
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("name", ["--until", "--minutes"])
@pytest.mark.parametrize("value", ["nan", "NaN", "-nan", "0", "-1", "x"])
def test_a_goal_or_a_time_that_is_no_positive_number_is_refused(name, value, capsys):
    assert main(["compare", "ciba", f"{name}={value}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"Invalid value for '{name}'" in line


def test_a_suite_keeps_all_but_its_rows(tmp_path: Path):
    suite = find_suite("quick")
    mine = suite_with("quick", "badnets", {"patch": "5"})
    assert {c.label for c in mine.runs} == {"BadNets, patch=5"}
    assert len(mine.runs) == 9
    spec = mine.runs[0].spec
    assert (spec.attack, dict(spec.attack_settings), spec.delivery) == (
        "badnets",
        {"patch": "5"},
        None,
    )
    assert {(c.spec.victim, c.spec.seed, c.spec.bits) for c in mine.runs} == {
        (c.spec.victim, c.spec.seed, c.spec.bits) for c in suite.runs
    }
    with pytest.raises(UserError, match="unknown suite"):
        suite_with("quik", "badnets", {})
