"""Failed runs of a suite, which are stored in the cache until they succeed."""

import json
from dataclasses import dataclass
from pathlib import Path

from hashbackdoor_bench.files import whole
from hashbackdoor_bench.spec import RunSpec
from hashbackdoor_bench.stages import Cache
from hashbackdoor_bench.suites.suite import SuiteRun


@dataclass(frozen=True)
class Failure:
    """A run that failed.

    Attributes:
        run: the run of the suite.
        stage: title of the stage that failed.
        message: the reason.
        spec: the run with all defaults filled in; None if it could not be planned.
    """

    run: SuiteRun
    stage: str
    message: str
    spec: RunSpec | None = None


def keep_failure(cache: Cache, failure: Failure) -> None:
    """Keep a failure for ``bench suite status``."""
    path = _file(cache, failure.run.spec)
    path.parent.mkdir(exist_ok=True)
    with whole(path) as fresh:
        body = {"stage": failure.stage, "message": failure.message}
        fresh.write_text(json.dumps(body), encoding="utf-8")


def forget_failure(cache: Cache, run: SuiteRun) -> None:
    """Remove the stored failure of a run that has succeeded."""
    _file(cache, run.spec).unlink(missing_ok=True)


def kept_failure(cache: Cache, run: SuiteRun) -> Failure | None:
    """How the run failed when it was last tried; None if it didn't."""
    try:
        body = json.loads(_file(cache, run.spec).read_text(encoding="utf-8"))
        return Failure(run, str(body["stage"]), str(body["message"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _file(cache: Cache, spec: RunSpec) -> Path:
    return cache.root / "failures" / f"{spec.key}.json"
