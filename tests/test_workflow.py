"""The workflow that verifies a submission: it is safe, and its commands exist and do their work."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from made_records import made, stored

from hashbackdoor_bench.cli import bench

ROOT = Path(__file__).parents[1]
FILE = ROOT / ".github/workflows/verify-submission.yml"


@pytest.fixture(scope="module")
def workflow() -> dict[str, Any]:
    body = yaml.safe_load(FILE.read_text("utf-8"))
    body["on"] = body.pop(True)  # YAML 1.1 reads `on` as true
    return body


@pytest.fixture(scope="module")
def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    (job,) = workflow["jobs"].values()
    return job["steps"]


def test_strangers_get_no_rights_and_no_secrets(workflow):
    assert set(workflow["on"]) == {"pull_request"}
    assert workflow["permissions"] == {"contents": "read"}
    assert set(workflow) == {"name", "on", "permissions", "concurrency", "jobs"}
    assert "secrets" not in "\n".join(
        line for line in FILE.read_text().splitlines() if not line.startswith("#")
    )
    for job in workflow["jobs"].values():
        assert "permissions" not in job
        assert job["timeout-minutes"] <= 30


def test_actions_are_github_s_own_and_pinned_by_version(steps):
    used = [step["uses"] for step in steps if "uses" in step]
    assert len(used) == 3
    for action in used:
        assert re.fullmatch(r"actions/(checkout|setup-python)@v\d+\.\d+\.\d+", action), action
    for step in steps:
        if "checkout" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False


def test_the_judge_is_that_of_the_base_branch_and_nothing_submitted_is_run(steps):
    first, second = (step["with"] for step in steps if "checkout" in step.get("uses", ""))
    assert first["ref"] == "${{ github.event.pull_request.base.sha }}"
    assert "ref" not in second
    runs = [step["run"] for step in steps if "run" in step]
    assert not any("${{" in run for run in runs)  # no text of the pull request becomes a command
    installed = re.findall(r"pip install (.*)", runs[0])
    assert installed[1] == f"./{first['path']}"
    assert all(second["path"] not in line for line in installed)
    assert not re.search(rf"(python|bash|source|\.) [^\n]*{second['path']}", "\n".join(runs))


def test_its_commands_exist(steps):
    (line,) = re.findall(r"^ *(bench .*?) \|\|", steps[-1]["run"], re.MULTILINE)
    _, name, folder, *options = line.split()
    assert folder == '"$folder"'
    command = bench.commands[name]
    known = {flag for parameter in command.params for flag in parameter.opts}
    assert set(options) <= known


def verified(steps: list[dict[str, Any]], here: Path) -> subprocess.CompletedProcess[str]:
    """The last step, with the ``bench`` of this environment."""
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", steps[-1]["run"]],
        cwd=here, env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                       "HASHBACKDOOR_CACHE": str(here / "cache")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_good_records_pass_and_changed_records_fail(steps, tmp_path: Path):
    records = tmp_path / "submitted/submissions/white-square/records"
    path = stored(records, made(attack="badnets", knowledge="none"))
    done = verified(steps, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 records" in done.stdout
    assert "no problems" in done.stdout
    other = tmp_path / "submitted/submissions/other/records"
    changed = stored(other, made(attack="badnets", knowledge="none"))
    changed.write_text(path.read_text().replace('"t_map": 0.7', '"t_map": 0.9'))
    done = verified(steps, tmp_path)
    assert done.returncode == 1
    assert "submissions/other/records" in done.stdout


def test_a_pull_request_without_records_or_with_links_fails(steps, tmp_path: Path):
    (tmp_path / "submitted/submissions/x").mkdir(parents=True)
    done = verified(steps, tmp_path)
    assert (done.returncode, "make one with bench submit --pr" in done.stdout) == (1, True)
    (tmp_path / "submitted/submissions/x/records").symlink_to("/etc")
    done = verified(steps, tmp_path)
    assert (done.returncode, "is a link" in done.stdout) == (1, True)
