"""The codes of a victim, read from their artifacts."""

from collections.abc import Mapping

from hashbackdoor_bench.metrics import Codes
from hashbackdoor_bench.stages.cache import Artifact


def codes_of(artifacts: Mapping[str, Artifact]) -> Codes:
    """Codes from their two artifacts, ``plain`` and ``triggered``."""
    plain, triggered = artifacts["plain"].tensors, artifacts["triggered"].tensors
    return Codes(plain["query"], plain["database"], triggered["query"])
