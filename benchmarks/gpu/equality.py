"""The tests that need a GPU: methods, training, resuming and scores against the CPU."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from ..speed.clock import Goal, Row, Setting

ROOT = Path(__file__).resolve().parents[2]
TESTS = ("tests/test_gpu.py",)


def measure(setting: Setting) -> Iterator[Row]:
    """The row of this part; there is none where the tests aren't."""
    if not all((ROOT / name).is_file() for name in TESTS):
        return
    report = setting.work / "tests.xml"
    workers = 1 if setting.quick else min(12, len(os.sched_getaffinity(0)))
    words = [
        sys.executable,
        "-m",
        "pytest",
        *TESTS,
        f"--junitxml={report}",
        "-p",
        "no:cacheprovider",
    ]
    words += ["-n", str(workers), "--dist", "load"] if workers > 1 else []
    words += ["-k", "device_s_name"] if setting.quick else []
    start = time.perf_counter()
    done = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    seconds = time.perf_counter() - start
    assert report.is_file(), done.stdout[-2000:] + done.stderr[-2000:]
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    bad = {
        str(case.get("name")): str(mark.get("message"))[:600]
        for case in cases
        for mark in case
        if mark.tag in ("failure", "error")
    }
    skipped = [case.get("name") for case in cases if case.find("skipped") is not None]
    measured = {
        str(case.get("name")): {
            str(one.get("name")): one.get("value") for one in case.iter("property")
        }
        for case in cases
        if case.find("properties") is not None
    }
    yield Row(
        "GPU tests",
        f"{len(cases)} tests, {workers} processes",
        {"ours": [seconds]},
        [Goal("tests failed", len(bad), 0, most=True)],
        facts={"tests": len(cases), "failed": bad, "skipped": skipped, "measured": measured},
    )
