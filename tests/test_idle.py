"""Options that change nothing: refused for a single run, and in no key of a suite's runs."""

import json
import shlex
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from hashbackdoor_bench import RunSpec
from hashbackdoor_bench.cli import main
from hashbackdoor_bench.cli.suite_running import tell_failures
from hashbackdoor_bench.network import packaged_weights
from hashbackdoor_bench.stages import Cache, Plan
from hashbackdoor_bench.suites import Failure, SuiteRun

LITE = "tf_efficientnet_lite0"
FROZEN: dict[str, Any] = {
    "victim": "pca_sign", "dataset": "fashion-mini@96", "backbone": LITE, "pretrained": True,
    "recipe": "frozen", "attack": "badnets",
}  # fmt: skip
needs_weights = pytest.mark.skipif(
    packaged_weights(LITE) is None, reason="the extra weights is not installed"
)


def keys(folder: Path, **changes: Any) -> tuple[str, ...]:
    plan = Plan(RunSpec(**{**FROZEN, **changes}), cache=Cache(folder), device=torch.device("cpu"))
    return plan.record_key, *(stage.key for stage in plan.stages.values())


@needs_weights
def test_how_long_nothing_is_trained_is_in_no_key(tmp_path: Path):
    assert keys(tmp_path) == keys(tmp_path, epochs=5) == keys(tmp_path, lr=0.1, epochs=3)
    crafted = {"attack": "tri", "surrogate": "csq"}
    assert keys(tmp_path, **crafted) != keys(tmp_path, **crafted, epochs=5)  # of the surrogate
    apart = {**crafted, "surrogate_recipe": "scratch32"}
    assert keys(tmp_path, **apart) == keys(tmp_path, **apart, epochs=5)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--attack", "darkhash", "--budget", "0.3"], "--budget 0.3 changes nothing, since attack"),
        (["--attack", "clean", "--poison-count", "3"], "--poison-count 3 changes nothing, since"),
        (["--clean-share", "0.2"], "--clean-share 0.2 changes nothing, since defense none takes"),
        (["--weights-by-order"], "--weights-by-order needs a file: add --weights FILE"),
        pytest.param(
            ["--victim", "pca_sign", "--dataset", "fashion-mini@96", "--recipe", "frozen",
             "--pretrained", "--backbone", LITE, "--attack", "badnets", "--epochs", "5"],
            "--epochs 5 changes nothing, since victim pca_sign is solved",
            marks=needs_weights,
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_an_option_that_changes_nothing_is_refused(tmp_path, capsys, words, says, dry):
    where = ["--cache-dir", str(tmp_path / "c"), "--results-dir", str(tmp_path / "r")]
    assert main(["run", *words, *where, *dry, "--quiet"]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith(f"bench: {says}")
    assert not (tmp_path / "r").exists()


def test_a_surrogate_that_nobody_trains_is_told(tmp_path, capsys):
    words = ["run", "--attack", "badnets", "--dry-run", "--cache-dir", str(tmp_path)]
    said = "note: --surrogate csq changes no number, since attack badnets takes no surrogate, but"
    for more, told in ((["--surrogate", "csq"], True), (["--surrogate", "hashnet"], False)):
        assert main([*words, *more]) == 0
        assert (said in capsys.readouterr().err) == told
    assert main([*words, "--attack", "tri", "--surrogate", "csq"]) == 0
    assert "takes no surrogate" not in capsys.readouterr().err


def test_the_command_of_a_failed_run_has_no_option_that_changes_nothing(tmp_path, capsys):
    """A suite gives a budget to all rows."""
    spec = RunSpec(attack="darkhash", budget=0.3)
    plan = Plan(spec, cache=Cache(tmp_path), device=torch.device("cpu"))
    failure = Failure(SuiteRun("mine", "DarkHash", spec, ""), "tamper", "no", plan.spec)
    where: dict[str, Any] = {"cache": tmp_path, "device": "cpu", "plugin": (), "threads": 1}
    tell_failures([failure], tmp_path / "r", mode="json", **where)
    words = shlex.split(json.loads(capsys.readouterr().out)["command"])[1:]
    assert "--budget" not in words
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main([*words, "--dry-run"]) == 0
